import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.generated_graphs import SETTINGS, graphs
from hypothesis import given

from kg_loaders import FormatError, GraphError, Interactions, KGLoaderError, RecGraph, Vocabulary, textio
from kg_loaders.formats.kgat_text import detect, read, write

FILES = {
    "train.txt": b"0 0 2\n1 1\n2\n",
    "test.txt": b"0 3\n1 0 2\n",
    "kg_final.txt": b"0 0 4\n5 1 3\n2 0 4\n",
    "relation_list.txt": b"org_id remap_id\nhas genre 0\nby 1\n",
    "item_list.txt": b"org_id remap_id freebase_id\na 0 m.a\nb 1 m.b\nc 2 m.c\nd 3 m.d\n",
}


def folder(path: Path, **changed: bytes | None) -> Path:
    """Write the small data set with some files changed; ``train=b"..."`` is ``train.txt``, ``None`` leaves one out."""
    contents = FILES | {f"{name}.txt": content for name, content in changed.items()}
    for name, content in contents.items():
        if content is not None:
            (path / name).write_bytes(content)
    return path


def test_the_files_give_the_graph_written_by_hand(tmp_path):
    graph = read(folder(tmp_path))
    expected = RecGraph(
        users=Vocabulary(["0", "1", "2"]),
        entities=Vocabulary(["0", "1", "2", "3", "4", "5"]),
        num_items=4,
        interactions=Interactions(
            np.array([0, 0, 0, 1, 1, 1]),
            np.array([0, 2, 3, 0, 1, 2]),
            split=np.array([0, 0, 2, 2, 0, 2], dtype=np.int8),
        ),
        relations=Vocabulary(["by", "has genre"]),
        triples=np.array([[0, 1, 4], [2, 1, 4], [5, 0, 3]]),
        item_features=graph.item_features,
    )
    assert graph == expected
    assert graph.item_features["org_id"].values.tolist() == ["a", "b", "c", "d"]
    assert graph.item_features["freebase_id"].values.tolist() == ["m.a", "m.b", "m.c", "m.d"]
    assert (graph.name, dict(graph.dropped)) == (tmp_path.name, {})


def test_detection_looks_for_train_only(tmp_path):
    assert not detect(tmp_path)
    (tmp_path / "train.txt.gz").touch()
    assert detect(tmp_path)


def test_users_without_items_and_items_in_test_only_are_kept(tmp_path):
    graph = read(folder(tmp_path, item_list=None, kg_final=None, train=b"0 0 2\n1 1\n2\n3\n"))
    assert (graph.num_users, graph.num_items) == (4, 4)
    assert 3 not in graph.part("train").item
    assert 3 in graph.part("test").item


def test_without_lists_the_largest_number_gives_the_size(tmp_path):
    graph = read(folder(tmp_path, item_list=None, relation_list=None, train=b"0 0 6\n", test=None, kg_final=b"6 3 9\n"))
    assert (graph.num_users, graph.num_items, graph.num_entities, graph.num_relations) == (1, 7, 10, 4)
    assert graph.relations.ids == ("0", "1", "2", "3")


def test_all_that_is_accepted_gives_one_graph(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "windows").mkdir()
    (tmp_path / "packed").mkdir()
    expected = read(folder(tmp_path / "plain"))
    for name, content in FILES.items():
        windows = b"\xef\xbb\xbf" + content.replace(b"\n", b" \t\r\n") + b"\r\n\r\n"
        (tmp_path / "windows" / name).write_bytes(windows)
        (tmp_path / "packed" / f"{name}.gz").write_bytes(gzip.compress(content))
    assert read(tmp_path / "windows") == expected
    assert read(tmp_path / "packed") == expected


def test_the_order_of_rows_does_not_matter(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = {}
    for name, content in FILES.items():
        first, *rest = content.splitlines(keepends=True)
        mixed[name.removesuffix(".txt")] = b"".join([first, *rest[::-1]])
    assert mixed["item_list"] != FILES["item_list.txt"]
    mixed["train"] = b"2\n1 1\n0 2\n0 0\n"
    assert read(folder(tmp_path / "a")) == read(folder(tmp_path / "b", **mixed))


def test_a_list_without_triples_names_the_relations(tmp_path):
    graph = read(folder(tmp_path, kg_final=None))
    assert (graph.relations.ids, graph.num_triples) == (("by", "has genre"), 0)


def test_duplicates_and_leaks_are_counted(tmp_path):
    graph = read(
        folder(
            tmp_path, train=b"0 0 2 0\n1 1\n0 2\n", test=b"0 3 3 2\n1 1\n", valid=b"1 1 3\n", kg_final=b"0 0 4\n" * 3
        )
    )
    assert dict(graph.dropped) == {
        "repeated pairs": 3,
        "test pairs also in train": 2,
        "valid pairs also in train": 1,
        "repeated triples": 2,
    }
    assert [len(graph.part(split)) for split in ("train", "valid", "test")] == [3, 1, 1]


@pytest.mark.parametrize(
    ("changed", "file", "line", "reason"),
    [
        ({"train": None}, "train.txt", None, "no such file"),
        ({"train": b""}, "train.txt", None, "empty"),
        ({"train": b"0\n1\n", "test": None}, "train.txt", None, "no user has any item"),
        ({"train": b"0 1\n1 x\n"}, "train.txt", 2, "'x' is not a whole number"),
        ({"train": b"0 1\n1 -2\n"}, "train.txt", 2, "'-2' is not a whole number"),
        ({"train": b"0 1\n1 99999999999999999999\n"}, "train.txt", 2, "more than 18 digits"),
        ({"train": b"0 1\n1 2\n1 4\n"}, "train.txt", 3, r"unknown item 4, the lists allow 4 \(0..3\)"),
        ({"train": b"0 1\n1\t21742\t1\n"}, "train.txt", 2, "a tab between two numbers"),
        ({"train": b"0 1\n1 \xe9\n"}, "train.txt", 2, "not a whole number"),
        ({"train": b"0 1\n\n1 9999999\n", "item_list": None}, "train.txt", 3, "few gaps"),
        ({"train": b"0 1\n9999999\n"}, "train.txt", 2, "few gaps"),
        ({"user_list": b"org_id remap_id\nx 0\ny 1\n"}, "train.txt", 3, "unknown user 2"),
        ({"test": b""}, "test.txt", None, "empty"),
        ({"test": b"0 3\n1 7\n"}, "test.txt", 2, "unknown item 7"),
        ({"kg_final": b"\n"}, "kg_final.txt", None, "empty"),
        ({"kg_final": b"0 0 4\n1 0\n"}, "kg_final.txt", 2, "2 columns, expected 3"),
        ({"kg_final": b"0 0 4\n1 2 4\n"}, "kg_final.txt", 2, "unknown relation 2"),
        ({"kg_final": b"0 0 9999999\n"}, "kg_final.txt", 1, "few gaps"),
        ({"entity_list": b"remap_id\n0\n1\n2\n3\n4\n"}, "kg_final.txt", 2, "unknown entity 5"),
        ({"entity_list": b"remap_id\n0\n1\n"}, "entity_list.txt", None, "2 entities, expected at least the 4 items"),
        ({"entity_list": b"remap_id\n0\n1\n2\n", "item_list": None}, "test.txt", 1, "unknown item 3"),
        ({"relation_list": b"org_id remap_id\nx 0\nx 1\n"}, "relation_list.txt", None, "distinct names, got 'x'"),
        ({"item_list": b"org_id remap_id\na 0\na\xff 1\n"}, "item_list.txt", 3, "not UTF-8"),
    ],
)
def test_bad_input_is_refused_with_file_and_line(tmp_path, changed, file, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read(folder(tmp_path, **changed))
    assert (caught.value.path.name, caught.value.line) == (file, line)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


def test_a_graph_in_which_no_item_occurs_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no item occurs in any of the 1 triples") as caught:
        read(folder(tmp_path, kg_final=b"4 0 5\n"))
    assert caught.value.path == tmp_path


def test_a_truncated_gzip_is_refused(tmp_path):
    folder(tmp_path, train=None)
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(FILES["train.txt"])[:-9])
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read(tmp_path)


def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(textio, "MAX_LINE_BYTES", 100)
    with pytest.raises(FormatError, match="longer than the limit of 100 bytes") as caught:
        read(folder(tmp_path, train=b"0 1\n1" + b" 2" * 60))
    assert caught.value.line == 2


def test_ids_beyond_the_lists_can_be_dropped_and_counted(tmp_path):
    graph = read(
        folder(
            tmp_path,
            train=b"0 0 2 8\n1 1\n2 9\n7\n",
            user_list=b"org_id remap_id\nx 0\ny 1\n",
            kg_final=b"0 0 4\n0 7 4\n",
        ),
        on_unknown="drop",
    )
    assert (graph.num_users, graph.num_triples, len(graph.part("train"))) == (2, 1, 3)
    assert dict(graph.dropped) == {
        "lines of users beyond the list": 2,
        "pairs with ids beyond the lists": 2,
        "triples with ids beyond the lists": 1,
    }
    with pytest.raises(KGLoaderError, match="^on_unknown must be one of"):
        read(tmp_path, on_unknown="skip")


def test_vectors_become_features(tmp_path):
    folder(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.arange(8.0).reshape(4, 2))
    np.save(tmp_path / "audio_feat.npy", np.ones((4, 3), dtype=np.int16))
    graph = read(tmp_path)
    assert graph.item_features["image"].values.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert graph.item_features["audio"].present.all()


def test_vectors_give_the_number_of_items_where_no_list_does(tmp_path):
    folder(tmp_path, item_list=None, kg_final=None)
    np.save(tmp_path / "image_feat.npy", np.ones((6, 2)))
    assert read(tmp_path).num_items == 6
    np.save(tmp_path / "audio_feat.npy", np.ones((5, 2)))
    with pytest.raises(FormatError, match="5 rows, expected one for each of 6 items"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[1.0], [np.nan], [0.0], [0.0]]), "row 1 holds NaN"),
        (np.ones((3, 2)), "3 rows, expected one for each of 4 items"),
        (np.ones(4), "must hold numbers"),
    ],
)
def test_bad_vectors_are_refused(tmp_path, array, reason):
    np.save(folder(tmp_path) / "image_feat.npy", array)
    with pytest.raises(FormatError, match=reason):
        read(tmp_path)


def test_pickled_vectors_are_refused(tmp_path):
    np.save(
        folder(tmp_path) / "image_feat.npy", np.array([[os.sep], [None], [1], [2]], dtype=object), allow_pickle=True
    )
    with pytest.raises(FormatError, match=r"not a whole \.npy file"):
        read(tmp_path)


@SETTINGS
@given(graphs(times=False, weights=False, splits=(True,), all_known=True))
def test_what_is_written_comes_back(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("kgat")
    write(graph, path / "new")
    assert read(path / "new") == graph


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"users": Vocabulary(["a", "b", "c"])}, "user ids other than 0..n-1"),
        ({"entities": Vocabulary(["0", "1", "2", "3", "5", "4"])}, "entity ids other than 0..n-1"),
        ({"interactions": Interactions(np.array([0]), np.array([1]))}, "not split"),
        ({"interactions": Interactions(np.array([0]), np.array([1]), split=np.array([2], np.int8))}, "training pairs"),
        (
            {"interactions": Interactions(np.array([0]), np.array([1]), time=np.ones(1), split=np.zeros(1, np.int8))},
            "times",
        ),
        (
            {
                "interactions": Interactions(
                    np.array([0]), np.array([1]), weight=np.ones(1, np.float32), split=np.zeros(1, np.int8)
                )
            },
            "weights",
        ),
        ({"relations": Vocabulary(["a\tb", "c"])}, "tabs or line ends"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, change, reason):
    graph = replace(read(folder(tmp_path)), **change)
    with pytest.raises(GraphError, match=f"KGAT text cannot hold .*{reason}"):
        write(graph, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "users", "items", "entities", "pairs", "triples"),
    [
        ("alibaba-ifashion", 114_737, 30_040, 89_196, 1_380_510, 279_155),
        ("last-fm", 23_566, 48_123, 106_389, 1_119_221, 464_567),
        ("tiktok", 9_308, 6_710, 6_710, 62_592, 0),
    ],
)
def test_real_data(name, users, items, entities, pairs, triples):
    path = Path(os.environ.get("GRAPHREC_DATA", "../shared/data"), name)
    if not path.is_dir():
        pytest.skip(f"{path} is not there; GRAPHREC_DATA names the folder of data sets")
    graph = read(path)
    sizes = (graph.num_users, graph.num_items, graph.num_entities, graph.num_interactions, graph.num_triples)
    assert sizes == (users, items, entities, pairs, triples)
    assert not graph.dropped
