from __future__ import annotations

from pathlib import Path

from graphrec.serving import conflicts
from graphrec.serving.conflicts import known_rows, refusals
from graphrec.serving.database import Row, SQLiteDatabase


def event(item_id: str, event_id: str | None, time: float = 1.0) -> tuple[str, Row]:
    return "events", ("ann", item_id, "like", time, event_id)


def item(item_id: str, title: str) -> tuple[str, Row]:
    return "items", (item_id, title, "[]")


def test_rows_are_refused_for_another_thing_of_their_id_and_for_no_other(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "s")
    database.write([event("i", "e1"), item("x", "An item")])
    groups = [
        [event("i", "e1", time=2.0), item("x", "An item")],  # sent again
        [event("j", None), event("k", None)],
        [event("j", "e1"), event("j", "e2")],
        [event("k", "e2")],  # what was refused takes no id
        [event("j", "e2")],
        [item("x", "Another")],
        [item("y", "One"), item("y", "Two")],
        [("lists", ("l", None, "x", 1.0, "[]", ""))],
    ]
    assert [None if error is None else str(error) for error in refusals(database, groups)] == [
        None,
        None,
        "event_id 'e1' is that of another event",
        None,
        "event_id 'e2' is that of another event",
        "item_id 'x' has joined already, with another title or other facts",
        "item_id 'y' has joined already, with another title or other facts",
        None,
    ]
    database.close()


def test_many_ids_are_looked_for_in_parts(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "s")
    ids = [str(number) for number in range(2 * conflicts.MOST_VALUES + 1)]
    database.write([event("i", ids[0]), event("j", ids[-1])])
    assert known_rows(database, "events", ids) == {ids[0]: ("ann", "i", "like"), ids[-1]: ("ann", "j", "like")}
    database.close()
