"""Store: what happens while a service runs, safe on disk before it is acknowledged."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from graphrec.errors import StoreError, check_choice

KINDS = ("like", "dislike", "undo")
"""What an event can be."""

APPLICATION_ID, FORMAT_VERSION = 0x67726563, 1  # "grec", in the header of the file
MOST_IN_ONE_COMMIT = 512  # writers that share one fsync
PAGE = 10_000  # rows read at once
STOP_SECONDS = 30.0

SCHEMA = """
CREATE TABLE items (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, item_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, facts TEXT NOT NULL
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL,
    time REAL NOT NULL, event_id TEXT UNIQUE
);
"""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Event:
    """Something that a user did with an item.

    Args:
        user_id: Who; an id of the data set, or any other for somebody new.
        item_id: With which item.
        kind: One of :data:`KINDS`. ``like`` adds the item to the user's history; ``dislike`` takes it out of the
            history and of all lists; ``undo`` withdraws either.
        time: Seconds since 1970; now when not given.
        event_id: The sender's own id of the event: one that is sent twice counts once.

    Raises:
        ArgumentError: The kind is unknown.
    """

    user_id: str
    item_id: str
    kind: str = "like"
    time: float = field(default_factory=time.time)
    event_id: str | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)


@dataclass(frozen=True)
class Fact:
    """A triple that links a new item to an entity of the knowledge graph.

    Args:
        relation_id: A relation of the graph.
        entity_id: An entity of the graph.
        item_is_head: Whether the item is the triple's head, and the entity its tail, or the other way round.
    """

    relation_id: str
    entity_id: str
    item_is_head: bool = True


@dataclass(frozen=True)
class NewItem:
    """An item that joins a catalogue without retraining.

    Args:
        item_id: An id that no entity of the graph has.
        title: For people; empty where there is none.
        facts: What the knowledge graph says of it.
    """

    item_id: str
    title: str
    facts: tuple[Fact, ...]


class Listener(Protocol):
    """Is told what has become durable, in its order, by the store's own thread."""

    def on_items(self, items: Sequence[NewItem]) -> None:
        """Take new items."""

    def on_events(self, events: Sequence[Event]) -> None:
        """Take events."""


@dataclass
class _Job:
    events: Sequence[Event] = ()
    items: Sequence[NewItem] = ()
    call: Callable[[], Any] | None = None
    done: Future[Any] = field(default_factory=Future)


class Store:
    """Events and new items in one SQLite file, written ahead (WAL) and synced before they are acknowledged.

    One thread owns the file. Writes that wait for it together share one commit, so one ``fsync`` serves up to 512 of
    them. What was acknowledged survives a killed process and, where the disk keeps its promise, a power failure.
    Listeners hear of every write after its commit and before its acknowledgement: who reads after an acknowledgement
    sees the write.

    Args:
        path: The file; it is made when absent. One process at a time can hold it.

    Raises:
        StoreError: The file is held by another process, is no store, or has another format version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Store(f"{folder}/live.sqlite") as store:
        ...         print(store.add_events([Event("ann", "Alien")]).result())
        ...     with Store(f"{folder}/live.sqlite") as store:
        ...         print(store.count())
        1
        {'events': 1, 'items': 0}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._listeners: list[Listener] = []
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._closed = False
        self._lock = threading.Lock()
        self._database = self._open()
        self._thread = threading.Thread(target=self._work, name="graphrec-store", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be opened: {error}") from error
        try:
            # Held until the process ends, however it ends: two services would not hear of each other's events.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            self._check_format(database)
            database.execute("COMMIT")
        except (sqlite3.Error, StoreError) as error:
            database.close()
            if isinstance(error, StoreError):
                raise
            busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            reason = "is in use by another process" if busy else f"cannot be read: {error}"
            raise StoreError(f"{self.path}: {reason}") from error
        return database

    def _check_format(self, database: sqlite3.Connection) -> None:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if not application and not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in SCHEMA.strip().split(";\n"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        elif application != APPLICATION_ID:
            raise StoreError(f"{self.path}: is a database of something else, not a store of graphrec")
        elif version != FORMAT_VERSION:
            raise StoreError(f"{self.path}: is a store of format {version}, this graphrec reads {FORMAT_VERSION}")

    def add_events(self, events: Iterable[Event]) -> Future[int]:
        """Write events; the future holds how many were new, once they are durable and the listeners know of them.

        Raises:
            StoreError: The store is closed; or, from the future, the disk refuses (nothing of the call is kept then).
        """
        return self._submit(_Job(events=tuple(events)))

    def add_items(self, items: Iterable[NewItem]) -> Future[int]:
        """Write items, as :meth:`add_events`; an item whose id is there already is not written again."""
        return self._submit(_Job(items=tuple(items)))

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener all that has been written, and from now on all that will be, each thing once."""
        items, events, complete = 0, 0, False
        while not complete:
            # Page by page, so that writers wait for one page at most; the last step leaves no gap.
            items, events, complete = self.run(partial(self._catch_up, listener, items, events))

    def unsubscribe(self, listener: Listener) -> None:
        """Tell a listener no more."""
        with suppress(StoreError):  # a closed store tells nobody
            self.run(lambda: self._listeners.remove(listener))

    def count(self) -> dict[str, int]:
        """Return how many events and items there are."""
        tables = ("events", "items")
        ask = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM items)"
        return dict(zip(tables, self.run(lambda: self._database.execute(ask).fetchone()), strict=True))

    def select(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query of our own; values take the place of its question marks."""
        return self.run(lambda: self._database.execute(query, values).fetchall())

    def run(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns that runs between two commits, in the store's thread."""
        result: Result = self._submit(_Job(call=call)).result()
        return result

    def close(self) -> None:
        """Finish what is waiting and let the file go; more than once does no harm."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    # Everything below runs in the store's own thread, but _submit.

    def _submit(self, job: _Job) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.path}: the store is closed")
            self._jobs.put(job)
        return job.done

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            with suppress(queue.Empty):
                while len(jobs) < MOST_IN_ONE_COMMIT:
                    jobs.append(self._jobs.get_nowait())
            writes: list[_Job] = []
            for job in jobs:
                if job is not None and job.call is None:
                    writes.append(job)
                    continue
                self._commit(writes)
                writes = []
                if job is None:
                    self._database.close()
                    return
                _settle(job, job.call)
            self._commit(writes)

    def _commit(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            written = [(self._insert_items(job.items), self._insert_events(job.events)) for job in jobs]
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            for job in jobs:
                job.done.set_exception(StoreError(f"{self.path}: cannot be written: {error}"))
            return
        for job, (items, events) in zip(jobs, written, strict=True):
            _settle(job, partial(self._tell, items, events))

    def _tell(self, items: Sequence[NewItem], events: Sequence[Event]) -> int:
        for listener in self._listeners:
            if items:
                listener.on_items(items)
            if events:
                listener.on_events(events)
        return len(items) + len(events)

    def _insert_items(self, items: Sequence[NewItem]) -> list[NewItem]:
        sql = "INSERT OR IGNORE INTO items (item_id, title, facts) VALUES (?, ?, ?)"
        rows = ((item, (item.item_id, item.title, _to_json(item.facts))) for item in items)
        return [item for item, row in rows if self._database.execute(sql, row).rowcount]

    def _insert_events(self, events: Sequence[Event]) -> list[Event]:
        sql = "INSERT OR IGNORE INTO events (user_id, item_id, kind, time, event_id) VALUES (?, ?, ?, ?, ?)"
        rows = ((e, (e.user_id, e.item_id, e.kind, e.time, e.event_id)) for e in events)
        return [event for event, row in rows if self._database.execute(sql, row).rowcount]

    def _catch_up(self, listener: Listener, after_item: int, after_event: int) -> tuple[int, int, bool]:
        sql = "SELECT seq, item_id, title, facts FROM items WHERE seq > ? ORDER BY seq"
        items = self._database.execute(sql, (after_item,)).fetchall()  # few, and the model grows by all at once
        if items:
            listener.on_items([NewItem(id_, title, _from_json(facts)) for _, id_, title, facts in items])
        sql = "SELECT seq, user_id, item_id, kind, time FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        events = self._database.execute(sql, (after_event, PAGE)).fetchall()
        if events:
            listener.on_events([Event(*row[1:]) for row in events])
        complete = len(events) < PAGE
        if complete:
            self._listeners.append(listener)
        return items[-1][0] if items else after_item, events[-1][0] if events else after_event, complete


def _settle(job: _Job, call: Callable[[], Any] | None) -> None:
    assert call is not None
    try:
        result = call()
    except Exception as error:  # handed to whoever waits
        job.done.set_exception(error)
    else:
        job.done.set_result(result)


def _to_json(facts: Sequence[Fact]) -> str:
    return json.dumps([[fact.relation_id, fact.entity_id, fact.item_is_head] for fact in facts], ensure_ascii=False)


def _from_json(text: str) -> tuple[Fact, ...]:
    return tuple(Fact(*row) for row in json.loads(text))
