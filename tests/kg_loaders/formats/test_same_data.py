"""The same data in two formats give graphs with one fingerprint."""

import pytest
from cases.generated_graphs import NUMBER_ID, ODD_ID, SETTINGS, graphs
from hypothesis import given
from hypothesis import strategies as st

from kg_loaders.formats import kgat_text, recbole_atomic, tables


@SETTINGS
@given(graphs(times=False, weights=False, splits=(True,), vectors=False, entity_features=False, lonely=False))
def test_kgat_text_recbole_and_tables(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("same")
    kgat_text.write(graph, path / "kgat")
    recbole_atomic.write(graph, path / "recbole")
    tables.write(graph, path / "tables")
    prints = {kgat_text.read(path / "kgat").fingerprint, recbole_atomic.read(path / "recbole").fingerprint}
    assert prints | {tables.read(path / "tables").fingerprint} == {graph.fingerprint}


@SETTINGS
@given(graphs(ids=NUMBER_ID | ODD_ID, entity_features=False, lonely=False))
def test_recbole_and_parquet(tmp_path_factory, graph):
    pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("same")
    recbole_atomic.write(graph, path / "recbole")
    tables.write(graph, path / "tables", ".parquet")
    assert recbole_atomic.read(path / "recbole").fingerprint == tables.read(path / "tables").fingerprint


@SETTINGS
@given(graphs(ids=ODD_ID, times=False, vectors=False, splits=(True,), entity_features=False, lonely=False), st.data())
def test_the_order_of_rows_does_not_matter(tmp_path_factory, graph, data):
    path = tmp_path_factory.mktemp("same")
    recbole_atomic.write(graph, path / "shuffled")
    for file in (path / "shuffled").iterdir():
        first, *rest = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(first + b"".join(data.draw(st.permutations(rest))))
    assert recbole_atomic.read(path / "shuffled") == graph
