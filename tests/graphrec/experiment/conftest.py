"""Toy models in place of the real ones, and configurations from a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.planted_folder import write_planted
from cases.toy_models import TOY_MODELS


@pytest.fixture(autouse=True)
def toy_models() -> Iterator[None]:
    from graphrec import models

    torch.set_num_threads(1)
    real = dict(models.MODELS)
    _fill(models.MODELS, TOY_MODELS)
    yield
    _fill(models.MODELS, real)  # in their own order, which undoing item by item would reverse


def _fill(table: dict[str, Any], content: dict[str, Any]) -> None:
    table.clear()
    table.update(content)


@pytest.fixture(autouse=True)
def configs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of committed configurations, empty."""
    folder = tmp_path_factory.mktemp("committed")
    monkeypatch.setattr("graphrec.experiment.catalogue.configs_root", lambda: folder)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted graph as CSV tables."""
    return write_planted(tmp_path_factory.mktemp("data") / "films")
