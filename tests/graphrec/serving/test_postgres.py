"""What a store on PostgreSQL must do beyond test_store.py: lost connections, foreign tables, passwords."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from cases.postgres import Server

from graphrec.errors import StoreError
from graphrec.serving import postgres
from graphrec.serving.store import Event, NewItem, Store, open_database

SCHEMAS = count()


class Heard:
    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def on_items(self, items: Sequence[NewItem]) -> None:
        self.ids += [item.item_id for item in items]

    def on_events(self, events: Sequence[Event]) -> None:
        self.ids += [event.event_id for event in events]


@pytest.fixture
def url(server: Server) -> str:
    return server.url(f"own_{next(SCHEMAS)}")


@pytest.fixture
def ask(server: Server) -> Iterator[object]:
    import psycopg

    with psycopg.connect(server.plain_url, autocommit=True) as connection:
        yield connection.execute


def test_connection_that_is_lost_comes_back_and_nothing_is_told_twice_or_missed(url: str, ask: object) -> None:
    with Store(url) as store:
        heard = Heard()
        store.subscribe(heard)
        store.add_events([Event("u", "i", event_id="before")]).result()
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'graphrec'"
        ask(end)  # type: ignore[operator]
        assert store.add_events([Event("u", "i", event_id="after")]).result() == 1
        # What was written but never acknowledged: the connection broke after the commit.
        _, schema = postgres._split_schema(url)
        ask(f"INSERT INTO {schema}.events (user_id, item_id, kind, time, event_id) VALUES ('u', 'i', 'like', 1, 'odd')")  # type: ignore[operator]
        ask(end)  # type: ignore[operator]
        assert store.count() == {"events": 3, "items": 0}
        assert heard.ids == ["before", "after", "odd"]


def test_what_a_crashing_server_acknowledged_is_there_when_it_is_back(url: str, server: Server) -> None:
    acknowledged: list[str] = []
    refused: list[str] = []
    stop = threading.Event()
    with Store(url) as store:
        heard = Heard()
        store.subscribe(heard)

        def write(number: int) -> None:
            for turn in count():
                if stop.is_set():
                    return
                event_id = f"{number}-{turn}"
                try:
                    store.add_events([Event("u", "i", event_id=event_id)]).result()
                    acknowledged.append(event_id)
                except StoreError:
                    refused.append(event_id)
                    time.sleep(0.05)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for writer in writers:
            writer.start()
        until = time.monotonic() + 60
        while len(acknowledged) < 100 and time.monotonic() < until:
            time.sleep(0.01)
        server.stop("immediate")  # as a power failure
        while not refused and time.monotonic() < until:
            time.sleep(0.01)
        server.start()
        before = len(acknowledged)
        while len(acknowledged) < before + 100 and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        for writer in writers:
            writer.join()
        assert len(acknowledged) >= before + 100
        assert refused
        kept = {event_id for (event_id,) in store.select("SELECT event_id FROM events")}
        assert set(acknowledged) <= kept <= {*acknowledged, *refused}
        assert sorted(map(str, heard.ids)) == sorted(map(str, kept))  # each once, and none that is not there


def test_service_that_has_lost_its_store_to_another_does_not_write_to_it(url: str, ask: object) -> None:
    with Store(url) as first:
        ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'graphrec'")  # type: ignore[operator]
        with Store(url), pytest.raises(StoreError, match="is in use by another process"):
            first.add_events([Event("u", "i")]).result()
        assert first.add_events([Event("u", "i")]).result() == 1  # free again


def test_text_that_the_server_does_not_take_is_refused_and_the_store_goes_on(url: str) -> None:
    with Store(url) as store:
        for text in ("a\x00b", "\ud800"):
            with pytest.raises(StoreError, match="cannot be written"):
                store.add_events([Event("u", "before"), Event(text, "i")]).result()
        assert store.count()["events"] == 0
        assert store.add_events([Event("u", "i")]).result() == 1


def test_foreign_tables_and_future_formats_are_refused_untouched(server: Server, ask: object) -> None:
    ask("CREATE SCHEMA foreigner CREATE TABLE events (x int)")  # type: ignore[operator]
    with pytest.raises(StoreError, match="holds tables of something else, not a store of graphrec"):
        Store(server.url("foreigner"))
    with Store(server.url("future")):
        pass
    ask("UPDATE future.format SET version = 9")  # type: ignore[operator]
    with pytest.raises(StoreError, match="is a store of format 9, this graphrec reads 1"):
        Store(server.url("future"))


def test_reader_sees_a_store_that_is_in_use_and_cannot_write_to_it(url: str) -> None:
    with pytest.raises(StoreError, match="there is no such store"):
        open_database(url, read_only=True)
    with Store(url) as store:
        store.add_events([Event("u", "i")]).result()
        reader = open_database(url, read_only=True)
        assert reader.select("SELECT user_id FROM events WHERE item_id = ?", ("i",)) == [("u",)]
        with pytest.raises(StoreError, match="read-only"):
            reader.write([("events", ("u", "i", "like", 1.0, None))])
        reader.close()


def test_password_is_in_no_message() -> None:
    pytest.importorskip("psycopg")
    for url in (
        "postgresql://tester:secret@localhost:1/shop?connect_timeout=2",
        "postgresql://tester:secret@localhost:port/shop",
        "postgresql://tester:secret@localhost/shop?no_such_option=1",
    ):
        with pytest.raises(StoreError) as raised:
            Store(url)
        assert "secret" not in str(raised.value)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"needs psycopg: pip install 'graphrec\[postgres\]'"):
        Store("postgresql://localhost/shop")
