"""Blend: the flagship and a closed form in one ranking, weighted on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender, GradientRecommender
from graphrec.models.ease import EASE
from graphrec.models.inductive_kgat import InductiveKGAT
from kg_loaders import RecGraph

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Blend(GradientRecommender):
    r"""A model trained by gradients and one in closed form, which err differently, in one ranking.

    .. math::
        s(u, j) = (1 - w) \, z\bigl(s_1(u, \cdot)\bigr)_j + w \, z\bigl(s_2(u, \cdot)\bigr)_j, \qquad
        z(s) = \frac{s - \operatorname{mean}_j s}{\operatorname{std}_j s}

    The scores of each model are brought to one scale for each user, so one :math:`w` fits all. Training trains the
    first model alone; the second is fitted to the same histories before. :math:`w` is chosen on validation by going up
    from the middle of ``weights`` to the best neighbour, and is kept for the refit.

    Args:
        first: A model trained by gradients.
        second: A model in closed form, fitted with the hyper-parameters it holds: choose them in a run of its own.
        weights: Increasing values of :math:`w`, each within 0..1: 0 is the first model alone, 1 the second.

    Raises:
        ArgumentError: The models differ in the number of items; ``weights`` is empty, not increasing or out of range.

    Source:
        Score fusion by z-scores: Fox and Shaw, "Combination of Multiple Searches" (TREC-2, 1993), with the
        normalisation of Renda and Straccia, "Web Metasearch: Rank vs. Score Based Rank Aggregation Methods" (SAC 2003).
    """

    chooses = True
    weight: Tensor

    def __init__(
        self, first: GradientRecommender, second: ClosedFormRecommender, weights: Sequence[float] = WEIGHTS
    ) -> None:
        super().__init__(first.num_items)
        if first.num_items != second.num_items:
            raise ArgumentError(f"both models must rank the same items, got {first.num_items} and {second.num_items}")
        self.weights = tuple(float(weight) for weight in weights)
        for weight in self.weights:
            check_range("weights", weight, low=0.0, high=1.0)
        if not self.weights or list(self.weights) != sorted(set(self.weights)):
            raise ArgumentError(f"weights must be one or more increasing numbers, got {weights!r}")
        self.inductive = first.inductive and second.inductive
        self.first = first
        self.second = second
        self.register_buffer("weight", torch.tensor(self._middle))

    @classmethod
    def from_graph(cls, graph: RecGraph, l2: float = 200.0, weights: Sequence[float] = WEIGHTS, **options: Any) -> Self:
        """Make a blend of InductiveKGAT and EASE.

        Args:
            graph: Its items and triples.
            l2: Penalty of EASE, above 0; choose it in a run of EASE alone.
            weights: Shares of EASE to choose from, increasing, each within 0..1.
            options: Keyword arguments of InductiveKGAT.
        """
        return cls(InductiveKGAT.from_graph(graph, **options), EASE(graph.num_items, l2), weights)

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return what :meth:`from_graph` takes besides the graph; see :meth:`Recommender.configured_by`."""
        return cls.from_graph, InductiveKGAT

    @property
    def _middle(self) -> float:
        return self.weights[len(self.weights) // 2]

    def forget(self) -> None:
        """Drop what this model and the two in it remember."""
        super().forget()
        for model in (self.first, self.second):
            model.forget()

    def reset_parameters(self) -> None:
        """Draw the weights of the first model anew, and take the middle of ``weights``."""
        self.first.reset_parameters()
        self.weight.fill_(self._middle)

    def prepare(self, histories: Histories) -> None:
        """Fit the second model; see :meth:`GradientRecommender.prepare`."""
        self.first.prepare(histories)
        self.second.fit(histories)

    def prepared_names(self) -> frozenset[str]:
        """Return the names of the second model's state, which :meth:`prepare` makes."""
        own = {f"first.{name}" for name in self.first.prepared_names()}
        return frozenset(own | {f"second.{name}" for name in self.second.state_dict()})

    def choose(self, validate: Callable[[], float]) -> dict[str, float]:
        """Choose the second model's weight; see :meth:`GradientRecommender.choose`."""
        values: dict[int, float] = {}

        def value(index: int) -> float:
            if index not in values:
                self.weight.fill_(self.weights[index])
                values[index] = validate()
            return values[index]

        best, step = len(self.weights) // 2, True
        while step:
            near = [index for index in (best, best - 1, best + 1) if 0 <= index < len(self.weights)]
            best, before = max(near, key=value), best
            step = best != before
        self.weight.fill_(self.weights[best])
        return {"weight": self.weights[best]}

    def set_chosen(self, chosen: Mapping[str, float]) -> None:
        """Take the weight that :meth:`choose` found; see :meth:`GradientRecommender.set_chosen`."""
        self.weight.fill_(chosen["weight"])

    def score(self, histories: Histories) -> Tensor:
        """Blend the scores of both models; see :meth:`Recommender.score`."""
        first, second = (_standardise(model.score(histories)) for model in (self.first, self.second))
        return first.lerp_(second, self.weight)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the loss of the first model."""
        return self.first.loss(histories, generator)


def _standardise(scores: Tensor) -> Tensor:
    """Return each row with mean 0 and standard deviation 1; a row of equal scores becomes zeros."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    std = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / scores.shape[1] ** 0.5
    return centred.div_(std.clamp(min=torch.finfo(scores.dtype).tiny))
