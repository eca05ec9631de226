from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphrec.errors import ArgumentError, ConfigError
from graphrec.experiment import tuning
from graphrec.experiment.config import options_of
from graphrec.experiment.reading import read_options
from graphrec.experiment.tuning import Dimension, find_space, read_space, spaces_root, tune
from graphrec.models import MODELS

REAL_MODELS = dict(MODELS)  # before the toys stand in for them
SHORT = ["--model", "inductive-kgat", "--train.epochs=2", "--train.select_by=recall@10", "--eval.metrics=recall@10"]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text("model.dim: [4, 8]\ntrain.learning_rate: {low: 0.001, high: 0.1, log: true}\n")
    return path


def test_a_study_finds_settings_that_train_takes(dataset: Path, space: Path, tmp_path: Path) -> None:
    found = tune(str(dataset), SHORT, space, trials=3, out=tmp_path / "study", quiet=True)
    assert set(found.best) == {"model.dim", "train.learning_rate"}
    assert found.best["model.dim"] in (4, 8)
    assert 0.001 <= found.best["train.learning_rate"] <= 0.1
    assert (found.num_trials, found.metric) == (3, "recall@10")
    lines = (tmp_path / "study" / "trials.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["trial", "state", "recall@10", "model.dim", "train.learning_rate"]
    assert len(lines) == 4
    config = read_options(["--config", str(tmp_path / "study" / "best.yaml")]).config
    assert config.model.options["dim"] == found.best["model.dim"]
    assert config.train.learning_rate == found.best["train.learning_rate"]
    assert config.train.epochs == 2


def test_a_study_goes_on_where_it_stopped(dataset: Path, space: Path, tmp_path: Path, monkeypatch: Any) -> None:
    measured: list[int] = []
    own = tuning._measure

    def measure(config: Any, graph: Any, trial: Any) -> float:
        measured.append(trial.number)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return own(config, graph, trial)

    monkeypatch.setattr(tuning, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        tune(str(dataset), SHORT, space, trials=3, out=tmp_path / "study", quiet=True)
    found = tune(str(dataset), SHORT, space, trials=3, out=tmp_path / "study", quiet=True)
    assert measured == [0, 1, 2, 3]
    lines = (found.folder / "trials.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines[1:]] == ["complete", "fail", "complete", "complete"]
    assert Dimension.read("model.b", {"low": 0.1, "high": 1.0, "log": True}, "s").suggest(trial) == 0.5
    assert Dimension.read("model.c", ["x", "y"], "s").suggest(trial) == "x"


def test_committed_spaces_name_settings_that_exist() -> None:
    from dataclasses import fields

    from graphrec.training import TrainConfig

    assert find_space("ml-100k", "inductive-kgat").parent.name == "any"
    paths = sorted(spaces_root().rglob("*.yaml"))
    assert paths
    for path in paths:
        name = next(n for n in REAL_MODELS if n.lower() == path.stem)
        known = {f"model.{option}" for option in options_of(REAL_MODELS[name])}
        known |= {f"train.{field.name}" for field in fields(TrainConfig)}
        assert {dimension.name for dimension in read_space(path)} <= known, path
