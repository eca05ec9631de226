"""The benchmark of training, with peers of a few lines in the place of the real ones."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from kg_loaders import RecGraph
from kg_loaders.splits import random_split
from kg_loaders.synthetic import planted

SCRIPTS = Path(__file__).parents[2] / "scripts"

KGIN_MAIN = """
import torch


def get_feed_dict(pairs, start, end, taken):
    users, items = pairs[start:end].T
    negatives = []
    for user in users.tolist():
        item = int(torch.randint(n_items, ()))
        while item in taken[user]:
            item = int(torch.randint(n_items, ()))
        negatives.append(item)
    return {"users": users, "pos_items": items, "neg_items": torch.tensor(negatives)}
"""

KGIN_MODEL = """
import torch
from torch_scatter import scatter_mean


class Recommender(torch.nn.Module):
    def __init__(self, sizes, settings, graph, adjacency):
        super().__init__()
        self.n_users = sizes["n_users"]
        self.user = torch.nn.Parameter(torch.randn(sizes["n_users"], 4))
        self.entity = torch.nn.Parameter(torch.randn(sizes["n_entities"], 4))
        head, tail, relation = torch.tensor(list(graph.edges)).T
        assert adjacency.shape == (sizes["n_users"], sizes["n_entities"])
        assert 1 <= relation.min() and relation.max() < sizes["n_relations"]
        self.edges = head, tail

    def generate(self):
        head, tail = self.edges
        around = scatter_mean(src=self.entity[tail], index=head, dim_size=len(self.entity), dim=0)
        return self.entity + around, self.user

    def rating(self, users, items):
        return users @ items.T

    def forward(self, batch):
        entities, users = self.generate()
        gap = (users[batch["users"]] * (entities[batch["pos_items"]] - entities[batch["neg_items"]])).sum(1)
        return -torch.nn.functional.logsigmoid(gap).mean(), 0.0, 0.0, 0.0
"""

RECBOLE = """
import pandas as pd
import torch


class Config(dict):
    def __init__(self, model, dataset, config_dict):
        super().__init__(config_dict, train_batch_size=16, MODEL_TYPE="knowledge")
        self.folder = config_dict["data_path"] + "/" + dataset + "/" + dataset


def init_seed(seed, reproducibility):
    torch.manual_seed(seed)


def create_dataset(config):
    return Dataset(config)


class Dataset:
    def __init__(self, config):
        self.pairs = pd.read_csv(config.folder + ".train.inter", sep="\\t", dtype=str)
        self.field2token_id = {
            column: {token: n for n, token in enumerate(self.pairs[column + ":token"].unique(), start=1)}
            for column in ("user_id", "item_id")
        }


class Loader:
    def __init__(self, dataset):
        self._dataset = dataset


def data_preparation(config, dataset):
    return Loader(dataset), None, None


class Interaction(dict):
    pass


def get_model(name):
    return lambda config, dataset: Model(*(len(numbers) + 1 for numbers in dataset.field2token_id.values()))


class Model(torch.nn.Module):
    def __init__(self, num_users, num_items):
        super().__init__()
        self.user = torch.nn.Embedding(num_users, 4)
        self.item = torch.nn.Embedding(num_items, 4)

    def full_sort_predict(self, interaction):
        return (self.user(interaction["user_id"]) @ self.item.weight.T).flatten()


def get_trainer(kind, name):
    return Trainer


class Trainer:
    def __init__(self, config, model):
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def _train_epoch(self, loader, number):
        numbers = loader._dataset.field2token_id
        pairs = loader._dataset.pairs
        user, item = (
            torch.tensor([numbers[column][token] for token in pairs[column + ":token"]])
            for column in ("user_id", "item_id")
        )
        for part in torch.arange(len(pairs)).split(16):
            self.optimizer.zero_grad()
            logits = self.model.user(user[part]) @ self.model.item.weight.T
            torch.nn.functional.cross_entropy(logits, item[part]).backward()
            self.optimizer.step()
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))  # where a script that is run finds the others
    spec = importlib.util.spec_from_file_location("benchmark_training", SCRIPTS / "benchmark_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def peer_code(script: ModuleType) -> ModuleType:
    return sys.modules["training_peers"]


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both peers' stand-ins; what they import is forgotten afterwards."""
    (tmp_path / "kgin" / "modules").mkdir(parents=True)
    (tmp_path / "kgin" / "main.py").write_text(KGIN_MAIN, encoding="utf-8")
    (tmp_path / "kgin" / "modules" / "KGIN.py").write_text(KGIN_MODEL, encoding="utf-8")
    (tmp_path / "recbole" / "recbole").mkdir(parents=True)
    (tmp_path / "recbole" / "recbole" / "__init__.py").write_text("", encoding="utf-8")
    for name in ("config", "utils"):
        (tmp_path / "recbole" / "recbole" / f"{name}.py").write_text(RECBOLE, encoding="utf-8")
    (tmp_path / "recbole" / "recbole" / "data").mkdir()
    for name in ("__init__", "interaction"):
        (tmp_path / "recbole" / "recbole" / "data" / f"{name}.py").write_text(RECBOLE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("main", "modules", "recbole", "torch_scatter"):
            del sys.modules[name]


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch, script: ModuleType) -> RecGraph:
    made = planted(num_users=40, num_items=60, num_cold_items=4, seed=0)
    monkeypatch.setattr(script, "load_graph", lambda _: made)
    return random_split(made, (0.8, 0.1, 0.1), seed=0)


def test_trainings_beside_each_other(
    script: ModuleType, peers: Path, graph: RecGraph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    folders = ["--recbole", str(peers / "recbole"), "--kgin", str(peers / "kgin")]
    limits = ["--patience", "2", "--seconds", "3", "--threads", "1"]
    script.main(["ml-100k", "--models", "KGCN", *folders, *limits, "--json", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == ["InductiveKGAT", "KGCN", "KGIN"]
    assert all(row["seconds_per_epoch"] > 0 and row["best"] == max(value for _, value in row["points"]) for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("s an epoch" in line and "best ndcg@20" in line for line in lines)


def test_few_users_now_and_then(
    script: ModuleType, peers: Path, graph: RecGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    evaluate = script.Evaluator.evaluate

    def noted(self: object, model: object, graph: RecGraph, split: str) -> object:
        asked.append(len(set(graph.part("valid").user.tolist())))
        return evaluate(self, model, graph, split=split)

    monkeypatch.setattr(script.Evaluator, "evaluate", noted)
    out = tmp_path / "rows.json"
    limits = ["--patience", "1", "--seconds", "0.001", "--threads", "1", "--users", "5", "--every", "2"]
    script.main(["ml-100k", "--models", "KGCN", "--recbole", str(peers / "recbole"), *limits, "--json", str(out)])
    assert set(asked) == {5}
    ours, peer = json.loads(out.read_text(encoding="utf-8"))
    (spent, _), *more = peer["points"]
    assert not more
    assert peer["seconds_per_epoch"] == spent / 2
    assert len(ours["points"]) > 1


def test_steps_are_scaled_to_an_epoch(
    script: ModuleType, peers: Path, graph: RecGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["ml-100k", "--models", "KGCN", "--recbole", str(peers / "recbole"), "--steps", "2", "--threads", "1"])
    assert "scaled from some steps" in capsys.readouterr().out.splitlines()[1]


def test_an_epoch_left_early_leaves_the_optimiser_as_it_was(
    peer_code: ModuleType, peers: Path, graph: RecGraph
) -> None:
    peer = peer_code.RecBolePeer(graph, peers / "recbole", "KGCN")
    step = peer.trainer.optimizer.step
    assert len(peer.epoch(at_most=3)) == 3
    assert peer.trainer.optimizer.step == step
    assert len(peer.epoch()) == peer.num_steps


def test_pairs_and_triples_reach_recbole_whole(peer_code: ModuleType, graph: RecGraph, tmp_path: Path) -> None:
    peer_code.write_atomic(graph, tmp_path / "data")
    for split in ("train", "valid"):
        table = pd.read_csv(tmp_path / "data" / f"data.{split}.inter", sep="\t")
        pairs = graph.part(split)
        np.testing.assert_array_equal(table.to_numpy(), np.stack([pairs.user, pairs.item], axis=1))
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "data" / "data.kg", sep="\t").to_numpy(), graph.triples)
    links = pd.read_csv(tmp_path / "data" / "data.link", sep="\t").to_numpy()
    assert (links[:, 0] == links[:, 1]).all()
    met = {*graph.part("train").item.tolist(), *graph.part("valid").item.tolist()}
    assert set(links[:, 0].tolist()) == met & set(graph.triples[:, [0, 2]].ravel().tolist())


def test_scatter_mean_is_the_mean(peer_code: ModuleType) -> None:
    out = peer_code.scatter_mean(
        src=torch.tensor([[1.0], [3.0], [5.0]]), index=torch.tensor([2, 2, 0]), dim_size=4, dim=0
    )
    assert out.flatten().tolist() == [5.0, 0.0, 2.0, 0.0]


def test_a_ratio_is_of_the_seconds_to_the_peers_best(script: ModuleType) -> None:
    ours = script.Training("ours", 1.0, [(1.0, 0.1), (2.0, 0.3), (3.0, 0.4)])
    row = script.as_row(script.Training("peer", 10.0, [(10.0, 0.2), (20.0, 0.3), (30.0, 0.25)]), ours)
    assert (row["seconds_to_best"], row["ours_to_its_best"], row["ratio"]) == (20.0, 2.0, 10.0)
    assert "10 times as fast" in script.show(row, ours, "ndcg@20")
    better = script.as_row(script.Training("peer", 10.0, [(10.0, 0.5)]), ours)
    assert better["ratio"] is None
    assert "ours did not reach" in script.show(better, ours, "ndcg@20")


def test_a_folder_must_be_given(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["ml-100k"])
    assert "--recbole or --kgin" in capsys.readouterr().err
