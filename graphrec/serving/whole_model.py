"""WholeModel: a model as one module, from padded histories to the scores of all items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.models.blend import Blend
from graphrec.models.dual_ease import DualEASE
from graphrec.models.ease import EASE
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.item_knn import ItemKNN
from graphrec.models.rp3beta import RP3beta
from graphrec.models.slist import SLIST
from graphrec.serving.towers import ItemSide, Towers, given, inputs_of, towers_of

MAX_DENSE_ITEMS = 10_000  # 400 MB of weights from each item to each
ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class WholeModel:
    """All that a model is, in operators that ONNX has.

    Args:
        scores: Maps what it takes to the scores of all items, float32 ``[batch_size, num_items]``.
        takes: The names of what that is, as in :class:`~graphrec.serving.towers.Towers`, without ``"user_index"``.
        reach: How many items of a history, the most recent ones, decide; ``None`` for all.
    """

    scores: nn.Module
    takes: tuple[str, ...]
    reach: int | None

    def inputs(self, histories: Histories) -> tuple[Tensor, ...]:
        """Return histories in the form that the module takes; see :func:`~graphrec.serving.towers.inputs_of`."""
        return inputs_of(histories, self.takes, self.reach)


def whole_of(model: Recommender) -> WholeModel:
    """Return a model as one module.

    That is for models without a vector for each user: a blend, one whose candidates attend to the history, EASE, SLIST,
    RP3beta and ItemKNN. Those with two towers are the product of these.

    Args:
        model: Fitted, in evaluation mode.

    Raises:
        ArgumentError: It has a weight from each item to each, and these are too many; or it is another kind of model.
    """
    with torch.no_grad():
        return _whole_of(model)


def is_whole(model: Recommender) -> bool:
    """Whether a model is one of those that :func:`whole_of` is for."""
    matched = isinstance(model, InductiveKGAT) and model.match is not None and model.head is None
    return matched or isinstance(model, Blend | DualEASE | EASE | ItemKNN | RP3beta | SLIST)


def _whole_of(model: Recommender) -> WholeModel:
    if isinstance(model, Blend):
        first, second = _whole_of(model.first), _whole_of(model.second)
        takes = max(first.takes, second.takes, key=len)  # the shorter one is how the longer begins
        return WholeModel(_Blended(first, second, float(model.weight)), takes, model.reach)
    if isinstance(model, InductiveKGAT) and model.match is not None and model.head is None:
        return WholeModel(_Matched(model), ("items",), None)
    if isinstance(model, SLIST):
        _check_size(model)
        return WholeModel(_Decayed(model.weight, model.chosen_values[1]), ("items",), model.reach)
    if isinstance(model, EASE | DualEASE | ItemKNN | RP3beta):
        _check_size(model)
        rows = torch.split(torch.arange(model.num_items), ROWS_AT_ONCE)
        weight = torch.cat([model.score(Histories.from_lists(row.unsqueeze(1).tolist())) for row in rows])
        return WholeModel(_Linear(weight), ("items",), None)
    towers = towers_of(model)
    if "user_index" in towers.takes:
        raise ArgumentError(f"{type(model).__name__} keeps a table of its users, and reads no histories")
    return WholeModel(_Product(towers), towers.takes, towers.reach)


def _check_size(model: Recommender) -> None:
    if model.num_items > MAX_DENSE_ITEMS:
        size = 4 * model.num_items**2 / 2**30
        raise ArgumentError(
            f"{type(model).__name__} has a weight from each item to each, {size:.1f} GiB for {model.num_items} items; "
            f"ONNX files of it are made up to {MAX_DENSE_ITEMS} items"
        )


class _Product(nn.Module):
    """Two towers, one after the other."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.user = towers.user
        self.items = ItemSide(towers)

    def forward(self, items: Tensor, times: Tensor | None = None, asked_at: Tensor | None = None) -> Tensor:
        scores: Tensor = self.items(self.user(*given(items, times, asked_at)))
        return scores


class _Linear(nn.Module):
    """The sum of a row of weights for each item of a history; an item that comes twice counts once."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", weight)

    def forward(self, items: Tensor) -> Tensor:
        return _by_item(items, (items >= 0).to(self.weight.dtype), len(self.weight)).clamp(max=1.0) @ self.weight


class _Decayed(nn.Module):
    """SLIST: the sum of a row of weights for each item, the last ones weighing most."""

    def __init__(self, weight: Tensor, recency: float) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", weight)
        self.recency = recency

    def forward(self, items: Tensor) -> Tensor:
        from_end = (items >= 0).sum(dim=1, keepdim=True) - 1 - torch.arange(items.size(1))
        decay = (-from_end.clamp(min=0).to(self.weight.dtype) / self.recency).exp()
        return _by_item(items, decay, len(self.weight)) @ self.weight


class _Matched(nn.Module):
    """InductiveKGAT with ``match_temperature``: each candidate attends to the history by itself."""

    def __init__(self, model: InductiveKGAT) -> None:
        super().__init__()
        assert model.match is not None  # a pooled model has towers
        self.entry: Tensor
        self.ready: Tensor
        self.candidate: Tensor
        self.bias: Tensor
        self.popularity: Tensor | None
        h, g = model.cached("vectors", model.item_vectors)
        self.register_buffer("entry", F.normalize(h, dim=1))
        self.register_buffer("ready", model._history_scores(h, model.attention_bias))
        self.register_buffer("candidate", F.normalize(g, dim=1).t().contiguous())
        self.register_buffer("bias", model.cached("bias", model.bias))
        self.register_buffer("popularity", None if model.prior is None else model.prior.popularity())
        self.prior_weight = None if model.prior is None else model.prior.forward
        self.temperature = model.temperature
        self.match_temperature = model.match.temperature

    def forward(self, items: Tensor) -> Tensor:
        there, at = items >= 0, items.clamp(min=0)
        length = there.sum(dim=1, keepdim=True)
        ready = self.ready[at].masked_fill(~there, torch.finfo(self.ready.dtype).min)
        alpha = ready.softmax(dim=1) * there  # [batch_size, length]
        powers = ((self.entry[at] @ self.candidate - 1) / self.match_temperature).exp()
        total = (alpha.unsqueeze(1) @ powers).squeeze(1)  # [batch_size, num_items]
        matched = 1 + self.match_temperature * total.clamp(min=torch.finfo(total.dtype).tiny).log()
        scores = torch.where(length > 0, matched, 0.0) / self.temperature + self.bias
        if self.prior_weight is None or self.popularity is None:
            return scores
        return scores + self.prior_weight(length) * self.popularity


class _Blended(nn.Module):
    """Blend: the scores of two models, each brought to one scale."""

    def __init__(self, first: WholeModel, second: WholeModel, weight: float) -> None:
        super().__init__()
        self.first = first.scores
        self.second = second.scores
        self.sizes = len(first.takes), len(second.takes)
        self.weight = weight

    def forward(self, items: Tensor, times: Tensor | None = None, asked_at: Tensor | None = None) -> Tensor:
        inputs = given(items, times, asked_at)
        first, second = (
            _standardised(model(*inputs[:size]))
            for model, size in zip((self.first, self.second), self.sizes, strict=True)
        )
        return (1 - self.weight) * first + self.weight * second


def _by_item(items: Tensor, values: Tensor, num_items: int) -> Tensor:
    """Return the sum of the values that each item has in a padded history, ``[batch_size, num_items]``."""
    # Padding goes to a column of its own, which is cut off.
    at = torch.where(items >= 0, items, num_items)
    return values.new_zeros(items.size(0), num_items + 1).scatter_add(1, at, values)[:, :num_items]


def _standardised(scores: Tensor) -> Tensor:
    """Do as :class:`Blend` does: equal scores become zeros, all others a row of mean 0 and standard deviation 1."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    std = centred.square().mean(dim=1, keepdim=True).sqrt()
    equal = scores.amax(dim=1, keepdim=True) == scores.amin(dim=1, keepdim=True)
    return torch.where(equal, 0.0, centred / std.clamp(min=torch.finfo(scores.dtype).tiny))
