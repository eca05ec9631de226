"""ContentKNN: items alike by what the knowledge graph says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from kg_loaders import RecGraph


class ContentKNN(ClosedFormRecommender):
    r"""Scores items by the entities that they share with those of a history.

    .. math::
        s(u, j) = \sum_{i \in \mathcal{H}_u} \cos(f_i, f_j), \qquad
        f_{ie} = \log \frac{\text{num\_items}}{n_e} \ \text{if a triple ties } i \text{ and } e, \text{ else } 0

    with :math:`n_e` the items that entity e is tied to. Nothing is learned from interactions, so an item that nobody
    took is ranked like any other: the yardstick of every cold-start claim.

    Args:
        num_items: Number of items; they are the first entities.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one. Directions and relations are not
            told apart.
        max_entity_items: Entities tied to more items are left out: they tell little and cost much.

    Raises:
        ArgumentError: A value outside its range, or no triples.

    Example:
        >>> model = ContentKNN(num_items=3, triples=torch.tensor([[0, 0, 4], [2, 0, 4], [1, 0, 5]]))
        >>> model.fit(Histories.from_lists([[0], [1]]))
        {}
        >>> model.score(Histories.from_lists([[0]])).argmax().item()  # itself; the next best is item 2
        0

    Source:
        Lops, de Gemmis and Semeraro, "Content-based Recommender Systems: State of the Art and Trends" (Recommender
        Systems Handbook 2011), with entities for words.
    """

    needs_kg = True
    fitted: Tensor

    def __init__(self, num_items: int, triples: Tensor, max_entity_items: int = 10_000) -> None:
        super().__init__(num_items)
        check_range("max_entity_items", max_entity_items, low=1)
        if triples.dim() != 2 or triples.size(1) != 3 or not len(triples):
            raise ArgumentError(
                f"triples must have shape [num_triples, 3] with a row or more, got {list(triples.shape)}"
            )
        ends = torch.cat([triples[:, [0, 2]], triples[:, [2, 0]]])
        ties = torch.unique(ends[ends[:, 0] < num_items], dim=0)  # [num_ties, 2] of (item, entity)
        entities, column, counts = torch.unique(ties[:, 1], return_inverse=True, return_counts=True)
        kept = (counts[column] <= max_entity_items) & (counts[column] < num_items)
        weight = (num_items / counts[column].to(torch.float32)).log().masked_fill(~kept, 0.0)
        length = torch.zeros(num_items).index_add(0, ties[:, 0], weight.square()).sqrt().clamp(min=1e-12)
        values = weight / length[ties[:, 0]]
        self.size = len(entities)
        # Rebuilt from the triples by every constructor, so no part of the saved weights.
        self.ties: Tensor
        self.values: Tensor
        self.register_buffer("ties", torch.stack([ties[:, 0], column])[:, kept], persistent=False)
        self.register_buffer("values", values[kept], persistent=False)
        self.register_result("fitted", 1)

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's items and triples; options are the constructor's keyword arguments."""
        return cls(graph.num_items, torch.from_numpy(graph.triples), **options)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Note that there is nothing to learn; see :meth:`ClosedFormRecommender.fit`."""
        self.check_items(histories)
        self.fitted = torch.ones(1, device=self.values.device)
        self.forget()
        return {}

    def score(self, histories: Histories) -> Tensor:
        """Sum the similarities over each history; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        features = self.cached("features", self._features)
        profile = torch.zeros(self.size, len(histories), device=self.values.device)
        if len(histories) and histories.items.numel():
            taken = torch.sparse_coo_tensor(
                torch.stack([histories.items, histories.rows]),
                torch.ones(histories.items.numel(), device=self.values.device),
                (self.num_items, len(histories)),
            ).to_dense()
            profile = torch.sparse.mm(features.t(), taken)  # [num_entities, batch_size]
        scores: Tensor = torch.sparse.mm(features, profile).t()
        return scores  # [batch_size, num_items]

    def _features(self) -> Tensor:
        return torch.sparse_coo_tensor(self.ties, self.values, (self.num_items, self.size)).coalesce()
