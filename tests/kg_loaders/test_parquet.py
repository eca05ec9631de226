import datetime
import sys

import numpy as np
import pytest

from kg_loaders import FormatError, GraphError
from kg_loaders.parquet import read_parquet, write_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    return read_parquet(tmp_path / "x.parquet")


def test_ids_of_text_and_integers(tmp_path):
    read = table(tmp_path, a=["x", "y", "x"], b=[10, 9, -1], c=pa.array(["k", "l", "k"]).dictionary_encode())
    assert (len(read), read.names, "a" in read, "z" in read) == (3, ("a", "b", "c"), True, False)
    assert [list(read.ids(name)) for name in "abc"] == [["x", "y", "x"], ["10", "9", "-1"], ["k", "l", "k"]]
    assert list(read.unique_ids("b")) == ["10", "9", "-1"]


def test_numbers_and_points_in_time(tmp_path):
    moment = datetime.datetime(1970, 1, 1, 0, 1, 0, 500_000)
    read = table(tmp_path, a=[1, 2], b=[0.5, -1.0], c=[moment, moment], d=pa.array([1, 2], pa.timestamp("s")))
    assert [read.numbers(name).tolist() for name in "abcd"] == [[1, 2], [0.5, -1], [60.5, 60.5], [1, 2]]


def test_features(tmp_path):
    read = table(tmp_path, a=["x", None], b=[1, 2], c=[[1.0, 2.0], None], d=[True, False])
    assert read.feature("a") == ["x", None]
    assert read.feature("b") == ["1", "2"]
    assert read.feature("c") == [[1.0, 2.0], None]
    assert read.feature("d") == ["true", "false"]


@pytest.mark.parametrize(
    ("columns", "call", "reason"),
    [
        ({"a": [1.0, 2.0]}, lambda t: t.ids("a"), "holds double, expected text or integers"),
        ({"a": ["x", None]}, lambda t: t.ids("a"), "row 1: column 'a' is null"),
        ({"a": ["x", ""]}, lambda t: t.ids("a"), "row 1: column 'a' is empty"),
        ({"a": ["x", "x"]}, lambda t: t.unique_ids("a"), "row 1: a 'x' has a second row"),
        ({"a": ["1", "2"]}, lambda t: t.numbers("a"), "holds string, expected numbers"),
        ({"a": [1.0, None]}, lambda t: t.numbers("a"), "row 1: column 'a' holds no finite number"),
        ({"a": [1.0, float("inf")]}, lambda t: t.numbers("a"), "row 1"),
        ({"a": [b"x"]}, lambda t: t.feature("a"), "holds binary"),
        ({"a": [{"b": 1}]}, lambda t: t.feature("a"), "holds struct"),
        ({"title": ["x"]}, lambda t: t.ids("titel"), "no column 'titel' among 'title'; did you mean"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, columns, call, reason):
    with pytest.raises(FormatError, match=reason):
        call(table(tmp_path, **columns))


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_parquet(tmp_path / "x.parquet")
    table(tmp_path, a=["x"])
    whole = (tmp_path / "x.parquet").read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[:40]):
        (tmp_path / "x.parquet").write_bytes(content)
        with pytest.raises(FormatError, match="not a whole Parquet file"):
            read_parquet(tmp_path / "x.parquet")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"a": broken}), tmp_path / "x.parquet")
    with pytest.raises(FormatError, match="UTF8"):
        read_parquet(tmp_path / "x.parquet")


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(FormatError, match="distinct"):
        read_parquet(tmp_path / "x.parquet")


def test_what_is_written_comes_back(tmp_path):
    vectors = [np.array([1, 2], dtype=np.float32), None]
    write_parquet(tmp_path / "x.parquet", {"a": ["x", "y"], "b": np.array([0.1, 2.0]), "c": vectors})
    read = read_parquet(tmp_path / "x.parquet")
    assert list(read.ids("a")) == ["x", "y"]
    assert read.numbers("b").tolist() == [0.1, 2.0]
    assert read.feature("c") == [[1, 2], None]
    with pytest.raises(GraphError, match="UTF-8 cannot express"):
        write_parquet(tmp_path / "x.parquet", {"a": ["\ud800"]})


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'graphrec\[parquet\]'"):
        read_parquet(tmp_path / "x.parquet")
