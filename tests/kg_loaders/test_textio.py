import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_loaders import FormatError, GraphError, textio
from kg_loaders.rdfstream import SYNTAXES
from kg_loaders.textio import (
    RDF_SUFFIXES,
    check_writable,
    find_file,
    need_file,
    read_bytes,
    read_integer_rows,
    stem_of,
    unread_files,
    write_text,
)


def rows_of(path):
    rows = read_integer_rows(path)
    return [rows.numbers[a:b].tolist() for a, b in zip(rows.starts[:-1], rows.starts[1:], strict=True)]


def test_the_gzipped_variant_is_found_and_reads_the_same(tmp_path):
    (tmp_path / "plain.txt").write_bytes(b"1 2\n3\n")
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(b"1 2\n3\n"))
    assert find_file(tmp_path, "absent.txt") is None
    assert read_bytes(need_file(tmp_path, "packed.txt")) == read_bytes(need_file(tmp_path, "plain.txt"))
    assert stem_of(tmp_path / "packed.txt.gz") == stem_of(tmp_path / "packed.txt") == "packed"


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"train\.txt: no such file") as caught:
        need_file(tmp_path, "train.txt")
    assert caught.value.path == tmp_path / "train.txt"
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        need_file(tmp_path / "nowhere", "train.txt")
    with pytest.raises(FormatError, match="no such file"):
        read_bytes(tmp_path / "train.txt")
    with pytest.raises(FormatError, match="cannot be read"):
        read_bytes(tmp_path)


def test_what_was_not_read_is_named_by_its_suffix_however_it_is_written_or_packed(tmp_path):
    for name in ("a.csv", "b.CSV", "c.txt", "d.Nt.BZ2", "e.kg.zip", "f.zip", "readme.csv", "g.json", "csv", "h.md"):
        (tmp_path / name).touch()
    read = [tmp_path / ".." / tmp_path.name / "a.csv", None]
    named = ["b.CSV", "d.Nt.BZ2", "e.kg.zip"]
    assert unread_files(tmp_path, read) == {f"file not read: {name}": 1 for name in named}
    assert unread_files(tmp_path, read, ".txt", ".json").keys() == {
        f"file not read: {name}" for name in (*named, "c.txt", "g.json")
    }
    assert set(SYNTAXES) < set(RDF_SUFFIXES)


def test_of_many_files_that_were_not_read_the_first_are_named_and_the_others_counted(tmp_path):
    for number in range(200):
        (tmp_path / f"part-{number:03}.parquet").touch()
    expected = {f"file not read: part-{number:03}.parquet": 1 for number in range(10)}
    assert unread_files(tmp_path, []) == expected | {"file not read: others": 190}


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(FormatError, match="the file is empty"):
        read_bytes(tmp_path / "x.txt")


@pytest.mark.parametrize("keep", [3, 15, -1, -9])
def test_a_truncated_gzip_is_refused(tmp_path, keep):
    packed = gzip.compress(b"".join(b"%d %d\n" % (n, n * n) for n in range(1000)))
    (tmp_path / "x.txt.gz").write_bytes(packed[:keep])
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read_bytes(tmp_path / "x.txt.gz")


def test_damaged_gzip_names_the_line_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(textio, "CHUNK_BYTES", 64)
    content = b"1 2\n" * 200_000
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(content)[:-8])
    with pytest.raises(FormatError) as caught:
        read_bytes(tmp_path / "x.txt.gz")
    assert caught.value.line > 1000


@pytest.mark.parametrize("chunk", [1, 7, 10, 1000])
def test_the_line_limit_is_exact_whatever_the_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(textio, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(textio, "MAX_LINE_BYTES", 10)
    (tmp_path / "x.txt").write_bytes(b"1\n" + b"2" * 10 + b"\n3\n")
    assert read_bytes(tmp_path / "x.txt") == b"1\n2222222222\n3\n"
    (tmp_path / "x.txt").write_bytes(b"1\n" + b"2" * 11 + b"\n3\n")
    with pytest.raises(FormatError, match="longer than the limit of 10 bytes") as caught:
        read_bytes(tmp_path / "x.txt")
    assert caught.value.line == 2


def test_an_endless_line_is_refused_before_it_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(textio, "MAX_LINE_BYTES", 2**20)
    with gzip.open(tmp_path / "x.txt.gz", "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"1 " * 2**19)
    tracemalloc.start()
    with pytest.raises(FormatError, match="limit of 1048576 bytes"):
        read_bytes(tmp_path / "x.txt.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    "content",
    [b"0 7 8\n1\n2 3\n", b"\xef\xbb\xbf0 7 8\r\n1\r\n2 3", b"0\t7 8 \n\n1\t\n  \n 2  3\n\n", b"00 07 8\n1\n2 3\n\r\n"],
)
def test_rows_of_integers_with_all_that_is_accepted(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    assert rows_of(tmp_path / "x.txt") == [[0, 7, 8], [1], [2, 3]]


def test_lines_are_counted_over_blank_ones(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\n0 7 8\n\n\n1\n")
    rows = read_integer_rows(tmp_path / "x.txt")
    assert rows.lines.tolist() == [2, 5]
    head, rest, row = rows.head_and_rest()
    assert (head.tolist(), rest.tolist(), row.tolist()) == ([0, 0], [7, 8], [0, 0])


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"0 1\n2 x\n", 2, "'x' is not a whole number >= 0"),
        (b"0 1\n2 -3\n", 2, "'-3' is not a whole number >= 0"),
        (b"0 1\n\n2 3.5\n", 3, "'3.5' is not a whole number >= 0"),
        (b"0 1\n2 " + b"9" * 19 + b"\n", 2, "'9999999999999999999' has more than 18 digits"),
        (b"0 1\n2 " + b"9" * 99 + b"\n", 2, r"9\.\.\.' has more than 18 digits"),
        (b"0 1\n2 \xff\n", 2, "is not a whole number >= 0"),
        (b"0 1\r2 3\n", 1, r"'1\\r2' is not a whole number >= 0"),
        (b"0 1\n\r\r\n2", 2, "is not a whole number"),
        (b"0 1\n" + b"y" * 500, 2, r"y\.\.\.' is not a whole number >= 0"),
    ],
)
def test_what_is_no_integer_is_refused_with_its_line(tmp_path, content, line, reason):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(FormatError, match=reason) as caught:
        read_integer_rows(tmp_path / "x.txt")
    assert caught.value.line == line


def test_the_largest_number_is_exact(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"999999999999999999 0")
    assert rows_of(tmp_path / "x.txt") == [[999_999_999_999_999_999, 0]]


def test_separators_are_as_asked(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"1::2::3 \t\n4::5::6\n")
    assert read_integer_rows(path, ":").as_table(3).tolist() == [[1, 2, 3], [4, 5, 6]]
    path.write_bytes(b"1 2\t \n3\t4\n")
    with pytest.raises(FormatError, match="a tab between two numbers") as caught:
        read_integer_rows(path, " ")
    assert caught.value.line == 2
    path.write_bytes(b"::\n")
    with pytest.raises(FormatError, match="without any number"):
        read_integer_rows(path, ":")


def test_a_row_of_another_width_is_refused_with_its_line(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"1 2 3\n\n4 5\n")
    with pytest.raises(FormatError, match="2 columns, expected 3") as caught:
        read_integer_rows(tmp_path / "x.txt").as_table(3)
    assert caught.value.line == 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=5), min_size=1, max_size=8))
def test_integers_come_back(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("rows") / "x.txt"
    path.write_text("\n".join(" ".join(map(str, row)) for row in table))
    assert rows_of(path) == table


def test_writing_names_what_cannot_be_held(tmp_path):
    check_writable("the format", [(False, "a thing")])
    with pytest.raises(GraphError, match="the format cannot hold times"):
        check_writable("the format", [(False, "a thing"), (True, "times")])
    write_text(tmp_path / "x.txt", "é\n")
    assert (tmp_path / "x.txt").read_bytes() == b"\xc3\xa9\n"
    with pytest.raises(GraphError, match="UTF-8 cannot express"):
        write_text(tmp_path / "x.txt", "\ud800")


def test_offsets_and_lengths_agree(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"1 2 3\n4\n5 6\n")
    rows = read_integer_rows(tmp_path / "x.txt")
    assert len(rows) == 3
    np.testing.assert_array_equal(rows.lengths, [3, 1, 2])
    assert rows.starts[-1] == len(rows.numbers)
