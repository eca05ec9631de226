"""Two towers: the user side and the item side of a model whose score is their inner product."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from graphrec.models.popularity_prior import PopularityPrior
from graphrec.models.sasrec import SASRec
from graphrec.models.sequential import SequentialRecommender
from graphrec.serving.ordered_side import OrderedSide

PADDING = -1
TOLERANCE = 1e-4  # of a score, relative to the largest
NUM_CHECKED = 32  # histories on which towers are compared with their model
AT_ONCE = 64  # histories whose user vectors are made at once


@dataclass(frozen=True, eq=False)
class Towers:
    r"""A model as two sides that never see each other until the inner product.

    .. math:: s(u, j) = p_u \cdot q_j + b_j

    Args:
        user: Maps what it takes to :math:`p_u`, ``[batch_size, dim]``.
        takes: The names of what that is: ``"items"``, int64 ``[batch_size, length]``, histories padded with -1; with it
            ``"times"``, float64 of the same shape, in seconds, and ``"asked_at"``, float64 ``[batch_size]``, where the
            model reads these; or ``"user_index"``, int64 ``[batch_size]``.
        item: :math:`q_j`, float32 ``[num_items, dim]``.
        bias: :math:`b_j`, float32 ``[num_items]``.
        reach: How many items of a history, the most recent ones, decide; ``None`` for all.
    """

    user: nn.Module
    takes: tuple[str, ...]
    item: Tensor
    bias: Tensor
    reach: int | None = None

    def inputs(self, histories: Histories) -> tuple[Tensor, ...]:
        """Return histories in the form that the user side takes; see :func:`inputs_of`."""
        return inputs_of(histories, self.takes, self.reach)

    def user_vectors(self, histories: Histories) -> Tensor:
        """Return :math:`p_u` of each history, ``[batch_size, dim]``."""
        rows = torch.arange(len(histories), device=histories.items.device)
        with torch.no_grad():
            parts = [self.user(*self.inputs(histories.select(some))) for some in torch.split(rows, AT_ONCE)]
        return torch.cat(parts)

    def scores(self, histories: Histories) -> Tensor:
        """Return all scores, ``[batch_size, num_items]``."""
        return torch.addmm(self.bias, self.user_vectors(histories), self.item.t())


class ItemSide(nn.Module):
    """Takes user vectors, and returns the scores of all items."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.item: Tensor
        self.bias: Tensor
        self.register_buffer("item", towers.item.t().contiguous())
        self.register_buffer("bias", towers.bias)

    def forward(self, user_vector: Tensor) -> Tensor:
        """Multiply, and add the bias."""
        return user_vector @ self.item + self.bias


def inputs_of(histories: Histories, takes: tuple[str, ...], reach: int | None) -> tuple[Tensor, ...]:
    """Return histories as an exported model takes them.

    Args:
        histories: The rows.
        takes: The names of what is taken; see :class:`Towers`.
        reach: How many items, the most recent ones, are given; ``None`` for all.

    Raises:
        ArgumentError: They lack users, or times, that it takes.
    """
    if takes == ("user_index",):
        if histories.user_index is None:
            raise ArgumentError("this model keeps a table of its users: histories need user_index")
        return (histories.user_index,)
    histories = histories.in_order()
    if reach is not None:
        histories = histories.recent(reach)
    found = [padded(histories)]
    if "times" in takes:
        if histories.times is None:
            raise ArgumentError("this model reads when items were taken: histories need times")
        found.append(padded(histories, histories.times))
    if "asked_at" in takes:  # where nobody says when, it is with the last item
        last = (histories.lengths - 1).clamp(min=0).unsqueeze(1)
        found.append(found[1].gather(1, last)[:, 0] if histories.asked_at is None else histories.asked_at)
    return tuple(found)


def given(*inputs: Tensor | None) -> list[Tensor]:
    """Return those inputs that there are: the tracer of ONNX wants each of them to have a name."""
    return [tensor for tensor in inputs if tensor is not None]


def padded(histories: Histories, values: Tensor | None = None) -> Tensor:
    """Return what belongs to histories as a rectangle, ``[batch_size, longest]``, at least one wide.

    Args:
        histories: The rows.
        values: A value for each entry, padded with zeros; when not given their items, padded with -1.

    Example:
        >>> padded(Histories.from_lists([[3, 1], [], [2]])).tolist()
        [[3, 1], [-1, -1], [2, -1]]
    """
    longest = max(1, int(histories.lengths.max())) if len(histories) else 1
    values, fill = (histories.items, PADDING) if values is None else (values, 0)
    place = torch.arange(values.numel(), device=values.device)
    out = torch.full((len(histories), longest), fill, device=values.device, dtype=values.dtype)
    out[histories.rows, place - histories.offsets[:-1][histories.rows]] = values
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
        if model.match is not None:
            raise _no_towers(model, "with match_temperature every candidate attends to the history by itself")
        h, g = model.cached("vectors", model.item_vectors)
        bias = model.cached("bias", model.bias)
        item = F.normalize(g, dim=1)
        takes: tuple[str, ...] = ("items",)
        side: nn.Module
        if model.sequence is None:
            side = _Pooled(h, model._history_scores(h, model.attention_bias), model.temperature)
        else:
            side = OrderedSide.of(model)
            takes = side.reads
        if model.prior is not None:  # one more channel: w(n) of the user, the item's popularity
            item = torch.cat([item, model.prior.popularity().unsqueeze(1)], dim=1)
            side = _WithPrior(side, model.prior)
        return Towers(side, takes, item, bias, model.reach)
    if isinstance(model, SASRec):
        ordered = OrderedSide.of(model)
        return Towers(ordered, ordered.reads, model.unit(model.item), torch.zeros(model.num_items), model.reach)
    if isinstance(model, SequentialRecommender):
        raise _no_towers(model, "it reads a history in order, by other blocks than InductiveKGAT and SASRec")
    if isinstance(model, SoftmaxMF):
        user, item = F.normalize(model.user, dim=1), F.normalize(model.item, dim=1)
        return Towers(_Table(user / model.temperature), ("user_index",), item.clone(), torch.zeros(model.num_items))
    if isinstance(model, PairwiseRecommender):
        user, item = model.cached("vectors", model.vectors)
        return Towers(_Table(user), ("user_index",), item.clone(), torch.zeros(model.num_items))
    if isinstance(model, Blend):
        raise _no_towers(model, "a blend brings the scores of all items to one scale for each user")
    if isinstance(model, EASE | ItemKNN):
        raise _no_towers(model, "its user vector is the whole history, as wide as the catalogue")
    raise _no_towers(model, "its score is no inner product of two vectors")


def _check(towers: Towers, model: Recommender) -> None:
    """Make sure that the towers score as their model does: an option that they do not know is noticed here."""
    generator = torch.Generator().manual_seed(0)
    sizes = [*range(NUM_CHECKED - 1), (towers.reach or 0) + NUM_CHECKED]
    lists = [torch.randperm(model.num_items, generator=generator)[:size].tolist() for size in sizes]
    users = None
    if isinstance(towers.user, _Table):
        users = torch.randint(len(towers.user.table), (NUM_CHECKED,), generator=generator).tolist()
    histories = Histories.from_lists(lists, users)
    if "times" in towers.takes:
        drawn = torch.rand(histories.items.numel(), generator=generator, dtype=torch.float64)
        histories = replace(histories, times=(10 ** (8 * drawn)).round())  # from a second to three years
    with torch.no_grad():
        wanted, found = model.score(histories), towers.scores(histories)
    if float((found - wanted).abs().max()) > TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise _no_towers(model, "it reads a history in a way that the user side cannot")


def _no_towers(model: Recommender, why: str) -> ArgumentError:
    return ArgumentError(f"{type(model).__name__} has no user and item vectors: {why}")


class _Pooled(nn.Module):
    """The user side of a pooled InductiveKGAT, on padded histories."""

    def __init__(self, h: Tensor, ready: Tensor, temperature: float) -> None:
        super().__init__()
        self.h: Tensor
        self.ready: Tensor
        self.register_buffer("h", h.clone())
        self.register_buffer("ready", ready.clone())
        self.temperature = temperature

    def forward(self, items: Tensor) -> Tensor:
        there = items >= 0  # [batch_size, length]
        at = items.clamp(min=0)
        ready = self.ready[at].masked_fill(~there, torch.finfo(self.ready.dtype).min)
        weight = (ready - ready.amax(dim=1, keepdim=True)).exp() * there
        user = (weight.unsqueeze(1) @ self.h[at]).squeeze(1)
        return F.normalize(user, dim=1) / self.temperature


class _WithPrior(nn.Module):
    """A user side with one more channel, the weight of a popularity prior."""

    def __init__(self, user: nn.Module, prior: PopularityPrior) -> None:
        super().__init__()
        self.user = user
        self.weight = prior.forward  # no module: what the prior knows of items is the item side's

    def forward(self, items: Tensor, times: Tensor | None = None, asked_at: Tensor | None = None) -> Tensor:
        length = (items >= 0).sum(dim=1, keepdim=True)
        vector = self.user(*given(items, times, asked_at))
        return torch.cat([vector, self.weight(length)], dim=1)


class _Table(nn.Module):
    """The user side of a model with a vector for each user."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table: Tensor
        self.register_buffer("table", table.clone())

    def forward(self, user_index: Tensor) -> Tensor:
        return self.table[user_index]
