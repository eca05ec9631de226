"""What was acknowledged is there after kill -9: a service is killed under load, and again, and again."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from itertools import count
from pathlib import Path

from cases.served_runs import Client, serving

from graphrec.serving.live import LiveRecommender
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import Store

WRITERS, KILLS = 6, 2


def test_nothing_acknowledged_is_lost_when_the_service_is_killed_under_load(
    runs: tuple[Path, Path], where: str, tmp_path: Path
) -> None:
    run = RunRecommender.load(runs[0])
    item_ids = list(run.graph.items)
    triples = run.graph.triples[run.graph.triples[:, 0] == 0].tolist()
    facts = [{"relation": run.graph.relations.id_of(r), "entity": run.graph.entities.id_of(t)} for _, r, t in triples]
    acknowledged: list[tuple[str, str, str]] = []  # event, user, item
    items: list[str] = []
    sent = 0
    for kill in range(KILLS):
        with serving(str(runs[0]), "--store", where, log=tmp_path / "log") as (port, process):

            def write(number: int, kill: int = kill, port: int = port) -> None:
                nonlocal sent
                draw = random.Random(10 * kill + number)
                # Until the service is dead: then there is no answer, or half of one.
                with Client(port) as client, suppress(OSError, HTTPException):
                    for turn in count():
                        event_id = f"{kill}-{number}-{turn}"
                        user, item = f"u{draw.randrange(50)}", draw.choice(item_ids)
                        event = {"user_id": user, "item_id": item, "event_id": event_id}
                        sent += 1
                        if client.post("/events", {"events": [event]})[0] == 201:
                            acknowledged.append((event_id, user, item))
                        if number == 0 and turn % 20 == 10:
                            joining = {"item_id": f"new-{event_id}", "facts": facts}
                            if client.post("/items", {"items": [joining]})[0] == 201:
                                items.append(joining["item_id"])

            before = len(acknowledged)
            writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            until = time.monotonic() + 60
            while len(acknowledged) < before + 150 and time.monotonic() < until:
                time.sleep(0.01)
            process.kill()
            process.wait()
            for writer in writers:
                writer.join()
        assert len(acknowledged) >= before + 150
    with Store(where) as store:
        kept = {row[0]: row[1:] for row in store.select("SELECT event_id, user_id, item_id FROM events")}
        missing = [event for event, *rest in acknowledged if kept.get(event) != tuple(rest)]
        assert missing == []
        assert len(acknowledged) <= len(kept) <= sent  # what was under way may have been kept, but nothing else
        live = LiveRecommender(run, store)
        assert items
        assert set(items) <= set(live.graph.items)
        for _, user, item in acknowledged:
            assert live.graph.items.index_of(item) in live.past(user)
