from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.planted_folder import write_planted

from graphrec.errors import ArgumentError, ConfigError
from graphrec.experiment.config import DataConfig, EvalConfig, ModelConfig, RunConfig
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.training import TrainConfig
from kg_loaders import RecGraph
from kg_loaders.synthetic import planted

GRAPH = planted(num_users=30, num_items=40, num_cold_items=4)
UNSPLIT = GRAPH.with_split(None)
TIMED = replace(
    UNSPLIT, interactions=replace(UNSPLIT.interactions, time=np.arange(GRAPH.num_interactions, dtype=np.float64))
)
_codes = GRAPH.interactions.split
assert _codes is not None
TRAIN_TEST = GRAPH.with_split(np.where(_codes == 1, 0, _codes).astype(np.int8))


def config(**data: Any) -> RunConfig:
    return RunConfig(DataConfig("films", **data), ModelConfig("InductiveKGAT"))


@pytest.mark.parametrize(
    ("graph", "split", "ratios"),
    [(GRAPH, "given", None), (TRAIN_TEST, "carve", (0.9, 0.1)), (UNSPLIT, "random", (0.8, 0.1, 0.1))],
)
def test_what_the_files_hold_decides_the_split(graph: RecGraph, split: str, ratios: Any) -> None:
    resolved = resolve(config(), graph)
    assert (resolved.data.split, resolved.data.ratios) == (split, ratios)
    prepared = prepare(graph, resolved)
    assert all(prepared.has_split(part) for part in ("train", "valid", "test"))
    assert resolve(resolved, graph) == resolved


def test_resolving_fills_in_every_default() -> None:
    resolved = resolve(config(), GRAPH)
    assert resolved.model.options == {"dim": 8, "pooling": "mean", "powers": (1.0, 2.0)}
    assert resolved.eval.metrics is not None
    assert resolved.train.select_by in resolved.eval.metrics
    chosen = resolve(replace(config(), model=ModelConfig("InductiveKGAT", {"dim": 3})), GRAPH)
    assert chosen.model.options["dim"] == 3


def test_known_names_stay_and_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "ml-100k").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve(config(), GRAPH).data.name == str(tmp_path / "films")
    known = replace(config(), data=DataConfig("ml-100k"))
    assert resolve(known, GRAPH).data.name == "ml-100k"


@pytest.mark.parametrize("split", ["random", "leave-last", "temporal", "carve-last"])
def test_splits_are_made_as_asked(split: Any) -> None:
    resolved = resolve(config(split=split), TIMED)
    assert prepare(TIMED, resolved).has_split("valid" if split == "carve-last" else "test")


def test_seed_of_the_split_is_not_the_seed_of_the_run() -> None:
    resolved = resolve(config(split="random"), UNSPLIT)
    first = prepare(UNSPLIT, resolved)
    assert prepare(UNSPLIT, replace(resolved, seed=5)) == first
    assert prepare(UNSPLIT, replace(resolved, data=replace(resolved.data, seed=5))) != first


def test_the_knowledge_graph_is_kept_left_out_or_shuffled() -> None:
    resolved = resolve(config(), GRAPH)
    full = prepare(GRAPH, resolved)
    none = prepare(GRAPH, replace(resolved, data=replace(resolved.data, kg="none")))
    shuffled = replace(resolved, data=replace(resolved.data, kg="shuffled"))
    assert full.num_triples == GRAPH.num_triples
    assert none.num_triples == 0
    assert prepare(GRAPH, shuffled) != full
    assert prepare(GRAPH, shuffled) == prepare(GRAPH, shuffled)
    assert prepare(GRAPH, replace(shuffled, seed=1)) != prepare(GRAPH, shuffled)  # each seed another false graph


@pytest.mark.parametrize(
    ("graph", "data", "message"),
    [
        (UNSPLIT, {"split": "given"}, "films has no split of its own; try 'random'"),
        (TRAIN_TEST, {"split": "given"}, "the split 'given' leaves no valid pairs"),
        (UNSPLIT, {"split": "random", "ratios": (0.9, 0.1)}, "must be 3 shares"),
        (UNSPLIT, {"split": "random", "ratios": (0.9, 0.1, 0.1)}, "sum to 1"),
        (UNSPLIT, {"split": "random", "ratios": (1.2, -0.1, -0.1)}, "sum to 1"),
        (UNSPLIT, {"split": "random", "ratios": (1.0, 0.0, 0.0)}, "leaves no valid pairs"),
        (TRAIN_TEST, {"split": "carve", "ratios": (0.8, 0.1, 0.1)}, r"must be 2 shares \(train, valid\)"),
        (GRAPH, {"split": "given", "ratios": (0.8, 0.2)}, "data.ratios has no meaning for the split 'given'"),
    ],
)
def test_splits_that_cannot_be_are_refused(graph: RecGraph, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(graph, resolve(config(**data), graph))


def test_epochs_are_selected_by_a_metric_that_is_measured() -> None:
    wrong = replace(config(), eval=EvalConfig(("recall@10",)))
    with pytest.raises(ConfigError, match=r"train.select_by must be one of 'recall@10', got 'ndcg@20'"):
        resolve(wrong, GRAPH)
    right = replace(wrong, train=TrainConfig(select_by="recall@10"))
    assert resolve(right, GRAPH).eval.metrics == ("recall@10",)
    with pytest.raises(ArgumentError, match="recal"):
        resolve(replace(config(), eval=EvalConfig(("recal@10",))), GRAPH)


def test_load_graph_reads_the_folder(dataset: Path) -> None:
    graph = load_graph(DataConfig(str(dataset)))
    assert (graph.num_users, graph.num_items, graph.has_split("valid")) == (30, 40, True)


def test_features_come_from_files_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_planted(tmp_path / "films")
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    ids = load_graph(DataConfig(str(folder))).items.ids
    lines = [f"{item_id}\tA film of {item_id}\t{item_id}" for item_id in ids[3:]]
    (folder / "plots.tsv").write_text("\n".join(["item_id\tplot\ttitle", *lines]) + "\n")
    graph = load_graph(DataConfig(str(folder), features=("plots.tsv",)))
    assert graph.item_features["plot"].values[4] == f"A film of {ids[4]}"
    assert graph.item_features["plot"].present.tolist() == [False] * 3 + [True] * (len(ids) - 3)
    assert graph.item_features["title"].values[4] == ids[4]  # takes the place of the data's own
    with pytest.raises(ConfigError, match=r"data.features: no such file 'plot.tsv'; looked for plot.tsv, .*films"):
        load_graph(DataConfig(str(folder), features=("plot.tsv",)))
    here = resolve(config(features=(str(folder / "plots.tsv"), "plots.tsv")), GRAPH)
    assert here.data.features == (str((folder / "plots.tsv").resolve()), "plots.tsv")


def test_a_run_folder_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a run folder and no data set; .* in its config.yaml"):
        load_graph(DataConfig(str(tmp_path)))
