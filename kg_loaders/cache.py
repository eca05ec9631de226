"""An on-disk cache of read graphs: one safetensors file for each (place, reader, options)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError
from kg_loaders.graph import Feature, Interactions, RecGraph
from kg_loaders.vocabulary import Vocabulary

CACHE_FORMAT = 1  # raise when the layout of the cache file changes

BLOCK = 256 * 1024
NUM_BLOCKS = 128  # 32 MiB a file: smaller files are hashed whole

FEATURE_FIELDS = ("user_features", "item_features", "entity_features")


class CacheWarning(UserWarning):
    """The cache could not be used or written; the graph was read from its files and is right."""


def cache_folder() -> Path:
    """Return ``$GRAPHREC_CACHE``, else ``$XDG_CACHE_HOME/graphrec``, else ``~/.cache/graphrec``."""
    if own := os.environ.get("GRAPHREC_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "graphrec"
    return Path.home() / ".cache" / "graphrec"


def cached(
    read: Callable[[], RecGraph], path: Path, files: Iterable[Path], reader: str, options: Mapping[str, Any]
) -> RecGraph:
    """Return the graph that ``read()`` returns, from the cache where it holds it.

    Args:
        read: Reads the graph from its files.
        path: The folder or file that is read; names the cache file together with reader and options.
        files: Every file that the result depends on.
        reader: The reader's name.
        options: The reader's options. Options that are not plain data (a table, a function) have no name to be
            found again by, so such a graph is read every time.

    A cache that is damaged or cannot be written costs a :class:`CacheWarning`, never the graph.
    """
    described = describe_options(options)
    if described is None:
        return read()
    path = path.resolve()
    place = hashlib.sha256("\n".join((str(path), reader, described)).encode("utf-8", "surrogateescape"))
    try:
        # The place names the file and the fingerprint stands inside it: a cache of data that have changed is replaced
        # and does not lie beside its successor for ever.
        file = cache_folder() / "graphs" / f"{path.name or 'root'}-{place.hexdigest()[:20]}.safetensors"
        key = fingerprint(files)
    except (OSError, RuntimeError):  # no home folder; a file that cannot be read, of which the reader knows to speak
        return read()
    try:
        graph = load_graph(file, key)
    except (OSError, ValueError) as error:
        warnings.warn(f"{file} is damaged and is made anew: {error}", CacheWarning, stacklevel=2)
        graph = None
    if graph is not None:
        return graph
    graph = read()
    try:
        save_graph(graph, file, key)
    except OSError as error:
        warnings.warn(
            f"cannot keep {graph.name!r} in the cache: {error}; set GRAPHREC_CACHE to a folder with room, "
            "or load with cache=False",
            CacheWarning,
            stacklevel=2,
        )
    return graph


def describe_options(options: Mapping[str, Any]) -> str | None:
    """Return options as canonical JSON, or ``None`` where one of them is not plain data.

    Example:
        >>> describe_options({"seed": 1, "links": Path("map.csv")})
        '{"links": "map.csv", "seed": 1}'
        >>> describe_options({"key": len}) is None
        True
    """

    def plain(value: object) -> object:
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if is_dataclass(value) and not isinstance(value, type):  # such as tables.Table
            return asdict(value)
        raise TypeError(f"{type(value).__name__} is not plain data")

    try:
        return json.dumps(dict(options), sort_keys=True, default=plain)
    except (TypeError, ValueError):
        return None


def fingerprint(files: Iterable[Path]) -> str:
    """Return a SHA-256 that changes when any of the files, or the code that reads them, changes."""
    # Path, size and mtime_ns alone can lie: `cp -p`, rsync and unpacked archives keep times, and two writes may fall
    # into one tick of the clock. So the content is hashed too: whole up to 32 MiB, which costs 50 ms where reading
    # the file costs seconds. Of larger files 128 evenly spaced blocks are hashed, first and last among them: 1 GB
    # would cost 1.6 s on every load. An edit that keeps size, time and all those blocks is not an accident.
    # Our own source is hashed because a mended reader must not serve what the old one read.
    digest = hashlib.sha256(f"cache format {CACHE_FORMAT}\n".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    for file in sorted({file.resolve() for file in files}):
        stat = file.stat()
        digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as stream:
            if stat.st_size <= BLOCK * NUM_BLOCKS:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for start in np.linspace(0, stat.st_size - BLOCK, NUM_BLOCKS).astype(int).tolist():
                stream.seek(start)
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()


def save_graph(graph: RecGraph, file: Path, key: str) -> None:
    """Write the graph under the fingerprint ``key``, atomically: whoever looks finds the old file or the new one.

    Raises:
        OSError: No room or no permission; nothing is left behind.
    """
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {"triples": _narrow(graph.triples)}
    for kind in ("users", "entities", "relations"):
        _pack_text(tensors, kind, list(getattr(graph, kind)))
    for column_name, column in graph.interactions.columns():
        if column is not None:
            tensors[f"interactions.{column_name}"] = _narrow(column)
    features: list[dict[str, Any]] = []
    for field in FEATURE_FIELDS:
        for name, feature in getattr(graph, field).items():
            at = f"feature{len(features)}"
            features.append({"field": field, "name": name, "text": feature.is_text})
            tensors[f"{at}.present"] = feature.present
            if feature.is_text:
                _pack_text(tensors, at, feature.values.tolist())
            else:
                tensors[at] = feature.values
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    head = json.dumps(
        {
            "key": key,
            "num_items": graph.num_items,
            "name": graph.name,
            "dropped": dict(graph.dropped),
            "features": features,
        }
    )
    _write_atomically(file, save(tensors, metadata={"graph": head, "crc32": str(_crc32(head, tensors))}))


def load_graph(file: Path, key: str) -> RecGraph | None:
    """Return the graph kept in ``file``, or ``None`` if there is none or it was made from other data.

    Raises:
        ValueError: The file is damaged.
        OSError: It cannot be opened.
    """
    from safetensors import SafetensorError, safe_open

    if not file.exists():
        return None
    try:
        with safe_open(file, framework="np") as stored:
            metadata = stored.metadata() or {}
            head = json.loads(metadata["graph"])
            if head["key"] != key:
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        if str(_crc32(metadata["graph"], tensors)) != metadata["crc32"]:
            raise GraphError("its checksum does not match its content")
        return _unpack(head, tensors)
    except (SafetensorError, KeyError, TypeError) as error:
        raise GraphError(f"not a whole cache file ({type(error).__name__}: {error})") from error


def _unpack(head: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> RecGraph:
    features: dict[str, dict[str, Feature]] = {field: {} for field in FEATURE_FIELDS}
    for number, described in enumerate(head["features"]):
        at = f"feature{number}"
        values = np.array(_unpack_text(tensors, at), dtype=object) if described["text"] else tensors[at]
        features[described["field"]][described["name"]] = Feature(values, tensors[f"{at}.present"])
    columns: dict[str, Any] = {
        name: tensors[at].astype(np.int64) if name in ("user", "item") else tensors[at]
        for name in ("user", "item", "time", "weight", "split")
        if (at := f"interactions.{name}") in tensors
    }
    return RecGraph(
        users=Vocabulary(_unpack_text(tensors, "users"), "user"),
        entities=Vocabulary(_unpack_text(tensors, "entities"), "entity"),
        num_items=head["num_items"],
        interactions=Interactions(**columns),
        relations=Vocabulary(_unpack_text(tensors, "relations"), "relation"),
        triples=tensors["triples"].astype(np.int64),
        name=head["name"],
        dropped=head["dropped"],
        **features,
    )


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Return int64 indices as int32 where they fit: half the bytes to read and to check."""
    fits = array.dtype == np.int64 and (not array.size or array.max() < 2**31)  # indices are never negative
    return array.astype(np.int32) if fits else array


def _pack_text(tensors: dict[str, NDArray[Any]], at: str, texts: list[str]) -> None:
    """Store texts as UTF-8, with NUL between them; where that would be ambiguous, with their lengths in characters."""
    # Splitting at one character takes a third of the time of slicing by lengths, and ids hold no NUL in practice.
    plain = bool(texts) and not any("\0" in text for text in texts)
    joined = ("\0" if plain else "").join(texts).encode("utf-8", "surrogatepass")
    tensors[at] = np.frombuffer(joined, dtype=np.uint8)
    if not plain:
        tensors[f"{at}.lengths"] = np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))


def _unpack_text(tensors: Mapping[str, NDArray[Any]], at: str) -> list[str]:
    joined = tensors[at].tobytes().decode("utf-8", "surrogatepass")
    if f"{at}.lengths" not in tensors:
        return joined.split("\0")
    ends = np.cumsum(tensors[f"{at}.lengths"], dtype=np.int64)
    starts = ends - tensors[f"{at}.lengths"]
    return [joined[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _crc32(head: str, tensors: Mapping[str, NDArray[Any]]) -> int:
    """Return a checksum against accidents (a bad disk, a cut file); it runs at more than 1 GB/s."""
    check = zlib.crc32(head.encode())
    for name, array in sorted(tensors.items()):
        check = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), check)
        check = zlib.crc32(array.data, check)
    return check


def _write_atomically(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
