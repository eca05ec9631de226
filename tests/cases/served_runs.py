"""Two small finished runs of one planted data set, and a service over them in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cases.planted_folder import write_planted

START_SECONDS = 120.0  # importing torch takes seconds, and far longer on a busy machine


def make_runs(folder: Path) -> tuple[Path, Path]:
    """Train a small InductiveKGAT and an EASE; the runs lie side by side."""
    from graphrec.experiment import RunConfig, run
    from graphrec.experiment.config import DataConfig, ModelConfig
    from graphrec.training import TrainConfig

    data = DataConfig(name=str(write_planted(folder / "films")))
    made = []
    for name, options in (("InductiveKGAT", {"dim": 8}), ("EASE", {})):
        config = RunConfig(data=data, model=ModelConfig(name, options), train=TrainConfig(epochs=3))
        made.append(run(config, folder / name.lower(), quiet=True).path)
    return made[0], made[1]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Client:
    """One connection to a service.

    Args:
        port: Where it listens.
        key: API key to send.
    """

    def __init__(self, port: int, key: str | None = None) -> None:
        self.port = port
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, content: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self._ask("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> tuple[int, Any]:
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        answer = self._connection.getresponse()
        content = answer.read()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        is_json = "json" in self.headers.get("content-type", "")
        return answer.status, json.loads(content) if is_json else content.decode()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(*arguments: str, log: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run ``graphrec serve`` until the block ends; yield its port and process."""
    port = free_port()
    command = [sys.executable, "-m", "graphrec", "serve", *arguments, "--port", str(port)]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file, env={**os.environ, "PYTHONPATH": path})
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield port, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _answers(port: int) -> bool:
    with Client(port) as client:
        try:
            return client.get("/health")[0] == 200
        except OSError:
            return False
