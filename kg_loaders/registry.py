"""From a name or a path to a graph: the formats, their detection, and where known data sets lie."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kg_loaders.benchmarks import BENCHMARKS, Benchmark, Layout
from kg_loaders.errors import DownloadError, KGLoaderError, UnknownDatasetError, did_you_mean

if TYPE_CHECKING:
    from kg_loaders.graph import RecGraph


@dataclass(frozen=True)
class Format:
    """A reader, imported when it is first used: what a format needs is loaded for nobody else.

    Args:
        name: Its key in :data:`FORMATS`.
        module: The module of kg_loaders that holds its ``detect``, ``read`` and, where it can write, ``write``.
    """

    name: str
    module: str

    def load_module(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(f"kg_loaders.{self.module}")

    def detect(self, path: Path) -> bool:
        """Whether ``path`` looks like this format, judged by file names."""
        return bool(self.load_module().detect(path))

    def read(self, path: Path, **options: Any) -> RecGraph:
        """Read ``path``.

        Raises:
            KGLoaderError: An option that this reader does not know.
        """
        module = self.load_module()
        known = [name for name in inspect.signature(module.read).parameters if name != "path"]
        for option in options:
            if option not in known:
                allowed = ", ".join(map(repr, known)) or "none"
                hint = did_you_mean(option, known)
                raise KGLoaderError(f"format {self.name!r} has no option {option!r}{hint}; its options: {allowed}")
        graph: RecGraph = module.read(path, **options)
        return graph

    def write(self, graph: RecGraph, path: Path) -> None:
        """Write the graph to ``path``.

        Raises:
            KGLoaderError: This format is only read.
        """
        module = self.load_module()
        if not hasattr(module, "write"):
            raise KGLoaderError(f"format {self.name!r} can be read, not written")
        module.write(graph, path)


# Detection asks in this order: what is told by the most particular names comes first.
FORMATS: dict[str, Format] = {
    name: Format(name, module)
    for name, module in (
        ("movielens", "movielens"),
        ("labelled_text", "formats.labelled_text"),
        ("pair_text", "formats.pair_text"),
        ("kgat_text", "formats.kgat_text"),
        ("recbole_atomic", "formats.recbole_atomic"),
        ("sequence_text", "formats.sequence_text"),
        ("tables", "formats.tables"),
        ("rdf", "formats.rdf"),
        ("nx", "formats.nx"),
    )
}


def detect(folder: str | os.PathLike[str]) -> str:
    """Return the name of the first format that recognises the folder (or the single file).

    Raises:
        UnknownDatasetError: None does; the message lists what lies there and the formats.
    """
    path = Path(folder)
    if not path.exists():
        raise UnknownDatasetError(f"no such file or folder: {path}")
    for name, format_ in FORMATS.items():
        if format_.detect(path):
            return name
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    tables = any(Path(name).suffix in (".csv", ".tsv", ".parquet") for name in names)
    own = "; tables of your own: interactions.csv with the columns user_id and item_id" if tables else ""
    raise UnknownDatasetError(
        f"{path} is in no known format; it holds: {shown or 'nothing'}. Formats: {', '.join(FORMATS)}{own}"
    )


def load(
    name_or_path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - the reader's word for it
    *,
    cache: bool = True,
    **options: Any,
) -> RecGraph:
    """Read a known data set, or a folder or file in a known format.

    A known name is looked for in ``$GRAPHREC_DATA``, then among earlier downloads, and is then fetched from its
    public home. A file or folder of the same name is reached by ``./name``. Any other word is a path, or else a folder
    in ``$GRAPHREC_DATA``.

    Args:
        name_or_path: ``"ml-100k"`` (see :data:`kg_loaders.benchmarks.BENCHMARKS`) or where the data lie.
        format: A key of :data:`FORMATS`; detected by file names where it is not given.
        cache: Whether to keep the graph in the cache folder and take it from there while its files stay the same.
        **options: Options of the reader.

    Raises:
        UnknownDatasetError: Neither a known name nor a path in a known format.
        DownloadError: A known data set that could not be fetched; the message says what to put where.
        FormatError: A malformed file.
        KGLoaderError: An unknown format or option.
    """
    if format is not None and format not in FORMATS:
        allowed = ", ".join(map(repr, FORMATS))
        raise KGLoaderError(f"format must be one of {allowed}, got {format!r}{did_you_mean(format, FORMATS)}")
    name = None
    if isinstance(name_or_path, str) and name_or_path in BENCHMARKS:
        name = name_or_path
        path, layout = _find_benchmark(name)
        if format is None or format == layout.format:
            format, options = layout.format, {**layout.options, **options}  # noqa: A001
    else:
        path = _find_path(name_or_path)
    chosen = FORMATS[format or detect(path)]

    def read() -> RecGraph:
        graph = chosen.read(path, **options)
        return graph if name is None else replace(graph, name=name)

    if not cache:
        return read()
    from kg_loaders.cache import cached

    return cached(read, path, _files_of(path, options), f"{chosen.name} {name or ''}", options)


def data_folder() -> Path | None:
    """Return the folder that ``$GRAPHREC_DATA`` names, if it is set."""
    own = os.environ.get("GRAPHREC_DATA")
    return Path(own).expanduser() if own else None


def _find_benchmark(name: str) -> tuple[Path, Layout]:
    """Return where a known data set lies, fetching it where it lies nowhere."""
    from kg_loaders.cache import cache_folder

    benchmark = BENCHMARKS[name]
    own = data_folder()
    if own is not None:
        for layout in benchmark.layouts:
            if _holds(own / layout.folder, layout.needs):
                return _path_of(layout, own), layout
    public = benchmark.layouts[benchmark.public]
    try:
        downloads = cache_folder() / "data"
        # All files, not those alone that the reader needs: a download that was cut off may have brought just these.
        if not _holds(downloads / public.folder, benchmark.files):
            _fetch(name, benchmark, downloads)
    except (DownloadError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise DownloadError(f"cannot fetch {name}: {error}. {_by_hand(benchmark, own)}") from error
    return _path_of(public, downloads), public


def _holds(folder: Path, files: Iterable[str]) -> bool:
    """Whether all of these files lie in a folder, plain or gzipped."""
    return all((folder / file).is_file() or (folder / f"{file}.gz").is_file() for file in files)


def _path_of(layout: Layout, parent: Path) -> Path:
    return parent / layout.folder / layout.file if layout.file else parent / layout.folder


def _fetch(name: str, benchmark: Benchmark, downloads: Path) -> None:
    from kg_loaders.download import fetch, say_to_stderr

    if benchmark.source is None:
        raise DownloadError(f"no program can fetch it; its makers' page is {benchmark.homepage}")
    about = {"name": name, "title": benchmark.title, "licence": benchmark.licence, "citation": benchmark.citation}
    say_to_stderr(f"{benchmark.title}. Terms: {benchmark.licence}. Please cite: {benchmark.citation}")
    fetch(benchmark.source, downloads / benchmark.layouts[benchmark.public].folder, about=about)


def _by_hand(benchmark: Benchmark, own: Path | None) -> str:
    layout = benchmark.layouts[benchmark.public]
    where = f"{own / layout.folder}" if own is not None else f"FOLDER/{layout.folder} and set GRAPHREC_DATA=FOLDER"
    parent = "GRAPHREC_DATA names the parent folder"
    return f"To go on without the network, put {', '.join(benchmark.files)} into {where} ({parent})"


def _find_path(name_or_path: str | os.PathLike[str]) -> Path:
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    own = data_folder()
    if own is not None and not path.is_absolute() and (own / path).exists():
        return own / path
    text = os.fspath(name_or_path)
    raise UnknownDatasetError(
        f"unknown data set {text!r}{did_you_mean(str(text), BENCHMARKS)}: it is no file or folder here"
        + (f" or in {own}" if own is not None else "")
        + f", and the known names are {', '.join(BENCHMARKS)}"
    )


def _files_of(path: Path, options: Mapping[str, Any]) -> list[Path]:
    """Return every file that reading ``path`` may look at: those beside it and those that options name."""
    folder = path if path.is_dir() else path.parent
    stem = "" if path.is_dir() else path.name.split(".")[0]  # with Beauty.txt goes Beauty_item2attributes.json
    beside = [file for file in folder.iterdir() if file.name.startswith(stem)]
    named = [Path(text) for value in options.values() for text in _texts_in(value)]
    named += [Path(f"{file}.gz") for file in named]  # which is read where the plain file is not there
    # os.path: an option that is no path at all, only text, is answered with False there.
    return [file for file in (*beside, *named, *(folder / file for file in named)) if os.path.isfile(file)]


def _texts_in(option: Any) -> list[str | os.PathLike[str]]:
    """Return what an option holds that may name a file: itself, or the fields of a dataclass such as tables.Table."""
    parts = [getattr(option, field.name) for field in fields(option)] if is_dataclass(option) else [option]
    return [part for part in parts if isinstance(part, str | os.PathLike)]
