"""A model whose charts are as loud for every history as for one of a given length."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from graphrec.models.base import Recommender
from graphrec.models.blend import Blend
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.popularity_prior import PopularityPrior

RecommenderT = TypeVar("RecommenderT", bound=Recommender)


class HeldPrior(PopularityPrior):
    """A prior that gives every history the weight of one of ``known`` items.

    Args:
        prior: The prior whose weights and popularity these are.
        known: Length of that history.

    Example:
        >>> prior = PopularityPrior(num_items=3, weight=6.0, length=4)
        >>> HeldPrior(prior, known=1)(torch.tensor([0, 1, 4])).tolist()
        [2.25, 2.25, 2.25]
    """

    def __init__(self, prior: PopularityPrior, known: int) -> None:
        super().__init__(len(prior.num_takers), prior.weight, prior.length)
        self.num_takers = prior.num_takers
        self.known = known

    def forward(self, lengths: Tensor) -> Tensor:
        """Return the same weight for each of these lengths."""
        return super().forward(torch.full_like(lengths, self.known))


def with_held_prior(model: RecommenderT, known: int) -> RecommenderT:
    """Return a model that shares all with another, but whose ``popularity_prior`` is that of ``known`` known items.

    In a blend it is that of each model in it, before their scores are brought to one scale. The model that is given
    stays as it is, as others may be asking it; where it has no prior it is returned itself.

    Args:
        model: Any recommender.
        known: Length of the history whose weight every history gets.
    """
    if isinstance(model, Blend):
        parts: dict[str, Recommender] = {"first": model.first, "second": model.second}
        held = {name: with_held_prior(part, known) for name, part in parts.items()}
        if all(held[name] is part for name, part in parts.items()):
            return model
        return _with_modules(model, held)
    if isinstance(model, InductiveKGAT) and model.prior is not None:
        return _with_modules(model, {"prior": HeldPrior(model.prior, known)})
    return model


def _with_modules(model: RecommenderT, modules: Mapping[str, nn.Module]) -> RecommenderT:
    """Return a copy with other modules, which remembers what the model does: nothing of that hangs on a prior."""
    changed = copy.copy(model)
    changed.__dict__.update(_modules={**model._modules, **modules}, _cache=model._cache)
    return changed
