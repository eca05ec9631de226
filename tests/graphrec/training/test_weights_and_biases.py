import importlib.util
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from graphrec.errors import ConfigError
from graphrec.training.weights_and_biases import WandbWriter

MISSING = importlib.util.find_spec("wandb") is None
needs_wandb = pytest.mark.skipif(MISSING, reason="the extra graphrec[wandb] is missing")


def record(phase, epoch, valid, loss=1.5):
    return {"phase": phase, "epoch": epoch, "loss": loss, "valid": valid, "seconds": 0.5, "lr": 0.01}


@needs_wandb
def test_a_run_is_kept_offline_and_a_resumed_one_once(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):  # the second time as a resumed run does
        with closing(WandbWriter(tmp_path, "films", {"model": {"name": "EASE"}})) as writer:
            writer.write(record("select", 1, {"mrr": 0.25}))
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    names = (b"select/mrr", b"select/loss", b"EASE", b"films")
    for _ in range(100):  # another process writes it
        missing = [name for name in names if name not in written.read_bytes()]
        if not missing:
            break
        time.sleep(0.2)
    assert not missing


@needs_wandb
def test_steps_rise_through_both_phases_and_what_is_missing_is_left_out(tmp_path, monkeypatch):
    import wandb

    logged = []
    fake = SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append("end"))
    monkeypatch.setattr(wandb, "init", lambda **settings: fake)
    with closing(WandbWriter(tmp_path, "films", {})) as writer:
        writer.write(record("select", 1, {"mrr": 0.25}))
        writer.write(record("refit", 1, None, loss=None))
    assert logged == [
        (1, {"select/loss": 1.5, "select/lr": 0.01, "select/seconds": 0.5, "select/mrr": 0.25, "select/epoch": 1}),
        (2, {"refit/lr": 0.01, "refit/seconds": 0.5, "refit/epoch": 1}),
        "end",
    ]


def test_its_absence_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--wandb needs wandb: pip install 'graphrec\[wandb\]'"):
        WandbWriter(tmp_path, "films", {})
