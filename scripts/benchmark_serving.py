"""What graphrec serve can bear: lists a second, latency of lists and explanations, memory, and its growth.

    python scripts/benchmark_serving.py RUN
    python scripts/benchmark_serving.py --synthetic 100000

The service runs in a process of its own, the load in this one and in wrk (Debian's package; without it, that row is
left out), all on loopback and on the cores that this process may use (taskset -c 0,1 python ... for two).

- Lists a second: wrk, 32 connections that each ask again at once, random known users, 10 items. With --prepare
  their lists (or vectors) were made before the service was ready; without it users are new when they first ask.
- Latency at a rate: requests are sent on a schedule, whether or not earlier ones have been answered, and each is
  measured from the moment it was due, so a service that falls behind cannot hide it.
- CPU per request: the service's own time on the processor, which says what an idle machine could do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kg_loaders import RecGraph

CONNECTIONS = 32
IDLE_SECONDS = 8.0
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local users = {}
for user in io.lines("%s") do users[#users + 1] = user end
request = function()
  return wrk.format(nil, "/recommend", nil, '{"user_id": ' .. users[math.random(#users)] .. ', "k": 10}')
end
"""


class Client:
    """A pool of kept-alive connections; one request at a time on each."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, content: Any) -> Any:
        """Return the answer's content; raise on any status but 200 and 201."""
        # The service hangs up on connections that are idle for 15 s; the oldest are at the front.
        while self._free and time.monotonic() - self._free[0][0] > IDLE_SECONDS:
            self._free.pop(0)[2].close()
        fresh = None if self._free else await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = fresh or self._free.pop()[1:]
        body = json.dumps(content).encode()
        head = f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
        answer = await reader.readexactly(length)
        self._free.append((time.monotonic(), reader, writer))
        if head[9:12] not in (b"200", b"201"):
            raise OSError(f"{path}: status {head[9:12].decode()}: {answer.decode()}")
        return json.loads(answer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run")
    parser.add_argument("--synthetic", type=int, metavar="ITEMS", help="make a run of planted data with so many items")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each part")
    parser.add_argument("--rate", type=float, default=200.0, help="lists a second where latency is measured")
    parser.add_argument("--explain-rate", type=float, default=10.0, help="explanations a second")
    parser.add_argument("--minutes", type=float, default=0.0, help="of mixed load, for the growth of memory")
    parser.add_argument("--prepare", action="store_true", help="let the service make what known users get first")
    parser.add_argument("--prepare-explanations", action="store_true", help="also what explanations need")
    parser.add_argument("--threads", type=int, default=1, help="of the service's torch")
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.synthetic is None):
        parser.error("give a run or --synthetic ITEMS")
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or make_run(Path(folder), arguments.synthetic)
        users = list_users(run, Path(folder))
        preparing = [
            f"--{name}" for name in ("prepare", "prepare-explanations") if vars(arguments)[name.replace("-", "_")]
        ]
        with serving(run, Path(folder), arguments.threads, preparing) as (port, pid):
            print(f"{run}: {len(users)} users, {cores()} cores")
            for line in (Path(folder) / "log").read_text().splitlines():
                if line.startswith("prepared ") and "explanations" not in line:
                    say("before it was ready", line)
            measure(arguments, Path(folder), port, pid, users)


def measure(arguments: argparse.Namespace, folder: Path, port: int, pid: int, users: list[str]) -> None:
    """Run the parts one after the other."""
    say("memory after the start", f"{memory(pid):.2f} GB")

    async def lists(client: Client) -> None:
        await client.post("recommend", {"user_id": random.choice(users), "k": 10})

    if arguments.prepare_explanations:
        taken = asyncio.run(at_rate(lists, port, arguments.rate, arguments.seconds))
        say("lists while it goes on preparing", quantiles(taken))
        while (line := re.search(r"^(prepared )?explanations of .*$", (folder / "log").read_text(), re.M)) is None:
            time.sleep(0.1)
        say("then", f"{line[0]}; {memory(pid):.2f} GB")
    throughput(folder, port, pid, users, arguments.seconds)

    async def why(client: Client) -> None:
        user = random.choice(users)
        found = await client.post("recommend", {"user_id": user, "k": 1})
        started = time.perf_counter()
        await client.post("explain", {"user_id": user, "item": found["items"][0]["item_id"]})
        explained.append(time.perf_counter() - started)

    explained: list[float] = []
    used = cpu(pid)
    taken = asyncio.run(at_rate(lists, port, arguments.rate, arguments.seconds))
    each = (cpu(pid) - used) / len(taken)
    say(f"lists at {arguments.rate:g} a second", f"{quantiles(taken)}; {1000 * each:.2f} ms CPU each")
    used = cpu(pid)
    asyncio.run(at_rate(why, port, arguments.explain_rate, arguments.seconds))
    each = (cpu(pid) - used) / len(explained)
    say(
        f"explanations at {arguments.explain_rate:g} a second", f"{quantiles(explained)}; {1000 * each:.2f} ms CPU each"
    )
    if arguments.minutes:
        growth(arguments.minutes, port, pid, users)
    say("memory at the end, at most", f"{memory(pid):.2f} GB, {memory(pid, 'VmHWM'):.2f} GB")


def throughput(folder: Path, port: int, pid: int, users: list[str], seconds: float) -> None:
    """Let wrk ask as fast as it can."""
    if shutil.which("wrk") is None:
        say("lists a second", "not measured: wrk is not installed")
        return
    (folder / "users").write_text("\n".join(json.dumps(user) for user in users))
    (folder / "load.lua").write_text(SCRIPT % (folder / "users"))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", str(folder / "load.lua")]
    used = cpu(pid)
    done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    failed = re.search(r"Non-2xx.*|Socket errors.*", done.stdout)
    count = int(re.search(r"(\d+) requests in", done.stdout)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
    each = 1000 * (cpu(pid) - used) / count
    say("lists a second", f"{rate:.0f}; {each:.2f} ms CPU each{'; ' + failed[0] if failed else ''}")


async def at_rate(ask: Callable[[Client], Awaitable[None]], port: int, rate: float, seconds: float) -> list[float]:
    """Ask on a schedule; return how long after its due time each answer came."""
    client, taken, tasks, failed = Client(port), [], [], []

    async def one(due: float) -> None:
        try:
            await ask(client)
        except (OSError, asyncio.IncompleteReadError) as error:
            failed.append(str(error))
        else:
            taken.append(time.perf_counter() - due)

    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    if failed:
        say(f"FAILED, of {len(tasks)}", f"{len(failed)}, first: {failed[0]}")
    return taken


def growth(minutes: float, port: int, pid: int, users: list[str]) -> None:
    """Ask all kinds of things, and watch the memory."""
    samples: list[tuple[float, float]] = []
    counts: dict[str, int] = {}

    async def mixed(client: Client) -> None:
        user = random.choice(users)
        kind = random.choices(["recommend", "explain", "similar", "events"], [80, 5, 5, 10])[0]
        counts[kind] = counts.get(kind, 0) + 1
        found = (await client.post("recommend", {"user_id": user, "k": 10}))["items"]
        item = random.choice(found)["item_id"]
        if kind == "explain":
            await client.post("explain", {"user_id": user, "item": item})
        elif kind == "similar":
            await client.post("similar", {"item": item})
        elif kind == "events":
            # Likes are taken back, so that no user runs out of items, and most of what grows is the store on disk.
            event = {"user_id": user, "item_id": item, "kind": random.choice(["like", "dislike", "undo"])}
            await client.post("events", {"events": [event]})

    async def watch() -> None:
        while True:
            samples.append((time.monotonic(), memory(pid)))
            await asyncio.sleep(5)

    async def both() -> None:
        watching = asyncio.create_task(watch())
        await at_rate(mixed, port, 50, 60 * minutes)
        watching.cancel()

    asyncio.run(both())
    when, gigabytes = np.array(samples[len(samples) // 4 :]).T
    slope = np.polyfit((when - when[0]) / 3600, 1000 * gigabytes, 1)[0] if len(when) > 2 else float("nan")
    total = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    start, quarter, end = samples[0][1], gigabytes[0], gigabytes[-1]
    say(
        f"{minutes:g} minutes of mixed load",
        f"{total}: {start:.3f} GB, {quarter:.3f} after a quarter, {end:.3f} at the end",
    )
    say("growth after the first quarter", f"{slope:.1f} MB an hour")


def make_run(folder: Path, num_items: int) -> Path:
    """Train one epoch on random data: what is measured does not depend on how good the model is."""
    from graphrec.experiment import RunConfig, run
    from graphrec.experiment.config import DataConfig, EvalConfig, ModelConfig
    from graphrec.training import TrainConfig
    from kg_loaders.formats import tables

    tables.write(random_graph(num_items), folder / "random")
    config = RunConfig(
        data=DataConfig(name=str(folder / "random")),
        model=ModelConfig("InductiveKGAT", {"dim": 64}),
        train=TrainConfig(epochs=1, refit=False),
        eval=EvalConfig(metrics=("ndcg@20",)),
    )
    return run(config, folder / "run", quiet=True).path


def random_graph(num_items: int, num_users: int = 2000, length: int = 60, facts: int = 4) -> RecGraph:
    """Return users with histories of one length, popular and rare items, and entities that items share."""
    from kg_loaders import Interactions, RecGraph, Vocabulary

    draw = np.random.default_rng(0)
    popularity = 1 / np.arange(1, num_items + 1) ** 0.8
    popularity /= popularity.sum()
    items = np.stack([draw.choice(num_items, length, replace=False, p=popularity) for _ in range(num_users)])
    split = np.zeros((num_users, length), dtype=np.int8)
    split[:, -2], split[:, -1] = 1, 2  # valid, test
    num_entities = num_items // 10
    heads = np.repeat(np.arange(num_items), facts)
    tails = num_items + (num_entities * draw.random(num_items * facts) ** 2).astype(np.int64)
    triples = np.unique(np.stack([heads, np.tile(np.arange(facts), num_items), tails], axis=1), axis=0)
    order = np.argsort(items, axis=1)
    return RecGraph(
        users=Vocabulary((f"user-{i}" for i in range(num_users)), "user"),
        entities=Vocabulary(
            [f"item-{i}" for i in range(num_items)] + [f"e-{i}" for i in range(num_entities)], "entity"
        ),
        num_items=num_items,
        interactions=Interactions(
            np.repeat(np.arange(num_users), length),
            np.take_along_axis(items, order, axis=1).ravel(),
            split=np.take_along_axis(split, order, axis=1).ravel(),
        ),
        relations=Vocabulary([f"relation-{i}" for i in range(facts)], "relation"),
        triples=triples,
        name=f"random-{num_items}",
    )


def list_users(run: Path, folder: Path) -> list[str]:
    """Return the users of a run's data; in a process of its own, so that this one stays small."""
    program = (
        "import json, sys\n"
        "from graphrec.serving.recommender import RunRecommender\n"
        f"users = list(RunRecommender.load({str(run)!r}).graph.users)\n"
        f"open({str(folder / 'users.json')!r}, 'w').write(json.dumps(users))\n"
    )
    loading = subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.PIPE, text=True)
    if loading.returncode:
        sys.exit(f"{run} cannot be loaded: {loading.stderr.strip().splitlines()[-1]}")
    users: list[str] = json.loads((folder / "users.json").read_text())
    return users


@contextmanager
def serving(run: Path, folder: Path, threads: int, options: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """Serve a run on a free port; yield the port and the process."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "graphrec", "serve", str(run), "--port", str(port), "--threads", str(threads)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--store", str(folder / "store"), *options], stderr=log)
    try:
        while b'"ready"' not in (folder / "log").read_bytes():
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def memory(pid: int, field: str = "VmRSS") -> float:
    """Return a process' memory in GB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def cpu(pid: int) -> float:
    """Return a process' seconds on the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def quantiles(seconds: list[float]) -> str:
    """Return p50, p99 and the largest in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return f"p50 {p50:.1f}, p99 {p99:.1f}, max {max(seconds) * 1000:.1f} ms of {len(seconds)}"


def say(what: str, value: str) -> None:
    """Print a row."""
    print(f"  {what:<32} {value}", flush=True)


if __name__ == "__main__":
    main()
