"""PostgresDatabase: the tables of a store on a PostgreSQL server. Extra ``postgres``."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from graphrec.errors import StoreError
from graphrec.serving.database import APPLICATION_ID, FORMAT_VERSION, SCHEMA, Database, Row, insert_sql

if TYPE_CHECKING:
    from psycopg import Connection

SCHEMES = ("postgresql", "postgres")
DEFAULT_SCHEMA = "graphrec"
CONNECT_SECONDS = "5"
LOCK_SECONDS = 3.0  # a server takes a moment to notice that the process before us was killed
KEY_RANGE = 2**31  # of an advisory lock's second key


def is_postgres(where: object) -> bool:
    """Whether a store's address is a PostgreSQL URL.

    Example:
        >>> is_postgres("postgresql://db.local/shop"), is_postgres("live.sqlite")
        (True, False)
    """
    scheme, found, _ = str(where).partition("://")
    return bool(found) and scheme in SCHEMES


class PostgresDatabase(Database):
    """Tables in one schema of a PostgreSQL database, each transaction synced by the server before it is acknowledged.

    One process at a time holds a schema, by an advisory lock of its session; when the process ends, however it ends,
    the server lets go of it. A connection that is lost is made anew with the next call.

    Args:
        url: ``postgresql://user@host:port/database?schema=graphrec``; whatever libpq allows. Passwords belong into
            ``~/.pgpass`` or ``PGPASSWORD``, for every program sees the command line. Not through a pooler that shares
            sessions.
        read_only: Only :meth:`select`, beside the process that holds it.

    Raises:
        StoreError: psycopg is missing, the server cannot be reached, the schema is held by another process, is no
            store, or has another format version.
    """

    def __init__(self, url: str, read_only: bool = False) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError("a store on PostgreSQL needs psycopg: pip install 'graphrec[postgres]'")
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        url, self.schema = _split_schema(url)
        try:
            self._options: dict[str, Any] = dict(conninfo_to_dict(url))
        except ProgrammingError as error:
            # Its text may hold the password.
            raise StoreError(
                "the store's address is no PostgreSQL URL: postgresql://user@host:port/database"
            ) from error
        host, port, name = (self._options.get(key) for key in ("host", "port", "dbname"))
        self.where = f"postgresql://{host or ''}{f':{port}' if port else ''}/{name or ''}?schema={self.schema}"
        self._read_only = read_only
        self._connection = self._connect()

    def _connect(self) -> Connection[Row]:
        import psycopg

        options = {"connect_timeout": CONNECT_SECONDS, "application_name": "graphrec", **self._options}
        try:
            connection = psycopg.connect(**options, autocommit=True)
        except psycopg.Error as error:
            raise StoreError(f"{self.where}: cannot be reached: {_reason(error)}") from error
        try:
            self._prepare(connection)
        except (psycopg.Error, StoreError) as error:
            connection.close()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.where}: cannot be opened: {_reason(error)}") from error
        return connection

    def _prepare(self, connection: Connection[Row]) -> None:
        from psycopg import sql

        schema = sql.Identifier(self.schema)
        connection.execute(sql.SQL("SET search_path TO {}").format(schema))
        if self._read_only:
            connection.execute("SET default_transaction_read_only TO on")
            self._check_format(connection)
            return
        (durable,) = _only(connection.execute("SHOW synchronous_commit"))
        if durable == "off":
            connection.execute("SET synchronous_commit TO on")
        with connection.transaction():
            # One at a time, for two that make the same tables would trip over each other.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (APPLICATION_ID,))
            # Asked first: who may not make schemas may be given one.
            if _only(connection.execute("SELECT to_regnamespace(quote_ident(%s))", (self.schema,)))[0] is None:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            if not self._tables(connection):
                connection.execute("CREATE TABLE format (version integer NOT NULL)")
                connection.execute("INSERT INTO format VALUES (%s)", (FORMAT_VERSION,))
            self._check_format(connection)
            types = {"seq": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "real": "DOUBLE PRECISION"}
            for statement in SCHEMA:
                connection.execute(statement.format(**types).encode())
        self._lock(connection)

    def _tables(self, connection: Connection[Row]) -> set[str]:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (self.schema,))
        return {name for (name,) in found}

    def _check_format(self, connection: Connection[Row]) -> None:
        tables = self._tables(connection)
        if not tables:
            raise StoreError(f"{self.where}: there is no such store")
        if "format" not in tables:
            raise StoreError(f"{self.where}: holds tables of something else, not a store of graphrec")
        (version,) = _only(connection.execute("SELECT version FROM format"))
        if version != FORMAT_VERSION:
            raise StoreError(f"{self.where}: is a store of format {version}, this graphrec reads {FORMAT_VERSION}")

    def _lock(self, connection: Connection[Row]) -> None:
        (oid,) = _only(connection.execute("SELECT oid::bigint FROM pg_namespace WHERE nspname = %s", (self.schema,)))
        until = time.monotonic() + LOCK_SECONDS
        ask = "SELECT pg_try_advisory_lock(%s::integer, %s::integer)"
        while not _only(connection.execute(ask, (APPLICATION_ID, oid % KEY_RANGE)))[0]:
            if time.monotonic() > until:
                raise StoreError(f"{self.where}: is in use by another process")
            time.sleep(0.05)

    def ready(self) -> bool:
        """Connect anew where the connection was lost; see :meth:`Database.ready`."""
        import psycopg

        with suppress(psycopg.Error):
            self._connection.execute("SELECT 1")
            return False
        self._connection.close()
        self._connection = self._connect()
        return True

    def write(self, rows: Sequence[tuple[str, Row]]) -> list[int | None]:
        """Insert rows; see :meth:`Database.write`."""
        found: list[int | None] = []
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                for table, part in groupby(rows, key=lambda row: row[0]):
                    values = [row for _, row in part]
                    # All of them in one round trip.
                    cursor.executemany(f"{insert_sql(table, '%s')} RETURNING seq".encode(), values, returning=True)
                    for _ in values:
                        row = cursor.fetchone()
                        found.append(None if row is None else row[0])
                        cursor.nextset()
        except Exception as error:  # a text that is no Unicode, too: whatever it is, nothing of it is kept
            raise StoreError(f"{self.where}: cannot be written: {_reason(error)}") from error
        return found

    def select(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query; see :meth:`Database.select`."""
        try:
            return self._connection.execute(query.replace("?", "%s").encode(), values or None).fetchall()
        except Exception as error:  # as in write
            raise StoreError(f"{self.where}: cannot be read: {_reason(error)}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _split_schema(url: str) -> tuple[str, str]:
    """Take the schema out of a URL, for libpq does not know it."""
    base, _, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    schema = dict(options).get("schema") or DEFAULT_SCHEMA
    rest = urlencode([option for option in options if option[0] != "schema"])
    return f"{base}?{rest}" if rest else base, schema


def _only(cursor: Any) -> Row:
    row: Row | None = cursor.fetchone()
    assert row is not None
    return row


def _reason(error: Exception) -> str:
    """Return the server's message without its details, which may hold values."""
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    return " ".join(str(message or error).split())
