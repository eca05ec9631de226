"""ItemKNN: items that the same users took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.sparse import cooccurrence_blocks, history_matrix
from kg_loaders import RecGraph


class ItemKNN(ClosedFormRecommender):
    r"""Sums the similarities of the nearest neighbours of each item of the history.

    .. math::
        c(i, j) = \frac{n_{ij}}{\sqrt{n_i n_j} + \beta}, \qquad
        s(u, j) = \sum_{i \in \mathcal{H}_u,\; j \in \mathcal{N}_i} c(i, j)

    where :math:`n_i` users took item i and :math:`n_{ij}` took both. :math:`\mathcal{N}_i` are the items most similar
    to i; those as similar as the last one of them belong to it too, so the order of items decides nothing. The
    shrinkage :math:`\beta` distrusts similarities that few users speak for. Ratings and times are not used.

    Args:
        num_items: Number of items.
        num_neighbors: How many neighbours an item has, at least 1; or several values to choose from on validation.
        shrinkage: β, at least 0; or several values. All combinations are tried on validation; without
            one, the values in the middle are used.

    Raises:
        ArgumentError: A value outside its range, or no value at all.

    Example:
        >>> model = ItemKNN(num_items=3, num_neighbors=10, shrinkage=0.0)
        >>> model.fit(Histories.from_lists([[0, 1], [0, 1], [2, 0]]))
        {}
        >>> [round(score, 4) for score in model.score(Histories.from_lists([[1]]))[0].tolist()]
        [0.8165, 0.0, 0.0]

    Source:
        Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms" (TOIS 2004); the shrinkage after
        Bell and Koren, "Scalable Collaborative Filtering with Jointly Derived Neighborhood Interpolation Weights"
        (ICDM 2007).
    """

    offsets: Tensor
    neighbors: Tensor
    similarities: Tensor

    def __init__(
        self,
        num_items: int,
        num_neighbors: int | Sequence[int] = (20, 100, 500),
        shrinkage: float | Sequence[float] = (0.0, 10.0, 30.0, 100.0),
    ) -> None:
        super().__init__(num_items)
        self.num_neighbors = tuple(num_neighbors) if isinstance(num_neighbors, Sequence) else (num_neighbors,)
        if not self.num_neighbors or not all(isinstance(k, int) and k >= 1 for k in self.num_neighbors):
            raise ArgumentError(f"num_neighbors must be an integer >= 1 or several of them, got {num_neighbors!r}")
        self.shrinkage = one_or_several("shrinkage", shrinkage, 0.0)
        self.chosen_num_neighbors = self.num_neighbors[len(self.num_neighbors) // 2]
        self.chosen_shrinkage = self.shrinkage[len(self.shrinkage) // 2]
        # Row i of a CSR matrix holds the neighbours of item i.
        self.register_result("offsets", num_items + 1, dtype=torch.int64)
        self.register_result("neighbors", None, dtype=torch.int64)
        self.register_result("similarities", None)

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items; options are the constructor's keyword arguments."""
        return cls(graph.num_items, **options)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Find the neighbours; with validation, for each combination; see :meth:`ClosedFormRecommender.fit`."""
        histories.check_items(self.num_items)
        if validate is None or len(self.num_neighbors) == len(self.shrinkage) == 1:
            count, shrinkage = self.chosen_num_neighbors, self.chosen_shrinkage
            self._use(self.find_nearest(histories, count, shrinkage), count, shrinkage)
            return {}
        most = max(self.num_neighbors)
        values = {}
        nearest: Neighbors | None = None
        for shrinkage, count in product(self.shrinkage, self.num_neighbors):
            if nearest is None or shrinkage != self.chosen_shrinkage:
                nearest = self.find_nearest(histories, most, shrinkage)
            self._use(nearest, count, shrinkage)
            values[shrinkage, count] = validate()
        shrinkage, count = max(values, key=values.__getitem__)
        if (shrinkage, count) != (self.chosen_shrinkage, self.chosen_num_neighbors):
            self._use(self.find_nearest(histories, count, shrinkage), count, shrinkage)
        return {"num_neighbors": count, "shrinkage": shrinkage}

    def find_nearest(self, histories: Histories, count: int, shrinkage: float) -> Neighbors:
        """Return the ``count`` nearest neighbours of every item, and those as similar as the last of them."""
        return _nearest(histories, self.num_items, count, shrinkage)

    def score(self, histories: Histories) -> Tensor:
        """Multiply the histories by the similarities, on the CPU; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        matrix = self.cached("matrix", self._matrix)
        scores = (history_matrix(histories, self.num_items) @ matrix).toarray()
        return torch.from_numpy(scores).to(histories.items.device)  # [batch_size, num_items]

    def contributions(self, histories: Histories, item: int) -> Tensor:
        """Return :math:`c(i, j)` of each history entry; their sum is the score. See :meth:`Recommender.contributions`.

        Entries that name one item share what it gives.
        """
        self.check_ready(histories)
        matrix = self.cached("matrix", self._matrix)
        given = torch.from_numpy(matrix[histories.items.cpu().numpy(), item].toarray().ravel())
        shares: Tensor = given.to(histories.items.device) / histories.repeats
        return shares

    def _matrix(self) -> Any:
        """Return the similarities as scipy CSR float32 ``[num_items, num_items]``."""
        parts = (self.similarities, self.neighbors, self.offsets)
        return sparse.csr_matrix(tuple(part.cpu().numpy() for part in parts), shape=(self.num_items, self.num_items))

    def _use(self, nearest: Neighbors, count: int, shrinkage: float) -> None:
        device = self.offsets.device
        kept = nearest.first(count)
        self.offsets = torch.from_numpy(kept.offsets).to(device)
        self.neighbors = torch.from_numpy(kept.items).to(device)
        self.similarities = torch.from_numpy(kept.similarities).to(device)
        self.chosen_num_neighbors = count
        self.chosen_shrinkage = shrinkage
        self.forget()


class Neighbors(NamedTuple):
    """Neighbours of all items as CSR arrays, the nearest first."""

    offsets: NDArray[np.int64]
    items: NDArray[np.int64]
    similarities: NDArray[np.float32]

    def first(self, count: int) -> Neighbors:
        """Return each item's first ``count`` neighbours, and those as similar as the last of them."""
        lengths = np.diff(self.offsets)
        last = self.offsets[:-1] + np.minimum(lengths, count) - 1
        # An item without neighbours has no last one; its row is empty whatever the threshold.
        threshold = self.similarities[np.where(lengths > 0, last, 0)] if len(self.items) else np.zeros(len(lengths))
        rows = np.repeat(np.arange(len(lengths)), lengths)
        keep = self.similarities >= threshold[rows]
        offsets = np.concatenate([[0], np.bincount(rows[keep], minlength=len(lengths)).cumsum()])
        return Neighbors(offsets, self.items[keep], self.similarities[keep])

    @classmethod
    def from_pairs(
        cls, item: NDArray[np.int64], other: NDArray[np.int64], similarity: NDArray[np.float32], num_items: int
    ) -> Neighbors:
        """Make them of pairs in any order."""
        order = np.lexsort((-similarity, item))
        lengths = np.bincount(item, minlength=num_items)
        return cls(np.concatenate([[0], lengths.cumsum()]), other[order], similarity[order])

    @classmethod
    def concatenated(cls, parts: Sequence[Neighbors]) -> Neighbors:
        """Join the neighbours of consecutive items."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([[0], lengths.cumsum()]),
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )


def _nearest(histories: Histories, num_items: int, count: int, shrinkage: float) -> Neighbors:
    """Return the ``count`` nearest neighbours of every item, block by block."""
    counts = np.asarray(history_matrix(histories, num_items).sum(axis=0, dtype=np.float64)).ravel()
    parts = []
    for rows, block in cooccurrence_blocks(histories, num_items):
        item = np.repeat(np.arange(rows.start, rows.stop), np.diff(block.indptr))
        other = block.indices.astype(np.int64)
        # The product of the counts is the same for (i, j) and (j, i), so equal similarities are equal to the bit.
        similarity = (block.data / (np.sqrt(counts[item] * counts[other]) + shrinkage)).astype(np.float32)
        apart = item != other
        item, other, similarity = item[apart], other[apart], similarity[apart]
        parts.append(Neighbors.from_pairs(item - rows.start, other, similarity, rows.stop - rows.start).first(count))
    return Neighbors.concatenated(parts)
