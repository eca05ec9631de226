"""Negatives: items that a whole batch shares, with their probabilities, or one that a user did not take."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories


class Negatives(NamedTuple):
    """A sample of items.

    Args:
        items: Item indices, int64 ``[num_negatives]``.
        log_q: Log-probability of each in one draw, float32 ``[num_negatives]``.
    """

    items: Tensor
    log_q: Tensor


class UniformNegatives:
    """Draws all items with the same probability, with replacement.

    Args:
        num_items: Number of items.
        drawn: Which of them are drawn, bool ``[num_items]``, at least one; ``None`` means all.

    Raises:
        ArgumentError: ``drawn`` has another shape or type, or leaves no item.

    Example:
        >>> draw = UniformNegatives(num_items=5)
        >>> [round(q, 3) for q in draw(2, torch.Generator()).log_q.exp().tolist()]
        [0.2, 0.2]
        >>> draw(100, torch.Generator()).items.tolist()
        [0, 1, 2, 3, 4]
    """

    def __init__(self, num_items: int, drawn: Tensor | None = None) -> None:
        check_range("num_items", num_items, low=1)
        self.items = _drawn_items(num_items, drawn)

    def __call__(self, num_negatives: int, generator: torch.Generator) -> Negatives:
        """Return ``num_negatives`` items; every item once where there are no more than that many."""
        check_range("num_negatives", num_negatives, low=1)
        size = len(self.items)
        if num_negatives >= size:
            items = self.items
        else:
            items = self.items[torch.randint(size, (num_negatives,), generator=generator)]
        return Negatives(items, torch.full((len(items),), -math.log(size)))


class PopularityNegatives:
    r"""Draws items by their popularity, with replacement.

    .. math:: q_j \propto \max(n_j, 1)^\alpha

    so items that nobody took are drawn too, and a softmax does not leave them unchecked.

    Args:
        counts: :math:`n_j`, ``[num_items]``, at least 0.
        alpha: Within 0 (uniform) to 1 (as they occur).
        drawn: Which of them are drawn, bool ``[num_items]``, at least one; ``None`` means all.

    Raises:
        ArgumentError: ``alpha`` is outside its range, the counts are not a row of finite numbers of at least 0, or
            ``drawn`` has another shape or type, or leaves no item.

    Example:
        >>> draw = PopularityNegatives(torch.tensor([9, 0, 4, 1]), alpha=0.5)
        >>> draw(1000, torch.Generator()).items.tolist()
        [0, 1, 2, 3]
        >>> [round(q, 3) for q in draw.probabilities.tolist()]
        [0.429, 0.143, 0.286, 0.143]

    Source:
        The power of the counts after Mikolov et al., "Distributed Representations of Words and Phrases and their
        Compositionality" (NIPS 2013), section 2.2.
    """

    def __init__(self, counts: Tensor, alpha: float, drawn: Tensor | None = None) -> None:
        check_range("alpha", alpha, low=0.0, high=1.0)
        if counts.dim() != 1 or counts.numel() == 0 or not bool(((counts >= 0) & counts.isfinite()).all()):
            raise ArgumentError(
                f"counts must be numbers >= 0 and finite, of shape [num_items], got shape {list(counts.shape)}"
            )
        self.items = _drawn_items(len(counts), drawn)
        weights = counts.cpu().to(torch.float64).clamp(min=1).pow(alpha)[self.items]
        self.probabilities = weights / weights.sum()  # float64, one for each of ``items``
        self._bounds = self.probabilities.cumsum(0)

    def __call__(self, num_negatives: int, generator: torch.Generator) -> Negatives:
        """Return ``num_negatives`` items; every item once where there are no more than that many."""
        check_range("num_negatives", num_negatives, low=1)
        size = len(self.items)
        if num_negatives >= size:
            # The sum over all items is exact, which is what a uniform sample of this size would claim.
            return Negatives(self.items, torch.full((size,), -math.log(size)))
        draws = torch.rand(num_negatives, generator=generator, dtype=torch.float64)
        # Rounding may leave the last bound a little below 1.
        places = torch.searchsorted(self._bounds, draws, right=True).clamp(max=size - 1)
        return Negatives(self.items[places], self.probabilities[places].log().to(torch.float32))


def _drawn_items(num_items: int, drawn: Tensor | None) -> Tensor:
    """Return which items are drawn, int64."""
    if drawn is None:
        return torch.arange(num_items)
    if drawn.dtype != torch.bool or drawn.shape != (num_items,) or not bool(drawn.any()):
        raise ArgumentError(
            f"drawn must be bool [{num_items}] with at least one True, got {drawn.dtype} {list(drawn.shape)}"
        )
    return drawn.cpu().nonzero().squeeze(1)


def untaken_items(histories: Histories, num_items: int, generator: torch.Generator) -> Tensor:
    """Draw, for every item of every history, one that its user did not take, all with the same probability.

    Args:
        histories: Whose items are not to be drawn, on the CPU.
        num_items: Number of items.
        generator: Source of randomness.

    Returns:
        int64 ``[total]``, in the order of ``histories.items``; -1 where the user took every item.

    Raises:
        ArgumentError: An item is not within 0..num_items - 1.

    Example:
        >>> untaken_items(Histories.from_lists([[0, 2], [0, 1, 2]]), 3, torch.Generator()).tolist()
        [1, 1, -1, -1, -1]
    """
    check_range("num_items", num_items, low=1)
    histories.check_items(num_items)
    rows = histories.rows
    taken = torch.unique(rows * num_items + histories.items)
    num_taken = torch.bincount(torch.div(taken, num_items, rounding_mode="floor"), minlength=len(histories))
    before = num_taken.cumsum(0) - num_taken
    free = num_items - num_taken[rows]
    # The k-th of the items not taken lies as many places further as taken ones lie below it.
    rank = (torch.rand(len(rows), generator=generator, dtype=torch.float64) * free).long()
    rank = torch.minimum(rank, (free - 1).clamp(min=0))
    gaps = taken % num_items - (torch.arange(len(taken)) - before[torch.div(taken, num_items, rounding_mode="floor")])
    # gaps[k]: untaken items below the k-th taken one. It rises within a user, so users in a row make one sorted list.
    sorted_gaps = torch.repeat_interleave(torch.arange(len(histories)), num_taken) * (num_items + 1) + gaps
    passed = torch.searchsorted(sorted_gaps, rows * (num_items + 1) + rank, right=True) - before[rows]
    return torch.where(free > 0, rank + passed, -1)
