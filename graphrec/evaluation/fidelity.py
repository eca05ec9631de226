"""Fidelity: whether what an explanation names is what the score depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the parts, as in ERASER
STEPS = 20


@dataclass(frozen=True)
class Fidelity:
    r"""How well an order of importance foretells what a score does when parts of its input go.

    All four are in one unit, so that users and models can be compared: what the whole input adds to the score of the
    empty one, :math:`s(N) - s(\emptyset)`, where nothing else is said.

    Args:
        deletion: Area under the rise over the empty input's score as the most important parts go first; lower is
            better.
        insertion: The same as the most important parts come first, into nothing; higher is better.
        comprehensiveness: What the score loses without the most important 1, 5, 10, 20 and 50 %, on average; higher
            is better.
        sufficiency: What the score lacks with nothing but these, on average; lower is better, and below 0 where they
            alone score more than all.
    """

    deletion: float
    insertion: float
    comprehensiveness: float
    sufficiency: float


def fidelity(
    score: Callable[[Tensor], Tensor],
    importance: Tensor,
    unit: float | None = None,
    steps: int = STEPS,
    shares: Sequence[float] = SHARES,
) -> Fidelity:
    r"""Measure an explanation by taking parts of the input away.

    With the parts in order of importance and :math:`T_f` the first share :math:`f` of them (at least one part, where
    :math:`f > 0`), and :math:`v(S) = (s(S) - s(\emptyset)) / \text{unit}`:

    .. math::
        \text{deletion} = \int_0^1 v(N \setminus T_f) \, df, \quad \text{insertion} = \int_0^1 v(T_f) \, df, \quad
        \text{comprehensiveness} = v(N) - \operatorname{mean}_f v(N \setminus T_f), \quad
        \text{sufficiency} = v(N) - \operatorname{mean}_f v(T_f)

    Args:
        score: Takes which parts are left, bool ``[num_sets, num_parts]``, and returns their scores ``[num_sets]``.
        importance: A number for each part, ``[num_parts]``; of equal ones the first counts as more important.
        unit: What counts as 1, above 0: :math:`s(N) - s(\emptyset)` when not given, which is a poor measure where the
            parts add next to nothing.
        steps: Points of both curves, by the trapezoid rule, evenly spaced; all sizes where there are fewer parts.
        shares: Of the parts, each above 0 and at most 1, for comprehensiveness and sufficiency.

    Raises:
        ArgumentError: No part, a share or unit out of range, or, without a unit, a score that is no higher with all
            parts than with none.

    Example:
        >>> weights = torch.tensor([3.0, 1.0, 0.0, 0.0])
        >>> right = fidelity(lambda left: left.float() @ weights, torch.tensor([0.6, 0.4, 0.0, 0.0]))
        >>> wrong = fidelity(lambda left: left.float() @ weights, torch.tensor([0.0, 0.1, 0.2, 0.7]))
        >>> right.deletion < wrong.deletion, right.insertion, wrong.insertion
        (True, 0.8125, 0.1875)

    Source:
        Deletion and insertion: Petsiuk, Das and Saenko, "RISE" (BMVC 2018), sec. 3.3. Comprehensiveness and
        sufficiency: DeYoung et al., "ERASER" (ACL 2020), eq. 1-2, as areas over its five shares.
    """
    size = importance.numel()
    if importance.dim() != 1 or not size:
        raise ArgumentError(f"importance must be one number for each part, got shape {list(importance.shape)}")
    check_range("steps", steps, low=1)
    for share in shares:
        if not 0 < share <= 1:
            raise ArgumentError(f"shares must be above 0 and at most 1, got {share!r}")
    counts = torch.linspace(0, size, min(steps, size) + 1).round().long()
    bins = torch.tensor([max(1, math.ceil(share * size)) for share in shares])
    place = torch.empty(size, dtype=torch.int64)
    place[importance.argsort(descending=True, stable=True)] = torch.arange(size)
    first = place < torch.cat([counts, bins]).unsqueeze(1)  # [num_sets, size]
    scores = score(torch.cat([first, ~first])).double()
    nothing, everything = scores[0], scores[len(counts) - 1]
    added = float(everything - nothing)
    if unit is None and not added > 0:
        raise ArgumentError(
            f"the score must be higher with all parts than with none, got {float(everything)} and {float(nothing)}"
        )
    if unit is not None and not unit > 0:
        raise ArgumentError(f"unit must be above 0, got {unit!r}")
    unit = added if unit is None else unit
    with_first, without = ((scores - nothing) / unit).chunk(2)
    where = counts / size
    return Fidelity(
        deletion=float(torch.trapezoid(without[: len(counts)], where)),
        insertion=float(torch.trapezoid(with_first[: len(counts)], where)),
        comprehensiveness=float(added / unit - without[len(counts) :].mean()),
        sufficiency=float(added / unit - with_first[len(counts) :].mean()),
    )


def agreement(first: Tensor, second: Tensor, k: int = 5) -> tuple[float, float]:
    """Return how far two explanations of the same parts agree, from two trainings say.

    Args:
        first: A number for each part, ``[num_parts]``, at least two.
        second: Likewise.
        k: How many of the most important parts are compared.

    Returns:
        Spearman's rank correlation, -1..1 (0 where either explanation tells no part from another), and the share of
        the ``k`` most important parts of one that are among those of the other.

    Raises:
        ArgumentError: Other shapes, or ``k`` below 1.

    Example:
        >>> agreement(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([3.0, 1.0, 2.0]), k=1)
        (0.5, 1.0)
    """
    check_range("k", k, low=1)
    if first.dim() != 1 or first.shape != second.shape or len(first) < 2:
        raise ArgumentError(
            f"both must hold one number for each of two or more parts, got {list(first.shape)}, {list(second.shape)}"
        )
    ranks = torch.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1).prod()
    correlation = float(centred.prod(dim=0).sum() / length) if length > 0 else 0.0
    k = min(k, len(first))
    tops = [set(values.argsort(descending=True, stable=True)[:k].tolist()) for values in (first, second)]
    return round(correlation, 12), len(tops[0] & tops[1]) / k


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 0, equal values at their mean rank, float64."""
    _, place, times = torch.unique(values, return_inverse=True, return_counts=True)
    middle: Tensor = times.cumsum(0).double() - (times + 1) / 2
    return middle[place]
