import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.generated_graphs import SETTINGS
from hypothesis import given
from hypothesis import strategies as st

from kg_loaders import Feature, FormatError, GraphError, Interactions, RecGraph, Vocabulary
from kg_loaders.formats.sequence_text import detect, read, write

SEQUENCES = b"1 9 2 10\n2\n3 2 9\n"
ATTRIBUTES = b'{"2": [2, 7], "9": [],\n "11": [7, 7]}'


def files(path: Path, sequences: bytes = SEQUENCES, attributes: bytes | None = ATTRIBUTES) -> Path:
    """Write the small data set and return its file."""
    (path / "Toys.txt").write_bytes(sequences)
    if attributes is not None:
        (path / "Toys_item2attributes.json").write_bytes(attributes)
    return path / "Toys.txt"


def test_the_files_give_the_graph_written_by_hand(tmp_path):
    graph = read(files(tmp_path))
    assert graph == RecGraph(
        users=Vocabulary(["1", "2", "3"]),
        entities=Vocabulary(["2", "9", "10", "11", "attribute:2", "attribute:7"]),
        num_items=4,
        interactions=Interactions(
            np.array([0, 0, 0, 2, 2]), np.array([1, 0, 2, 0, 1]), time=np.array([0.0, 1, 2, 0, 1])
        ),
        relations=Vocabulary(["attribute"]),
        triples=np.array([[0, 0, 4], [0, 0, 5], [3, 0, 5]]),
    )
    assert (graph.name, dict(graph.dropped)) == ("Toys", {"repeated triples": 1})


def test_a_folder_with_one_data_set_will_do(tmp_path):
    expected = read(files(tmp_path))
    assert read(tmp_path) == expected
    assert detect(tmp_path)
    assert detect(tmp_path / "Toys.txt")
    (tmp_path / "Beauty_item2attributes.json.gz").touch()
    with pytest.raises(FormatError, match=r"found Beauty\.txt, Toys\.txt; name the \.txt file"):
        read(tmp_path)


def test_detection_needs_the_attributes(tmp_path):
    files(tmp_path, attributes=None)
    assert not detect(tmp_path)
    assert not detect(tmp_path / "Toys.txt")
    assert not detect(tmp_path / "nowhere")


def test_attributes_may_be_absent(tmp_path):
    graph = read(files(tmp_path, attributes=None))
    assert (graph.num_users, graph.num_items, graph.num_entities, graph.num_triples) == (3, 3, 3, 0)


def test_all_that_is_accepted_gives_one_graph(tmp_path):
    expected = read(files(tmp_path))
    files(tmp_path, b"\xef\xbb\xbf" + SEQUENCES.replace(b"\n", b" \t\r\n") + b"\r\n", b"\xef\xbb\xbf" + ATTRIBUTES)
    assert read(tmp_path) == expected
    files(tmp_path, b"".join(SEQUENCES.splitlines(keepends=True)[::-1]))
    assert read(tmp_path) == expected
    for name in ("Toys.txt", "Toys_item2attributes.json"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    assert read(tmp_path) == read(tmp_path / "Toys.txt") == read(tmp_path / "Toys.txt.gz") == expected


def test_an_item_that_comes_back_counts_at_its_first_place(tmp_path):
    graph = read(files(tmp_path, b"1 5 6 5 7\n", None))
    assert graph.items.ids_of(graph.interactions.item) == ["5", "6", "7"]
    assert graph.interactions.time.tolist() == [0, 1, 3]
    assert dict(graph.dropped) == {"repeated pairs": 1}


@pytest.mark.parametrize(
    ("sequences", "line", "reason"),
    [
        (b"", None, "empty"),
        (b"1\n2\n", None, "no user has any item"),
        (b"1 2\n\n1 3\n", 3, "user 1 has a second line"),
        (b"1 2\n2 x\n", 2, "'x' is not a whole number"),
        (b"1 2\n2 -1\n", 2, "'-1' is not a whole number"),
        (b"1 2\n2 " + b"9" * 30, 2, "more than 18 digits"),
        (b"1\t2\n", 1, "a tab between two numbers"),
        (b"1 2\n\xff\n", 2, "not a whole number"),
    ],
)
def test_bad_sequences_are_refused_with_their_line(tmp_path, sequences, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read(files(tmp_path, sequences))
    assert (caught.value.path.name, caught.value.line) == ("Toys.txt", line)


@pytest.mark.parametrize(
    ("attributes", "line", "reason"),
    [
        (b"", None, "empty"),
        (b'{"2": [1],\n "9": [1,]}', 2, "malformed JSON at column"),
        (b"[" * 100_000, None, "malformed JSON"),
        (b'{"2": [' + b"9" * 5000 + b"]}", None, "malformed JSON"),
        (b"[1, 2]", None, "expected an object of items, got list"),
        (b'{"2": [1], "2": [3]}', None, "item '2' occurs twice"),
        (b'{"2": [1],\n "x": [3]}', 2, "item 'x' is not a whole number"),
        (b'{"2": [1],\n "02": [3]}', 2, "item '02' is not a whole number"),
        (b'{"2": [1],\n "3": 3}', 2, "item '3' needs a list of whole numbers >= 0, got 3"),
        (b'{"2": [1],\n "3": [true]}', 2, "got True"),
        (b'{"2": [1],\n "3": [-1]}', 2, "got -1"),
        (b'{"2": [1],\n "3": [1.5]}', 2, "got 1.5"),
        (b'{"2": [1],\n "3": [9999999999999999999]}', 2, "got 9999999999999999999"),
        (b'{"2": [1],\n "\xff": [3]}', 2, "not UTF-8"),
    ],
)
def test_bad_attributes_are_refused_with_their_line(tmp_path, attributes, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read(files(tmp_path, attributes=attributes))
    assert (caught.value.path.name, caught.value.line) == ("Toys_item2attributes.json", line)


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(FormatError, match=r"Toys\.txt: no such file"):
        read(tmp_path / "Toys.txt")
    with pytest.raises(FormatError, match="expected one data set .* found none"):
        read(tmp_path)
    (tmp_path / "Toys.txt.gz").write_bytes(gzip.compress(SEQUENCES)[:-9])
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read(tmp_path / "Toys.txt")


@st.composite
def sequences(draw):
    users = sorted(draw(st.lists(st.integers(0, 50), unique=True, min_size=1, max_size=3)))
    items = sorted(draw(st.lists(st.integers(0, 50), unique=True, min_size=len(users) + 1, max_size=6)))
    rows = [draw(st.lists(st.sampled_from(range(len(items))), unique=True)) for _ in users]
    rows[0] = rows[0] or [0]
    facts = draw(st.lists(st.tuples(st.sampled_from(range(len(items))), st.integers(1, 30)), unique=True))
    others = sorted({f"attribute:{n}" for _, n in facts})
    return RecGraph(
        users=Vocabulary(list(map(str, users))),
        entities=Vocabulary([*map(str, items), *others]),
        num_items=len(items),
        interactions=Interactions(
            np.array([user for user, row in enumerate(rows) for _ in row]),
            np.array([item for row in rows for item in row]),
            np.array([float(place) for row in rows for place in range(len(row))]),
        ),
        relations=Vocabulary(["attribute"] if facts else []),
        triples=np.array(
            sorted((i, 0, len(items) + others.index(f"attribute:{n}")) for i, n in facts), dtype=np.int64
        ).reshape(-1, 3),
    )


@SETTINGS
@given(sequences())
def test_what_is_written_comes_back(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("sequences") / "new" / "Any.txt"
    write(graph, path)
    assert read(path) == graph


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"users": Vocabulary(["a", "b", "c"])}, "ids other than whole numbers"),
        ({"relations": Vocabulary(["by"])}, "relations other than 'attribute'"),
        ({"triples": np.array([[0, 0, 1], [1, 0, 4], [1, 0, 5]])}, "triples other than item to attribute"),
        ({"triples": np.array([[0, 0, 4]])}, "entities that are in no triple"),
        ({"entities": Vocabulary(["2", "9", "10", "11", "x", "attribute:7"])}, "entities other than attribute:N"),
        ({"item_features": {"title": Feature.text(list("abcd"))}}, "features"),
        ({"interactions": Interactions(np.array([0]), np.array([1]))}, "times other than"),
        ({"interactions": Interactions(np.array([0]), np.array([1]), np.array([5.0]))}, "times other than"),
        ({"interactions": Interactions(np.array([0]), np.array([1]), np.zeros(1), np.ones(1, np.float32))}, "weights"),
        (
            {"interactions": Interactions(np.array([0]), np.array([1]), np.zeros(1), split=np.zeros(1, np.int8))},
            "split",
        ),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, change, reason):
    graph = replace(read(files(tmp_path)), **change)
    with pytest.raises(GraphError, match=f"sequence text cannot hold .*{reason}"):
        write(graph, tmp_path / "New.txt")
    assert not (tmp_path / "New.txt").exists()


@pytest.mark.parametrize(("name", "users", "items"), [("Beauty", 22_363, 12_101), ("Toys_and_Games", 19_412, 11_924)])
def test_real_data(name, users, items):
    path = Path(os.environ.get("GRAPHREC_DATA", "../shared/data"), "s3rec", f"{name}.txt")
    if not path.is_file():
        pytest.skip(f"{path} is not there; GRAPHREC_DATA names the folder of data sets")
    graph = read(path)
    assert (graph.num_users, graph.num_items) == (users, items)
    assert set(graph.dropped) == {"repeated triples"}
