"""Popularity: the same items for everybody, and the first row of every table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from kg_loaders import RecGraph


class Popularity(ClosedFormRecommender):
    r"""Scores an item by the number of users who took it.

    .. math:: s(u, j) = |\{v : j \in \mathcal{H}_v\}|

    The scores are the same for everybody. Equal counts give equal scores; the evaluator orders them at random by its
    seed.

    Args:
        num_items: Number of items.

    Example:
        >>> model = Popularity(num_items=3)
        >>> model.fit(Histories.from_lists([[0, 2], [2], [2]]))
        {}
        >>> model.score(Histories.from_lists([[1], []])).tolist()
        [[1.0, 0.0, 3.0], [1.0, 0.0, 3.0]]
    """

    counts: Tensor

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.register_result("counts", num_items)

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items."""
        return cls(graph.num_items, **options)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Count the users of each item; there is nothing to choose."""
        histories.check_items(self.num_items)
        self.counts = torch.bincount(histories.items, minlength=self.num_items).to(torch.float32)
        self.forget()
        return {}

    def score(self, histories: Histories) -> Tensor:
        """Return the counts, a row for each history; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        return self.counts.repeat(len(histories), 1)
