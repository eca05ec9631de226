"""EarlyStopping: remembers the best epoch and says when to give up."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from graphrec.errors import ArgumentError


@dataclass
class EarlyStopping:
    """Keeps the epoch with the highest value; the earlier one wins a tie.

    Args:
        patience: Evaluations without a better value after which to stop; 0 = never.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> [stopping.update(epoch, value) for epoch, value in [(1, 0.1), (2, 0.3), (3, 0.2), (4, 0.3)]]
        [True, True, False, False]
        >>> stopping.best_epoch, stopping.should_stop
        (2, True)
    """

    patience: int
    best_epoch: int = field(default=0, init=False)
    best_value: float = field(default=-math.inf, init=False)
    num_worse: int = field(default=0, init=False)

    def update(self, epoch: int, value: float) -> bool:
        """Take in the value of an epoch and return whether it is the best so far.

        Raises:
            ArgumentError: The value is not finite, so it can choose nothing.
        """
        if not math.isfinite(value):
            raise ArgumentError(f"the value that selects epochs must be finite, got {value!r} in epoch {epoch}")
        if value > self.best_value:
            self.best_epoch, self.best_value, self.num_worse = epoch, value, 0
            return True
        self.num_worse += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether ``patience`` evaluations in a row brought nothing better."""
        return 0 < self.patience <= self.num_worse

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {name: value for name, value in asdict(self).items() if name != "patience"}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.best_epoch, self.best_value = int(state["best_epoch"]), float(state["best_value"])
        self.num_worse = int(state["num_worse"])
