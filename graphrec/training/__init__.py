"""Training that selects on validation, refits, and resumes bit-equal."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphrec.training.config import TrainConfig

if TYPE_CHECKING:
    from graphrec.training.interrupt import Interrupted
    from graphrec.training.result import TrainResult
    from graphrec.training.tensorboard import TensorBoardWriter, tensorboard_installed
    from graphrec.training.trainer import Trainer

__all__ = ["Interrupted", "TensorBoardWriter", "TrainConfig", "TrainResult", "Trainer", "tensorboard_installed"]

# Loaded on first use: the command line reads TrainConfig without waiting for torch.
_HOMES = {
    "Interrupted": "interrupt",
    "TensorBoardWriter": "tensorboard",
    "TrainResult": "result",
    "Trainer": "trainer",
    "tensorboard_installed": "tensorboard",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
