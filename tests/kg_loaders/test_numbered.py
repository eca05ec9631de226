import numpy as np
import pytest

from kg_loaders import FormatError
from kg_loaders.numbered import read_numbered_list, read_vectors, write_numbered_list


def read(tmp_path, content):
    (tmp_path / "item_list.txt").write_bytes(content.encode())
    return read_numbered_list(tmp_path / "item_list.txt")


@pytest.mark.parametrize(
    "content",
    [
        "org_id remap_id\nA b 0\nc 1\n",
        "org_id remap_id\r\nc 1\r\n\r\nA b 0 \r\n",
        "remap_id\torg_id\n1\tc\n0\tA b\n",
        "\ufefforg_id\tremap_id\nA b\t0\nc\t1",
    ],
)
def test_lists_in_any_order_and_dress(tmp_path, content):
    listed = read(tmp_path, content)
    assert listed.size == 2
    assert listed.columns == {"org_id": ["A b", "c"]}


def test_the_published_yelp2018_list_with_glued_columns(tmp_path):
    listed = read(tmp_path, "org_id remap_id freebase_id\nydUqg 0ydUqg\nN2Pl 1N2Pl\n")
    assert listed.columns == {"org_id": ["ydUqg", "N2Pl"], "freebase_id": ["ydUqg", "N2Pl"]}
    with pytest.raises(FormatError, match="2 columns, expected 3"):
        read(tmp_path, "org_id remap_id freebase_id\nydUqg 0\n")


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("a b\nx 0\n", 1, "'remap_id'"),
        ("remap_id remap_id\n0 0\n", 1, "distinct"),
        ("org_id remap_id\n", None, "no rows"),
        ("org_id remap_id\nx 0\ny\n", 3, "1 columns, expected 2"),
        ("org_id remap_id\nx 0\ny z\n", 3, "'z' is not a whole number"),
        ("org_id remap_id\nx 0\ny -1\n", 3, "'-1' is not a whole number"),
        ("org_id remap_id\nx 0\ny " + "9" * 30 + "\n", 3, "is not a whole number"),
        ("org_id remap_id\nx 0\n\ny 0\n", 4, "remap_id 0 occurs twice"),
        ("org_id remap_id\nx 0\ny 2\n", None, "1 is missing"),
        ("", None, "empty"),
    ],
)
def test_malformed_lists(tmp_path, content, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read(tmp_path, content)
    assert caught.value.line == line


def test_bad_utf8_names_its_line(tmp_path):
    (tmp_path / "item_list.txt").write_bytes(b"org_id remap_id\nx 0\n\xff 1\n")
    with pytest.raises(FormatError, match="not UTF-8") as caught:
        read_numbered_list(tmp_path / "item_list.txt")
    assert caught.value.line == 3


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"org_id": ["a b", "c"]},
        {"org_id": ["", " c "]},
        {"title": ["x", ""]},
        {"title": ["x ", " "], "org_id": ["a", "b"]},
    ],
)
def test_what_is_written_comes_back(tmp_path, columns):
    write_numbered_list(tmp_path, "item", 2, columns)
    listed = read_numbered_list(tmp_path / "item_list.txt")
    assert (listed.size, listed.columns) == (2, columns)


def test_an_absent_list_is_none():
    assert read_numbered_list(None) is None


def test_vectors_of_any_numeric_type_become_float32(tmp_path):
    for kind in (np.float16, np.float64, np.int32, np.uint8):
        np.save(tmp_path / "image_feat.npy", np.arange(6, dtype=kind).reshape(3, 2))
        ((name, values),) = read_vectors(tmp_path)
        assert name == "image"
        assert values.dtype == np.float32
        assert values.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[1.0], [np.nan]]), "row 1 holds NaN"),
        (np.array([[1.0], [1e300]]), "row 1 holds NaN or infinity"),
        (np.arange(3.0), r"must hold numbers \[num_items, dim\], got float64 \[3\]"),
        (np.array([["a"]]), "must hold numbers"),
        (np.array([[True]]), "must hold numbers"),
        (np.array([[None]]), "not a whole .npy"),
    ],
)
def test_bad_vectors(tmp_path, array, reason):
    np.save(tmp_path / "image_feat.npy", array)
    with pytest.raises(FormatError, match=reason):
        list(read_vectors(tmp_path))


def test_a_header_that_promises_too_much_asks_for_no_memory(tmp_path):
    with (tmp_path / "image_feat.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(80))
    with pytest.raises(FormatError, match=r"not a whole \.npy file"):
        list(read_vectors(tmp_path))
