import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from cases.tiny_training import (
    StubEvaluator,
    TinyClosedForm,
    TinyModel,
    equal_weights,
    fit_tiny,
    outcome,
    snapshot,
    tiny_config,
    tiny_graph,
)

from graphrec.errors import RunError
from graphrec.training import Interrupted, Trainer
from graphrec.training.checkpoint import load_checkpoint, save_checkpoint

EVERY_STEP = 1e-9  # checkpoint_minutes


class Crash(Exception):
    """Stands for a process that is gone."""


def crashing_at(number):
    def crash(count):
        if count == number:
            raise Crash

    model = TinyModel()
    model.before_loss = crash
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2, "checkpoint_minutes": EVERY_STEP},
        {"epochs": 3, "refit": False},
        {"epochs": 2, "select": False},
        {"epochs": 3, "ema_decay": 0.0, "eval_every": 2},
    ],
)
def test_a_crash_at_any_step_changes_nothing(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and of no account while the machine stays up
    settings = {**settings, "patience": 0}
    whole = fit_tiny(**settings)
    num_steps = 4 * len(whole[1].history)
    for number in range(1, num_steps + 1):
        run_dir = tmp_path / str(number)
        with pytest.raises(Crash):
            fit_tiny(run_dir, crashing_at(number), **settings)
        assert outcome(*fit_tiny(run_dir, **settings)) == outcome(*whole)


def test_saving_itself_changes_nothing(tmp_path):
    assert outcome(*fit_tiny(tmp_path, checkpoint_minutes=EVERY_STEP)) == outcome(*fit_tiny())


def test_only_the_position_is_needed_so_a_resumed_run_skips_what_is_done(tmp_path):
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(7), checkpoint_minutes=EVERY_STEP)
    _, saved = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert {key: saved["state"][key] for key in ("phase", "epoch", "step")} == {
        "phase": "select",
        "epoch": 1,
        "step": 2,
    }
    model = TinyModel()
    _, result = fit_tiny(tmp_path, model, checkpoint_minutes=EVERY_STEP)
    assert len(model.seen) == 4 * len(result.history) - 6


def test_the_model_sees_all_histories_of_a_phase_before_its_first_step_and_again_when_resumed(tmp_path):
    graph = tiny_graph()
    select, refit = len(graph.part("train")), len(graph.part("train", "valid"))
    model, result = fit_tiny()
    assert model.prepared == [select, refit]
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(4 * result.num_epochs + 2), checkpoint_minutes=EVERY_STEP)
    resumed, _ = fit_tiny(tmp_path, TinyModel(), checkpoint_minutes=EVERY_STEP)
    assert resumed.prepared == [refit]


def test_a_finished_run_is_returned_without_training(tmp_path):
    whole = fit_tiny(tmp_path)
    model = TinyModel()
    again = fit_tiny(tmp_path, model)
    assert outcome(*again) == outcome(*whole)
    assert again[1].seconds == whole[1].seconds
    assert model.seen == []


def test_a_resumed_run_hands_out_the_earlier_records_first(tmp_path):
    _, whole = fit_tiny()
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(10), checkpoint_minutes=EVERY_STEP)
    records = []
    trainer = Trainer(tiny_config(checkpoint_minutes=EVERY_STEP), seed=3, quiet=True)
    result = trainer.fit(TinyModel(), tiny_graph(), StubEvaluator(), tmp_path, records.append)
    assert records == result.history
    assert [(r["phase"], r["epoch"], r["loss"]) for r in records] == [
        (r["phase"], r["epoch"], r["loss"]) for r in whole.history
    ]


def test_seconds_go_on_over_sessions(tmp_path):
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(10), checkpoint_minutes=EVERY_STEP)
    _, saved = load_checkpoint(tmp_path / "checkpoint.safetensors")
    _, result = fit_tiny(tmp_path, checkpoint_minutes=EVERY_STEP)
    assert result.history[0]["seconds"] == saved["state"]["history"][0]["seconds"]
    assert result.seconds["select"] == pytest.approx(
        sum(r["seconds"] for r in result.history if r["phase"] == "select")
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 6, 8])
def test_a_signal_finishes_the_step_saves_and_raises(tmp_path, number, step):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    model = TinyModel()
    model.before_loss = lambda count: os.kill(os.getpid(), number) if count == step else None
    with pytest.raises(Interrupted, match=rf"{signal.Signals(number).name} at phase select.*resume") as caught:
        fit_tiny(tmp_path, model)
    assert caught.value.checkpoint == tmp_path / "checkpoint.safetensors"
    assert len(model.seen) == step
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    _, saved = load_checkpoint(caught.value.checkpoint)
    assert 4 * saved["state"]["epoch"] + saved["state"]["step"] == step
    assert outcome(*fit_tiny(tmp_path)) == outcome(*fit_tiny())


def test_a_signal_without_a_run_folder_says_that_nothing_was_saved():
    model = TinyModel()
    model.before_loss = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None
    with pytest.raises(Interrupted, match="nothing was saved"):
        fit_tiny(None, model)
    assert len(model.seen) == 2


def test_training_runs_in_another_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome(*fit_tiny())))
    thread.start()
    thread.join()
    assert results == [outcome(*fit_tiny())]


@pytest.mark.parametrize(
    ("settings", "seed", "model", "graph", "named"),
    [
        ({"learning_rate": 0.25}, 3, TinyModel, tiny_graph, "train.learning_rate was 0.05, is 0.25"),
        ({}, 4, TinyModel, tiny_graph, "seed was 3, is 4"),
        ({}, 3, lambda: TinyModel(dim=4), tiny_graph, "weights.inputs.weight"),
        ({}, 3, TinyModel, lambda: tiny_graph(seed=8), "graph was"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, settings, seed, model, graph, named):
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(10))
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    other = model()
    before = snapshot(other)
    with pytest.raises(RunError, match=named):
        Trainer(tiny_config(**settings), seed=seed, quiet=True).fit(other, graph(), StubEvaluator(), tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content
    assert equal_weights(snapshot(other), before)


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(10))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=str(path)):
        fit_tiny(tmp_path)


def test_a_full_disk_stops_the_run_and_what_was_saved_resumes(tmp_path, monkeypatch):
    saves = []

    def fill_up(tensors, path, metadata):
        saves.append(path)
        if len(saves) == 6:
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    from safetensors.torch import save_file

    monkeypatch.setattr("graphrec.training.checkpoint.save_file", fill_up)
    with pytest.raises(RunError, match="No space left on device"):
        fit_tiny(tmp_path, checkpoint_minutes=EVERY_STEP)
    assert len(saves) == 6
    assert outcome(*fit_tiny(tmp_path, checkpoint_minutes=EVERY_STEP)) == outcome(*fit_tiny())


def test_threads_are_those_of_the_run_that_began(tmp_path, monkeypatch):
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(10))
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    fit_tiny(tmp_path)
    assert threads == [1, 5]  # as saved, and back as found


def test_a_closed_form_keeps_no_checkpoint(tmp_path):
    fit_tiny(tmp_path / "run", TinyClosedForm())
    assert not (tmp_path / "run").exists()


def run_killed(folder: Path, num_runs: int, model: str = "TinyModel") -> dict[str, list[int]]:
    script, seed = Path(__file__).with_name("killed_run.py"), time.time_ns() % 1000
    command = [sys.executable, str(script), str(folder), str(num_runs), str(seed), model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome_of_all: dict[str, list[int]] = json.loads(done.stdout)
    return outcome_of_all


@pytest.mark.parametrize("model", ["TinyModel", "InductiveKGAT"])
def test_kill_9_at_random_moments_ends_bit_equal(tmp_path, model):
    runs = run_killed(tmp_path, num_runs=3, model=model)
    assert all(runs["equal"])
    assert sum(runs["kills"]) >= 3


@pytest.mark.slow
def test_kill_9_at_many_more_moments_ends_bit_equal(tmp_path):
    runs = run_killed(tmp_path, num_runs=12)
    assert all(runs["equal"])
    assert sum(runs["kills"]) >= 12


def test_a_checkpoint_that_counts_fewer_kinds_of_seconds_goes_on(tmp_path):
    with pytest.raises(Crash):
        fit_tiny(tmp_path, crashing_at(7), checkpoint_minutes=EVERY_STEP)
    path = tmp_path / "checkpoint.safetensors"
    tensors, saved = load_checkpoint(path)
    del saved["state"]["seconds"]["prepare"]
    save_checkpoint(path, tensors, saved)
    resumed = fit_tiny(tmp_path, checkpoint_minutes=EVERY_STEP)
    assert outcome(*resumed) == outcome(*fit_tiny())
