"""The scripts do what the commands do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases.graphs import with_attributes
from cases.planted_folder import write_planted

from graphrec.cli import main
from graphrec.experiment import RunFolder
from graphrec.histories import Histories
from kg_loaders import RecGraph
from kg_loaders.formats import tables
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


def test_train_script_reads_files_of_features_and_its_run_can_be_opened(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blurbs = tmp_path / "blurbs.csv"
    blurbs.write_text("item_id,blurb\nitem-00,a film about bees\n", encoding="utf-8")
    options = ["--model", "EASE", "--data.features", str(blurbs)]
    load("train").main(data, [*options, "--out", str(tmp_path / "script")])
    assert main(["train", data, *options, "--out", str(tmp_path / "command")]) == 0
    script, command = (RunFolder.open(tmp_path / name) for name in ("script", "command"))
    assert script.info.graph_fingerprint == command.info.graph_fingerprint
    assert main(["recommend", str(tmp_path / "script"), "--user", "user-00"]) == 0


@pytest.mark.parametrize(
    ("script", "arguments", "code", "told"),
    [
        ("train", ["--help"], 0, "The options are those of graphrec train."),
        ("evaluate", ["--help"], 0, "a run folder"),
        ("benchmark_layers", ["--peer", "GatConv"], 2, "invalid choice: 'GatConv'"),
        ("measure_cold_items", ["no-such-set"], 1, "graphrec: unknown data set 'no-such-set'"),
        ("measure_cold_items", ["--help"], 0, "also --train.OPTION, and --model.OPTION of the first model"),
        ("measure_explanations", ["no-such-run"], 1, "graphrec: no-such-run: there is no such run folder"),
        ("measure_head", ["ml-100k", "--nonsense", "1"], 2, "graphrec: --nonsense is not a known setting"),
        ("measure_short_histories", ["no-such-set"], 1, "graphrec: unknown data set 'no-such-set'"),
        ("measure_transfer", ["no-such-set", "ml-100k"], 1, "graphrec: unknown data set 'no-such-set'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(script: str, arguments: list[str], code: int, told: str) -> None:
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert told in " ".join((done.stdout + done.stderr).split())


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


def test_every_source_of_cold_items_has_a_row_alone_and_all_have_one_together() -> None:
    script = load("measure_cold_items")
    assert list(script.settings("InductiveKGAT", ["kg", "image"])) == [
        ("kg + image", "full", ("image",)),
        ("kg", "full", ()),
        ("image", "none", ("image",)),
        ("nothing", "none", ()),
        ("shuffled kg", "shuffled", ()),
    ]
    assert [name for name, _, _ in script.settings("ContentKNN", ["image"])] == ["image"]


def test_cold_items_are_measured_from_the_command_line(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds=1", "--share=0.2", "--model.dim=8", "--train.epochs=1", "-k", "3"]
    monkeypatch.setattr("sys.argv", ["measure_cold_items.py", data, *options])
    load("measure_cold_items").main()
    printed = capsys.readouterr().out
    for row in ("InductiveKGAT, kg", "InductiveKGAT, nothing", "InductiveKGAT, shuffled kg", "ContentKNN, kg"):
        assert f"{row} " in printed
    assert "recall@3 among 8 cold items" in printed


def test_strangers_leave_the_training_part_and_are_asked_by_their_first_items() -> None:
    script = load("measure_short_histories")
    before = planted(num_users=30, num_items=40, num_cold_items=0)
    graph, strangers = script.make_strangers(before, 0.2, seed=1)
    assert len(strangers) == 6
    assert not np.isin(graph.part("train", "valid").user, strangers).any()
    assert set(graph.part("test").user) == set(strangers)
    shown, wanted, users = script.first_items(graph, strangers, longest=2, seed=0)
    assert users == strangers.tolist()
    part = before.interactions
    for user, first, rest in zip(strangers, shown, wanted, strict=True):
        assert [*first, *rest] == part.item[part.user == user].tolist()  # in order of time
    mixed, others, _ = script.first_items(graph, strangers, longest=2, seed=0, order="random")
    assert mixed != shown
    assert [{*a, *b} for a, b in zip(mixed, others, strict=True)] == [
        {*a, *b} for a, b in zip(shown, wanted, strict=True)
    ]
    _, spare = script.make_strangers(before, 0.2, seed=1, spared=strangers)
    assert len(spare) == 6
    assert not np.isin(spare, strangers).any()
    knowing = Knowing(graph)
    knowing.answers = knowing.answers[torch.from_numpy(strangers)]
    knowing.score = lambda histories: knowing.answers  # type: ignore[method-assign]
    assert script.ndcg(knowing, shown, wanted, n=1, k=3) == 1.0


def test_short_histories_are_measured_from_the_command_line(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds=1", "--share=0.3", "--lengths=0,2", "--model.dim=8", "--train.epochs=1"]
    options += ["--part=valid", "--order=random", "--model.popularity_prior=1e6"]
    monkeypatch.setattr("sys.argv", ["measure_short_histories.py", data, *options])
    load("measure_short_histories").main()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: [float(cell) for cell in line.split()[1:]] for line in lines[-3:]}
    assert rows.keys() == {"Popularity", "EASE", "InductiveKGAT"}
    assert rows["Popularity"][0] == rows["Popularity"][1]
    assert rows["InductiveKGAT"] == pytest.approx(rows["Popularity"], abs=0.05)  # equal counts are ordered otherwise
    assert all(0 <= value <= 1 for values in rows.values() for value in values)


def test_strangers_have_a_row_with_their_attributes_where_a_head_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    graph = with_attributes(planted(num_users=30, num_items=40, num_cold_items=4))
    tables.write(graph, tmp_path / "films")
    head = ["--model.dim=8", "--model.head=mlp", "--model.side_features=[taste]", "--train.epochs=1"]
    words = ["--models=InductiveKGAT", "--seeds=1", "--share=0.3", "--lengths=0,2", *head]
    monkeypatch.setattr("sys.argv", ["measure_short_histories.py", str(tmp_path / "films"), *words])
    load("measure_short_histories").main()
    told, known = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert (told[0], known[:3]) == ("InductiveKGAT", ["InductiveKGAT,", "attributes", "known"])
    assert told[1:] != known[3:]


def test_the_head_script_measures_each_row_and_its_cost(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--heads=mlp,gru", "--side=hour", "--seeds=1", "--rounds=1", "--metrics=ndcg@5"]
    options = ["--model.dim=4", "--model.head_channels=4", "--train.epochs=1", "--train.select_by=ndcg@5"]
    script = load("measure_head")
    script.main([data, *words, *options])
    printed = capsys.readouterr().out
    for row in ("plain product ", "mlp ", "mlp, hour ", "gru ", "gru, hour "):
        assert f"\n{row}" in printed
    assert "ndcg@5: mlp, hour - plain product: " in printed
    script.main([data, *words, *options, "--json"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["row"] for row in rows] == ["plain product", "mlp", "mlp, hour", "gru", "gru, hour"]
    assert all(0 <= row["ndcg@5"] <= 1 and row["seconds_to_rank"] > 0 for row in rows)


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
