"""Two towers: the user side and the item side of a model whose score is their inner product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.models.blend import Blend
from graphrec.models.ease import EASE
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.item_knn import ItemKNN
from graphrec.models.mf import SoftmaxMF
from graphrec.models.pairwise import PairwiseRecommender

PADDING = -1
TOLERANCE = 1e-4  # of a score, relative to the largest
NUM_CHECKED = 32  # histories on which towers are compared with their model


@dataclass(frozen=True, eq=False)
class Towers:
    r"""A model as two sides that never see each other until the inner product.

    .. math:: s(u, j) = p_u \cdot q_j + b_j

    Args:
        user: Maps what it takes to :math:`p_u`, ``[batch_size, dim]``.
        takes: ``"items"``: int64 ``[batch_size, length]``, histories padded with -1; ``"user_index"``: int64
            ``[batch_size]``.
        item: :math:`q_j`, float32 ``[num_items, dim]``.
        bias: :math:`b_j`, float32 ``[num_items]``.
    """

    user: nn.Module
    takes: Literal["items", "user_index"]
    item: Tensor
    bias: Tensor

    def inputs(self, histories: Histories) -> Tensor:
        """Return histories in the form that the user side takes."""
        if self.takes == "user_index":
            if histories.user_index is None:
                raise ArgumentError("this model keeps a table of its users: histories need user_index")
            return histories.user_index
        return padded(histories)

    def user_vectors(self, histories: Histories) -> Tensor:
        """Return :math:`p_u` of each history, ``[batch_size, dim]``."""
        with torch.no_grad():
            vectors: Tensor = self.user(self.inputs(histories))
        return vectors

    def scores(self, histories: Histories) -> Tensor:
        """Return all scores, ``[batch_size, num_items]``."""
        return torch.addmm(self.bias, self.user_vectors(histories), self.item.t())


def padded(histories: Histories) -> Tensor:
    """Return histories as a rectangle, int64 ``[batch_size, longest]``, at least one wide, padded with -1.

    Example:
        >>> padded(Histories.from_lists([[3, 1], [], [2]])).tolist()
        [[3, 1], [-1, -1], [2, -1]]
    """
    longest = max(1, int(histories.lengths.max())) if len(histories) else 1
    place = torch.arange(histories.items.numel(), device=histories.items.device)
    out = torch.full((len(histories), longest), PADDING, device=histories.items.device)
    out[histories.rows, place - histories.offsets[:-1][histories.rows]] = histories.items
    return out


def towers_of(model: Recommender) -> Towers:
    """Return a model's two towers.

    Args:
        model: Fitted, in evaluation mode.

    Raises:
        ArgumentError: The model's score is no inner product of a user and an item vector; the message says why.
    """
    with torch.no_grad():
        found = _towers_of(model)
    _check(found, model)
    return found


def item_vectors_of(model: Recommender) -> Tensor | None:
    """Return vectors by whose cosine a model's items are alike, ``[num_items, dim]``; ``None`` where it has none.

    Those of a blend are those of the first model in it.
    """
    while isinstance(model, Blend):
        model = model.first
    with torch.no_grad():
        if isinstance(model, InductiveKGAT):
            candidates: Tensor = model.cached("vectors", model.item_vectors)[1]
            return candidates
        if isinstance(model, SoftmaxMF | PairwiseRecommender):
            return _towers_of(model).item
    return None


def _towers_of(model: Recommender) -> Towers:
    if isinstance(model, InductiveKGAT):
        if model.head is not None:
            raise _no_towers(model, "with a head its score is a network over both; head=None trains a plain product")
        if model.sequence is not None:
            raise _no_towers(model, "it reads a history in order")
        if model.match is not None:
            raise _no_towers(model, "with match_temperature every candidate attends to the history by itself")
        h, g = model.cached("vectors", model.item_vectors)
        ready = model._history_scores(h, model.attention_bias)
        bias = model.cached("bias", model.bias)
        item = F.normalize(g, dim=1)
        if model.prior is not None:  # one more channel: w(n) of the user, the item's popularity
            item = torch.cat([item, model.prior.popularity().unsqueeze(1)], dim=1)
        return Towers(_Pooled(h, ready, model), "items", item, bias)
    if isinstance(model, SoftmaxMF):
        user, item = F.normalize(model.user, dim=1), F.normalize(model.item, dim=1)
        return Towers(_Table(user / model.temperature), "user_index", item.clone(), torch.zeros(model.num_items))
    if isinstance(model, PairwiseRecommender):
        user, item = model.cached("vectors", model.vectors)
        return Towers(_Table(user), "user_index", item.clone(), torch.zeros(model.num_items))
    if isinstance(model, Blend):
        raise _no_towers(model, "a blend brings the scores of all items to one scale for each user")
    if isinstance(model, EASE | ItemKNN):
        raise _no_towers(model, "its user vector is the whole history, as wide as the catalogue")
    raise _no_towers(model, "its score is no inner product of two vectors")


def _check(towers: Towers, model: Recommender) -> None:
    """Make sure that the towers score as their model does: an option that they do not know is noticed here."""
    generator = torch.Generator().manual_seed(0)
    lists = [torch.randperm(model.num_items, generator=generator)[:size].tolist() for size in range(NUM_CHECKED)]
    users = None
    if isinstance(towers.user, _Table):
        users = torch.randint(len(towers.user.table), (NUM_CHECKED,), generator=generator).tolist()
    histories = Histories.from_lists(lists, users)
    with torch.no_grad():
        wanted, found = model.score(histories), towers.scores(histories)
    if float((found - wanted).abs().max()) > TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise _no_towers(model, "it reads a history in a way that the user side cannot")


def _no_towers(model: Recommender, why: str) -> ArgumentError:
    return ArgumentError(f"{type(model).__name__} has no user and item vectors: {why}")


class _Pooled(nn.Module):
    """The user side of a pooled InductiveKGAT, on padded histories."""

    def __init__(self, h: Tensor, ready: Tensor, model: InductiveKGAT) -> None:
        super().__init__()
        self.h: Tensor
        self.ready: Tensor
        self.register_buffer("h", h.clone())
        self.register_buffer("ready", ready.clone())
        self.temperature = model.temperature
        # Of the prior its weights alone: what it knows of items is the item side's.
        self.prior_weight = None if model.prior is None else model.prior.forward

    def forward(self, items: Tensor) -> Tensor:
        there = items >= 0  # [batch_size, length]
        at = items.clamp(min=0)
        ready = self.ready[at].masked_fill(~there, torch.finfo(self.ready.dtype).min)
        weight = (ready - ready.amax(dim=1, keepdim=True)).exp() * there
        user = (weight.unsqueeze(1) @ self.h[at]).squeeze(1)
        user = F.normalize(user, dim=1) / self.temperature
        if self.prior_weight is None:
            return user
        return torch.cat([user, self.prior_weight(there.sum(dim=1, keepdim=True))], dim=1)


class _Table(nn.Module):
    """The user side of a model with a vector for each user."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table: Tensor
        self.register_buffer("table", table.clone())

    def forward(self, user_index: Tensor) -> Tensor:
        return self.table[user_index]
