"""Everything graphrec raises for a caller's mistake.

GraphrecError (ValueError)
├── ArgumentError        an argument outside its allowed values
│   └── DivergedError    numbers that are not finite, such as a loss after steps that were too long
├── ConflictError        an event's own id is that of another event
├── StrangerError        a model with a user table was asked about a user it never saw
├── NotFittedError       a model was asked to score before it was fitted
├── RunError             a run folder is missing, damaged, or of another version or vocabulary
├── StoreError           a store of live events is in use, damaged, or cannot be written
└── ConfigError          a configuration names an unknown key, model or metric

UserWarning
├── LongHistoryWarning       some histories are longer than a model reads
└── UnorderedHistoryWarning  histories without times, for a model that could read them in order
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraphrecError(ValueError):
    """Base of all errors that a caller can cause."""


class ArgumentError(GraphrecError):
    """An argument outside its allowed values."""


class DivergedError(ArgumentError):
    """A loss, a gradient or scores that are not finite, most often after a learning rate that was too high."""


class ConflictError(GraphrecError):
    """An event whose own id is that of another event."""


class StrangerError(GraphrecError):
    """A model with a user table was asked about a user it never saw."""


class NotFittedError(GraphrecError):
    """A model was asked to score before it was fitted."""


class RunError(GraphrecError):
    """A run folder that is missing, damaged, or does not belong to this version or vocabulary."""


class StoreError(GraphrecError):
    """A store of live events that is in use, damaged, or cannot be written."""


class ConfigError(GraphrecError):
    """A configuration that names an unknown key, model or metric."""


class UnorderedHistoryWarning(UserWarning):
    """A model that can read histories in order got histories without times, and reads them without order."""


class LongHistoryWarning(UserWarning):
    """Some histories are longer than a model reads; their most recent items are kept."""


def check_choice(name: str, value: str, allowed: Iterable[str], error: type[GraphrecError] = ArgumentError) -> None:
    """Raise ``error`` unless ``value`` is allowed, naming the argument, the value, and the nearest allowed one."""
    choices = list(allowed)
    if value not in choices:
        nearest = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise error(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")


def check_range(name: str, value: float, low: float | None = None, high: float | None = None) -> None:
    """Raise :class:`ArgumentError` unless ``low <= value <= high``."""
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f">= {low}" if high is None else f"<= {high}" if low is None else f"within {low}..{high}"
        raise ArgumentError(f"{name} must be {bounds}, got {value!r}")
