"""TensorBoard scalars from training records, where tensorboard is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def tensorboard_installed() -> bool:
    """Whether the extra ``graphrec[tensorboard]`` is there."""
    return importlib.util.find_spec("tensorboard") is not None


def scalars_of(record: dict[str, Any]) -> dict[str, float]:
    """Return what a record measures: ``<phase>/loss``, ``<phase>/lr``, ``<phase>/seconds``, ``<phase>/<metric>``.

    What the record does not have, such as the loss of a closed form, is left out.
    """
    values = {"loss": record["loss"], "lr": record["lr"], "seconds": record["seconds"], **(record["valid"] or {})}
    return {f"{record['phase']}/{name}": value for name, value in values.items() if value is not None}


class TensorBoardWriter:
    """Writes every record as scalars; see :func:`scalars_of`.

    A resumed run hands out its earlier records again, so the folder's earlier event files are removed.
    Check :func:`tensorboard_installed` first.

    Args:
        folder: Where the event file goes, usually ``RUN/tensorboard``.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))

    def write(self, record: dict[str, Any]) -> None:
        """Write one record of :class:`~graphrec.training.trainer.Trainer`; give it as ``on_record``."""
        for name, value in scalars_of(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
