"""ContentKNN: items that are like those of the history, whoever took them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec.encoders.similarity import ContentSimilarity
from graphrec.histories import Histories
from graphrec.models.content import ContentRecommender
from graphrec.models.item_knn import ItemKNN, Neighbors
from kg_loaders.graph import Feature

BLOCK_ROWS = 512


class ContentKNN(ContentRecommender, ItemKNN):
    r"""Sums the likeness of each item to those of the history that are among its nearest.

    .. math:: s(u, j) = \sum_{i \in \mathcal{H}_u \cap \mathcal{N}_j} \max(0, c(i, j))

    with :math:`c` of :class:`~graphrec.encoders.similarity.ContentSimilarity`. :math:`\mathcal{N}_j` are the items most
    like j that somebody took; those as like as the last one belong to it too. An item that nobody took is scored as any
    other: what a graph or content model gives to cold items is the difference to this one.

    Args:
        num_items: Number of items.
        content: Vectors by name of a modality, a row an item; missing rows are like nothing.
        triples: int64 ``[num_triples, 3]``; a KG is content like any other.
        num_neighbors: How many neighbours an item has, at least 1; or several values to choose from on validation.

    Raises:
        ArgumentError: There is neither content nor a triple, or a value is outside its range.

    Example:
        >>> image = Feature.vectors([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]])
        >>> model = ContentKNN(3, {"image": image}, num_neighbors=1)
        >>> model.fit(Histories.from_lists([[0, 2]]))
        {}
        >>> model.score(Histories.from_lists([[0]]))[0].argsort(descending=True)[0].item()
        1

    Source:
        Pazzani and Billsus, "Content-Based Recommendation Systems" (The Adaptive Web, 2007), section 10.4.2.
    """

    def __init__(
        self,
        num_items: int,
        content: Mapping[str, Feature] | None = None,
        triples: Tensor | None = None,
        num_neighbors: int | Sequence[int] = (5, 20, 100),
    ) -> None:
        super().__init__(num_items, num_neighbors, shrinkage=0.0)
        self.similarity = ContentSimilarity(num_items, content or {}, triples)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Find all neighbours, with validation for each number of them; see :meth:`ClosedFormRecommender.fit`."""
        chosen = super().fit(histories, validate)
        return {name: value for name, value in chosen.items() if name != "shrinkage"}

    def find_nearest(self, histories: Histories, count: int, shrinkage: float) -> Neighbors:
        """Return the nearest items that somebody took; see :meth:`ItemKNN.find_nearest`."""
        taken = torch.bincount(histories.items.cpu(), minlength=self.num_items) > 0
        parts = []
        for rows, block in self.similarity.blocks(BLOCK_ROWS):
            block[:, ~taken] = 0.0
            block[torch.arange(len(block)), torch.arange(rows.start, rows.stop)] = 0.0
            last = block.topk(min(count, self.num_items), dim=1).values[:, -1:]
            near = (block >= last) & (block > 0)
            item, other = near.nonzero().unbind(dim=1)
            parts.append(Neighbors.from_pairs(item.numpy(), other.numpy(), block[near].numpy(), len(block)))
        return Neighbors.concatenated(parts)

    def _matrix(self) -> Any:
        # A row of neighbours belongs to the candidate here, not to the item of the history.
        return super()._matrix().T.tocsr()
