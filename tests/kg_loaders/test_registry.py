import gzip
import json
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import kg_loaders
from kg_loaders import (
    DownloadError,
    FormatError,
    Interactions,
    KGLoaderError,
    RecGraph,
    UnknownDatasetError,
    Vocabulary,
    benchmarks,
    download,
    registry,
)
from kg_loaders.benchmarks import Benchmark, Layout, RemoteFile
from kg_loaders.formats.tables import Table
from kg_loaders.registry import FORMATS, Format, detect, load


class Toy(ModuleType):
    """A format whose folders hold a file ``toy.txt`` with the number of users; it counts how often it reads."""

    def __init__(self) -> None:
        super().__init__("kg_loaders.toy")
        self.paths: list[Path] = []

    def detect(self, path: Path) -> bool:
        return (path / "toy.txt").is_file() or path.name == "toy.txt"

    def read(self, path: Path, *, extra: int = 0, links: str = "", seed: int = 0) -> RecGraph:
        self.paths.append(path)
        size = int((path / "toy.txt" if path.is_dir() else path).read_text()) + extra
        index = np.arange(size)
        return RecGraph(
            Vocabulary.from_range(size, "user"),
            Vocabulary.from_range(size + 2, "entity"),
            size + 1,
            Interactions(index, index),
            name=path.name,
        )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    """The toy format and one benchmark in it, on a machine that has nothing yet."""
    toy = Toy()
    monkeypatch.setitem(sys.modules, "kg_loaders.toy", toy)
    monkeypatch.setattr(registry, "FORMATS", {"toy": Format("toy", "toy"), "kgat_text": FORMATS["kgat_text"]})
    benchmark = Benchmark(
        title="The toy set",
        layouts=(Layout("toy", "toys", ("toy.txt",), options={"extra": 1}),),
        source=(RemoteFile("toy.txt", "https://example.org/toy.txt"), RemoteFile("links.txt", "https://example.org/l")),
        licence="none stated",
        citation="Ann 2020",
        homepage="https://example.org",
    )
    monkeypatch.setattr(registry, "BENCHMARKS", {"toy-set": benchmark})
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAPHREC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return toy


def put(folder: Path, users: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.txt").write_text(str(users))
    return folder


def put_download(parent: Path, users: int) -> Path:
    """Put the whole toy set into the download cache."""
    folder = put(parent / "cache" / "data" / "toys", users)
    (folder / "links.txt").write_text("")
    return folder


# Paths


def test_a_folder_is_read_by_its_detected_format(toy: Toy, tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", 3)
    assert load(folder).num_users == 3
    assert load("mine").num_users == 3
    assert load(f"{folder}/toy.txt").num_users == 3
    assert load(folder, extra=2).num_users == 5


def test_a_folder_is_read_once_while_it_stays_the_same(toy: Toy, tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", 3)
    first = load(folder)
    assert load(folder) == first
    assert len(toy.paths) == 1
    put(folder, 4)
    assert load(folder).num_users == 4
    assert load(folder, cache=False).num_users == 4
    assert len(toy.paths) == 3


def test_a_changed_neighbour_and_a_changed_option_file_are_noticed(toy: Toy, tmp_path: Path) -> None:
    folder, other = put(tmp_path / "mine", 3), tmp_path / "map.csv"
    other.write_text("a,b")
    load(folder, links=str(other))
    load(folder, links=str(other))
    assert len(toy.paths) == 1
    other.write_text("a,c")
    load(folder, links=str(other))
    assert len(toy.paths) == 2
    (folder / "users.txt").write_text("1")
    load(folder, links=str(other))
    assert len(toy.paths) == 3
    load(folder, links="no file, only\x00text" * 1000)
    assert len(toy.paths) == 4


@pytest.mark.parametrize("where", ["deep/ratings.csv", "../ratings.csv", "{parent}/elsewhere/ratings.csv"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_changed_table_outside_the_folder_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, suffix: str
) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    table = Table(where.format(parent=tmp_path))
    file = Path(f"{folder / table.file}{suffix}")
    file.parent.mkdir(exist_ok=True)
    for pairs in ("ann,alien\n", "ann,alien\nbob,heat\nbob,alien\n"):
        text = f"user_id,item_id\n{pairs}".encode()
        file.write_bytes(gzip.compress(text) if suffix else text)
        assert load(folder, "tables", interactions=table).num_interactions == pairs.count("\n")


def test_a_file_of_the_same_stem_belongs_to_a_single_file(toy: Toy, tmp_path: Path) -> None:
    file = put(tmp_path / "mine", 3) / "toy.txt"
    load(file)
    (file.parent / "stranger.txt").write_text("")
    load(file)
    assert len(toy.paths) == 1
    (file.parent / "toy_attributes.json").write_text("{}")
    load(file)
    assert len(toy.paths) == 2


@pytest.mark.parametrize("word", ["nowhere", "./nowhere", "/nowhere/at/all"])
def test_a_missing_path(toy: Toy, word: str) -> None:
    with pytest.raises(UnknownDatasetError, match=r"no file or folder here.*known names are toy-set"):
        load(word)


def test_a_near_name_is_offered(toy: Toy) -> None:
    with pytest.raises(UnknownDatasetError, match=r"unknown data set 'toy_set'; did you mean 'toy-set'\?"):
        load("toy_set")


def test_a_folder_in_no_known_format(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    with pytest.raises(UnknownDatasetError, match="it holds: nothing"):
        load(tmp_path / "odd")
    for number in range(9):
        (tmp_path / "odd" / f"{number}.xyz").write_text("")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ratings.csv").write_text("userId,movieId\n")
    with pytest.raises(UnknownDatasetError, match="of your own: interactions.csv with the columns user_id and item_id"):
        load(tmp_path / "tables")
    with pytest.raises(UnknownDatasetError, match=r"it holds: 0.xyz, .* 7.xyz, \.\.\.\. Formats: toy, kgat_text"):
        load(tmp_path / "odd")
    with pytest.raises(UnknownDatasetError, match="no such file or folder"):
        detect(tmp_path / "gone")


# Formats and options


def test_an_unknown_format(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(KGLoaderError, match=r"format must be one of 'toy', 'kgat_text', got 'tyo'; did you mean 'toy'"):
        load(put(tmp_path / "mine", 3), format="tyo")


def test_an_unknown_option(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(KGLoaderError, match=r"'toy' has no option 'sed'; did you mean 'seed'\?; its options: 'extra'"):
        load(put(tmp_path / "mine", 3), sed=1)


INTERACTIONS = "user_id,item_id\nann,http://x/Alien\nbob,http://x/Heat\n"
TURTLE = "@prefix : <http://x/> .\n:Alien :director :Scott .\n:Heat :director :Mann .\n"
TRIPLES = "head_id,relation_id,tail_id\nhttp://x/Alien,by,http://x/Scott\n"


def put_files(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def test_rdf_beside_a_table_of_interactions_is_the_knowledge_graph(tmp_path: Path) -> None:
    folder = put_files(tmp_path, interactions_csv=INTERACTIONS, graph_ttl=TURTLE)
    graph = load(folder, cache=False)
    assert (graph.num_users, graph.num_items, graph.num_triples) == (2, 2, 2)
    put_files(tmp_path, graph_ttl=TURTLE + ":Heat :director")
    with pytest.raises(FormatError, match=r"graph\.ttl"):
        load(folder, cache=False)


def test_a_knowledge_graph_that_is_there_twice_must_be_chosen(tmp_path: Path) -> None:
    folder = put_files(tmp_path, interactions_csv=INTERACTIONS, graph_ttl=TURTLE, triples_csv=TRIPLES)
    with pytest.raises(FormatError, match=r"holds both triples\.csv and graph\.ttl: keep one"):
        load(folder, cache=False)
    assert load(folder, "tables", cache=False).num_triples == 1
    assert load(folder, "rdf", cache=False).num_triples == 2


@pytest.mark.parametrize("graph", [{}, {"graph_ttl": TURTLE}])
def test_tables_that_nobody_reads_are_named(tmp_path: Path, graph: dict[str, str]) -> None:
    folder = put_files(tmp_path, interactions_csv=INTERACTIONS, kg_csv=TRIPLES, notes_txt="", map_tsv="", **graph)
    assert load(folder, cache=False).dropped == {"file not read: kg.csv": 1, "file not read: map.tsv": 1}


ATOMIC = "user_id:token\titem_id:token\nann\t1\n"
NUMBERED = {"train.txt": "0 0 1\n", "test.txt": "0 2\n"}
SEQUENCES = {"films.txt": "1 1 2\n", "films_item2attributes.json": "{}"}


@pytest.mark.parametrize(
    ("name", "files", "unread"),
    [
        (
            "recbole_atomic",
            {"films.inter": ATOMIC},
            ["film.kg", "film.link", "Films.ITEM", "films.net", "films.kg.zip"],
        ),
        ("recbole_atomic", {"films.inter": ATOMIC}, ["dbpedia.nt", "map.csv"]),
        ("tables", {"interactions.csv": INTERACTIONS}, ["Triples.CSV", "ITEMS.CSV", "g.n3", "g.nt.bz2", "films.kg"]),
        ("rdf", {"interactions.csv": INTERACTIONS, "g.ttl": TURTLE}, ["more.n3", "more.TRIG", "more.ttl.bz2", "x.kg"]),
        ("kgat_text", NUMBERED, ["kg.txt", "kg_final.txt.zip", "g.ttl", "Item_List.TXT", "triples.tsv"]),
        ("labelled_text", {"ratings_final.txt": "0 0 1\n"}, ["kg.txt", "kg_final.tsv"]),
        ("pair_text", dict.fromkeys(("train.txt", "test.txt", "test_original.txt"), "0 0 1\n"), ["kg_final.txt"]),
        ("sequence_text", SEQUENCES, ["kg_final.txt", "triples.csv"]),
        ("movielens", {"ratings.dat": "1::9::5::1\n", "movies.dat": "9\tA\tB\n"}, ["dbpedia.nt", "dbpedia.ttl"]),
    ],
)
def test_data_that_a_format_does_not_read_are_named(
    tmp_path: Path, name: str, files: dict[str, str], unread: list[str]
) -> None:
    for file, content in (files | dict.fromkeys([*unread, "README.txt", "LICENSE.md", "SOURCE.json"], "")).items():
        (tmp_path / file).write_text(content)
    (tmp_path / "plots.csv").mkdir()
    assert detect(tmp_path) == name
    graph = load(tmp_path, cache=False)
    found = [reason for reason in graph.dropped if "not read" in reason]
    assert found == [f"file not read: {file}" for file in sorted(unread)]


def test_a_knowledge_graph_that_was_not_chosen_is_named(tmp_path: Path) -> None:
    folder = put_files(tmp_path, interactions_csv=INTERACTIONS, graph_ttl=TURTLE, triples_csv=TRIPLES)
    assert load(folder, "tables", cache=False).dropped == {"file not read: graph.ttl": 1}
    assert load(folder, "rdf", cache=False).dropped == {"file not read: triples.csv": 1}


def test_data_beside_a_whole_graph_are_named(tmp_path: Path) -> None:
    graph = load(put_files(tmp_path, interactions_csv=INTERACTIONS), cache=False)
    FORMATS["nx"].write(graph, tmp_path / "nx")
    put_files(tmp_path / "nx", more_ttl=TURTLE)
    read = load(tmp_path / "nx", "nx", cache=False)
    assert read == graph
    assert read.dropped == {"file not read: more.ttl": 1}
    assert load(tmp_path / "nx" / "graph.nx.json", cache=False).dropped == {}


def test_a_format_without_writer(toy: Toy, tmp_path: Path) -> None:
    graph = load(put(tmp_path / "mine", 3))
    with pytest.raises(KGLoaderError, match="'toy' can be read, not written"):
        registry.FORMATS["toy"].write(graph, tmp_path / "out")


# Names


def test_a_name_is_looked_for_in_graphrec_data_first(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "own" / "toys", 3)
    put_download(tmp_path, 7)
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "own"))
    graph = load("toy-set")
    assert graph.num_users == 4  # the layout's option adds one
    assert graph.name == "toy-set"
    assert load("toy-set").name == "toy-set"  # from the cache
    assert load("toy-set", extra=0).num_users == 3
    assert toy.paths == [tmp_path / "own" / "toys"] * 2


def test_a_folder_without_what_the_reader_needs_is_passed_over(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "toys").mkdir(parents=True)
    (tmp_path / "own" / "toys" / "plots.tsv").write_text("")
    put_download(tmp_path, 7)
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "own"))
    assert load("toy-set").num_users == 8


def test_a_folder_of_the_name_of_a_set_is_reached_by_its_path(toy: Toy, tmp_path: Path) -> None:
    put(tmp_path / "toy-set", 2)
    put_download(tmp_path, 7)
    assert load("./toy-set").num_users == 2
    assert load(Path("toy-set")).num_users == 2
    assert load("toy-set").num_users == 8


def test_another_word_is_a_folder_in_graphrec_data(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "own" / "shop", 5)
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "own"))
    assert load("shop").num_users == 5
    with pytest.raises(UnknownDatasetError, match=f"or in {tmp_path / 'own'}"):
        load("shops")


def test_a_name_is_fetched_once(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    fetched: list[Path] = []

    def fetch(source: object, folder: Path, *, about: dict[str, str]) -> None:
        assert about["licence"] == "none stated"
        assert put_download(tmp_path, 6) == folder
        fetched.append(folder)

    monkeypatch.setattr(download, "fetch", fetch)
    assert load("toy-set").num_users == 7
    assert load("toy-set", seed=1).num_users == 7
    assert fetched == [tmp_path / "cache" / "data" / "toys"]
    said = capsys.readouterr().err
    assert said.count("The toy set. Terms: none stated. Please cite: Ann 2020") == 1


@pytest.mark.parametrize("stop", [DownloadError("HTTP 404"), KeyboardInterrupt()])
def test_a_download_that_was_cut_off_goes_on(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def fetch(source: tuple[RemoteFile, ...], folder: Path, *, about: dict[str, str]) -> None:
        if not (folder / "toy.txt").exists():
            put(folder, 6)  # all that the reader needs, not all that there is
            raise stop
        (folder / "links.txt").write_text("")

    monkeypatch.setattr(download, "fetch", fetch)
    with pytest.raises(type(stop)):
        load("toy-set")
    assert load("toy-set").num_users == 7
    assert (tmp_path / "cache" / "data" / "toys" / "links.txt").exists()
    monkeypatch.delattr(download, "fetch")
    assert load("toy-set").num_users == 7


def test_a_folder_of_ones_own_needs_only_what_the_reader_needs(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "own" / "toys", 3)
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "own"))
    monkeypatch.delattr(download, "fetch")
    assert load("toy-set").num_users == 4


def test_a_failed_download_says_what_to_put_where(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise DownloadError("https://example.org/toy.txt: HTTP 404 Not Found")

    monkeypatch.setattr(download, "fetch", fetch)
    with pytest.raises(DownloadError) as caught:
        load("toy-set")
    assert str(caught.value) == (
        "cannot fetch toy-set: https://example.org/toy.txt: HTTP 404 Not Found. To go on without the network, put "
        "toy.txt, links.txt into FOLDER/toys and set GRAPHREC_DATA=FOLDER (GRAPHREC_DATA names the parent folder)"
    )
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "own"))
    with pytest.raises(DownloadError, match=f"put toy.txt, links.txt into {tmp_path / 'own' / 'toys'} "):
        load("toy-set")


def test_a_set_without_a_public_home(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    local = replace(registry.BENCHMARKS["toy-set"], source=None)
    monkeypatch.setattr(registry, "BENCHMARKS", {"toy-set": local})
    with pytest.raises(DownloadError, match=r"no program can fetch it; .*example\.org\. .* put toy\.txt into"):
        load("toy-set")


def test_another_format_for_a_name_drops_the_options_of_the_first(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_download(tmp_path, 7)
    registry.FORMATS["toy2"] = Format("toy2", "toy")
    assert load("toy-set", format="toy2").num_users == 7
    assert load("toy-set", format="toy").num_users == 8


# The whole


def test_the_examples_of_the_documentation_are_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    sections = dict(section.split("\n", 1) for section in text.split("\n## ")[1:])
    assert set(sections) == set(FORMATS) - {"movielens"}  # which is one data set's own
    for name, section in sections.items():
        files = re.findall(r"^`(\S+)`:\n\n((?: {4}.*\n)+)", section, re.MULTILINE)
        (tmp_path / name).mkdir()
        for file, content in files:
            (tmp_path / name / file).write_text(textwrap.dedent(content), encoding="utf-8")
        if files:  # nx has none
            assert detect(tmp_path / name) == name
            graph = load(tmp_path / name, cache=False)
            assert graph.num_interactions >= 2, name
            assert (graph.num_triples > 0) == (name not in ("recbole_atomic", "pair_text")), name
            assert not any("not read" in reason for reason in graph.dropped), name


def test_every_format_can_be_imported_and_has_its_parts() -> None:
    for format_ in FORMATS.values():
        module = format_.load_module()
        assert callable(module.detect)
        assert callable(module.read)


def test_importing_kg_loaders_stays_light() -> None:
    code = "import json, sys, kg_loaders; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert (
        loaded & {"torch", "rdflib", "networkx", "pyarrow", "pandas", "scipy", "sklearn", "urllib.request", "graphrec"}
        == set()
    )
    assert "load" in kg_loaders.__all__


def test_benchmarks_read_by_formats_that_exist() -> None:
    assert {layout.format for b in benchmarks.BENCHMARKS.values() for layout in b.layouts} <= set(FORMATS)
