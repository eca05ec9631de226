"""Models that cost nothing, under the names of real ones: what experiments do does not depend on which model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender, GradientRecommender
from kg_loaders import RecGraph


class ToyPopularity(ClosedFormRecommender):
    """Counts.

    Args:
        num_items: Number of items.
        power: Exponent of the counts.
    """

    def __init__(self, num_items: int, power: float = 1.0) -> None:
        super().__init__(num_items)
        self.power = power
        self.register_buffer("counts", torch.zeros(num_items))

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> ToyPopularity:
        return cls(graph.num_items, **options)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        self.counts = torch.bincount(histories.items, minlength=self.num_items).float() ** self.power
        return {} if validate is None else {"power": self.power}

    def score(self, histories: Histories) -> Tensor:
        return self.counts.expand(len(histories), -1)


class ToyEASE(ToyPopularity):
    """Popularity that sides with the history: items of the same parity come first."""

    def score(self, histories: Histories) -> Tensor:
        parity = torch.zeros(len(histories), 2).index_put_(
            (histories.rows, histories.items % 2), torch.tensor(1.0), accumulate=True
        )
        return super().score(histories) + parity[:, torch.arange(self.num_items) % 2]


class ToyKGAT(GradientRecommender):
    """Mean of item vectors, with the mean of the entities around an item added.

    Args:
        num_items: Number of items.
        num_entities: Number of entities.
        num_relations: Number of relations.
        triples: Edges.
        dim: Width of
            the vectors.
        pooling: How a history is pooled.
        powers: Numbers without effect.
    """

    def __init__(
        self,
        num_items: int,
        num_entities: int,
        num_relations: int,
        triples: Tensor,
        dim: int = 8,
        pooling: Literal["mean", "sum"] = "mean",
        powers: tuple[float, ...] = (1.0, 2.0),
    ) -> None:
        super().__init__(num_items)
        self.pooling = pooling
        self.register_buffer("triples", triples[triples[:, 0] < num_items], persistent=False)
        self.entity = nn.Embedding(num_entities, dim)
        self.reset_parameters()

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> ToyKGAT:
        triples = torch.from_numpy(graph.triples)
        return cls(graph.num_items, graph.num_entities, graph.num_relations, triples, **options)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.entity.weight, std=0.1)

    def item_vectors(self) -> Tensor:
        own = self.entity.weight[: self.num_items]
        return own.index_add(0, self.triples[:, 0], self.entity.weight[self.triples[:, 2]])

    def score(self, histories: Histories) -> Tensor:
        vectors = self.item_vectors()
        users = vectors.new_zeros(len(histories), vectors.size(1)).index_add(
            0, histories.rows, vectors[histories.items]
        )
        if self.pooling == "mean":
            users = users / histories.lengths.clamp(min=1)[:, None]
        return users @ vectors.T

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        hidden = torch.rand(histories.items.numel(), generator=generator) < 0.5
        logits = self.score(histories.keep(~hidden)).log_softmax(1)
        return -logits[histories.rows, histories.items].mean()


class ToyTable(ToyKGAT):
    """A model that refuses strangers."""

    inductive = False

    def score(self, histories: Histories) -> Tensor:
        self.check_known(histories, 10**6)
        return super().score(histories)


TOY_MODELS = {"Popularity": ToyPopularity, "EASE": ToyEASE, "InductiveKGAT": ToyKGAT, "ToyTable": ToyTable}
