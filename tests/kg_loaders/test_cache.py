import errno
import json
import os
import stat
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kg_loaders import Feature, GraphError, Interactions, RecGraph, Vocabulary, cache
from kg_loaders.benchmarks import Layout
from kg_loaders.cache import CacheWarning, cache_folder, cached, describe_options, fingerprint, load_graph, save_graph


def make_graph(name: str = "films") -> RecGraph:
    return RecGraph(
        users=Vocabulary(["ann", "bøb", "a\x00b\nc", ""], "user"),
        entities=Vocabulary(["Alien", "映画", "Heat", "Scott", "\ud800", "1979"], "entity"),
        num_items=3,
        interactions=Interactions(
            np.array([0, 0, 2]),
            np.array([1, 0, 2]),
            time=np.array([1.5, 2e9, -3.0]),
            weight=np.array([5, 1, 0.5], dtype=np.float32),
            split=np.array([0, 2, 1], dtype=np.int8),
        ),
        relations=Vocabulary(["director", "year"], "relation"),
        triples=np.array([[0, 0, 3], [0, 1, 5], [3, 0, 2]]),
        user_features={"age": Feature.vectors([[1.0], [2.0], [3.0], [4.0]], np.array([True, False, True, True]))},
        item_features={"title": Feature.text(["Alien", "", "Heat"]), "image": Feature.vectors(np.eye(3))},
        entity_features={"label": Feature.text(["", "映", "", "Sir Ridley", "x\ty", ""])},
        name=name,
        dropped={"repeated pairs": 3},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "graphs" / "films.safetensors"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.txt").write_text("0 1 2\n")
    return folder


class Reader:
    """Reads a graph and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> RecGraph:
        self.calls += 1
        return make_graph(f"read {self.calls}")


def ask(reader: Reader, folder: Path, **options: object) -> RecGraph:
    return cached(reader, folder, sorted(folder.iterdir()), "kgat_text", options)


def test_a_saved_graph_comes_back_whole(file: Path) -> None:
    graph = make_graph()
    save_graph(graph, file, "key")
    back = load_graph(file, "key")
    assert back is not None
    assert back == graph
    assert (back.name, dict(back.dropped)) == ("films", {"repeated pairs": 3})
    assert [d.dtype for _, d in back.interactions.columns() if d is not None] == [
        np.int64,
        np.int64,
        np.float64,
        np.float32,
        np.int8,
    ]
    assert back.triples.dtype == np.int64


def test_a_graph_of_nothing_comes_back(file: Path) -> None:
    nothing = np.array([], dtype=np.int64)
    graph = RecGraph(Vocabulary([], "user"), Vocabulary([], "entity"), 0, Interactions(nothing, nothing))
    save_graph(graph, file, "key")
    assert load_graph(file, "key") == graph


def test_indices_beyond_32_bits_are_kept() -> None:
    big = np.array([0, 2**31, 2**40])
    assert cache._narrow(big).dtype == np.int64
    assert cache._narrow(big[:1]).dtype == np.int32


def test_other_data_are_not_returned(file: Path) -> None:
    assert load_graph(file, "key") is None
    save_graph(make_graph(), file, "key")
    assert load_graph(file, "another key") is None


def test_every_single_damaged_byte_is_noticed(file: Path) -> None:
    save_graph(make_graph(), file, "key")
    whole = bytearray(file.read_bytes())
    header = struct.unpack("<Q", whole[:8])[0]
    for at in (*range(0, 8 + header, 5), *range(8 + header, len(whole))):
        whole[at] ^= 0x04
        file.write_bytes(whole)
        whole[at] ^= 0x04
        try:
            back = load_graph(file, "key")
        except ValueError:
            continue
        # Another key says that the cache is of other data; padding between the parts means nothing.
        assert back is None or back == make_graph(), f"byte {at}"


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_cut_file_is_damaged(file: Path, size: int) -> None:
    save_graph(make_graph(), file, "key")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(GraphError):
        load_graph(file, "key")


def test_the_second_load_does_not_read(data: Path) -> None:
    reader = Reader()
    first, second = ask(reader, data), ask(reader, data)
    assert reader.calls == 1
    assert first == second
    assert second.name == "read 1"


def test_options_have_their_own_cache(data: Path) -> None:
    reader = Reader()
    ask(reader, data, min_rating=4)
    ask(reader, data, min_rating=5)
    assert reader.calls == 2
    ask(reader, data, min_rating=4)
    ask(reader, data, min_rating=5)
    assert reader.calls == 2


def test_options_without_a_name_are_read_every_time(data: Path) -> None:
    reader = Reader()
    for _ in range(2):
        ask(reader, data, key=lambda row: row)
    assert reader.calls == 2
    assert not cache_folder().exists()


def test_an_edit_of_same_size_and_time_is_noticed(data: Path) -> None:
    reader = Reader()
    train = data / "train.txt"
    ask(reader, data)
    before = train.stat()
    train.write_text("0 1 3\n")
    os.utime(train, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert train.stat().st_size == before.st_size
    ask(reader, data)
    assert reader.calls == 2


def test_a_new_file_and_a_later_time_are_noticed(data: Path) -> None:
    reader = Reader()
    ask(reader, data)
    os.utime(data / "train.txt", ns=(1, 1))
    ask(reader, data)
    (data / "test.txt").write_text("0 4\n")
    ask(reader, data)
    assert reader.calls == 3
    assert len(list((cache_folder() / "graphs").iterdir())) == 1  # old caches do not pile up


def test_a_changed_reader_is_noticed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(data.iterdir())
    assert fingerprint(data.iterdir()) == before
    monkeypatch.setattr(cache, "CACHE_FORMAT", 0)
    assert fingerprint(data.iterdir()) != before


def test_large_files_are_hashed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BLOCK", 4)
    monkeypatch.setattr(cache, "NUM_BLOCKS", 3)
    file = tmp_path / "large"
    seen = set()
    for position in (0, 50, 99):  # first, middle and last block of 100 bytes
        content = bytearray(100)
        content[position] = 1
        file.write_bytes(content)
        os.utime(file, ns=(1, 1))
        seen.add(fingerprint([file]))
    assert len(seen) == 3


def test_a_damaged_cache_is_made_anew_and_said_so(data: Path) -> None:
    reader = Reader()
    ask(reader, data)
    file = next((cache_folder() / "graphs").iterdir())
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.warns(CacheWarning, match="damaged and is made anew"):
        graph = ask(reader, data)
    assert graph.name == "read 2"
    assert ask(reader, data).name == "read 2"
    assert reader.calls == 2


def test_a_read_only_folder_costs_a_warning_only(data: Path) -> None:
    blocker = cache_folder()
    blocker.write_text("a file where the folder should be")  # root passes permissions, but not this
    reader = Reader()
    with pytest.warns(CacheWarning, match="GRAPHREC_CACHE"):
        assert ask(reader, data) == make_graph()


def test_a_full_disk_costs_a_warning_only(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reader = Reader()
    ask(reader, data)
    kept = next((cache_folder() / "graphs").iterdir()).read_bytes()
    (data / "train.txt").write_text("0 1\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert ask(reader, data).name == "read 2"
    left = list((cache_folder() / "graphs").iterdir())
    assert [file.read_bytes() for file in left] == [kept]  # the old cache stands, no temporary file stays


def test_a_full_device_costs_a_warning_only(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")

    def on_full_device(**_: object) -> tuple[int, str]:
        return os.open("/dev/full", os.O_WRONLY), str(data / "none")

    monkeypatch.setattr(cache.tempfile, "mkstemp", on_full_device)
    with pytest.warns(CacheWarning, match="No space left"):
        assert ask(Reader(), data) == make_graph()


def test_without_a_home_folder_the_graph_is_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GRAPHREC_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(Reader(), data) == make_graph()


def test_the_reader_speaks_of_a_missing_file(data: Path) -> None:
    class Missing(Exception):
        pass

    def read() -> RecGraph:
        raise Missing

    with pytest.raises(Missing):
        cached(read, data, [data / "gone.txt"], "kgat_text", {})


def test_a_failed_read_leaves_no_cache(data: Path) -> None:
    def read() -> RecGraph:
        raise GraphError("bad")

    with pytest.raises(GraphError, match="bad"):
        cached(read, data, data.iterdir(), "kgat_text", {})
    assert not cache_folder().exists()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("GRAPHREC_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/ann/.cache/graphrec")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder() == Path("/var/cache/graphrec")
    monkeypatch.setenv("GRAPHREC_CACHE", "~/mine")
    assert cache_folder() == Path("/home/ann/mine")


def test_options_are_described_in_one_order() -> None:
    assert describe_options({"b": 1, "a": Path("x")}) == describe_options({"a": "x", "b": 1})
    assert describe_options({"a": [1, {"c": None}]}) == '{"a": [1, {"c": null}]}'
    assert describe_options({"a": object()}) is None
    layout = Layout("tables", "shop", ("a.csv",))
    assert describe_options({"a": layout}) == describe_options({"a": replace(layout)})
    assert describe_options({"a": layout}) != describe_options({"a": replace(layout, file="b.csv")})


def test_the_cache_file_is_private_and_holds_no_code(file: Path) -> None:
    save_graph(make_graph(), file, "key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert json.loads(header["__metadata__"]["graph"])["name"] == "films"


def test_the_cache_does_not_depend_on_the_name(file: Path) -> None:
    graph = replace(make_graph(), name="other", dropped={})
    save_graph(graph, file, "key")
    back = load_graph(file, "key")
    assert back is not None
    assert (back.name, dict(back.dropped)) == ("other", {})


def test_a_large_graph_comes_back_whole(file: Path) -> None:
    users, per_user = 20_000, 10
    graph = RecGraph(
        users=Vocabulary.from_range(users, "user"),
        entities=Vocabulary.from_range(30_000, "entity"),
        num_items=9_000,
        interactions=Interactions(
            np.repeat(np.arange(users), per_user),
            np.tile(np.arange(per_user), users) + np.repeat(np.arange(users), per_user) % 8000,
        ),
    )
    save_graph(graph, file, "key")
    assert load_graph(file, "key") == graph
