"""Checkpoints: one file with tensors and JSON, written so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphrec.errors import RunError

CHECKPOINT_NAME = "checkpoint.safetensors"
CHEAP_SHARE = 0.02  # of the time since the last save that one more save may take


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and state as one safetensors file, the state as JSON in its metadata.

    The file is written beside ``path``, synced, and renamed over it, so ``path`` is the old or the new checkpoint
    and never a part of one; weights and state cannot come from different moments. A CRC-32 over both finds damage.

    Raises:
        RunError: The file could not be written (full disk, no permission); the checkpoint before it is intact.
    """
    temporary = path.with_name(path.name + ".tmp")
    text = json.dumps(state)
    stored = _separate(tensors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(stored, temporary, {"state": text, "crc32": str(_checksum(stored, text))})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        before = "the checkpoint before it is intact" if path.exists() else "there is no checkpoint yet"
        raise RunError(f"could not save {path}: {error}; {before}") from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote, on the CPU.

    Raises:
        RunError: The file cannot be read, is cut short or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: the reader's own tensors lie in a map of the file, aligned to 8 bytes only.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        text = metadata["state"]
        if metadata["crc32"] != str(_checksum(tensors, text)):
            raise RunError(f"{path} is damaged: its checksum does not fit; delete it to start the run anew")
        return tensors, json.loads(text)
    except (OSError, SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} is not a whole checkpoint ({type(error).__name__}: {error}); delete it to start the run anew"
        ) from error


class Checkpointer:
    """Decides when a run is saved, and saves it.

    Args:
        run_dir: The run folder, or ``None`` to save nothing.
        minutes: Longest time between two saves.
    """

    def __init__(self, run_dir: Path | None, minutes: float) -> None:
        self.path = None if run_dir is None else run_dir / CHECKPOINT_NAME
        self.seconds = minutes * 60
        self._last = time.monotonic()
        self._cost = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for a save in the middle of an epoch."""
        return self.path is not None and time.monotonic() - self._last >= self.seconds

    @property
    def cheap(self) -> bool:
        """Whether a save now would take a small share of the time since the last one."""
        return self._cost <= CHEAP_SHARE * (time.monotonic() - self._last)

    def save(self, content: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Save what ``content`` returns, if there is a run folder."""
        if self.path is None:
            return
        start = time.monotonic()
        save_checkpoint(self.path, *content())
        self._last = time.monotonic()
        self._cost = self._last - start

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the saved tensors and state, or ``None`` where there are none."""
        return None if self.path is None or not self.path.exists() else load_checkpoint(self.path)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors that share no memory, as safetensors demands (tied weights are stored twice)."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        stored = tensor.detach().to("cpu").contiguous()
        if stored.untyped_storage().data_ptr() in seen:
            stored = stored.clone()
        seen.add(stored.untyped_storage().data_ptr())
        separate[name] = stored
    return separate


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can sync folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
