"""Toy models in place of the real ones, and configurations from a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases.planted_folder import write_planted
from cases.toy_models import TOY_MODELS


@pytest.fixture(autouse=True)
def toy_models(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec import models

    torch.set_num_threads(1)
    for name in list(models.MODELS):
        monkeypatch.delitem(models.MODELS, name)
    for name, cls in TOY_MODELS.items():
        monkeypatch.setitem(models.MODELS, name, cls)


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
