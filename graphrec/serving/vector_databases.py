"""Item vectors in a database of vectors, where one machine is no longer enough: pgvector, Qdrant. Extra ``vectors``."""

from __future__ import annotations

import importlib.util
import secrets
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, StoreError, check_range

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

FOUND = list[list[tuple[str, float]]]
BATCH_ITEMS = 1024  # uploaded in one request
NEIGHBORS, BUILD_EFFORT, SEARCH_EFFORT = 32, 80, 128  # of an HNSW graph, as in ItemIndex
MOST_SEARCH_EFFORT = 1000  # that pgvector takes


class ItemVectors(ABC):
    r"""Items in a database, found by :math:`p_u \cdot q_j + b_j`.

    The bias is one more column of the vectors, against a 1 in the query, so that an inner product is all that the
    database must know. Vectors come from :func:`~graphrec.serving.towers.towers_of`.
    """

    @abstractmethod
    def write(self, item_ids: Iterable[str], vectors: Tensor, bias: Tensor | None = None) -> None:
        """Put all items there in place of those that were, at once: who searches meanwhile finds the old or the new.

        Args:
            item_ids: Original ids, in the order of the rows.
            vectors: float32 ``[num_items, dim]``.
            bias: float32 ``[num_items]``; zeros when not given.

        Raises:
            ArgumentError: Sizes that do not fit.
            StoreError: The database refuses.
        """

    @abstractmethod
    def search(self, users: Tensor, k: int, exclude: Sequence[str] = ()) -> FOUND:
        """Return the best ``k`` items for each user vector, with their scores.

        Args:
            users: float32 ``[batch_size, dim]``.
            k: How many.
            exclude: Ids of items to leave out.

        Raises:
            ArgumentError: Sizes that do not fit, or ``k`` below 1.
            StoreError: The database refuses, or holds no items.
        """


class PgVectorItems(ItemVectors):
    """Items in a table of PostgreSQL with the extension pgvector (0.8 or newer): ``item_id text, vector vector``.

    Args:
        url: ``postgresql://user@host/database``.
        table: Name of the table, in the first schema of the search path.
        approximate: Make an HNSW index with each :meth:`write`; without it every search looks at all items.

    Raises:
        ArgumentError: A package is missing.
        StoreError: The server cannot be reached, or lacks the extension.
    """

    def __init__(self, url: str, table: str = "graphrec_items", approximate: bool = False) -> None:
        _need("pgvector", "psycopg")
        import psycopg
        from pgvector.psycopg import register_vector

        self.table = table
        self.approximate = approximate
        with _server_refusals("pgvector cannot be used"), ExitStack() as stack:
            self._connection = stack.enter_context(
                closing(psycopg.connect(url, autocommit=True, application_name="graphrec"))
            )
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(self._connection)
            stack.pop_all()  # it stays open where nothing went wrong

    def write(self, item_ids: Iterable[str], vectors: Tensor, bias: Tensor | None = None) -> None:
        """Put all items there; see :meth:`ItemVectors.write`."""
        from psycopg import sql

        ids, rows = _with_bias(item_ids, vectors, bias)
        names = {
            "table": sql.Identifier(self.table),
            "new": sql.Identifier(f"{self.table}_{secrets.token_hex(4)}"),
            "width": sql.Literal(rows.shape[1]),
        }

        def run(statement: str) -> None:
            self._connection.execute(sql.SQL(statement).format(**names))

        with _server_refusals(f"table {self.table}: cannot be written"), self._connection.transaction():
            run("CREATE TABLE {new} (item_id text PRIMARY KEY, vector vector({width}) NOT NULL)")
            copy = sql.SQL("COPY {new} (item_id, vector) FROM STDIN WITH (FORMAT BINARY)").format(**names)
            with self._connection.cursor().copy(copy) as lines:
                lines.set_types(["text", "vector"])
                for id_, row in zip(ids, rows, strict=True):
                    lines.write_row((id_, row))
            if self.approximate:
                run(
                    "CREATE INDEX ON {new} USING hnsw (vector vector_ip_ops) "
                    f"WITH (m = {NEIGHBORS}, ef_construction = {BUILD_EFFORT})"
                )
            run("DROP TABLE IF EXISTS {table}")
            run("ALTER TABLE {new} RENAME TO {table}")

    def search(self, users: Tensor, k: int, exclude: Sequence[str] = ()) -> FOUND:
        """Return the best items; see :meth:`ItemVectors.search`."""
        from psycopg import sql

        check_range("k", k, low=1)
        ask = sql.SQL(
            "SELECT item_id, -(vector <#> %(user)s) FROM {table} WHERE item_id <> ALL(%(out)s) "
            "ORDER BY vector <#> %(user)s LIMIT %(k)s"
        ).format(table=sql.Identifier(self.table))
        effort = str(min(max(SEARCH_EFFORT, 4 * k), MOST_SEARCH_EFFORT))
        with _server_refusals(f"table {self.table}: cannot be searched"), self._connection.transaction():
            if self.approximate:
                # What is left out must not leave the list short.
                settings = {"hnsw.ef_search": effort, "hnsw.iterative_scan": "strict_order"}
                for name, value in settings.items():
                    self._connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            asked = [{"user": user, "out": list(exclude), "k": k} for user in _queries(users)]
            return [self._connection.execute(ask, values).fetchall() for values in asked]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class QdrantItems(ItemVectors):
    """Items in a collection of Qdrant.

    Args:
        client: ``QdrantClient("https://…", api_key=…)`` for a server; ``QdrantClient(":memory:")`` or
            ``QdrantClient(path="…")`` for one inside this process.
        collection: The name that searches use, an alias: each :meth:`write` makes a collection of its own.
        exact: Ask a server to look at all items in every search, not at its HNSW graph; the one inside this process
            always does.

    Raises:
        ArgumentError: qdrant-client is missing.
    """

    def __init__(self, client: QdrantClient, collection: str = "graphrec-items", exact: bool = False) -> None:
        _need("qdrant_client")
        self.client = client
        self.collection = collection
        self.exact = exact

    def write(self, item_ids: Iterable[str], vectors: Tensor, bias: Tensor | None = None) -> None:
        """Put all items there; see :meth:`ItemVectors.write`."""
        from qdrant_client import models

        ids, rows = _with_bias(item_ids, vectors, bias)
        new = f"{self.collection}-{secrets.token_hex(4)}"
        size = models.VectorParams(size=rows.shape[1], distance=models.Distance.DOT)
        with _refusals(f"collection {self.collection}: cannot be written"):
            self.client.create_collection(new, vectors_config=size)
            points = zip(ids, rows, strict=True)
            while batch := list(islice(points, BATCH_ITEMS)):
                self.client.upsert(
                    new,
                    [
                        models.PointStruct(id=_uuid(id_), vector=row.tolist(), payload={"item_id": id_})
                        for id_, row in batch
                    ],
                )
            changes: list[Any] = [
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(collection_name=new, alias_name=self.collection)
                )
            ]
            old = [a.collection_name for a in self.client.get_aliases().aliases if a.alias_name == self.collection]
            if old:
                delete = models.DeleteAlias(alias_name=self.collection)
                changes.insert(0, models.DeleteAliasOperation(delete_alias=delete))
            self.client.update_collection_aliases(changes)
            for name in old:
                self.client.delete_collection(name)

    def search(self, users: Tensor, k: int, exclude: Sequence[str] = ()) -> FOUND:
        """Return the best items; see :meth:`ItemVectors.search`."""
        from qdrant_client import models

        check_range("k", k, low=1)
        out = models.HasIdCondition(has_id=[_uuid(id_) for id_ in exclude])
        asked = [
            models.QueryRequest(
                query=user.tolist(),
                limit=k,
                filter=models.Filter(must_not=[out]) if exclude else None,
                params=models.SearchParams(exact=True) if self.exact else None,
                with_payload=True,
            )
            for user in _queries(users)
        ]
        with _refusals(f"collection {self.collection}: cannot be searched"):
            answers = self.client.query_batch_points(self.collection, asked)
        return [[((p.payload or {})["item_id"], p.score) for p in answer.points] for answer in answers]


@contextmanager
def _server_refusals(what: str) -> Iterator[None]:
    """Turn what PostgreSQL's client raises into StoreError."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise StoreError(f"{what}: {' '.join(str(error).split())}") from error


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn what Qdrant's client raises into StoreError."""
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, QdrantException, ValueError) as error:  # the one inside this process raises ValueError
        raise StoreError(f"{what}: {' '.join(str(error).split())}") from error


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(f"this database needs {', '.join(missing)}: pip install 'graphrec[vectors]'")


def _with_bias(item_ids: Iterable[str], vectors: Tensor, bias: Tensor | None) -> tuple[list[str], NDArray[np.float32]]:
    ids = list(item_ids)
    if vectors.dim() != 2 or len(vectors) != len(ids) or not ids:
        raise ArgumentError(f"vectors must have shape [{len(ids)}, dim], at least one row, got {list(vectors.shape)}")
    if bias is not None and bias.shape != (len(ids),):
        raise ArgumentError(f"bias must have shape [{len(ids)}], got {list(bias.shape)}")
    bias = vectors.new_zeros(len(ids)) if bias is None else bias
    rows: NDArray[np.float32] = torch.cat([vectors.float(), bias.float().unsqueeze(1)], dim=1).cpu().numpy()
    return ids, rows


def _queries(users: Tensor) -> NDArray[np.float32]:
    if users.dim() != 2:
        raise ArgumentError(f"users must have shape [batch_size, dim], got {list(users.shape)}")
    asked: NDArray[np.float32] = torch.cat([users.float(), users.new_ones(len(users), 1)], dim=1).cpu().numpy()
    return asked


def _uuid(item_id: str) -> str:
    """Return the point's id: Qdrant takes numbers and UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, item_id))
