from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cases.served_runs import Client, serving


@pytest.fixture(scope="session")
def port(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A service of both runs, without keys, in a process of its own."""
    folder = tmp_path_factory.mktemp("service")
    arguments = (str(runs[0]), str(runs[1]), "--store", str(folder / "live.sqlite"))
    with serving(*arguments, log=folder / "log") as (port, _):
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with Client(port) as client:
        yield client
