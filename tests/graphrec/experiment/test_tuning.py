from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from graphrec.errors import ArgumentError, ConfigError, RunError
from graphrec.experiment import tuning
from graphrec.experiment.config import options_of, simplified
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
    tune(str(dataset), SHORT, space, trials=3, out=tmp_path / "study", quiet=True)
    assert len(measured) == 4  # all that was asked for is there


def test_a_study_that_goes_on_draws_anew_and_only_for_the_same_question(
    dataset: Path, space: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    rates: list[float] = []

    def measure(config: Any, graph: Any, trial: Any) -> float:
        rates.append(config.train.learning_rate)
        assert config.train.learning_rate == trial.params["train.learning_rate"]  # to the last digit
        return 0.5

    monkeypatch.setattr(tuning, "_measure", measure)
    for trials in (1, 2, 3):
        tune(str(dataset), SHORT, space, trials=trials, out=tmp_path / "study", quiet=True)
    assert len(set(rates)) == 3
    with pytest.raises(RunError, match="a study of other settings"):
        tune(str(dataset), [*SHORT, "--seed=4"], space, trials=4, out=tmp_path / "study", quiet=True)
    space.write_text("model.dim: [4, 8, 16]\n")
    with pytest.raises(RunError, match="another search space"):
        tune(str(dataset), SHORT, space, trials=4, out=tmp_path / "study", quiet=True)


def test_trials_never_see_the_test_part(dataset: Path, space: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def measure(config: Any, graph: Any, trial: Any) -> float:
        assert not graph.has_split("test")
        assert {"train", "valid"} == {name for name in ("train", "valid") if graph.has_split(name)}
        return 0.5

    monkeypatch.setattr(tuning, "_measure", measure)
    assert tune(str(dataset), SHORT, space, trials=1, out=tmp_path / "study", quiet=True).value == 0.5


def test_progress_is_told(dataset: Path, space: Path, tmp_path: Path, capsys: Any) -> None:
    tune(str(dataset), SHORT, space, trials=1, out=tmp_path / "study")
    said = capsys.readouterr().err
    assert said.startswith("trial 1: recall@10 ")
    assert "model.dim = " in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.seed: [1, 2]", "only settings of model and train"),
        ("model.name: [EASE, InductiveKGAT]", "model.name: one model is searched at a time; name it with --model"),
        ("model.dim: 64", "must be a list of choices or a mapping with low and high, got 64"),
        ("model.dim: []", "must be a list"),
        ("model.dim: {low: 1}", "must be a list of choices or a mapping with low and high"),
        ("model.dim: {low: 1, high: 4, logg: true}", "did you mean 'log'"),
        ("model.dim: {low: 4, high: 4}", "low must be below high, got 4 and 4"),
        ("model.dim: {low: a, high: 4}", "must be numbers"),
        ("model.l2: {low: 0.1, high: .inf}", "must be numbers, got 0.1 and inf"),
        ("model.l2: {low: .nan, high: 0.1}", "must be numbers, got nan and 0.1"),
        ("model.l2: {low: 0.0, high: 1.0, log: true}", "low must be above 0 on a logarithmic scale, got 0.0"),
        ("model.l2: {low: 0.1, high: 1.0, log: 'no'}", "log must be true or false, got 'no'"),
        ("model.dim: {low: 1, high: 8, log: true, step: 2}", "log and step do not go together, got step 2"),
        ("model.dim: {low: 1, high: 8, step: 0.5}", "step must be an integer above 0, got 0.5"),
        ("model.dim: {low: 1, high: 8, step: 0}", "step must be an integer above 0, got 0"),
        ("model.l2: {low: 0.1, high: 0.8, step: a}", "step must be a number above 0, got 'a'"),
        (
            "train.select_by: [ndcg@10, recall@20]",
            "train.select_by: cannot be searched: trials are compared by one metric",
        ),
        ("train.valid_users: [100, 0]", "train.valid_users: cannot be searched: .* of the same users"),
        ("train.select: [true, false]", "train.select: cannot be searched"),
        ("train.refit: [true, false]", "train.refit: cannot be searched: .* none is refitted"),
        ("", "must be a mapping"),
        ("{}", "names no setting"),
    ],
)
def test_wrong_spaces_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_space(path)


def test_wrong_questions_are_refused(dataset: Path, space: Path) -> None:
    with pytest.raises(ArgumentError, match="trials must be >= 1, got 0"):
        tune(str(dataset), SHORT, space, trials=0)
    with pytest.raises(ConfigError, match=r"no committed search space of ToyTable; give one with --space"):
        tune(str(dataset), ["--model", "ToyTable"])


@pytest.mark.parametrize("given", [["--model.dim", "16"], ["--model.dim=16"]])
def test_a_setting_that_is_searched_cannot_be_given_as_well(
    dataset: Path, space: Path, tmp_path: Path, given: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        tune(str(dataset), [*SHORT, *given], space, trials=1, out=tmp_path / "study", quiet=True)
    assert (
        str(error.value) == f"--model.dim 16 is given, but {space} searches model.dim; leave it out of one of the two"
    )
    assert not (tmp_path / "study").exists()


def test_a_folder_that_cannot_be_made_is_named(dataset: Path, space: Path) -> None:
    with pytest.raises(RunError, match=f"the folder --out {space}/study cannot be made: Not a directory"):
        tune(str(dataset), SHORT, space, trials=1, out=space / "study", quiet=True)


def test_ranges_draw_within_their_bounds() -> None:
    optuna = pytest.importorskip("optuna")
    trial = optuna.trial.FixedTrial({"model.a": 3, "model.b": 0.5, "model.c": "x"})
    assert Dimension.read("model.a", {"low": 1, "high": 5}, "s").suggest(trial) == 3
    assert Dimension.read("model.b", {"low": 0.1, "high": 1.0, "log": True}, "s").suggest(trial) == 0.5
    assert Dimension.read("model.c", ["x", "y"], "s").suggest(trial) == "x"


def test_committed_spaces_name_settings_that_exist() -> None:
    from dataclasses import fields

    from graphrec.training import TrainConfig

    assert find_space("ml-100k", "inductive-kgat").parent.name == "any"
    paths = sorted(spaces_root().rglob("*.yaml"))
    assert paths
    for path in paths:
        name = next(n for n in REAL_MODELS if simplified(n) == simplified(path.stem))
        known = {f"model.{option}" for option in options_of(REAL_MODELS[name])}
        known |= {f"train.{field.name}" for field in fields(TrainConfig)}
        assert {dimension.name for dimension in read_space(path)} <= known, path


def test_a_closed_form_is_tried_to_its_end(dataset: Path, tmp_path: Path, toy_models: None) -> None:
    MODELS["ContentEASE"] = REAL_MODELS["ContentEASE"]
    space = tmp_path / "space.yaml"
    space.write_text("model.content_weight: {low: 0.1, high: 1000.0, log: true}\n")
    options = ["--model=ContentEASE", "--model.l2=[1,10,100,1000]", "--train.select_by=ndcg@20"]
    tune(str(dataset), options, space, trials=15, out=tmp_path / "study", quiet=True)
    assert "pruned" not in (tmp_path / "study" / "trials.tsv").read_text()


def test_a_trial_that_diverges_ends_itself_and_not_the_search(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("train.learning_rate: [0.01, 1.0e+38]\n")
    found = tune(str(dataset), SHORT, space, trials=6, out=tmp_path / "study")
    assert found.best == {"train.learning_rate": 0.01}
    states = [line.split("\t")[1::2] for line in (tmp_path / "study" / "trials.tsv").read_text().splitlines()[1:]]
    assert {tuple(row) for row in states} == {("complete", "0.01"), ("pruned", "1e+38")}
    assert "trial 1: given up: ToyKGAT scores NaN for user 0  train.learning_rate = 1e+38" in capsys.readouterr().err
    space.write_text("train.learning_rate: [1.0e+38]\n")
    with pytest.raises(RunError, match=r"none of 2 trials came to its end, see .*trials.tsv; search lower"):
        tune(str(dataset), SHORT, space, trials=2, out=tmp_path / "other", quiet=True)
    assert len((tmp_path / "other" / "trials.tsv").read_text().splitlines()) == 3


def test_a_study_of_other_data_is_refused(dataset: Path, space: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset, tmp_path / "films")
    tune(str(folder), SHORT, space, trials=1, out=tmp_path / "study", quiet=True)
    pairs = folder / "interactions.csv"
    lines = pairs.read_text().splitlines()
    lines.remove(next(line for line in lines if "train" in line))
    pairs.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="a study of other settings or data"):
        tune(str(folder), SHORT, space, trials=1, out=tmp_path / "study", quiet=True)
