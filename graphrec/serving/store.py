"""Store: what happens while a service runs, safe on disk before it is acknowledged."""

from __future__ import annotations

import json
import queue
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
from graphrec.serving.conflicts import known_rows, refusals
from graphrec.serving.database import Database, Row, SQLiteDatabase
from graphrec.serving.postgres import PostgresDatabase, is_postgres

KINDS = ("like", "dislike", "undo")
"""What an event can be."""

GUEST = "guest-"
"""What ids of those begin with who came without one."""

MOST_IN_ONE_COMMIT = 512  # writers that share one fsync
PAGE = 10_000  # rows read at once
STOP_SECONDS = 30.0

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
        event_id: The sender's own id of the event, of no other event by whomever: one that is sent twice counts once.

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


@dataclass(frozen=True)
class ShownList:
    """A list that somebody was shown, kept for :mod:`graphrec.serving.online`.

    Args:
        list_id: Its id, which clicks name.
        user_id: Whose it was; ``None`` for a stranger.
        model: The model that made it, or "first+second" where two shared it.
        item_ids: What was shown, best first.
        teams: For each item the model that placed it, "a" or "b"; empty for a list of one model.
        time: Seconds since 1970; now when not given.
    """

    list_id: str
    user_id: str | None
    model: str
    item_ids: tuple[str, ...]
    teams: str = ""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Click:
    """A click on an item of a list that was shown.

    Args:
        list_id: The list.
        item_id: The item.
        place: Its place in the list, from 1.
        team: The model that placed it, as in :class:`ShownList`.
        dwell: Seconds that it held the user; ``None`` where that is not known. It may be sent later, in a click of its
            own: the longest counts.
        time: Seconds since 1970; now when not given.
        event_id: The sender's own id: a click that is sent twice counts once.
    """

    list_id: str
    item_id: str
    place: int
    team: str = ""
    dwell: float | None = None
    time: float = field(default_factory=time.time)
    event_id: str | None = None


class Listener(Protocol):
    """Is told what has become durable, in its order, by the store's own thread."""

    def on_items(self, items: Sequence[NewItem]) -> None:
        """Take new items."""

    def on_events(self, events: Sequence[Event]) -> None:
        """Take events."""


@dataclass
class _Job:
    rows: Sequence[tuple[str, Row]] = ()
    told: Callable[[Listener, list[int]], None] | None = None  # tells a listener of the rows at some places
    call: Callable[[], Any] | None = None
    done: Future[Any] = field(default_factory=Future)


class Store:
    """Events and new items, written and synced before they are acknowledged: in one SQLite file, or on PostgreSQL.

    One thread owns the database. Writes that wait for it together share one commit, so one ``fsync`` serves up to 512
    of them. What was acknowledged survives a killed process and, where the disk keeps its promise, a power failure.
    Listeners hear of every write after its commit and before its acknowledgement: who reads after an acknowledgement
    sees the write.

    Args:
        where: The file, which is made when absent, or a URL (extra ``postgres``); see
            :class:`~graphrec.serving.postgres.PostgresDatabase`. One process at a time can hold it.

    Raises:
        StoreError: It is held by another process, cannot be reached, is no store, or has another format version.

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

    def __init__(self, where: str | Path) -> None:
        self._listeners: list[Listener] = []
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._closed = False
        self._lock = threading.Lock()
        self._database = open_database(where)
        self.where = self._database.where
        self._told = self._last()
        self._thread = threading.Thread(target=self._work, name="graphrec-store", daemon=True)
        self._thread.start()

    def add_events(self, events: Iterable[Event], clicks: Iterable[Click] = ()) -> Future[int]:
        """Write events, and clicks on lists that were shown.

        The future holds how many were new, once they are durable and the listeners know of the events; of clicks they
        do not hear.

        Raises:
            StoreError: The store is closed; or, from the future, the disk refuses (nothing of the call is kept then).
            ConflictError: From the future: an ``event_id`` is that of another event (nothing of the call is kept then).
        """
        kept = tuple(events)
        rows: list[tuple[str, Row]] = [("events", (e.user_id, e.item_id, e.kind, e.time, e.event_id)) for e in kept]
        rows += [("clicks", (c.list_id, c.item_id, c.place, c.team, c.dwell, c.time, c.event_id)) for c in clicks]

        def tell(listener: Listener, new: list[int]) -> None:
            listener.on_events([kept[number] for number in new if number < len(kept)])

        return self._submit(_Job(rows, tell if kept else None))

    def add_items(self, items: Iterable[NewItem]) -> Future[int]:
        """Write items, as :meth:`add_events`; an item that is there already is not written again.

        Raises:
            StoreError: As in :meth:`add_events`.
            ArgumentError: From the future: an id is that of another item (nothing of the call is kept then).
        """
        kept = tuple(items)
        rows = [("items", (item.item_id, item.title, _to_json(item.facts))) for item in kept]
        return self._submit(_Job(rows, lambda listener, new: listener.on_items([kept[i] for i in new])))

    def add_lists(self, lists: Iterable[ShownList]) -> Future[int]:
        """Write lists that were shown; listeners do not hear of them."""
        rows = (
            (shown.list_id, shown.user_id, shown.model, shown.time, json.dumps(shown.item_ids), shown.teams)
            for shown in lists
        )
        return self._submit(_Job([("lists", row) for row in rows]))

    def find_list(self, list_id: str) -> tuple[tuple[str, ...], str] | None:
        """Return the items of a list that was shown and their teams; ``None`` where there is no such list."""
        found = self.select("SELECT items, teams FROM lists WHERE list_id = ?", (list_id,))
        return (tuple(json.loads(found[0][0])), found[0][1]) if found else None

    def find_guest(self, event_ids: Sequence[str]) -> str | None:
        """Return the guest who sent one of some events before; ``None`` where there is none."""
        kept = self.run(partial(known_rows, self._database, "events", event_ids))
        return next((user_id for user_id, *_ in kept.values() if user_id.startswith(GUEST)), None)

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
        ((events, items),) = self.select("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM items)")
        return {"events": events, "items": items}

    def select(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query of our own; values take the place of its question marks."""
        return self.run(lambda: self._database.select(query, values))

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
        return f"Store({self.where!r})"

    # Everything below runs in the store's own thread, but _submit.

    def _submit(self, job: _Job) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.where}: the store is closed")
            self._jobs.put(job)
        return job.done

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            with suppress(queue.Empty):
                while len(jobs) < MOST_IN_ONE_COMMIT:
                    jobs.append(self._jobs.get_nowait())
            refused = self._refusal()
            writes: list[_Job] = []
            for job in jobs:
                if job is not None and job.call is None:
                    writes.append(job)
                    continue
                self._commit(writes, refused)
                writes = []
                if job is None:
                    self._database.close()
                    return
                _settle(job, job.call)
            self._commit(writes, refused)

    def _refusal(self) -> StoreError | None:
        """Make sure that the database can be reached, and return why it cannot."""
        try:
            if self._database.ready():
                self._tell_missed()
        except Exception as error:  # whatever it is, this thread goes on, and who waits is told
            return error if isinstance(error, StoreError) else StoreError(f"{self.where}: {error}")
        return None

    def _tell_missed(self) -> None:
        """Tell what was written and never acknowledged, for the connection broke in between, or what others wrote."""
        before, self._told = self._told, self._last()
        items, events = self._after(*before)
        for listener in self._listeners:
            if items:
                listener.on_items([item for _, item in items])
            if events:
                listener.on_events([event for _, event in events])

    def _last(self) -> tuple[int, int]:
        """Return the ``seq`` of the newest item and of the newest event."""
        ask = "SELECT (SELECT coalesce(max(seq), 0) FROM items), (SELECT coalesce(max(seq), 0) FROM events)"
        ((item, event),) = self._database.select(ask)
        return item, event

    def _commit(self, jobs: Sequence[_Job], refused: StoreError | None) -> None:
        if not jobs:
            return
        try:
            if refused is not None:
                raise refused
            jobs = self._without_conflicts(jobs)
            written = iter(self._database.write([row for job in jobs for row in job.rows]))
        except StoreError as error:
            for job in jobs:
                job.done.set_exception(StoreError(str(error)))
            return
        told = dict(zip(("items", "events"), self._told, strict=True))
        for job in jobs:
            places = [next(written) for _ in job.rows]
            new = [number for number, seq in enumerate(places) if seq is not None]
            for number in new:
                told[job.rows[number][0]] = places[number] or 0
            _settle(job, partial(self._tell, job, new))
        self._told = told["items"], told["events"]

    def _without_conflicts(self, jobs: Sequence[_Job]) -> list[_Job]:
        """Refuse jobs with the id of another thing, kept or waiting before it; return the rest."""
        good = []
        for job, refused in zip(jobs, refusals(self._database, [job.rows for job in jobs]), strict=True):
            if refused is None:
                good.append(job)
            else:
                job.done.set_exception(refused)
        return good

    def _tell(self, job: _Job, new: list[int]) -> int:
        if job.told is not None and new:
            for listener in self._listeners:
                job.told(listener, new)
        return len(new)

    def _after(
        self, item: int, event: int, most: int | None = None
    ) -> tuple[list[tuple[int, NewItem]], list[tuple[int, Event]]]:
        """Return items and events written after some, each with its ``seq``; at most ``most`` events."""
        sql = "SELECT seq, item_id, title, facts FROM items WHERE seq > ? ORDER BY seq"
        items = self._database.select(sql, (item,))  # few, and the model grows by all at once
        sql = "SELECT seq, user_id, item_id, kind, time, event_id FROM events WHERE seq > ? ORDER BY seq"
        limit = "" if most is None else f" LIMIT {most}"
        events = self._database.select(sql + limit, (event,))
        return (
            [(seq, NewItem(id_, title, _from_json(facts))) for seq, id_, title, facts in items],
            [(row[0], Event(*row[1:])) for row in events],
        )

    def _catch_up(self, listener: Listener, after_item: int, after_event: int) -> tuple[int, int, bool]:
        items, events = self._after(after_item, after_event, PAGE)
        if items:
            listener.on_items([item for _, item in items])
        if events:
            listener.on_events([event for _, event in events])
        complete = len(events) < PAGE
        if complete:
            self._listeners.append(listener)
        return items[-1][0] if items else after_item, events[-1][0] if events else after_event, complete


def open_database(where: str | Path, read_only: bool = False) -> Database:
    """Open the database of a store.

    Args:
        where: A file, or a PostgreSQL URL.
        read_only: To look at it only: a file that is there and not in use, or a schema whoever holds it.

    Raises:
        StoreError: See :class:`Store`.
    """
    if is_postgres(where):
        return PostgresDatabase(str(where), read_only)
    return SQLiteDatabase(Path(where), read_only)


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
