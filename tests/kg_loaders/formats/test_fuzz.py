"""No bytes bring anything but a FormatError out of a reader."""

import io
import json

import numpy as np
import pytest
from cases.generated_graphs import fuzz, malformed
from hypothesis import strategies as st

from kg_loaders import movielens
from kg_loaders.formats import kgat_text, recbole_atomic, sequence_text, tables

FEW = 200  # of 60, a version of hypothesis drew none that RecBole's reader could read
MANY = [FEW, pytest.param(2_500, marks=pytest.mark.slow)]  # over five readers: more than 10,000


def npy():
    """All, or the beginning, of a small true .npy file, perhaps with a byte changed."""
    whole = []
    for array in (
        np.ones((4, 2), np.float32),
        np.full((3, 1), np.nan),
        np.arange(3),
        np.array([["a"]]),
        np.ones((0, 2)),
    ):
        buffer = io.BytesIO()
        np.save(buffer, array)
        whole.append(buffer.getvalue())
    return changed(whole)


@st.composite
def changed(draw, whole):
    content = bytearray(draw(st.sampled_from(whole)))
    if draw(st.booleans()):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: None if draw(st.booleans()) else draw(st.integers(0, len(content)))])


@pytest.mark.parametrize("examples", MANY)
def test_kgat_text(tmp_path, examples):
    lists = malformed(
        b" ", (b"org_id remap_id", b"org_id remap_id freebase_id", b"remap_id", b"remap_id\torg_id", b"x")
    )
    num_read = fuzz(
        kgat_text.read,
        tmp_path,
        {"train.txt": malformed(b" ")},
        {
            "test.txt": malformed(b" "),
            "kg_final.txt": malformed(b" "),
            "item_list.txt": lists,
            "relation_list.txt": lists,
            "image_feat.npy": npy(),
        },
        examples,
    )
    assert num_read > 0


@pytest.mark.parametrize("examples", MANY)
def test_recbole_atomic(tmp_path, examples):
    inter = (
        b"user_id:token\titem_id:token",
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float",
        b"user_id",
    )
    num_read = fuzz(
        recbole_atomic.read,
        tmp_path,
        {"x.inter": malformed(b"\t", inter)},
        {
            "x.item": malformed(
                b"\t", (b"item_id:token\tmovie_title:token_seq", b"item_id:token\tv:float_seq", b"item_id:token")
            ),
            "x.user": malformed(b"\t", (b"user_id:token\tage:float", b"user_id:token")),
            "x.kg": malformed(b"\t", (b"head_id:token\trelation_id:token\ttail_id:token",)),
            "x.link": malformed(b"\t", (b"item_id:token\tentity_id:token",)),
        },
        examples,
    )
    assert num_read > 0


@pytest.mark.parametrize("examples", MANY)
def test_tables(tmp_path, examples):
    num_read = fuzz(
        tables.read,
        tmp_path,
        {
            "interactions.csv": malformed(
                b",", (b"user_id,item_id", b"user_id,item_id,time,split", b'"user_id","item_id"')
            )
        },
        {
            "items.csv": malformed(b",", (b"item_id,title", b'"item_id","title"', b"item_id")),
            "triples.tsv": malformed(b"\t", (b"head_id\trelation_id\ttail_id",)),
            "links.csv": malformed(b",", (b"item_id,entity_id",)),
        },
        examples,
    )
    assert num_read > 0


@pytest.mark.parametrize("separator", ["::", " ", ";", "é", "\t"])
def test_tables_with_any_separator(tmp_path, separator):
    columns = {"user_id": 0, "item_id": 1}
    ratings = tables.Table("ratings.dat", columns, separator, header=False)
    content = {"ratings.dat": malformed(separator.encode())}
    assert fuzz(lambda folder: tables.read(folder, interactions=ratings), tmp_path, content, {}, FEW) > 0


@pytest.mark.parametrize("examples", MANY)
def test_sequence_text(tmp_path, examples):
    number = st.integers(-1, 4) | st.sampled_from([10**30, 1.5, None, "a", True])
    value = st.recursive(number, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
    good = st.dictionaries(st.integers(0, 4).map(str), st.lists(st.integers(0, 4)), min_size=1, max_size=3)
    odd = st.dictionaries(st.integers(-1, 4).map(str) | st.text(max_size=3), value, max_size=3)
    attributes = st.one_of(
        good.map(lambda table: json.dumps(table).encode()),
        odd.map(lambda table: json.dumps(table).encode()),
        st.sampled_from([b"[" * 100_000, b'{"1": ' + b"9" * 5000 + b"}", b'{"1": [1], "1": [2]}', b"[]", b"{}"]),
        st.binary(max_size=40),
    )
    num_read = fuzz(
        lambda folder: sequence_text.read(folder / "x.txt"),
        tmp_path,
        {"x.txt": malformed(b" ")},
        {"x_item2attributes.json": attributes},
        examples,
    )
    assert num_read > 0


@pytest.mark.parametrize("examples", MANY)
def test_movielens(tmp_path, examples):
    film = st.tuples(st.sampled_from([b"1", b"2", b"3", b""]), st.sampled_from([b"Heat", b'"He""at"', b'"', b"\xff"]))
    films = st.lists(film, min_size=1, max_size=3, unique_by=lambda row: row[0])
    rating = st.tuples(*[st.sampled_from([b"1", b"2", b"3"])] * 4, st.sampled_from([b"\n", b"\r\n", b"::\n"]))
    ratings = st.lists(rating, min_size=1, max_size=4).map(
        lambda rows: b"".join(b"::".join(row[:-1]) + row[-1] for row in rows)
    )
    num_read = fuzz(
        movielens.read,
        tmp_path,
        {
            "ratings.dat": ratings | malformed(b"::"),
            "movies.dat": films.map(lambda rows: b"".join(b"\t".join((*row, b"Crime\n")) for row in rows)),
        },
        {
            "users.dat": malformed(b"\t"),
            "plots.tsv": films.map(
                lambda rows: b"".join(b"\t".join(row) + b"\n" for row in ((b"item_id", b"plot"), *rows))
            ),
        },
        examples,
    )
    assert num_read > 0


@pytest.mark.parametrize("examples", [FEW, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_parquet(tmp_path, examples):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    whole = tmp_path / "whole"
    pq.write_table(pa.table({"user_id": ["a", "b"], "item_id": [1, 2], "time": [0.5, 1.5]}), whole)
    content = {"interactions.parquet": changed([whole.read_bytes()])}
    (tmp_path / "data").mkdir()
    assert fuzz(tables.read, tmp_path / "data", content, {}, examples) > 0
