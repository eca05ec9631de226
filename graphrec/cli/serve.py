"""``graphrec serve RUN``: answer over HTTP, with a page to look at."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graphrec.cli.common import Parser, print_json, say
from graphrec.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    import argparse

    from graphrec.serving.live import LiveRecommender

NEEDED = ("fastapi", "httptools", "orjson", "prometheus_client", "uvicorn")
SCOPES = ("read", "write", "admin")  # graphrec.serving.server.keys'; a test holds them equal
MOST_RUNS = 2
LAST_PORT = 65535
PREPARING_SECONDS = 5.0  # between two lines


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("serve", "Answer over HTTP, with a page to look at; Ctrl-C or SIGTERM stops, SIGHUP loads anew.")
    parser.add_argument("runs", metavar="RUN", nargs="*", help="a run folder; a second one to compare with")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")
    parser.add_argument(
        "--store", metavar="FILE", help="events and new items; beside RUN when not given; or postgresql://host/database"
    )
    parser.add_argument(
        "--against", metavar="RUN2", help="let both models make every list together, and count whose items are clicked"
    )
    parser.add_argument("--record", action="store_true", help="keep the lists shown, for graphrec report")
    parser.add_argument("--read-only", action="store_true", help="take no events, no items, and no other run")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="API keys; needed where other machines can reach")
    parser.add_argument("--new-key", metavar="NAME", help="make a key in --keys, print it, and serve nothing")
    parser.add_argument("--scope", choices=SCOPES, help="of the new key; write when not given")
    parser.add_argument("--rate", type=float, help="requests a second of the new key; 100 when not given")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="answer under this host name")
    parser.add_argument("--prepare", action="store_true", help="make what all known users are answered with first")
    parser.add_argument(
        "--prepare-explanations",
        action="store_true",
        help="likewise, and while it answers what explanations of a model that reads order need",
    )
    parser.add_argument("--threads", type=int, help="of torch and numpy; when not given, one fewer than processors")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= LAST_PORT:
        parser.error(f"--port must be within 0..{LAST_PORT}, got {arguments.port}")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads must be at least 1, got {arguments.threads}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"graphrec serve needs {', '.join(missing)}: pip install 'graphrec[serve]'")
    if arguments.new_key is not None:
        _make_key(arguments)
        return
    if arguments.scope is not None or arguments.rate is not None:
        parser.error("--scope and --rate are of a new key: give --new-key, or leave them out")
    if arguments.against is not None:
        if len(arguments.runs) != 1:
            parser.error(f"--against takes one other run folder, got {len(arguments.runs)}")
        arguments.runs.append(arguments.against)
    if arguments.read_only and (arguments.record or arguments.against is not None):
        parser.error("--read-only keeps no lists: leave it out, or --record and --against")
    if not 1 <= len(arguments.runs) <= MOST_RUNS:
        parser.error(f"give one run folder, or {MOST_RUNS} to compare, got {len(arguments.runs)}")
    _serve(arguments)


def _make_key(arguments: argparse.Namespace) -> None:
    from graphrec.serving.server.keys import new_key

    if arguments.keys is None:
        raise ConfigError("--new-key needs --keys FILE, where the key's hash is kept")
    given = {"scope": arguments.scope, "rate": arguments.rate}
    options = {name: value for name, value in given.items() if value is not None}
    token = new_key(arguments.keys, arguments.new_key, **options)
    if arguments.json:
        print_json({"name": arguments.new_key, "key": token})
        return
    say(f"keep this key, it is not shown again; {arguments.keys} holds only its hash")
    print(token)


def _serve(arguments: argparse.Namespace) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    from graphrec.experiment.folder import RunFolder
    from graphrec.serving.server.keys import KeyRing
    from graphrec.serving.server.run import bind, is_loopback, serve
    from graphrec.serving.server.service import Service
    from graphrec.serving.store import Store

    keys = None if arguments.keys is None else KeyRing.load(arguments.keys)
    if keys is None and not is_loopback(arguments.host):
        raise ArgumentError(f"--host {arguments.host} can be reached by other machines: give --keys, see --new-key")
    threads = arguments.threads or max(1, (os.cpu_count() or 2) - 1)
    torch.set_num_threads(threads)
    threadpool_limits(threads, "blas")  # numpy's, which multiplies where a catalogue is large
    runs = _names([Path(run) for run in arguments.runs])
    first = next(iter(runs.values()))
    # Beside the run, not in it: events outlive runs, and belong to the data set.
    name = RunFolder.open(first).config.data.name.rstrip("/").rpartition("/")[2]
    sockets = bind(arguments.host, arguments.port)  # before a store is made and the time is spent that loading takes
    store = None
    try:
        if not arguments.read_only:
            store = Store(arguments.store or first.parent / f"live-{name}.sqlite")
            say(f"events and new items are kept in {store.where}")
        say(f"loading {', '.join(map(str, runs.values()))}")
        prepare = None
        if arguments.prepare or arguments.prepare_explanations:
            prepare = partial(_prepare, explanations=arguments.prepare_explanations)
        service = Service(
            runs, store, record=arguments.record, interleave=arguments.against is not None, prepare=prepare
        )
        say(f"models: {', '.join(f'{name} ({run})' for name, run in runs.items())}")
        if service.interleaves:
            say("lists that name no model are made by both; GET /report says what came of them")
        if keys is None:
            say("no API keys: open to every program on this machine, and to no other machine")
        shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        where = (
            f"http://{shown}:{arguments.port}/"
            if arguments.port
            else f"http://{shown}, at the port in the line 'ready' below"
        )
        say(f"page and API: {where}")
        sys.stderr.flush()
        serve(service, arguments.host, arguments.port, keys, arguments.allow_host, sockets=sockets)
    finally:
        for one in sockets:
            one.close()
        if store is not None:
            store.close()


def _prepare(name: str, live: LiveRecommender, explanations: bool) -> None:
    """Let a model make what is kept of its users, and say how far it is."""
    num_users = live.graph.num_users
    started = said = time.monotonic()
    for done, total in live.prepare():
        now = time.monotonic()
        if now - said >= PREPARING_SECONDS and done < total:
            said = now
            say(f"preparing {name}: {done:,} of {total:,} users")
        elif done == total:
            say(f"prepared {name} for {_of(total, num_users)}: {now - started:.1f} s")

    def told(done: int, seconds: float) -> None:
        if done:
            say(f"prepared explanations of {name} for {_of(done, num_users)}: {seconds:.1f} s")
        else:
            say(f"explanations of {name} need no preparation")

    if explanations:
        live.explain_ahead(told)


def _of(done: int, num_users: int) -> str:
    return f"{done:,} users" if done == num_users else f"{done:,} users of {num_users:,}, for as many are kept"


def _names(runs: list[Path]) -> dict[str, Path]:
    """Name each run by its folder; of two equal names the second gets a number."""
    named: dict[str, Path] = {}
    for run in runs:
        path = run.absolute()
        named[path.name if path.name not in named else f"{path.name}-{len(named) + 1}"] = path
    return named
