import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from kg_loaders import Feature, FormatError, Interactions, RecGraph, Vocabulary, movielens
from kg_loaders.registry import detect
from kg_loaders.texttable import read_table

FILES = {
    "ratings.dat": "2::10::5::900\n2::9::3::800\n7::10::4::850\n",
    "movies.dat": "9\tToy Story (1995)\tAnimation|Comedy\n10\tAmélie (2001)\tComedy\n11\tHeat (1995)\tCrime\n",
    "users.dat": "2\tF\t1\t10\t48067\n7\tM\t56\t16\t70072\n",
    "plots.tsv": (
        "item_id\ttitle\timdb_id\tplot\tdirector\n"
        '9\tToy Story (1995)\t0114709\t"""Cowboy"" doll."\tJohn Lasseter\n'
        '11\tHeat (1995)\t0113277\tHe says "yes".\tMichael Mann\n'  # a quote inside a bare cell is a quote
    ),
    "dbpedia.nt": (
        "<http://x/Toy_Story> <http://x/director> <http://x/Lasseter> .\n"
        "<http://x/Heat> <http://x/starring> <http://x/Pacino> .\n"
        '<http://x/Heat> <http://x/label> "Heat" .\n'
    ),
    "map.csv": "item_id::string,URI::string\n9,http://x/Toy_Story\n10,\n11,http://x/Heat\n",
}


def put(folder: Path, **changed: str | None) -> Path:
    for name, text in {**FILES, **{name.replace("_", "."): text for name, text in changed.items()}}.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def expected() -> RecGraph:
    """Two users, three films, of which nobody rated Heat and nobody linked Amélie, and five entities."""
    return RecGraph(
        users=Vocabulary(["2", "7"], "user"),
        entities=Vocabulary(["9", "10", "11", "http://x/Lasseter", "http://x/Pacino"], "entity"),
        num_items=3,
        interactions=Interactions(
            np.array([0, 0, 1]),
            np.array([0, 1, 1]),
            time=np.array([800.0, 900.0, 850.0]),
            weight=np.array([3, 5, 4], dtype=np.float32),
        ),
        relations=Vocabulary(["http://x/director", "http://x/starring"], "relation"),
        triples=np.array([[0, 0, 3], [2, 1, 4]]),
        user_features={
            "gender": Feature.text(["F", "M"]),
            "age": Feature.text(["1", "56"]),
            "occupation": Feature.text(["10", "16"]),
            "zip_code": Feature.text(["48067", "70072"]),
        },
        item_features={
            "title": Feature.text(["Toy Story (1995)", "Amélie (2001)", "Heat (1995)"]),
            "genres": Feature.text(["Animation|Comedy", "Comedy", "Crime"]),
            "plot": Feature.text(['"Cowboy" doll.', "", 'He says "yes".']),
            "director": Feature.text(["John Lasseter", "", "Michael Mann"]),
        },
    )


def test_a_hand_written_folder(tmp_path: Path, expected: RecGraph) -> None:
    graph = movielens.read(put(tmp_path))
    assert graph == expected
    assert dict(graph.dropped) == {"literals left out": 1}
    assert graph.item_labels[0] == "Toy Story (1995)"


def as_grouplens(folder: Path, encoding: str) -> Path:
    """Turn the files of a folder into those of GroupLens' archive."""
    for name in ("movies.dat", "users.dat"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_bytes(text.replace("\t", "::").encode(encoding))
    return folder


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_the_files_as_grouplens_ships_them(tmp_path: Path, expected: RecGraph, encoding: str) -> None:
    assert movielens.read(as_grouplens(put(tmp_path), encoding)) == expected


def test_one_file_may_be_as_grouplens_ships_it(tmp_path: Path, expected: RecGraph) -> None:
    text = FILES["movies.dat"].replace("\t", "::").replace("\n", "\r\n")
    (put(tmp_path) / "movies.dat").write_bytes(f"\r\n{text}".encode("latin-1"))
    assert movielens.read(tmp_path) == expected


def test_colons_inside_a_title_separate_nothing_where_tabs_do(tmp_path: Path) -> None:
    graph = movielens.read(put(tmp_path, movies_dat="9\tFace::Off (1997)\tAction\n10\tHeat (1995)\tCrime\n"))
    assert graph.item_features["title"].values.tolist()[:2] == ["Face::Off (1997)", "Heat (1995)"]


def test_latin_1_is_taken_for_the_archive_of_grouplens_alone(tmp_path: Path) -> None:
    (put(tmp_path) / "movies.dat").write_bytes(FILES["movies.dat"].encode("latin-1"))
    with pytest.raises(FormatError, match="not UTF-8") as caught:
        movielens.read(tmp_path)
    assert (caught.value.path.name, caught.value.line) == ("movies.dat", 2)


def test_the_real_films_are_the_same_in_both_forms(tmp_path: Path) -> None:
    folder = Path(os.environ.get("GRAPHREC_DATA", "../shared/data"), "ml-1m")
    if not (folder / "movies.dat").is_file():
        pytest.skip(f"no {folder}")
    for name in ("movies.dat", "users.dat"):
        shutil.copyfile(folder / name, tmp_path / name)
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n")
    graph = movielens.read(tmp_path)
    assert movielens.read(as_grouplens(tmp_path, "latin-1")) == graph
    assert graph.num_items == 3883


def test_detection_prefers_it_to_rdf_and_tables(tmp_path: Path) -> None:
    assert detect(put(tmp_path)) == "movielens"


def test_the_order_of_rows_does_not_matter(tmp_path: Path, expected: RecGraph) -> None:
    turned = {
        name.replace(".", "_"): "".join(reversed(FILES[name].splitlines(keepends=True)))
        for name in ("ratings.dat", "movies.dat", "users.dat", "dbpedia.nt")
    }
    assert movielens.read(put(tmp_path, **turned)) == expected


def test_everything_but_ratings_and_movies_is_optional(tmp_path: Path, expected: RecGraph) -> None:
    graph = movielens.read(put(tmp_path, users_dat=None, plots_tsv=None, dbpedia_nt=None, map_csv=None))
    assert graph.interactions.time is not None
    assert (graph.num_users, graph.num_items, graph.num_entities, graph.num_triples) == (2, 3, 3, 0)
    assert set(graph.item_features) == {"title", "genres"}
    assert not graph.user_features


def test_quoted_plots_may_hold_what_separates_cells(tmp_path: Path) -> None:
    plots = 'item_id\tplot\n9\t"tab\tline\nquote """\n10\tplain\n'
    graph = movielens.read(put(tmp_path, plots_tsv=plots))
    assert graph.item_features["plot"].values.tolist() == ['tab\tline\nquote "', "plain", ""]


@pytest.mark.parametrize(("name", "num_films"), [("ml-1m", 3883), ("ml-100k", 1682)])
def test_no_text_of_the_real_plots_is_lost(name: str, num_films: int) -> None:
    """The cells, written as CSV again, are the file to the letter."""
    file = Path(os.environ.get("GRAPHREC_DATA", "../shared/data"), name, "plots.tsv")
    if not file.is_file():
        pytest.skip(f"no {file}")
    table = read_table(file, "\t")
    written = io.StringIO()
    rows = csv.writer(written, delimiter="\t", lineterminator="\n")
    rows.writerow(table.names)
    rows.writerows(zip(*map(table.texts, table.names), strict=True))
    assert len(table) == num_films
    assert written.getvalue() == file.read_text(encoding="utf-8")


def test_a_second_film_of_one_iri_keeps_no_link(tmp_path: Path) -> None:
    graph = movielens.read(
        put(tmp_path, map_csv="item,iri\n9,http://x/Toy_Story\n10,http://x/Toy_Story\n77,http://x/A\n")
    )
    assert graph.dropped["items linked to an entity that another item has"] == 1
    assert graph.dropped["links of unknown items"] == 1
    assert graph.entities.ids[:3] == ("9", "10", "11")
    assert "http://x/Heat" in graph.entities
    assert graph.triples[:, 0].tolist() == [0, graph.entities.index_of("http://x/Heat")]


def test_films_without_an_iri_do_not_share_one(tmp_path: Path) -> None:
    graph = movielens.read(put(tmp_path, map_csv="item,iri\n9,http://x/Toy_Story\n10,\n11,\n"))
    assert dict(graph.dropped) == {"literals left out": 1}


@pytest.mark.parametrize(
    ("changed", "file", "line"),
    [
        ({"ratings_dat": "2::10::5\n"}, "ratings.dat", 1),
        ({"ratings_dat": "2::10::5::900\n2::9::x::800\n"}, "ratings.dat", 2),
        ({"ratings_dat": "2::10::5::900\n2::9::nan::800\n"}, "ratings.dat", 2),
        ({"ratings_dat": "2::10::5::900\n::9::3::800\n"}, "ratings.dat", 2),
        ({"movies_dat": "9\tToy Story\n"}, "movies.dat", 1),
        ({"movies_dat": "9::Toy Story\n"}, "movies.dat", 1),
        ({"movies_dat": "9::A::B\n10::A\n"}, "movies.dat", 2),
        ({"movies_dat": "9\tA\tB\n9\tA\tB\n"}, "movies.dat", 2),
        ({"users_dat": "2\tF\t1\t10\n"}, "users.dat", 1),
        ({"plots_tsv": "id\tplot\n9\tx\n"}, "plots.tsv", 1),
        ({"plots_tsv": 'item_id\tplot\n9\t"x\n'}, "plots.tsv", 2),
        ({"map_csv": "item_id\n9\n"}, "map.csv", 1),
        ({"dbpedia_nt": "<http://x/a> <http://x/b> <http://x/c> .\n<http://x/a> nonsense .\n"}, "dbpedia.nt", 2),
        ({"ratings_dat": ""}, "ratings.dat", None),
        ({"movies_dat": None}, "movies.dat", None),
    ],
)
def test_malformed_files(tmp_path: Path, changed: dict[str, str | None], file: str, line: int | None) -> None:
    with pytest.raises(FormatError) as caught:
        movielens.read(put(tmp_path, **changed))
    assert (caught.value.path.name, caught.value.line) == (file, line)


def test_a_graph_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no item occurs"):
        movielens.read(put(tmp_path, map_csv="item,iri\n9,http://y/Toy_Story\n"))
