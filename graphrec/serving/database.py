"""Database: where the tables of a store lie; here in one SQLite file."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from graphrec.errors import StoreError

APPLICATION_ID, FORMAT_VERSION = 0x67726563, 1  # "grec"
BUSY_SECONDS = 1.0

Row = tuple[Any, ...]

TABLES = {
    "items": ("item_id", "title", "facts"),
    "events": ("user_id", "item_id", "kind", "time", "event_id"),
    "lists": ("list_id", "user_id", "model", "time", "items", "teams"),
    "clicks": ("list_id", "item_id", "place", "team", "dwell", "time", "event_id"),
}
"""The columns of each table that are written; each also has ``seq``, which rises in the order of writing."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS items (seq {seq}, item_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, "
    "facts TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS events (seq {seq}, user_id TEXT NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL, "
    "time {real} NOT NULL, event_id TEXT UNIQUE)",
    "CREATE TABLE IF NOT EXISTS lists (seq {seq}, list_id TEXT NOT NULL UNIQUE, user_id TEXT, model TEXT NOT NULL, "
    "time {real} NOT NULL, items TEXT NOT NULL, teams TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS clicks (seq {seq}, list_id TEXT NOT NULL, item_id TEXT NOT NULL, "
    "place INTEGER NOT NULL, team TEXT NOT NULL, dwell {real}, time {real} NOT NULL, event_id TEXT UNIQUE)",
)


def insert_sql(table: str, placeholder: str = "?") -> str:
    """Return the statement that inserts a row of :data:`TABLES` unless one of the same id is there.

    Example:
        >>> insert_sql("items")
        'INSERT INTO items (item_id, title, facts) VALUES (?, ?, ?) ON CONFLICT DO NOTHING'
    """
    columns = TABLES[table]
    places = ", ".join([placeholder] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608


class Database(ABC):
    """The tables of one store, held by one process and used by one thread.

    Attributes:
        where: What messages call it, without a password.
    """

    where: str

    @abstractmethod
    def write(self, rows: Sequence[tuple[str, Row]]) -> list[int | None]:
        """Insert rows, durably and all or none, in their order.

        Args:
            rows: The table of each, and its values in the order of :data:`TABLES`.

        Returns:
            The ``seq`` of each row; ``None`` for one that was there already.

        Raises:
            StoreError: The database refuses, or cannot be reached.
        """

    @abstractmethod
    def select(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query; values take the place of its question marks.

        Raises:
            StoreError: The database refuses, or cannot be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def ready(self) -> bool:
        """Make sure that it can be reached, and return whether it had been lost since the last time.

        Raises:
            StoreError: It cannot be reached, or another process has taken it.
        """
        return False


class SQLiteDatabase(Database):
    """One file, written ahead (WAL) and synced with every transaction.

    Args:
        path: The file; made when absent.
        read_only: Only :meth:`select`, from a file that is there and that nobody holds.

    Raises:
        StoreError: The file is held by another process, is no store, or has another format version.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.where = str(path)
        if read_only and not path.is_file():
            raise StoreError(f"{path}: there is no such store")
        address = path.absolute().as_uri() + "?mode="
        if path.is_file():
            # First as it lies there, without its locks and its log: of what is not ours nothing changes.
            with suppress(sqlite3.Error), closing(sqlite3.connect(address + "ro&immutable=1", uri=True)) as seen:
                self._is_store(seen)
        address += "rw" if read_only else "rwc"
        try:
            database = sqlite3.connect(
                address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StoreError(f"{path}: cannot be opened: {error}") from error
        self._database = database
        try:
            # Held until the process ends, however it ends: two services would not hear of each other's events.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            is_store = self._is_store(database)
            if read_only and not is_store:
                raise StoreError(f"{path}: is empty, not a store of graphrec")
            if not read_only:
                self._make_tables(is_store)
            database.execute("COMMIT")
            database.execute("PRAGMA query_only = ON" if read_only else "PRAGMA journal_mode = WAL")
        except (sqlite3.Error, StoreError) as error:
            database.close()
            if isinstance(error, StoreError):
                raise
            busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            reason = "is in use by another process" if busy else f"cannot be read: {error}"
            raise StoreError(f"{path}: {reason}") from error

    def _is_store(self, database: sqlite3.Connection) -> bool:
        """Return whether a database is a store of this format; ``False`` where nothing is in it yet.

        Raises:
            StoreError: It is something else, or of another format.
        """
        (application,) = database.execute("PRAGMA application_id").fetchone()
        if not application and not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return False
        if application != APPLICATION_ID:
            raise StoreError(f"{self.where}: is a database of something else, not a store of graphrec")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != FORMAT_VERSION:
            raise StoreError(f"{self.where}: is a store of format {version}, this graphrec reads {FORMAT_VERSION}")
        return True

    def _make_tables(self, is_store: bool) -> None:
        if not is_store:
            self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        for statement in SCHEMA:  # also in a store that was made before lists were kept
            self._database.execute(statement.format(seq="INTEGER PRIMARY KEY AUTOINCREMENT", real="REAL"))

    def write(self, rows: Sequence[tuple[str, Row]]) -> list[int | None]:
        """Insert rows; see :meth:`Database.write`."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            cursors = [self._database.execute(insert_sql(table), row) for table, row in rows]
            self._database.execute("COMMIT")
        except Exception as error:  # a text that is no Unicode, too: whatever it is, nothing of it is kept
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise StoreError(f"{self.where}: cannot be written: {error}") from error
        return [cursor.lastrowid if cursor.rowcount else None for cursor in cursors]

    def select(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query; see :meth:`Database.select`."""
        try:
            return self._database.execute(query, values).fetchall()
        except Exception as error:  # as in write
            raise StoreError(f"{self.where}: cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()
