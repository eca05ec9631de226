"""A service as its operator sees it: reloads, stops, mistakes at the start."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest
from cases.served_runs import Client, serving
from fastapi.testclient import TestClient

from graphrec.cli import main
from graphrec.cli.serve import SCOPES
from graphrec.errors import ArgumentError
from graphrec.serving.server import keys
from graphrec.serving.server.app import create_app
from graphrec.serving.server.run import bind, serve
from graphrec.serving.server.service import Service
from graphrec.serving.store import Fact, NewItem, Store

QUESTION = {"user_id": "user-01", "k": 5}


def test_a_run_that_is_replaced_goes_without_the_garbage_collector(runs: tuple[Path, Path]) -> None:
    """The first run is kept from the collector, so it must not refer to itself."""
    service = Service({"films": runs[0]}, None)
    old = weakref.ref(service.models["films"].live)
    gc.disable()
    try:
        asyncio.run(service.reload(None))
        assert old() is None
    finally:
        gc.enable()
        service.close()


def test_a_run_that_cannot_be_prepared_leaves_the_old_one_and_nothing_behind(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    asked: list[str] = []

    def prepare(name: str, live: object) -> None:
        asked.append(name)
        if len(asked) > 1:
            raise ArgumentError(f"{name} scores NaN")

    with Store(tmp_path / "live.sqlite") as store:
        service = Service({"films": runs[1]}, store, prepare=prepare)
        with pytest.raises(ArgumentError, match="films scores NaN"):
            asyncio.run(service.reload(None))
        assert store._listeners == [service.models["films"].live]
        service.close()


def test_freed_memory_goes_back_as_long_as_the_service_lives(runs: tuple[Path, Path]) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from graphrec.serving.server import run
        from graphrec.serving.server.service import Service
        run.RETURN_SECONDS = 0.01
        run.return_freed_memory = lambda: print("returned", flush=True)
        run.serve(Service({"films": Path(sys.argv[1])}, None), port=0)
    """)
    with subprocess.Popen([sys.executable, "-c", program, str(runs[0])], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        assert [process.stdout.readline() for _ in range(3)] == ["returned\n"] * 3
        too_late.cancel()
        process.terminate()


def test_a_link_is_followed_anew_and_lists_are_kept_by_the_run_it_leads_to(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two, link = (tmp_path / name for name in ("one", "two", "current"))
    for run in (one, two):
        shutil.copytree(runs[1], run)
    link.symlink_to(one)
    service = Service({"current": link}, None)
    assert service.model(None).label == "current (one)"
    assert asyncio.run(service.reload(None, "one")).run == "one"
    link.unlink()
    link.symlink_to(two)
    assert asyncio.run(service.reload(None)).label == "current (two)"
    service.close()


def test_a_first_model_that_takes_no_items_does_not_hide_those_that_joined(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    store = Store(tmp_path / "s")
    service = Service({"ease": runs[1], "mine": runs[0]}, store)
    mine = service.models["mine"].live
    head, relation, tail = mine.graph.triples[0].tolist()
    assert head < mine.graph.num_items
    fact = Fact(mine.graph.relations.id_of(relation), mine.graph.entities.id_of(tail))
    mine.add_items([NewItem("new", "A Film of Today", (fact,))])
    client = TestClient(create_app(service))
    assert client.get("/items?query=of today").json()["items"] == [{"item_id": "new", "title": "A Film of Today"}]
    assert client.post("/events", json={"events": [{"user_id": "ann", "item_id": "new"}]}).status_code == 201
    assert mine.past("ann").tolist() == [mine.find("new")]
    assert service.models["ease"].live.num_unplaced == 1
    assert client.post("/events", json={"events": [{"user_id": "ann", "item_id": "newer"}]}).status_code == 404
    service.close()


# Prints, when the service is ready, how much of what it loaded the garbage collector still looks at.
READY = """
import gc, os, signal, sys
from pathlib import Path
from graphrec.serving.server.run import serve
from graphrec.serving.server.service import Service

service = Service({"mine": Path(sys.argv[1])}, None)
served = service.models["mine"]
loaded = {id(one) for one in (service, served, served.live, served.live.base.model, served.live.graph)}

def log(event, **fields):
    if event == "ready":
        watched = {id(one) for one in gc.get_objects()}
        print(len(loaded & watched), gc.isenabled(), *fields["ports"], flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

serve(service, port=0, log=log)
"""


def test_at_the_start_the_garbage_collector_passes_over_what_was_loaded_and_a_free_port_is_told(
    runs: tuple[Path, Path],
) -> None:
    done = subprocess.run([sys.executable, "-c", READY, str(runs[1])], capture_output=True, text=True, timeout=120)
    # The rest, which requests make, is collected as ever.
    watched, collects, port = done.stdout.split()
    assert (watched, collects) == ("0", "True"), done.stderr
    assert int(port) > 0


def test_runs_are_reloaded_without_a_request_that_fails_and_a_stop_answers_what_was_asked(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(runs[0], tmp_path / "first")
    shutil.copytree(runs[0], tmp_path / "second")
    arguments = (str(tmp_path / "first"), "--store", str(tmp_path / "s"))
    with serving(*arguments, log=tmp_path / "log") as (port, process):
        statuses: list[int] = []
        lists: list[object] = []
        stop = threading.Event()

        def ask() -> None:
            with Client(port) as client:
                while not stop.is_set():
                    status, answer = client.post("/recommend", QUESTION)
                    statuses.append(status)
                    lists.append([item["item_id"] for item in answer["items"]])

        def like(turns: int) -> None:
            with Client(port) as client:
                for turn in range(turns):
                    event = {"user_id": f"new-{turn}", "item_id": "item-07", "event_id": f"e-{turn}"}
                    statuses.append(client.post("/events", {"events": [event]})[0] - 1)

        threads = [threading.Thread(target=ask) for _ in range(3)] + [threading.Thread(target=like, args=(100,))]
        for thread in threads:
            thread.start()
        with Client(port) as client:
            status, model = client.post("/reload", {"run": "second"})
            assert (status, model["run"], model["name"]) == (200, "second", "first")
            process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 60
            while '"reloaded"' not in (tmp_path / "log").read_text() and time.monotonic() < until:
                time.sleep(0.05)
            threads[-1].join()
            stop.set()
            for thread in threads:
                thread.join()
            assert set(statuses) == {200}
            assert lists.count(lists[0]) == len(lists)  # the same run: the same list
            # No event of the time in between was lost to the new.
            for turn in range(100):
                assert client.post("/history", {"user_id": f"new-{turn}"})[1]["num_past"] == 1
            health = client.get("/health")[1]["models"][0]
            assert health["run"] == "first"  # by SIGHUP what it was started with
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM  # after its work: uvicorn ends by the signal that it was sent
    with Store(tmp_path / "s") as store:  # closed, so another may have it
        assert store.count() == {"events": 100, "items": 0}


def test_damaged_run_does_not_take_the_place_of_a_good_one(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "good")
    shutil.copytree(runs[0], tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"damaged")
    with (
        serving(str(tmp_path / "good"), "--store", str(tmp_path / "s"), log=tmp_path / "log") as (port, _),
        Client(port) as client,
    ):
        before = client.post("/recommend", QUESTION)[1]["items"]
        status, problem = client.post("/reload", {"run": "bad"})
        assert status == 422
        assert "damaged" in problem["detail"]
        assert str(tmp_path) not in problem["detail"]
        assert client.post("/recommend", QUESTION)[1]["items"] == before
        assert 'graphrec_reloads_total{outcome="failed"} 1.0' in client.get("/metrics")[1]


def test_models_are_prepared_before_they_answer_and_after_a_reload(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(str(runs[1]), "--store", str(tmp_path / "s"), "--prepare", log=tmp_path / "log") as (port, _):
        prepared = re.compile(r"^prepared ease for \d+ users: [\d.]+ s$", re.MULTILINE)
        assert len(prepared.findall((tmp_path / "log").read_text())) == 1
        with Client(port) as client:
            assert client.post("/reload", {"run": "ease"})[0] == 200
            assert len(prepared.findall((tmp_path / "log").read_text())) == 2
            assert len(client.post("/recommend", QUESTION)[1]["items"]) == 5


def test_what_explanations_need_is_prepared_too(runs: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = str(runs[1]), "--read-only", "--prepare-explanations"
    with serving(*arguments, log=tmp_path / "log") as (port, _), Client(port) as client:
        assert client.get("/health")[0] == 200
        for _ in range(600):
            log = (tmp_path / "log").read_text()
            if "explanations of ease need no preparation\n" in log:
                break
            time.sleep(0.1)
        else:
            pytest.fail(log)
        assert re.search(r"^prepared ease for \d+ users: [\d.]+ s$", log, re.MULTILINE)


def test_read_only_takes_nothing_and_writes_nothing(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    with serving(str(run), "--read-only", log=tmp_path / "log") as (port, _), Client(port) as client:
        assert client.get("/health")[1]["read_only"] is True
        assert client.post("/recommend", QUESTION)[0] == 200
        facts = [{"relation": "genre", "entity": "genre-0"}]
        for path, content in (
            ("/events", {"events": [{"user_id": "user-01", "item_id": "item-00"}]}),
            ("/items", {"items": [{"item_id": "new", "facts": facts}]}),
            ("/reload", {"run": "run"}),
        ):
            status, problem = client.post(path, content)
            assert (status, problem["detail"]) == (403, "this service is read-only")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "run"]


def test_store_lies_beside_the_run_when_none_is_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    with serving(str(run), log=tmp_path / "log") as (port, _), Client(port) as client:
        assert client.post("/events", {"events": [{"item_id": "item-00"}]})[0] == 201
        log = (tmp_path / "log").read_text()
    assert f"events and new items are kept in {tmp_path / 'live-films.sqlite'}" in log
    assert "no API keys: open to every program on this machine, and to no other machine" in log
    assert (tmp_path / "live-films.sqlite").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give one run folder, or 2 to compare, got 0"),
        (["a", "b", "c"], 2, "got 3"),
        (["no-such-run"], 1, "there is no such run folder"),
        (["RUN", "--host", "0.0.0.0"], 2, "--host 0.0.0.0 can be reached by other machines: give --keys"),
        (["RUN", "--keys", "no-such-file"], 1, "there is no key file"),
        (["--new-key", "shop"], 2, "--new-key needs --keys FILE"),
        (["RUN", "--prot", "1"], 2, "did you mean '--port'"),
        (["RUN", "--rate", "5"], 2, "--scope and --rate are of a new key"),
        (["RUN", "--scope", "read"], 2, "--scope and --rate are of a new key"),
    ],
)
def test_mistakes_at_the_start_are_one_line(
    arguments: list[str],
    code: int,
    message: str,
    runs: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *(str(runs[0]) if word == "RUN" else word for word in arguments)]) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_told_before_anything_is_loaded(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", str(runs[0]), "--store", str(tmp_path / "s"), "--port", str(port), "--threads", "1"]) == 1
        said = capsys.readouterr().err
        assert said.splitlines()[-1] == f"graphrec: cannot listen on 127.0.0.1, port {port}: Address already in use"
        assert "loading" not in said
        assert not (tmp_path / "s").exists()
        service = Service({"films": runs[1]}, None)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}"):
            serve(service, port=port)
        service.close()
    with Store(tmp_path / "s") as store:  # it was let go
        assert store.count()["events"] == 0


def test_a_port_is_taken_of_every_address_that_the_machine_has() -> None:
    for host in ("127.0.0.1", "localhost"):
        bound = bind(host, 0)
        assert {one.getsockname()[0] for one in bound} <= {"127.0.0.1", "::1"}
        assert bound
        for one in bound:
            one.listen()
            with pytest.raises(OSError, match="cannot listen on"):
                bind(*one.getsockname()[:2])
        for one in bound:
            one.close()
    with pytest.raises(OSError, match=r"cannot listen on 203\.0\.113\.7, port 0: Cannot assign requested address"):
        bind("203.0.113.7", 0)  # an address for documents alone


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("graphrec.cli.serve.NEEDED", ("json", "no_such_package"))
    assert main(["serve", "run"]) == 2
    assert "graphrec serve needs no_such_package: pip install 'graphrec[serve]'" in capsys.readouterr().err


def test_key_is_made_and_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    assert main(["serve", "--new-key", "shop", "--scope", "admin", "--rate", "5", "--keys", str(path)]) == 0
    token = capsys.readouterr().out.strip()
    key = keys.KeyRing.load(path).check(token)
    assert key is not None
    assert (key.name, key.scope, key.rate) == ("shop", "admin", 5)
    assert main(["serve", "--new-key", "other", "--keys", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["name"] == "other"
    other = keys.KeyRing.load(path).check(made["key"])
    assert other is not None
    assert (other.scope, other.rate) == ("write", 100)  # as the help says
    assert SCOPES == keys.SCOPES


def test_two_services_do_not_share_a_store(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(str(runs[0]), "--store", str(tmp_path / "s"), log=tmp_path / "log"):
        command = [sys.executable, "-m", "graphrec", "serve", str(runs[0]), "--store", str(tmp_path / "s")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=120)
    assert done.returncode == 1
    assert "is in use by another process" in done.stderr
