"""Weights & Biases curves from training records, for those who ask for them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphrec.errors import ConfigError
from graphrec.training.tensorboard import scalars_of


class WandbWriter:
    """Writes every record to a run of Weights & Biases, with the names that :class:`TensorBoardWriter` gives.

    Nothing leaves the machine unless the environment says so: the mode is that of ``WANDB_MODE``, "offline" when it is
    not set, and ``wandb sync RUN/wandb/offline-run-*`` uploads later. A resumed run hands out its earlier records
    again, so what lies there of an earlier time is removed.

    Args:
        folder: The run folder; files go to its subfolder ``wandb``.
        project: The project's name.
        config: Settings to show beside the curves.

    Raises:
        ConfigError: The extra ``graphrec[wandb]`` is missing.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        check_wandb()
        import wandb

        shutil.rmtree(folder / "wandb", ignore_errors=True)
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        if "WANDB_MODE" not in os.environ:
            quiet.mode = "offline"
        self._run = wandb.init(project=project, dir=str(folder), name=folder.name, config=dict(config), settings=quiet)
        self._step = 0  # of both phases, as steps must rise

    def write(self, record: dict[str, Any]) -> None:
        """Write one record of :class:`~graphrec.training.trainer.Trainer`; give it as ``on_record``."""
        self._step += 1
        self._run.log({**scalars_of(record), f"{record['phase']}/epoch": record["epoch"]}, step=self._step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def check_wandb() -> None:
    """Make sure that Weights & Biases can be written.

    Raises:
        ConfigError: The extra ``graphrec[wandb]`` is missing.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError("--wandb needs wandb: pip install 'graphrec[wandb]'")
