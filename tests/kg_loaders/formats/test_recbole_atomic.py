import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.generated_graphs import ODD_ID, SETTINGS, graphs
from hypothesis import given

from kg_loaders import Feature, FormatError, GraphError, Interactions, RecGraph, Vocabulary
from kg_loaders.formats.recbole_atomic import detect, read, write

FILES = {
    "inter": (
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\ti1\t3\t20\n7\ti2\t4.5\t10\nx\ti1\t1\t5\n"
    ),
    "item": (
        b"item_id:token\tmovie_title:token_seq\tyear:float\tclip:float_seq\n"
        b"i2\tHeat, the film\t1995.0\t1 2.5\ni3\t\t\t\n"
    ),
    "user": b"age:token\tuser_id:token\n42\tx\n7\tnobody\n",
    "kg": b"head_id:token\trelation_id:token\ttail_id:token\nm.1\tby\tm.9\nm.8\tby\tm.2\n",
    "link": b"item_id:token\tentity_id:token\ni1\tm.1\ni2\tm.2\n",
}


def folder(path: Path, **changed: bytes | None) -> Path:
    """Write the small data set with some files changed; ``None`` leaves one out."""
    for name, content in (FILES | changed).items():
        if content is not None:
            (path / f"films.{name}").write_bytes(content)
    return path


def test_the_files_give_the_graph_written_by_hand(tmp_path):
    graph = read(folder(tmp_path))
    assert graph == RecGraph(
        users=Vocabulary(["7", "nobody", "x"]),
        entities=Vocabulary(["i1", "i2", "i3", "m.8", "m.9"]),
        num_items=3,
        interactions=Interactions(
            np.array([0, 0, 2]),
            np.array([1, 0, 0]),
            time=np.array([10.0, 20.0, 5.0]),
            weight=np.array([4.5, 3, 1], dtype=np.float32),
        ),
        relations=Vocabulary(["by"]),
        triples=np.array([[0, 0, 4], [3, 0, 1]]),
        user_features={"age": Feature.text(["", "7", "42"])},
        item_features={
            "title": Feature.text(["", "Heat, the film", ""]),
            "year": Feature.text(["", "1995.0", ""]),
            "clip": Feature.vectors(np.array([[0, 0], [1, 2.5], [0, 0]]), np.array([False, True, False])),
        },
    )
    assert dict(graph.dropped) == {}
    assert graph.item_labels == ["i1", "Heat, the film", "i3"]


def test_detection(tmp_path):
    assert not detect(tmp_path)
    assert not detect(tmp_path / "nowhere")
    (tmp_path / "x.inter.gz").touch()
    assert detect(tmp_path)


def test_all_that_is_accepted_gives_one_graph(tmp_path):
    for name in ("plain", "windows", "packed"):
        (tmp_path / name).mkdir()
    expected = read(folder(tmp_path / "plain"))
    folder(tmp_path / "windows", **{n: b"\xef\xbb\xbf" + c.replace(b"\n", b"\r\n") + b"\r\n" for n, c in FILES.items()})
    for name, content in FILES.items():
        (tmp_path / "packed" / f"films.{name}.gz").write_bytes(gzip.compress(content))
    assert read(tmp_path / "windows") == expected
    assert read(tmp_path / "packed") == expected


def test_the_order_of_rows_does_not_matter(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = {}
    for name, content in FILES.items():
        first, *rest = content.splitlines(keepends=True)
        mixed[name] = b"".join([first, *rest[::-1]])
    assert read(folder(tmp_path / "a")) == read(folder(tmp_path / "b", **mixed))


def test_only_interactions_are_needed(tmp_path):
    graph = read(
        folder(tmp_path, inter=b"item_id:token\tuser_id:token\n1\t5\n", item=None, user=None, kg=None, link=None)
    )
    assert (graph.num_users, graph.num_items, graph.num_entities, graph.num_triples) == (1, 1, 1, 0)
    assert graph.interactions.time is graph.interactions.weight is graph.interactions.split is None


def test_without_links_the_triples_use_item_ids(tmp_path):
    kg = b"head_id:token\trelation_id:token\ttail_id:token\ni1\tby\tm.9\n"
    graph = read(folder(tmp_path, kg=kg, link=None))
    assert graph.entities.ids == ("i1", "i2", "i3", "m.9")


def test_files_by_split(tmp_path):
    header = b"user_id:token\titem_id:token\n"
    folder(tmp_path, inter=None)
    (tmp_path / "films.train.inter").write_bytes(header + b"7\ti1\nx\ti1\n")
    (tmp_path / "films.test.inter").write_bytes(header + b"7\ti2\nx\ti1\n")
    graph = read(tmp_path)
    assert graph.interactions.split.tolist() == [0, 2, 0]
    assert dict(graph.dropped) == {"test pairs also in train": 1}
    (tmp_path / "films.valid.inter").write_bytes(b"user_id:token\titem_id:token\trating:float\n7\ti3\t1\n")
    with pytest.raises(FormatError, match="only some of the .inter files have a weight"):
        read(tmp_path)
    (tmp_path / "films.other.inter").write_bytes(header)
    with pytest.raises(FormatError, match=r"expected one NAME\.inter"):
        read(tmp_path)


def test_interaction_columns_without_a_place_are_counted(tmp_path):
    inter = b"user_id:token\titem_id:token\treview:token_seq\trating:token\n7\ti1\tgood\ta\n7\ti2\tbad\tb\n"
    graph = read(folder(tmp_path, inter=inter))
    assert graph.interactions.weight is None
    counted = {"values of interaction column 'review'": 2, "values of interaction column 'rating'": 2}
    assert dict(graph.dropped) == counted


def test_repeated_rows_are_counted(tmp_path):
    files = {name: FILES[name] + FILES[name].split(b"\n", 1)[1] for name in ("inter", "kg", "link")}
    graph = read(folder(tmp_path, **files))
    assert dict(graph.dropped) == {"repeated pairs": 3, "repeated triples": 2, "repeated links": 2}


@pytest.mark.parametrize(
    ("changed", "file", "line", "reason"),
    [
        ({"inter": b""}, "films.inter", None, "empty"),
        ({"inter": b"user_id:token\titem_id:token\n"}, "films.inter", None, "no rows"),
        ({"inter": b"user_id:token\titem:token\n1\t2\n"}, "films.inter", 1, "no column 'item_id:token'"),
        ({"inter": b"user_id\titem_id:token\n1\t2\n"}, "films.inter", 1, "'user_id' must be NAME:TYPE"),
        ({"inter": b"user_id:text\titem_id:token\n1\t2\n"}, "films.inter", 1, "'user_id:text' must be NAME:TYPE"),
        ({"inter": b"user_id:token\titem_id:float\n1\t2\n"}, "films.inter", 1, "must be of type 'token', got 'float'"),
        ({"inter": b"user_id:token\titem_id:token\ta:token\ta:float\n"}, "films.inter", 1, "column 'a' occurs twice"),
        ({"inter": b"user_id:token\titem_id:token\n1\t2\n1\n"}, "films.inter", 3, "1 columns, expected 2"),
        ({"inter": b"user_id:token\titem_id:token\n1\t2\n\t2\n"}, "films.inter", 3, "'user_id' is empty"),
        ({"inter": b"user_id:token\titem_id:token\n1\t\xff\n"}, "films.inter", 2, "not UTF-8"),
        (
            {"inter": FILES["inter"] + b"7\ti3\tx\t1\n"},
            "films.inter",
            5,
            "'rating' holds 'x', expected a finite number",
        ),
        ({"inter": FILES["inter"] + b"7\ti3\t1\tnan\n"}, "films.inter", 5, "'timestamp' holds 'nan'"),
        ({"item": b"item_id:token\tv:float_seq\ni1\t1 nan\n"}, "films.item", 2, "'v' holds NaN"),
        ({"item": b"item_id:token\tv:float_seq\ni1\t1 2\ni2\t1\n"}, "films.item", 3, "1 numbers, expected 2"),
        ({"item": b"item_id:token\ni1\ni2\ni1\n"}, "films.item", 4, "item_id 'i1' has a second row"),
        ({"kg": FILES["kg"] + b"m.1\tby\n"}, "films.kg", 4, "2 columns, expected 3"),
        ({"link": FILES["link"] + b"i1\tm.7\n"}, "films.link", 4, "'i1' is linked to 'm.1' and to 'm.7'"),
    ],
)
def test_bad_input_is_refused_with_file_and_line(tmp_path, changed, file, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read(folder(tmp_path, **changed))
    assert (caught.value.path.name, caught.value.line) == (file, line)


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(FormatError, match=r"\.inter: no such file"):
        read(tmp_path)
    folder(tmp_path, item=None)
    (tmp_path / "films.item.gz").write_bytes(gzip.compress(FILES["item"])[:-9])
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read(tmp_path)


def test_contradicting_links(tmp_path):
    folder(tmp_path, link=FILES["link"] + b"i3\tm.2\nnone\tm.7\n")
    with pytest.raises(FormatError, match=f"^{tmp_path}: links name an item that is not there: 'none'"):
        read(tmp_path)
    assert dict(read(tmp_path, on_unknown="drop").dropped) == {
        "links of unknown items": 1,
        "items linked to an entity that another item has": 1,
    }


def test_a_graph_in_which_no_item_occurs_is_refused(tmp_path):
    with pytest.raises(FormatError, match=f"^{tmp_path}: no item occurs"):
        read(folder(tmp_path, link=None))


@SETTINGS
@given(graphs(ids=ODD_ID, entity_features=False, lonely=False))
def test_what_is_written_comes_back(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("recbole")
    write(graph, path / "new")
    back = read(path / "new")
    assert back == graph
    assert back.name == "new"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"entity_features": {"label": Feature.text(list("abcde"))}}, "features of entities"),
        ({"triples": np.array([[0, 0, 4]])}, "entities that are in no triple"),
        ({"relations": Vocabulary(["by", "of"])}, "relations that are in no triple"),
        ({"item_features": {"a:b": Feature.text(list("abc"))}}, "feature names"),
        ({"item_features": {"movie_title": Feature.text(list("abc"))}}, "which it calls 'title'"),
        ({"item_features": {"item_id": Feature.text(list("abc"))}}, "called like the ids"),
        ({"item_features": {"a": Feature.text(["a\nb", "", ""])}}, "tabs or line ends"),
        ({"users": Vocabulary(["7 ", "a", "x"])}, "blanks around them"),
        ({"item_features": {"v": Feature.vectors(np.zeros((3, 2)), np.zeros(3, bool))}}, "none of which is known"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, change, reason):
    graph = replace(read(folder(tmp_path)), **change)
    with pytest.raises(GraphError, match=f"RecBole's format cannot hold .*{reason}"):
        write(graph, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_links_that_number_items_in_their_own_way(tmp_path):
    link = b"item_id:token\tentity_id:token\n7\tm.1\n9\tm.2\n8\tm.7\n"
    for name in ("films", "swapped"):
        (tmp_path / name).mkdir()
    ids = tmp_path / "ids.csv"
    ids.write_text("link_item_id,item_id\n7,i2\n9,i1\n")
    graph = read(folder(tmp_path / "films", link=link), link_ids=ids)
    swapped = FILES["link"].replace(b"i1\tm.1\ni2\tm.2", b"i2\tm.1\ni1\tm.2")
    assert graph.triples.tolist() == read(folder(tmp_path / "swapped", link=swapped)).triples.tolist()
    assert dict(graph.dropped) == {"links of items that are not here": 1}
    ids.write_text("link_item_id,item_id\n7,i2\n9,i2\n")
    with pytest.raises(FormatError, match=r"ids\.csv: two items of the \.link file are given one id"):
        read(tmp_path / "films", link_ids=ids)
