"""Hyper-parameters of closed forms: one value, or several to choose from on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphrec.errors import ArgumentError


def one_or_several(name: str, given: float | Sequence[float], low: float, *, above: bool = False) -> tuple[float, ...]:
    """Return the values that were given.

    Args:
        name: The argument, for the message.
        given: A number, or several.
        low: The least that is allowed, or with ``above`` the largest that is too small.
        above: Whether all must be above ``low``.

    Raises:
        ArgumentError: There is no value, or one is out of range or not finite.

    Example:
        >>> one_or_several("l2", 10, 0.0, above=True), one_or_several("beta", [0.0, 0.5], 0.0)
        ((10.0,), (0.0, 0.5))
    """
    values = tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),)
    fits = all(math.isfinite(value) and (value > low if above else value >= low) for value in values)
    if not values or not fits:
        allowed = f"above {low:g}" if above else f">= {low:g}"
        raise ArgumentError(f"{name} must be a number {allowed} or several of them, got {given!r}")
    return values
