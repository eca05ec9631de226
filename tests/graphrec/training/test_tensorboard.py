import importlib.util

import pytest

from graphrec.training.tensorboard import TensorBoardWriter, tensorboard_installed

needs_tensorboard = pytest.mark.skipif(not tensorboard_installed(), reason="the extra graphrec[tensorboard] is missing")


def record(phase, epoch, valid):
    return {"phase": phase, "epoch": epoch, "loss": 1.5 / epoch, "valid": valid, "seconds": 0.5, "lr": 0.01}


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@needs_tensorboard
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own reader
def test_scalars_can_be_read_back_and_a_resumed_run_writes_them_once(tmp_path):
    records = [record("select", 1, {"mrr": 0.25}), record("select", 2, None), record("refit", 1, None)]
    for _ in range(2):  # the second time as a resumed run does
        with TensorBoardWriter(tmp_path / "tensorboard") as writer:
            for each in records:
                writer.write(each)
    scalars = read(tmp_path / "tensorboard")
    assert scalars["select/loss"] == [(1, 1.5), (2, 0.75)]
    assert scalars["select/mrr"] == [(1, 0.25)]
    assert scalars["refit/lr"] == [(1, 0.01)]


@needs_tensorboard
def test_a_closed_form_has_no_loss_to_write(tmp_path):
    with TensorBoardWriter(tmp_path) as writer:
        writer.write({**record("select", 1, {"mrr": 0.5}), "loss": None, "lr": None})
    assert set(read(tmp_path)) == {"select/mrr", "select/seconds"}


def test_its_absence_is_told_without_importing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not tensorboard_installed()
