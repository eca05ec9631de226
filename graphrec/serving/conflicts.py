"""refusals: rows of a store that bear the id of another row and say something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphrec.errors import ArgumentError, ConflictError, GraphrecError
from graphrec.serving.database import TABLES, Database, Row

SAME = {
    "events": ("event_id", ("user_id", "item_id", "kind")),
    "clicks": ("event_id", ("list_id", "item_id")),
    "items": ("item_id", ("title", "facts")),
}
"""The id of a table's rows, and what two rows of one id must share to be one thing, sent twice."""

MOST_VALUES = 500  # in one query

_PLACES = {
    table: (TABLES[table].index(key), tuple(TABLES[table].index(column) for column in columns))
    for table, (key, columns) in SAME.items()
}


def refusals(database: Database, groups: Sequence[Sequence[tuple[str, Row]]]) -> list[GraphrecError | None]:
    """Return for each group of rows why it cannot be written, or ``None``.

    It cannot where one of its rows has the id of another thing: of one that is kept, of one in a group before it that
    can be written, or of one in the group itself.

    Args:
        database: Where they would be written.
        groups: The table of each row, and its values in the order of :data:`~graphrec.serving.database.TABLES`.

    Raises:
        StoreError: The database cannot be read.
    """
    named = [list(_with_ids(rows)) for rows in groups]
    asked = {table: [id_ for rows in named for name, id_, _ in rows if name == table] for table in SAME}
    known = {(table, id_): row for table in SAME for id_, row in known_rows(database, table, asked[table]).items()}
    found: list[GraphrecError | None] = []
    for rows in named:
        own: dict[tuple[str, str], Row] = {}
        refused = None
        for table, id_, same in rows:
            if own.setdefault((table, id_), known.get((table, id_), same)) != same:
                refused = item_of_another(id_) if table == "items" else event_of_another(id_)
                break
        else:
            known.update(own)
        found.append(refused)
    return found


def known_rows(database: Database, table: str, ids: Sequence[str]) -> dict[str, Row]:
    """Return, of those of some ids that are there, what :data:`SAME` compares."""
    key, columns = SAME[table]
    found: dict[str, Row] = {}
    for start in range(0, len(ids), MOST_VALUES):
        some = ids[start : start + MOST_VALUES]
        marks = ", ".join("?" * len(some))
        sql = f"SELECT {key}, {', '.join(columns)} FROM {table} WHERE {key} IN ({marks})"  # noqa: S608
        found.update((id_, tuple(row)) for id_, *row in database.select(sql, some))
    return found


def item_of_another(item_id: str) -> ArgumentError:
    """Return the error for an item whose id is that of another."""
    return ArgumentError(f"item_id {item_id!r} has joined already, with another title or other facts")


def event_of_another(event_id: str) -> ConflictError:
    """Return the error for an event whose own id is that of another."""
    return ConflictError(f"event_id {event_id!r} is that of another event")


def _with_ids(rows: Sequence[tuple[str, Row]]) -> Iterator[tuple[str, str, Row]]:
    """Yield the table, the id and what :data:`SAME` compares of rows that have an id."""
    for table, row in rows:
        if table in SAME:
            key, columns = _PLACES[table]
            if row[key] is not None:
                yield table, row[key], tuple(row[column] for column in columns)
