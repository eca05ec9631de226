from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from graphrec.errors import RunError
from graphrec.experiment.files import read_json, sha256, to_json, write, write_text


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("disk full")])
def test_full_disk_leaves_the_old_file_intact(tmp_path: Path, error: Exception) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def fail(partial: Path) -> None:
        partial.write_text("half of the ne")
        raise error

    with pytest.raises(RunError, match=r"could not write .*a.txt"):
        write(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_interruption_leaves_the_old_file_intact(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def stop(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(file, stop)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="could not write"):
        write_text(tmp_path / "absent" / "a.txt", "new")


def test_json_knows_no_nan() -> None:
    text = to_json({"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": ("é", None, True, 3)})
    assert json.loads(text) == {"a": [None, 1.5], "b": {"c": None}, "d": ["é", None, True, 3]}


def test_read_json_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with pytest.raises(RunError, match="missing"):
        read_json(file)
    for content in ("{", "\x00", "[]"):
        file.write_text(content)
        with pytest.raises(RunError, match="damaged"):
            read_json(file)
    file.write_bytes(b"\xff")
    with pytest.raises(RunError, match="damaged"):
        read_json(file)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
