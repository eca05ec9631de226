"""The scripts that measure explanations and the index do what they say, on toy sizes."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.graphs import planted_graph
from cases.planted_folder import write_planted

from graphrec.cli import main
from graphrec.histories import Histories
from graphrec.models import InductiveKGAT
from graphrec.serving.recommender import RunRecommender

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_explanations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    data = str(write_planted(tmp_path / "films"))
    runs = [str(tmp_path / f"run{seed}") for seed in range(2)]
    options = ["--model.dim=4", "--train.epochs=1", "--train.batch_size=16", "--train.refit=false"]
    for seed, run in enumerate(runs):
        assert main(["train", data, *options, "--model", "InductiveKGAT", f"--seed={seed}", "--out", run]) == 0
    assert main(["train", data, "--model", "popularity", "--train.refit=false", "--out", str(tmp_path / "pop")]) == 0
    script = load("measure_explanations")
    monkeypatch.setattr(script, "FEWEST_ITEMS", 2)
    capsys.readouterr()
    script.main([*runs, str(tmp_path / "pop"), "--users", "6", "--json"])
    attended, popularity = json.loads(capsys.readouterr().out)
    assert attended["runs"] == runs
    assert set(attended["fidelity"]) == {"past items", "KG edges"}
    for kind, methods in (
        ("past items", {"leave-one-out", "contributions", "attention"}),
        ("KG edges", {"leave-one-out", "attention"}),
    ):
        found = attended["fidelity"][kind]
        assert set(found["methods"]) == methods | {"random"}
        assert found["num_users"] + found["left_out"] == 6
        for low, mean, high in ((low, mean, high) for m in found["methods"].values() for mean, low, high in m.values()):
            assert low <= mean <= high
        assert set(attended["stability"][kind]) == methods | {"random"}
    assert popularity == {"runs": [str(tmp_path / "pop")], "model": "Popularity", "fidelity": {}}
    script.main([*runs, "--users", "3"])
    assert "2 seeds, leave-one-out" in capsys.readouterr().out
    script.main([str(tmp_path / "pop"), "--users", "3"])
    assert "no history adds to the score" in capsys.readouterr().out


def test_popularity_is_as_loud_without_a_history_as_with_it() -> None:
    torch.manual_seed(0)
    graph = planted_graph()
    model = InductiveKGAT.from_graph(graph, dim=8, popularity_prior=50.0, prior_length=16)
    assert model.prior is not None
    model.prior.count(Histories.from_lists([[3], [3], [2, 3]]))
    plain = copy.copy(model)
    plain.__dict__.update(_modules={**model._modules, "prior": None}, _cache={})
    script = load("measure_explanations")
    seen = []
    for each in (model, plain):
        for parts in script.explained(RunRecommender(each, graph), Histories.from_lists([[2, 5, 7]]), 3):
            left = parts.score(torch.eye(parts.size, dtype=torch.bool)) - parts.score(torch.ones(1, parts.size) > 0)
            seen.append([parts.added, *left.tolist()])
    assert seen[0] == pytest.approx(seen[2], abs=1e-4)  # past items
    assert seen[1] == pytest.approx(seen[3], abs=1e-4)  # KG edges


def test_the_edges_that_the_script_takes_away_are_those_it_ranks() -> None:
    torch.manual_seed(0)
    graph = planted_graph()
    model = InductiveKGAT.from_graph(graph, dim=8)
    recommender = RunRecommender(model, graph)
    _, edges = load("measure_explanations").explained(recommender, Histories.from_lists([[2, 5, 7]]), 3)
    everything = edges.score(torch.ones(1, edges.size, dtype=torch.bool))
    one_by_one = edges.score(~torch.eye(edges.size, dtype=torch.bool))
    assert edges.importances["leave-one-out"].tolist() == pytest.approx((everything - one_by_one).tolist(), abs=1e-9)
    # The past items' shares of attention, then all of the candidate's.
    assert float(edges.importances["attention"].sum()) == pytest.approx(2.0, abs=1e-5)


def test_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    out = tmp_path / "rows.json"
    load("benchmark_index").main(["--items", "500", "--width", "8", "--queries", "5", "--json", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [(row["index"], row["items"]) for row in rows] == [("exact", 500), ("hnsw", 500)]
    assert rows[0]["recall@10"] == 1.0
    assert all(0 < row["ms"] <= row["ms_p99"] for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 3
