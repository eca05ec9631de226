import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_loaders import FormatError, Interactions, RecGraph, Vocabulary
from kg_loaders.formats import labelled_text
from kg_loaders.registry import detect

RATINGS = "0\t2\t1\n0\t0\t0\n2\t0\t1\n2\t1\t0\n1\t3\t0\n"
TRIPLES = "0\t0\t4\n2\t1\t5\n5\t0\t3\n"


def put(folder: Path, ratings: str = RATINGS, triples: str | None = TRIPLES) -> Path:
    (folder / "ratings_final.txt").write_text(ratings)
    if triples is not None:
        (folder / "kg_final.txt").write_text(triples)
    return folder


@pytest.fixture
def expected() -> RecGraph:
    """Users 0 and 2 have one item each, user 1 and items 1 and 3 are known by label 0 only."""
    return RecGraph(
        users=Vocabulary(["0", "1", "2"], "user"),
        entities=Vocabulary(["0", "1", "2", "3", "4", "5"], "entity"),
        num_items=4,
        interactions=Interactions(np.array([0, 2]), np.array([2, 0])),
        relations=Vocabulary(["0", "1"], "relation"),
        triples=np.array([[0, 0, 4], [2, 1, 5], [5, 0, 3]]),
    )


def test_a_hand_written_folder(tmp_path: Path, expected: RecGraph) -> None:
    graph = labelled_text.read(put(tmp_path))
    assert graph == expected
    assert dict(graph.dropped) == {"rows with label 0": 3}
    assert graph.name == tmp_path.name


def test_tables_of_numpy_are_read_alike(tmp_path: Path, expected: RecGraph) -> None:
    for name, text in (("ratings_final", RATINGS), ("kg_final", TRIPLES)):
        rows = np.array([line.split("\t") for line in text.splitlines()], dtype=np.int32)
        np.save(tmp_path / f"{name}.npy", rows)
    assert labelled_text.read(tmp_path) == expected


def test_the_order_of_rows_does_not_matter(tmp_path: Path, expected: RecGraph) -> None:
    turned = ["".join(reversed(text.splitlines(keepends=True))) for text in (RATINGS, TRIPLES)]
    assert labelled_text.read(put(tmp_path, *turned)) == expected


def test_windows_line_ends_and_blanks(tmp_path: Path, expected: RecGraph) -> None:
    (tmp_path / "ratings_final.txt").write_bytes(b"\xef\xbb\xbf" + RATINGS.replace("\n", " \r\n").encode() + b"\r\n")
    (tmp_path / "kg_final.txt").write_text(TRIPLES)
    assert labelled_text.read(tmp_path) == expected


def test_without_a_graph(tmp_path: Path) -> None:
    graph = labelled_text.read(put(tmp_path, triples=None))
    assert (graph.num_items, graph.num_entities, graph.num_triples) == (4, 4, 0)


def test_detection(tmp_path: Path) -> None:
    assert not labelled_text.detect(tmp_path)
    assert detect(put(tmp_path)) == "labelled_text"


@pytest.mark.parametrize(
    ("ratings", "line", "reason"),
    [
        ("0 1 1\n0 2 2\n", 2, "label must be 0 or 1, got 2"),
        ("0 1 1\n\n0 2\n", 3, "2 columns, expected 3"),
        ("0 1 1\n0 -2 1\n", 2, "-2"),
        ("0 1 1\n0 x 1\n", 2, "x"),
        ("0 1 1\n0 1234567890123456789 1\n", 2, "digits"),
        ("", None, "empty"),
    ],
)
def test_malformed_ratings(tmp_path: Path, ratings: str, line: int | None, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        labelled_text.read(put(tmp_path, ratings))
    assert caught.value.path.name == "ratings_final.txt"
    assert caught.value.line == line


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        labelled_text.read(tmp_path)


def test_a_graph_without_any_item(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no item occurs"):
        labelled_text.read(put(tmp_path, triples="7 0 8\n"))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.array([[0, 1]]), r"expected whole numbers \[num_rows, 3\], got int64 \[1, 2\]"),
        (np.array([[0.0, 1.0, 1.0]]), "got float64"),
        (np.empty((0, 3), dtype=np.int64), "no rows"),
        (np.array([[0, 1, 1], [0, -1, 1]]), r"row 1 holds a number that is no id: \[0, -1, 1\]"),
        (np.array([[0, 2**63, 1]], dtype=np.uint64), "row 0 holds a number that is no id"),
        (np.array([[0, 1, 3]]), "label must be 0 or 1, got 3"),
    ],
)
def test_malformed_tables_of_numpy(tmp_path: Path, table: np.ndarray, reason: str) -> None:
    np.save(tmp_path / "ratings_final.npy", table)
    with pytest.raises(FormatError, match=reason):
        labelled_text.read(tmp_path)


def test_a_table_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "ratings_final.npy", np.array([[0, 1, 1]], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"not a whole \.npy table"):
        labelled_text.read(tmp_path)


def test_a_header_that_promises_too_much_asks_for_no_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "ratings_final.npy", np.array([[0, 1, 1]]))
    file = tmp_path / "ratings_final.npy"
    content = file.read_bytes()
    for header in (b"(99999999999, 3), }", b"(99999999999, 3),  ", b"((((((((((((((((((("):
        file.write_bytes(content.replace(b"(1, 3), }          ", header))
        assert header in file.read_bytes()
        with pytest.raises(FormatError, match=r"not a whole \.npy table"):
            labelled_text.read(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_only_format_errors_come_out(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("ratings_final.npy", "ratings_final.txt"):
        (folder / name).write_bytes(b"\x93NUMPY" + content if name.endswith("npy") else content)
        with contextlib.suppress(FormatError):
            labelled_text.read(folder)


@settings(max_examples=60, deadline=None)
@given(st.text("0123 \t\n\r-.x", max_size=60), st.text("0123 \t\n", max_size=60))
def test_only_format_errors_come_out_of_near_misses(
    tmp_path_factory: pytest.TempPathFactory, ratings: str, triples: str
) -> None:
    folder = put(tmp_path_factory.mktemp("fuzz"), ratings, triples)
    try:
        graph = labelled_text.read(folder)
    except FormatError:
        return
    assert graph.num_users > 0
