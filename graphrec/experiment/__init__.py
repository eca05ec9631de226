"""Runs, comparisons and reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphrec.experiment.config import DataConfig, EvalConfig, ModelConfig, RunConfig

if TYPE_CHECKING:
    from graphrec.experiment.comparison import compare
    from graphrec.experiment.folder import RunFolder
    from graphrec.experiment.run_comparison import compare_runs
    from graphrec.experiment.runner import run
    from graphrec.experiment.transfer import TransferStudy, cold_split
    from graphrec.experiment.transfer_comparison import compare_transfer

__all__ = [
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "RunConfig",
    "RunFolder",
    "TransferStudy",
    "cold_split",
    "compare",
    "compare_runs",
    "compare_transfer",
    "run",
]

# Loaded on first use: the command line reads a configuration without waiting for torch. A function must not share
# its module's name, for importing the module would put the module in the function's place.
_HOMES = {
    "RunFolder": "folder",
    "TransferStudy": "transfer",
    "cold_split": "transfer",
    "compare": "comparison",
    "compare_runs": "run_comparison",
    "compare_transfer": "transfer_comparison",
    "run": "runner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
