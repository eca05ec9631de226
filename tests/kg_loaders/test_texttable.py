import csv
import gzip

import numpy as np
import pytest

from kg_loaders import FormatError
from kg_loaders.texttable import read_table


def table(tmp_path, content, separator=",", **options):
    (tmp_path / "x.csv").write_bytes(content)
    return read_table(tmp_path / "x.csv", separator, **options)


def cells(read):
    return [list(row) for row in zip(*(read.texts(name) for name in read.names), strict=True)]


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,x y\n2,NA\n",
        b"\xef\xbb\xbfa,b\r\n1,x y\r\n2,NA",
        b"\n a , b\n\n1,x y\n \t \n2,NA\n\n",
        b'"a","b"\n"1","x y"\n"2","NA"\n',
        b'a,b\r\n1,"x y"\r\n\r\n2,NA\r\n',
    ],
)
def test_all_ways_of_writing_one_table(tmp_path, content):
    read = table(tmp_path, content)
    assert read.names == ("a", "b")
    assert cells(read) == [["1", "x y"], ["2", "NA"]]


def test_gzip(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert cells(read_table(tmp_path / "x.csv.gz", ",")) == [["1", "2"]]


@pytest.mark.parametrize("separator", ["::", "\t", ";", "|", "é", "日本", "a"])
def test_any_separator_and_no_header(tmp_path, separator):
    content = separator.join(["1", '2"3', ""]) + "\n" + separator.join(["", "x", "9"]) + "\n"
    read = table(tmp_path, content.encode(), separator, header=False)
    assert read.names == ("0", "1", "2")
    assert cells(read) == [["1", '2"3', ""], ["", "x", "9"]]


def test_spaces_as_separator_allow_trailing_blanks(tmp_path):
    read = table(tmp_path, b"a b\n1 x \n2 y\t\n", " ")
    assert cells(read) == [["1", "x"], ["2", "y"]]


def test_quoted_cells_hold_separators_quotes_and_line_ends(tmp_path):
    read = table(tmp_path, b'a,b\n"1, or ""one""","x\r\ny"\n2,z\n')
    assert cells(read) == [['1, or "one"', "x\r\ny"], ["2", "z"]]
    assert read.lines.tolist() == [2, 4]


@pytest.mark.parametrize("separator", ["::", "é", ",", "\x1f"])
def test_quoted_cells_hold_any_separator(tmp_path, separator):
    content = f'"i{separator}d"{separator}title\na{separator}"Foo{separator}Bar"\nb{separator}"{separator}"\n'
    read = table(tmp_path, content.encode(), separator)
    assert read.names == (f"i{separator}d", "title")
    assert cells(read) == [["a", f"Foo{separator}Bar"], ["b", separator]]


def test_what_is_left_of_a_long_separator_stays_in_its_cell(tmp_path):
    read = table(tmp_path, b'a::"x:::y"\nb::":"\n', "::", header=False)
    assert cells(read) == [["a", "x:::y"], ["b", ":"]]


def test_unquoted_reading_keeps_quotes(tmp_path):
    assert cells(table(tmp_path, b'a\tb\n"Hi\tx"y\n', "\t", quoted=False)) == [['"Hi', 'x"y']]


def test_long_cells_are_read_and_the_csv_module_is_left_as_it_was(tmp_path):
    before = csv.field_size_limit()
    read = table(tmp_path, b'a,b\n1,"' + b"x" * 200_000 + b'"\n')
    assert len(read.texts("b")[0]) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"a,b\n1,2\n\n3\n", 4, "1 columns, expected 2"),
        (b"a,b\n1,2,3\n", 2, "3 columns, expected 2"),
        (b'a,b\n"1","2"\n"3"\n', 3, "1 columns, expected 2"),
        (b'a,b\n1,2\n"3,4\n', 3, "malformed quoting"),
        (b'a,b\n1,2\n"3"x,4\n', 3, "malformed quoting"),
        (b"a,b\n1,2\n3,\xff\n", 3, "not UTF-8"),
        (b"a,b\n1,2\n3,\x00\n", 3, "NUL"),
        (b"a,b\n1,2\r3,4\n", 2, "carriage return inside a line"),
        (b"a,a\n1,2\n", 1, "distinct"),
        (b"a,\n1,2\n", 1, "not empty"),
        (b"", None, "empty"),
        (b'""\n', None, "empty"),
    ],
)
def test_malformed_tables_are_refused_with_their_line(tmp_path, content, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        table(tmp_path, content)
    assert caught.value.line == line


def test_the_stand_in_for_long_separators_may_not_occur(tmp_path):
    with pytest.raises(FormatError, match="control character") as caught:
        table(tmp_path, b"1::2\n3::\x1f\n", "::", header=False)
    assert caught.value.line == 2


def test_ids_lose_the_blanks_around_them_and_nothing_else(tmp_path):
    ids = table(tmp_path, "a,b\n 7,1\n7 ,2\n007,3\né,4\n\t7,5\n".encode()).ids("a")
    assert list(ids) == ["7", "7", "007", "é", "7"]
    assert sorted(ids.categories) == ["007", "7", "é"]


def test_empty_and_repeated_ids_are_refused_with_their_line(tmp_path):
    read = table(tmp_path, b"a,b\n1,x\n \t,y\n1,z\n")
    with pytest.raises(FormatError, match="'a' is empty") as caught:
        read.ids("a")
    assert caught.value.line == 3
    with pytest.raises(FormatError, match="a '1' has a second row") as caught:
        table(tmp_path, b"a,b\n1,x\n2,y\n1,z\n").unique_ids("a")
    assert caught.value.line == 4


def test_numbers_with_an_underscore_are_refused_with_their_line(tmp_path):
    read = table(tmp_path, b"a,b\n1,2\n1_0,1 2_0\n")
    with pytest.raises(FormatError, match="'1_0', expected a finite number") as caught:
        read.numbers("a")
    assert caught.value.line == 3
    with pytest.raises(FormatError, match="something other than numbers") as caught:
        table(tmp_path, b"b\n1 2\n1 2_0\n").vectors("b")
    assert caught.value.line == 3


def test_numbers(tmp_path):
    np.testing.assert_array_equal(table(tmp_path, b"a,b\n1, 2.5\n3,-1e3 \n").numbers("b"), [2.5, -1000.0])


@pytest.mark.parametrize("cell", ["x", "", "nan", "inf", "1e999", "0x1"])
def test_what_is_no_finite_number_is_refused_with_its_line(tmp_path, cell):
    with pytest.raises(FormatError, match="expected a finite number") as caught:
        table(tmp_path, f"a,b\n1,2\n3,{cell}\n".encode()).numbers("b")
    assert caught.value.line == 3


def test_vectors(tmp_path):
    first, missing, last = table(tmp_path, b"a,b\n1,0.5 2\n2,\n3, 3  4 \n").vectors("b")
    assert (first.tolist(), missing, last.tolist()) == ([0.5, 2.0], None, [3.0, 4.0])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1", "1 numbers, expected 2"),
        ("1 x", "other than numbers"),
        ("1 nan", "NaN or infinity"),
        ("1 1e39", "infinity"),
    ],
)
def test_malformed_vectors_are_refused_with_their_line(tmp_path, cell, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        table(tmp_path, f"a,b\n1,0 0\n2,{cell}\n".encode()).vectors("b")
    assert caught.value.line == 3


def test_an_absent_column_is_named_with_the_nearest(tmp_path):
    with pytest.raises(FormatError, match="no column 'titel' among 'id', 'title'; did you mean 'title'"):
        table(tmp_path, b"id,title\n1,x\n").texts("titel")
