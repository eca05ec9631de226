"""The logs hold nothing personal: no user, item, title, query, address, key or body, whatever happens."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from cases.served_runs import Client, serving

from graphrec.cli import main
from graphrec.serving.recommender import RunRecommender

FIELDS = {
    "ready": {"time", "event", "models", "ports"},
    "request": {"time", "event", "id", "method", "route", "status", "ms", "key"},
    "reloaded": {"time", "event", "model", "run"},
    "reload failed": {"time", "event", "model", "reason"},
}
"""All that each line may say."""


def test_log_of_a_busy_service_names_nobody(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    graph = RunRecommender.load(run).graph
    keys = str(tmp_path / "keys.json")
    assert main(["serve", "--new-key", "shop", "--scope", "admin", "--rate", "9999", "--keys", keys]) == 0
    token = capsys.readouterr().out.strip()
    user, items = graph.users.id_of(3), list(graph.items)[:4]
    secrets = ["somebody-known-by-name", "event-id-of-a-client", "no-such-title", "a-query", "grk_wrong", token, user]
    secrets += [*items, "User-Agent-Of-Somebody", "203.0.113.7", "referer.example"]
    headers = {
        "User-Agent": "User-Agent-Of-Somebody",
        "X-Forwarded-For": "203.0.113.7",
        "Referer": "http://referer.example/",
    }
    arguments = (str(run), "--against", str(runs[1]), "--store", str(tmp_path / "s"), "--keys", keys)
    with serving(*arguments, log=tmp_path / "log") as (port, process):
        with Client(port, token) as client:
            listed = client.post("/recommend", {"user_id": user}, headers)[1]
            secrets.append(listed["list_id"])
            click = {"kind": "click", "list_id": listed["list_id"], "item_id": listed["items"][0]["item_id"]}
            for path, content in (
                ("/recommend", {"history": items, "exclude": ["no-such-title"]}),
                ("/recommend", {"user_id": "somebody-known-by-name"}),
                ("/recommend", {"user_id": "somebody-known-by-name", "k": "many"}),
                ("/explain", {"user_id": user, "item": items[0]}),
                ("/similar", {"item": items[1]}),
                ("/history", {"user_id": user}),
                ("/events", {"events": [{"user_id": "somebody-known-by-name", "item_id": items[2]}]}),
                ("/events", {"events": [{"item_id": items[2], "event_id": "event-id-of-a-client"}, click]}),
                ("/items", {"items": [{"item_id": "no-such-title", "facts": [{"relation": "x", "entity": "y"}]}]}),
                ("/reload", {"run": "no-such-title"}),
            ):
                client.post(path, content, headers)
            client.post("/recommend", b'{"user_id": "somebody-known-by-name"', headers)
            for path in ("/items?query=a-query", "/users?query=somebody-known-by-name", "/no-such-title", "/report"):
                client.get(path, headers)
        with Client(port, "grk_wrong") as client:
            client.post("/recommend", {"user_id": user}, headers)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("SOMEBODY-KNOWN-BY-NAME", "/recommend")
        connection.getresponse().read()
        connection.close()
        # Both kinds of reload, the second of a run that is damaged by then.
        for damaged, word in ((False, '"reloaded"'), (True, '"reload failed"')):
            if damaged:
                (run / "model.safetensors").write_bytes(b"damaged")
            process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 60
            while word not in (tmp_path / "log").read_text() and time.monotonic() < until:
                time.sleep(0.05)
    log = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["event"] for line in lines} == set(FIELDS)
    for line in lines:
        assert set(line) == FIELDS[line["event"]]
    requests = [line for line in lines if line["event"] == "request"]
    assert {line["key"] for line in requests} == {"shop", None}
    assert {line["route"] for line in requests} >= {"/recommend", "/explain", "/events", "/items", "/report", "other"}
    assert {line["status"] for line in requests} >= {200, 201, 401, 404, 422}
    # What is not JSON comes from the start: where things are, nothing of anybody.
    for secret in secrets:
        assert secret.lower() not in log.lower(), secret
