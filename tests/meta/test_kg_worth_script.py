"""scripts/measure_kg_worth.py finds which relation of a planted graph is the one that means something."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graphrec.errors import ArgumentError
from kg_loaders.formats import tables
from kg_loaders.synthetic import planted

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_kg_worth.py"
SHORT = ["--model.dim=16", "--train.epochs=20", "--train.batch_size=32", "--train.learning_rate=0.01"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("script_measure_kg_worth", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    graph = planted()
    pairs = graph.interactions
    assert pairs.split is not None
    forgotten = (pairs.user < 60) & (pairs.split == 0) & (pairs.item % 3 == 0)  # else all histories are equally long
    tables.write(replace(graph, interactions=pairs[~forgotten]), tmp_path / "films")
    return str(tmp_path / "films")


def test_only_the_relation_that_means_something_is_missed(
    script: Any, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [data, "--seeds=1", "--groups=2", "--metric=recall@10", f"--out={tmp_path / 'values'}", *SHORT]
    script.main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    assert list(rows) == ["with KG", "no KG", "shuffled KG", "without genre", "without studio"]
    assert found["triples"] == {
        "with KG": 160,
        "no KG": 0,
        "shuffled KG": pytest.approx(160, abs=40),  # what coincides is merged
        "without genre": 80,
        "without studio": 80,
    }
    assert "test" not in rows["with KG"]
    for name in ("no KG", "shuffled KG", "without genre"):  # cold items, two thirds of the test part, are lost
        assert rows[name]["test"]["difference"] < -0.2
        assert rows[name]["test"]["p_holm"] < 0.01
    assert rows["without studio"]["test"]["difference"] > -0.1
    assert sum(group["users"] for group in found["groups"]) == found["users"] == 120
    low, high = found["groups"]
    assert low["shortest"] <= low["longest"] < high["shortest"] <= high["longest"]
    for name, row in rows.items():
        of_groups = sum(group["users"] * group["rows"][name]["mean"] for group in found["groups"])
        assert of_groups == pytest.approx(120 * row["mean"])
        assert row["low"] <= row["mean"] <= row["high"]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("what is finished is not trained again")

    script.Trainer = refuse
    script.main(words)
    printed = capsys.readouterr().out
    for name in rows:
        assert f"{name} " in printed
    assert f"{rows['no KG']['test']['difference']:+.4f} [" in printed
    assert "*)" in printed


def test_the_largest_relations_leave_alone_and_the_others_together(script: Any) -> None:
    graph = planted()
    names = [row.name for row in script.rows_of(graph, "InductiveKGAT", num_relations=1)]
    assert names == ["with KG", "no KG", "shuffled KG", "without genre", "without the other relation"]
    assert [row.name for row in script.rows_of(graph, "KGIN", num_relations=0)] == ["with KG", "shuffled KG"]
    one = script.rows_of(graph, "InductiveKGAT", 1)[-1].graph(graph)
    assert set(one.triples[:, 1]) == {graph.relations.index_of("genre")}
    assert [row.name for row in script.rows_of(one, "KGIN", 5)] == ["with KG", "shuffled KG"]  # only one is left


def test_users_with_equally_long_histories_stay_together(script: Any) -> None:
    lengths = torch.tensor([3, 1, 1, 3, 1, 1, 1, 7, 9])
    groups = script.groups_of(lengths, 4)
    assert [(group.low, group.high, int(group.members.sum())) for group in groups] == [(1, 1, 5), (3, 3, 2), (7, 9, 2)]
    with pytest.raises(ArgumentError, match="groups must leave two users in each, got 3"):
        script.groups_of(torch.tensor([1, 2, 3]), 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=EASE"], "model must be one that reads the knowledge graph, got 'EASE'"),
        (["--metric=coverage@20"], "metric must be one with a value a user"),
        (["--seeds=0"], "seeds must be >= 1, got 0"),
        (["--groups=0"], "groups must be >= 1, got 0"),
    ],
)
def test_wrong_questions_are_refused(script: Any, data: str, words: list[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        script.main([data, *words])


def test_without_triples_there_is_nothing_to_measure(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    tables.write(planted(), tmp_path / "films")
    (tmp_path / "films" / "triples.csv").unlink()
    with pytest.raises(ArgumentError, match="no triples"):
        script.main([str(tmp_path / "films")])
