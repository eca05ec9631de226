from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from cases import postgres
from cases.served_runs import make_runs

SCHEMAS = count()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Finished runs of InductiveKGAT and EASE on one planted data set."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_runs(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'graphrec[postgres]')")
    programs = postgres.programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL (apt-get install postgresql)")
    with postgres.running(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store that does not exist yet: a file, and a schema on a real server."""
    if request.param == "sqlite":
        return str(tmp_path / "live.sqlite")
    server: postgres.Server = request.getfixturevalue("server")
    return server.url(f"store_{next(SCHEMAS)}")
