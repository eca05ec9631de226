import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.generated_graphs import ODD_ID, SETTINGS, graphs
from hypothesis import given
from hypothesis import strategies as st

from kg_loaders import Feature, FormatError, GraphError, Interactions, RecGraph, Vocabulary
from kg_loaders.formats.tables import Table, detect, read, write

FILES = {
    "interactions.csv": b"user_id,item_id,time,weight,split\n7,i1,20,3,train\n7,i2,10,4.5,test\nx,i1,5,1,valid\n",
    "items.csv": b'item_id,title\ni2,"Heat, the film"\ni3,\n',
    "users.tsv": b"age\tuser_id\n42\tx\n7\tnobody\n",
    "triples.csv": b"head_id,relation_id,tail_id\nm.1,by,m.9\nm.8,by,m.2\n",
    "links.csv": b"item_id,entity_id\ni1,m.1\ni2,m.2\n",
    "entities.csv": b"entity_id,label\nm.9,Mann\nm.7,\nm.1,an item\n",
}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)


def folder(path: Path, changed: dict[str, bytes | None] | None = None) -> Path:
    """Write the small data set with some files changed; ``None`` leaves one out."""
    for name, content in (FILES | (changed or {})).items():
        if content is not None:
            (path / name).write_bytes(content)
    return path


def test_the_files_give_the_graph_written_by_hand(tmp_path):
    assert read(folder(tmp_path)) == RecGraph(
        users=Vocabulary(["7", "nobody", "x"]),
        entities=Vocabulary(["i1", "i2", "i3", "m.7", "m.8", "m.9"]),
        num_items=3,
        interactions=Interactions(
            np.array([0, 0, 2]),
            np.array([1, 0, 0]),
            time=np.array([10.0, 20.0, 5.0]),
            weight=np.array([4.5, 3, 1], dtype=np.float32),
            split=np.array([2, 0, 1], dtype=np.int8),
        ),
        relations=Vocabulary(["by"]),
        triples=np.array([[0, 0, 5], [4, 0, 1]]),
        user_features={"age": Feature.text(["", "7", "42"])},
        item_features={"title": Feature.text(["", "Heat, the film", ""])},
        entity_features={"label": Feature.text(["an item", "", "", "", "", "Mann"])},
    )


def test_detection(tmp_path):
    assert not detect(tmp_path)
    (tmp_path / "interactions.tsv.gz").touch()
    assert detect(tmp_path)


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        (
            "triples.csv",
            b"head,relation_id,tail_id",
            r"no column 'head_id' for .*; rename it, or in Python give triples=T",
        ),
        ("triples.csv", b"head_id,relation_id,tail_id,x", r"have no 'x', .*; take it out, or in Python give triples=T"),
        (
            "triples.csv",
            b"head_id;relation_id;tail_id",
            r"one column, 'head_id;.*separator looks wrong.*separator=';'",
        ),
        ("triples.csv", b"head_id\trelation_id\ttail_id", r"separator looks wrong: .*separator='\\t'\)"),
        ("users.tsv", b"user_id,age", r"one column, 'user_id,age', so the separator looks wrong: .*users=Table"),
    ],
)
def test_a_wrong_header_says_what_to_do_at_the_command_line_and_in_python(tmp_path, name, header, message):
    with pytest.raises(FormatError, match=message):
        read(folder(tmp_path, {name: header + b"\n"}))


def test_all_that_is_accepted_gives_one_graph(tmp_path):
    for name in ("plain", "windows", "packed"):
        (tmp_path / name).mkdir()
    expected = read(folder(tmp_path / "plain"))
    folder(tmp_path / "windows", {n: b"\xef\xbb\xbf" + c.replace(b"\n", b"\r\n") + b" \r\n" for n, c in FILES.items()})
    for name, content in FILES.items():
        (tmp_path / "packed" / f"{name}.gz").write_bytes(gzip.compress(content))
    assert read(tmp_path / "windows") == expected
    assert read(tmp_path / "packed") == expected


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = {}
    for name, content in FILES.items():
        first, *rest = content.splitlines(keepends=True)
        mixed[name] = b"".join([first, *rest[::-1]])
    mixed["triples.csv"] = b"tail_id,head_id,relation_id\nm.9,m.1,by\nm.2,m.8,by\n"
    assert read(folder(tmp_path / "a")) == read(folder(tmp_path / "b", mixed))


def test_movielens_ratings_without_a_header(tmp_path):
    (tmp_path / "ratings.dat").write_bytes(b"1::1193::5::978300760\n1::661::3::978302109\n12::661::4::9\n")
    (tmp_path / "movies.dat").write_bytes('661\tJames "Jim" (1996)\tA|B\n1193\t"Cuckoo\xe9" (1975)\tDrama\n'.encode())
    graph = read(
        tmp_path,
        interactions=Table("ratings.dat", {"user_id": 0, "item_id": 1, "weight": 2, "time": 3}, "::", header=False),
        items=Table("movies.dat", {"item_id": 0, "title": 1}, "\t", header=False, quoted=False),
    )
    assert (graph.users.ids, graph.items.ids) == (("1", "12"), ("661", "1193"))
    assert graph.interactions.weight.tolist() == [5, 3, 4]
    assert graph.interactions.time.tolist() == [978300760, 978302109, 9]
    assert graph.item_labels == ['James "Jim" (1996)', '"Cuckoo\xe9" (1975)']
    assert list(graph.item_features) == ["title"]


def test_labels_and_triples_of_mcclk(tmp_path):
    (tmp_path / "ratings_final.txt").write_bytes(b"0\t32\t1\n0\t20\t0\n")
    (tmp_path / "kg_final.txt").write_bytes(b"20\t0\t99\n5\t1\t32\n")
    graph = read(
        tmp_path,
        interactions=Table("ratings_final.txt", {"user_id": 0, "item_id": 1, "weight": 2}, "\t", header=False),
        triples=Table("kg_final.txt", {"head_id": 0, "relation_id": 1, "tail_id": 2}, "\t", header=False),
    )
    assert graph.entities.ids == ("20", "32", "5", "99")
    assert graph.interactions.weight.tolist() == [0, 1]


def test_columns_are_chosen_by_name(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"who,what,junk\na,1,x\nb,2,y\nb,3,y\n")
    graph = read(tmp_path, interactions=Table("log.csv", {"user_id": "who", "item_id": "what"}))
    assert (graph.num_users, graph.num_items) == (2, 3)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (Table("log.csv", {"user_id": "who", "item_id": "wat"}), "no column 'wat' for 'item_id' among who, what, junk"),
        (Table("log.csv", {"user_id": "who", "item_id": 1}), "no column 1 for 'item_id'"),
        (Table("log.csv", {"user_id": "who"}), "no column 'item_id' for interactions among 'user_id'"),
        (
            Table("log.csv", {"user_id": "who", "item_id": "what", "rating": "junk"}),
            "interactions have no 'rating', only",
        ),
        (Table("log.csv", {"user_id": 0, "item_id": 3}, header=False), "no position 3 for 'item_id'"),
        (Table("log.csv", {"user_id": -1, "item_id": 0}, header=False), "no position -1"),
        (Table("log.csv", header=False), "needs `columns`"),
        (Table("log.csv", separator=""), "separator must be"),
        (Table("log.csv", separator='"'), "separator must be"),
        (Table("absent.csv"), "absent.csv: no such file"),
        (Table("absent.parquet"), "absent.parquet: no such file"),
    ],
)
def test_tables_that_do_not_fit_their_file(tmp_path, table, reason):
    (tmp_path / "log.csv").write_bytes(b"who,what,junk\na,1,x\n")
    with pytest.raises(FormatError, match=reason):
        read(tmp_path, interactions=table)


@pytest.mark.parametrize(
    ("changed", "file", "line", "reason"),
    [
        ({"interactions.csv": None}, "interactions.csv", None, "no such file"),
        ({"interactions.csv": b""}, "interactions.csv", None, "empty"),
        ({"interactions.csv": b"user_id,item_id\n"}, "interactions.csv", None, "no rows"),
        (
            {"interactions.csv": b"user_id,item\n1,2\n"},
            "interactions.csv",
            None,
            "no column 'item_id' for interactions",
        ),
        ({"interactions.csv": b"user_id,item_id,tme\n1,2,3\n"}, "interactions.csv", None, "'tme'.*did you mean 'time'"),
        ({"interactions.csv": b"user_id,item_id\n1,2\n1\n"}, "interactions.csv", 3, "1 columns, expected 2"),
        ({"interactions.csv": b"user_id,item_id\n1,2\n1, \n"}, "interactions.csv", 3, "'item_id' is empty"),
        ({"interactions.csv": b"user_id,item_id,time\n1,2,\n"}, "interactions.csv", 2, "expected a finite number"),
        ({"interactions.csv": b"user_id,item_id,weight\n1,2,nan\n"}, "interactions.csv", 2, "expected a finite number"),
        (
            {"interactions.csv": b"user_id,item_id,split\n1,2,dev\n"},
            "interactions.csv",
            2,
            "split must be one of .*'dev'",
        ),
        ({"interactions.csv": b'user_id,item_id\n1,"2\n'}, "interactions.csv", 2, "malformed quoting"),
        ({"items.csv": b"item_id,a\ni1,x\ni1,y\n"}, "items.csv", 3, "item_id 'i1' has a second row"),
        ({"items.csv": b"item_id,a\ni1,\xff\n"}, "items.csv", 2, "not UTF-8"),
        ({"items.csv": b"id,a\ni1,x\n"}, "items.csv", None, "no column 'item_id' for items"),
        ({"links.csv": b"item_id,entity_id\ni1,a\ni1,b\n"}, "links.csv", 3, "second row"),
        ({"triples.csv": b"head_id,relation_id,tail_id\na,b\n"}, "triples.csv", 2, "2 columns, expected 3"),
        ({"triples.csv": b"head_id,relation_id,tail_id,x\na,b,c,d\n"}, "triples.csv", None, "triples have no 'x'"),
    ],
)
def test_bad_input_is_refused_with_file_and_line(tmp_path, changed, file, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read(folder(tmp_path, changed))
    assert (caught.value.path.name, caught.value.line) == (file, line)


def test_missing_folders_truncated_files_and_triples_without_items(tmp_path):
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=f"^{tmp_path}: no item occurs"):
        read(folder(tmp_path, {"links.csv": b"item_id,entity_id\ni1,m.77\n"}))
    (tmp_path / "items.csv").unlink()
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(FILES["items.csv"])[:-9])
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read(tmp_path)


def test_repeated_rows_are_counted(tmp_path):
    twice = {
        "interactions.csv": b"user_id,item_id,split\n1,i1,train\n1,i1,test\n1,i1,train\n1,i2,test\n",
        "triples.csv": FILES["triples.csv"] + b"m.1,by,m.9\n",
    }
    counts = {"repeated pairs": 1, "test pairs also in train": 1, "repeated triples": 1}
    assert dict(read(folder(tmp_path, twice)).dropped) == counts


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_tables_come_back(tmp_path_factory, suffix):
    @SETTINGS
    @given(graphs(ids=ODD_ID, text=ANY_TEXT, vectors=False))
    def check(graph):
        if len(np.unique(graph.triples[:, 1])) < graph.num_relations:
            with pytest.raises(GraphError, match="relations that are in no triple"):
                write(graph, path / "never", suffix)
            return
        write(graph, path / graph.fingerprint, suffix)
        assert read(path / graph.fingerprint) == graph

    path = tmp_path_factory.mktemp("tables")
    check()


def test_parquet_comes_back(tmp_path_factory):
    pytest.importorskip("pyarrow")

    @SETTINGS
    @given(graphs(ids=ODD_ID, text=ANY_TEXT, lonely=False))
    def check(graph):
        write(graph, path / graph.fingerprint, ".parquet")
        assert read(path / graph.fingerprint) == graph

    path = tmp_path_factory.mktemp("parquet")
    check()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"relations": Vocabulary(["by", "of"])}, "relations that are in no triple"),
        ({"item_features": {"v": Feature.vectors(np.zeros((3, 2)))}}, "vectors; Parquet does"),
        ({"item_features": {"item_id": Feature.text(list("abc"))}}, "called like the ids"),
        ({"item_features": {"a ": Feature.text(list("abc"))}}, "without a name, or with blanks"),
        ({"item_features": {"a": Feature.text(["\x00", "", ""])}}, "NUL"),
        ({"users": Vocabulary(["7 ", "a", "x"])}, "blanks around them"),
    ],
)
def test_what_tables_cannot_hold_is_refused(tmp_path, change, reason):
    graph = replace(read(folder(tmp_path)), **change)
    with pytest.raises(GraphError, match=f"csv tables cannot hold .*{reason}"):
        write(graph, tmp_path / "new")
    with pytest.raises(GraphError, match=r"suffix must be one of \.csv, \.tsv, \.parquet"):
        write(graph, tmp_path / "new", ".xls")
    assert not (tmp_path / "new").exists()
