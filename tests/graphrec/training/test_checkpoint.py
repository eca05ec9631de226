import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphrec.errors import RunError
from graphrec.training import checkpoint
from graphrec.training.checkpoint import Checkpointer, load_checkpoint, save_checkpoint

STATE = {"epoch": 3, "loss": 0.1 + 0.2, "worst": float("-inf"), "history": [{"valid": None}]}


def make_tensors(value=1.0):
    tied = torch.full((4, 3), value)
    return {
        "a": tied,
        "b": tied,
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "scalar": torch.tensor(value),
        "half": torch.tensor([value], dtype=torch.bfloat16),
        "integers": torch.arange(5),
        "empty": torch.empty(0, 3),
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run" / "checkpoint.safetensors"
    save_checkpoint(path, make_tensors(), STATE)
    return path


def assert_intact(path):
    tensors, state = load_checkpoint(path)
    assert state == STATE
    assert torch.equal(tensors["a"], torch.ones(4, 3))


def test_tensors_and_state_come_back_exactly(path):
    tensors, state = load_checkpoint(path)
    assert state == STATE
    assert tensors.keys() == make_tensors().keys()
    for name, tensor in make_tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].numel() == 0 or tensors[name].data_ptr() % 16 == 0
    assert os.listdir(path.parent) == [path.name]


def test_a_file_cut_anywhere_is_named(path):
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"checkpoint\.safetensors"):
            load_checkpoint(path)


def test_any_changed_byte_is_found(path):
    whole, rng = path.read_bytes(), random.Random(0)
    positions = [*range(8), *(rng.randrange(len(whole)) for _ in range(400)), len(whole) - 1]
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(RunError, match=str(path)):
            load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle in a zip", b"\xff" * 64])
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(RunError, match="not a whole checkpoint"):
        load_checkpoint(path)


def test_plain_weights_are_no_checkpoint(path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(RunError, match="not a whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("broken", ["save_file", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_one(path, monkeypatch, broken):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = {"save_file": checkpoint, "fsync": os, "replace": Path}[broken]
    monkeypatch.setattr(place, broken, fail)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors.*No space left.*is intact"):
        save_checkpoint(path, make_tensors(2.0), {"epoch": 4})
    monkeypatch.undo()
    assert_intact(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_first_save_that_fails_says_that_there_is_none(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="there is no checkpoint yet"):
        save_checkpoint(tmp_path / "run" / "checkpoint.safetensors", make_tensors(), {})


def test_a_full_disk_leaves_the_old_one(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        path = tmp_path / "checkpoint.safetensors"
        save_checkpoint(path, make_tensors(), STATE)
        with pytest.raises(RunError, match=r"No space left.*is intact"):
            save_checkpoint(path, {"a": torch.zeros(100_000)}, {"epoch": 4})
        assert_intact(path)
        assert os.listdir(tmp_path) == [path.name]
        save_checkpoint(path, make_tensors(), STATE)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_size_limit_leaves_the_old_one(path):
    code = f"""
import resource, sys, torch
from pathlib import Path
from graphrec.errors import RunError
from graphrec.training.checkpoint import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(Path({str(path)!r}), {{"a": torch.zeros(100_000)}}, {{}})
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert_intact(path)


def test_what_a_killed_save_leaves_is_no_hindrance(path):
    path.with_name(path.name + ".tmp").write_bytes(b"half a")
    assert_intact(path)
    save_checkpoint(path, make_tensors(), STATE)
    assert_intact(path)
    assert os.listdir(path.parent) == [path.name]


def test_due_after_the_minutes_and_cheap_by_its_share_of_the_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    saver = Checkpointer(tmp_path, minutes=2)
    now[0] += 119
    assert not saver.due
    assert saver.cheap
    now[0] += 1
    assert saver.due

    def slow():
        now[0] += 1
        return make_tensors(), {}

    saver.save(slow)
    assert not saver.due
    now[0] += 49  # a save of 1 s is no more than 2 % of 50 s
    assert not saver.cheap
    now[0] += 1
    assert saver.cheap
    assert saver.load() is not None


def test_without_a_run_folder_nothing_is_saved():
    saver = Checkpointer(None, minutes=1e-9)
    saver.save(lambda: pytest.fail("asked for the content"))
    assert not saver.due
    assert saver.load() is None
