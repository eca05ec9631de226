"""The scripts do what the commands do."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases.planted_folder import write_planted

from graphrec.cli import main
from graphrec.experiment import RunFolder
from graphrec.histories import Histories
from kg_loaders import RecGraph
from kg_loaders.synthetic import planted

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    return str(write_planted(tmp_path / "films"))


def test_train_script_ends_with_the_weights_and_figures_of_the_command(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "InductiveKGAT", "--model.dim=4", "--train.epochs=2", "--train.batch_size=8", "--seed=3"]
    load("train").main(data, [*options, "--out", str(tmp_path / "script")])
    assert main(["train", data, *options, "--out", str(tmp_path / "command")]) == 0
    script, command = (RunFolder.open(tmp_path / name) for name in ("script", "command"))
    assert script.info.files["model.safetensors"] == command.info.files["model.safetensors"]
    assert script.config.hash == command.config.hash
    measured = [{part: run.metrics[part] for part in ("valid", "test")} for run in (script, command)]
    assert measured[0] == measured[1]
    capsys.readouterr()
    load("evaluate").main(str(tmp_path / "script"))
    assert f"recall@20 {script.metrics['test']['recall@20']:.4f}" in capsys.readouterr().out


class Knowing:
    """Scores as the answers are."""

    def __init__(self, graph: RecGraph) -> None:
        self.answers = torch.zeros(graph.num_users, graph.num_items)
        self.answers[graph.interactions.user, graph.interactions.item] = 1.0

    def score(self, histories: Histories) -> torch.Tensor:
        assert histories.user_index is not None
        return self.answers[histories.user_index]


def test_cold_items_lose_all_interactions_and_their_recall_is_counted_among_them() -> None:
    script = load("measure_cold_items")
    before = planted(num_users=30, num_items=40, num_cold_items=0)
    graph, cold = script.make_cold(before, 0.2, seed=1)
    assert len(cold) == 8
    assert not np.isin(graph.part("train", "valid").item, cold).any()
    assert np.isin(graph.part("test").item, cold).all()
    assert len(graph.interactions) == len(before.interactions)
    assert script.recall(Knowing(graph), graph, cold, k=3, seed=0) == 1.0
    by_chance = script.recall(None, graph, cold, k=3, seed=0)
    assert 0.2 < by_chance < 0.6  # three of eight


def test_the_transfer_script_measures_cold_and_warm_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write_planted(tmp_path / name)) for name in ("near", "far")]  # the same users and items
    options = ["--model.dim=4", "--train.epochs=1", "--train.batch_size=8", "--train.select_by=ndcg@10"]
    words = ["--settings", "popularity,joint", "--seeds", "1", "--cold", "0.5"]
    load("measure_transfer").main([*folders, *words, *options])
    printed = capsys.readouterr().out
    for row in ("popularity cold", "popularity warm", "joint cold", "joint warm", "hr@10 of 1000"):
        assert row in printed
    with pytest.raises(SystemExit):
        load("measure_transfer").main([*folders, "--settings", "jiont"])
