from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from graphrec.errors import ArgumentError, ConflictError, StoreError
from graphrec.serving.store import PAGE, Event, Fact, NewItem, Store, open_database


class Heard:
    def __init__(self) -> None:
        self.items: list[NewItem] = []
        self.events: list[Event] = []

    def on_items(self, items: Sequence[NewItem]) -> None:
        self.items += items

    def on_events(self, events: Sequence[Event]) -> None:
        self.events += events


@contextmanager
def held(store: Store) -> Iterator[None]:
    """Keep the store's thread busy, so that what is given to it meanwhile waits together."""
    blocked = threading.Event()
    waiting = threading.Thread(target=store.run, args=(blocked.wait,))
    waiting.start()
    try:
        yield
    finally:
        blocked.set()
        waiting.join()


ITEM = NewItem("x", "Ein Film – “new”", (Fact("director", "Scott"), Fact("plays in", "Weaver", False)))


def test_what_is_acknowledged_is_read_back_in_its_order(where: str) -> None:
    events = [Event("ann", "a", "like", 1.5), Event("bob", "b", "dislike", 2.5), Event("ann", "a", "undo", 3.5)]
    with Store(where) as store:
        assert store.add_items([ITEM]).result() == 1
        assert store.add_events(events).result() == 3
    with Store(where) as store:
        heard = Heard()
        store.subscribe(heard)
        assert heard.items == [ITEM]
        assert heard.events == events
        assert store.count() == {"events": 3, "items": 1}


def test_listener_hears_everything_once_while_others_write(where: str) -> None:
    with Store(where) as store:
        for start in range(0, 3 * PAGE, PAGE):
            store.add_events([Event("u", str(start + i)) for i in range(PAGE)]).result()
        heard, stop = Heard(), threading.Event()
        written = []

        def write() -> None:
            while not stop.is_set():
                number = str(3 * PAGE + len(written))
                store.add_events([Event("u", number)]).result()
                written.append(number)

        writer = threading.Thread(target=write)
        writer.start()
        store.subscribe(heard)
        while len(written) < 20:
            pass
        stop.set()
        writer.join()
        assert [event.item_id for event in heard.events] == [str(i) for i in range(3 * PAGE + len(written))]


def test_listener_knows_before_the_writer_is_told(where: str) -> None:
    with Store(where) as store:
        heard = Heard()
        store.subscribe(heard)
        for number in range(50):
            store.add_events([Event("u", str(number))]).result()
            assert len(heard.events) == number + 1
        store.unsubscribe(heard)
        store.add_events([Event("u", "later")]).result()
        assert len(heard.events) == 50


def test_event_sent_twice_counts_once_and_items_too(where: str) -> None:
    with Store(where) as store:
        heard = Heard()
        store.subscribe(heard)
        twice = Event("u", "i", event_id="e1")
        assert [store.add_events([twice, twice]).result(), store.add_events([twice]).result()] == [1, 0]
        assert [store.add_items([ITEM]).result(), store.add_items([ITEM]).result()] == [1, 0]
        assert (len(heard.events), len(heard.items)) == (1, 1)
        assert store.add_events([Event("u", "i"), Event("u", "i")]).result() == 2  # without an id both count


@pytest.mark.parametrize("other", [Event("v", "i"), Event("u", "j"), Event("u", "i", "undo")])
def test_another_event_under_the_same_id_is_refused_alone(where: str, other: Event) -> None:
    first = Event("u", "i", event_id="e1")
    other = replace(other, event_id="e1")
    with Store(where) as store:
        heard = Heard()
        store.subscribe(heard)
        for _ in range(2):  # waiting beside the first, then after it
            with held(store):
                jobs = ([first], [Event("w", "i"), other], [Event("x", "i")])
                futures = [store.add_events(events) for events in jobs]
            with pytest.raises(ConflictError, match="event_id 'e1' is that of another event"):
                futures[1].result()
            assert futures[2].result() == 1
        with pytest.raises(ConflictError, match="event_id 'e2'"):
            store.add_events([replace(first, event_id="e2"), replace(other, event_id="e2")]).result()
        assert [event.user_id for event in heard.events] == ["u", "x", "x"]


@pytest.mark.parametrize("other", [replace(ITEM, title="y"), replace(ITEM, facts=ITEM.facts[:1])])
def test_another_item_under_the_same_id_is_refused_alone(where: str, other: NewItem) -> None:
    with Store(where) as store:
        heard = Heard()
        store.subscribe(heard)
        for turn in range(2):  # waiting beside the first, then after it
            with held(store):
                last = replace(ITEM, item_id=f"z{turn}")
                futures = [store.add_items(items) for items in ([ITEM], [replace(ITEM, item_id="y"), other], [last])]
            with pytest.raises(ArgumentError, match="item_id 'x' has joined already, with another title or other"):
                futures[1].result()
            assert (futures[0].result(), futures[2].result()) == (1 - turn, 1)
        with pytest.raises(ArgumentError, match="item_id 'w'"):
            store.add_items([replace(ITEM, item_id="w"), replace(other, item_id="w")]).result()
        assert [item.item_id for item in heard.items] == ["x", "z0", "z1"]


def test_text_that_is_no_unicode_is_refused_and_the_store_goes_on(where: str) -> None:
    with Store(where) as store:
        for event in (Event("\ud800", "i"), Event("u", "i", event_id="\ud800")):
            with pytest.raises(StoreError, match="surrogates not allowed"):
                store.add_events([event]).result()
        assert store.add_events([Event("u", "i")]).result() == 1


def test_guest_is_found_by_what_they_sent(where: str) -> None:
    with Store(where) as store:
        store.add_events([Event("u", "i", event_id="a"), Event("guest-1", "i", event_id="b")]).result()
        assert store.find_guest(["none", "a"]) is None
        assert store.find_guest([*(f"none-{number}" for number in range(1000)), "b"]) == "guest-1"


def test_writers_share_commits_and_all_are_told(where: str) -> None:
    with Store(where) as store:
        with held(store):
            futures = [store.add_events([Event("u", str(i))]) for i in range(300)]
        assert [future.result() for future in futures] == [1] * 300


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ArgumentError, match="kind must be one of 'like', .* got 'lik'; did you mean 'like'"):
        Event("u", "i", "lik")


def test_second_process_is_refused(where: str) -> None:
    with Store(where) as store:
        store.add_events([Event("u", "i")]).result()
        program = f"from graphrec.serving.store import Store; Store({where!r})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "StoreError" in done.stderr
        assert "is in use by another process" in done.stderr


def test_closed_store_refuses_and_closes_again(where: str) -> None:
    store = Store(where)
    last = store.add_events([Event("u", "i")])
    store.close()
    store.close()
    assert last.result() == 1  # what was waiting is finished
    with pytest.raises(StoreError, match="the store is closed"):
        store.add_events([Event("u", "i")])


def test_full_disk_keeps_nothing_of_the_call_and_says_so(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.add_events([Event("u", "before")]).result()
        database = store._database._database  # type: ignore[attr-defined]
        pages = store.run(lambda: database.execute("PRAGMA page_count").fetchone()[0])
        store.run(lambda: database.execute(f"PRAGMA max_page_count = {pages + 1}"))
        with pytest.raises(StoreError, match="cannot be written: database or disk is full"):
            store.add_events([Event("u", "x" * 3000, event_id=str(i)) for i in range(20)]).result()
        assert store.count()["events"] == 1
        store.run(lambda: database.execute("PRAGMA max_page_count = 1000000"))
        assert store.add_events([Event("u", "after")]).result() == 1


def test_foreign_and_future_files_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but long enough to be read as one" * 50)
    with pytest.raises(StoreError, match="cannot be read: file is not a database"):
        Store(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreError, match="is a database of something else"):
        Store(tmp_path / "other")
    with Store(tmp_path / "future"):
        pass
    future = sqlite3.connect(tmp_path / "future")
    future.execute("PRAGMA user_version = 9")
    future.close()
    with pytest.raises(StoreError, match="is a store of format 9, this graphrec reads 1"):
        Store(tmp_path / "future")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "missing folder" / "s")


# Makes a foreign database, and closes it, or leaves it as a killed process does: in WAL mode with more in its log.
FOREIGN = """
import os, sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
other.execute("CREATE TABLE mine (x)")
other.execute("PRAGMA wal_checkpoint")
other.execute("CREATE TABLE more (x)")
if sys.argv[3] == "closed":
    other.close()
os._exit(0)
"""


@pytest.mark.parametrize(("mode", "end"), [("delete", "closed"), ("wal", "closed"), ("wal", "killed")])
def test_a_database_of_something_else_stays_as_it_is(tmp_path: Path, mode: str, end: str) -> None:
    path = tmp_path / "other"
    subprocess.run([sys.executable, "-c", FOREIGN, str(path), mode, end], check=True)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for read_only in (True, False):
        with pytest.raises(StoreError, match="is a database of something else, not a store of graphrec"):
            open_database(path, read_only)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_to_look_at_an_empty_file_makes_no_store_of_it(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.touch()
    with pytest.raises(StoreError, match=r"empty\.txt: is empty, not a store of graphrec"):
        open_database(path, read_only=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"empty.txt": b""}


def test_a_killed_services_store_is_looked_at_and_taken_over(tmp_path: Path) -> None:
    program = (
        "import os, sys; from graphrec.serving.store import Event, Store; "
        "Store(sys.argv[1]).add_events([Event('u', 'i')]).result(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=True)
    database = open_database(tmp_path / "s", read_only=True)
    assert database.select("SELECT count(*) FROM events") == [(1,)]
    with pytest.raises(StoreError, match="readonly database"):
        database.write([("events", ("u", "i", "like", 1.0, None))])
    database.close()
    with Store(tmp_path / "s") as store:
        assert store.count()["events"] == 1
        assert store.select("PRAGMA journal_mode") == [("wal",)]
        with pytest.raises(StoreError, match="is in use by another process"):
            open_database(tmp_path / "s", read_only=True)
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], capture_output=True, check=False)
        assert b"is in use by another process" in done.stderr  # also after who shares our process has looked
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
