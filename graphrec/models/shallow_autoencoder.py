"""ShallowAutoencoder: what EASE has in common with its dual form."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.models.entity_rows import entity_rows, triples_of
from kg_loaders import RecGraph
from kg_loaders.joining import DOMAIN

PENALTIES = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
MOST_DROPPED = 0.99


class ShallowAutoencoder(ClosedFormRecommender):
    """The hyper-parameters of :class:`EASE` and :class:`DualEASE`, which say what they do.

    Args:
        num_items: Number of items.
        l2: λ, one value or several.
        input_dropout: p.
        relax: ξ.
        user_weights: The diagonal of W.
        item_weights: The diagonal of V.
        triples: A KG whose entities become rows of the history matrix.
        kg_weight: How many users each of them counts for.

    Raises:
        ArgumentError: ``l2`` is empty or holds a value that is not above 0; another value is outside its range, or
            weights are not positive numbers, one for each.
    """

    user_weights: Tensor | None
    item_weights: Tensor | None

    def __init__(
        self,
        num_items: int,
        l2: float | Sequence[float] = PENALTIES,
        input_dropout: float = 0.0,
        relax: float = 0.0,
        user_weights: Tensor | None = None,
        item_weights: Tensor | None = None,
        triples: Tensor | None = None,
        kg_weight: float = 0.0,
    ) -> None:
        super().__init__(num_items)
        self.l2 = one_or_several("l2", l2, 0.0, above=True)
        check_range("input_dropout", input_dropout, 0.0, MOST_DROPPED)
        check_range("relax", relax, 0.0, 1.0)
        check_range("kg_weight", kg_weight, low=0.0)
        self.input_dropout = input_dropout
        self.relax = relax
        self.kg_weight = kg_weight
        entities = entity_rows(triples, num_items) if kg_weight and triples is not None and len(triples) else None
        self.entities = entities if entities is not None and len(entities) else None
        # Of the graph, not of training, so no part of the saved weights.
        for name, weights in (("user_weights", user_weights), ("item_weights", item_weights)):
            wrong = [] if weights is None else weights[~((weights > 0) & weights.isfinite())].tolist()
            if wrong:
                raise ArgumentError(f"{name} must be above 0 and finite, got {wrong[0]:g}")
            self.register_buffer(name, weights, persistent=False)
        if item_weights is not None and item_weights.shape != (num_items,):
            raise ArgumentError(f"item_weights must be [{num_items}], got {list(item_weights.shape)}")
        self.register_results()

    @abstractmethod
    def register_results(self) -> None:
        """Make room for what fitting finds, see :meth:`ClosedFormRecommender.register_result`."""

    @classmethod
    def from_graph(
        cls, graph: RecGraph, *, source_weight: float = 1.0, kg_relations: Sequence[str] = (), **options: Any
    ) -> Self:
        r"""Make an unfitted model for a graph's items.

        Args:
            graph: Its users, items and triples; users and items of a linked graph have the feature ``domain``.
            source_weight: w, above 0. Each user of the source alone counts for w users; and items of the source alone
                have the penalty :math:`\lambda / w` in a history. So small values let the source say little, whether
                users or items are what it shares with the target.
            kg_relations: Ids of the relations that count with ``kg_weight``; all when empty.
            options: The constructor's other keyword arguments.

        Raises:
            ArgumentError: ``source_weight`` is not above 0, or is not 1 and the graph is not a linked one; the graph
                has no such relation, or relations are named without ``kg_weight``.
        """
        if options.get("kg_weight"):
            options["triples"] = triples_of(graph, kg_relations)
        elif kg_relations:
            raise ArgumentError(f"kg_relations must be empty without kg_weight, got {list(kg_relations)}")
        if not 0 < source_weight < math.inf:
            raise ArgumentError(f"source_weight must be above 0 and finite, got {source_weight!r}")
        if source_weight == 1.0:
            return cls(graph.num_items, **options)
        weights: dict[str, Any] = {}
        for name, features in (("user_weights", graph.user_features), ("item_weights", graph.item_features)):
            if DOMAIN not in features:
                raise ArgumentError(
                    f"source_weight must be 1, got {source_weight:g}: {graph.name!r} is not made of two domains, see "
                    "kg_loaders.link"
                )
            of_source = torch.from_numpy(features[DOMAIN].values == "source")
            weights[name] = torch.where(of_source, source_weight, 1.0)
        return cls(graph.num_items, **weights, **options)

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return what :meth:`from_graph` takes besides the graph; see :meth:`Recommender.configured_by`."""
        return cls.from_graph, cls

    def with_entities(self, histories: Histories) -> Histories:
        """Return the rows of the history matrix: the users, then the entities."""
        if self.entities is None:
            return histories
        entities = self.entities.to(histories.items.device)
        offsets = torch.cat([histories.offsets, histories.offsets[-1] + entities.offsets[1:]])
        return Histories(torch.cat([histories.items, entities.items]), offsets)

    def row_weights(self, num_rows: int) -> Tensor | None:
        """Return the weights of so many rows, those of :meth:`with_entities`; ``None`` counts each once."""
        if self.entities is None:
            return self.user_weights
        num_users = num_rows - len(self.entities)
        users = torch.ones(num_users) if self.user_weights is None else self.user_weights
        return torch.cat([users, users.new_full((len(self.entities),), self.kg_weight)])

    def check_users(self, histories: Histories) -> None:
        """Make sure that there is a history for each of ``user_weights``."""
        if self.user_weights is not None and len(histories) != len(self.user_weights):
            raise ArgumentError(
                f"histories must be of all {len(self.user_weights)} users that user_weights are of, got "
                f"{len(histories)}"
            )
