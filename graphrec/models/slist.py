"""SLIST: the next item from what came before it, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.models.inversion import BLOCK_ROWS, negative_inverse_, square_matrix
from graphrec.models.sequential import check_times
from graphrec.sparse import cooccurrence_blocks
from kg_loaders import RecGraph

SPARSE = 0.03  # share of entries below which sums of rows are faster than a product
MOST_PAIRS = 2**22  # pairs of entries that are counted at once, 32 MB a column


class SLIST(ClosedFormRecommender):
    r"""Predicts the next item from all items before it, the last ones weighing most, by ridge regression.

    .. math::
        \min_B \; (1 - \alpha) \sum_u \sum_{t > 1} \lVert e_{i_t} - x_{u,t} B \rVert^2
            + \alpha \lVert X - X B \rVert^2 + \lambda \lVert B \rVert^2, \quad B_{jj} = 0, \qquad
        x_{u,t} = \sum_{k < t} e^{-(t - 1 - k) / \delta} \, e_{i_k}, \quad
        s(u, \cdot) = x_{u, |\mathcal{H}_u| + 1} B

    over the items :math:`i_1, i_2, ...` of each user in order of time; X is the 0/1 history matrix, so that
    :math:`\alpha = 1` is :class:`EASE` with a decaying history. With :math:`G = \alpha X^\top X + (1 - \alpha) \sum
    x^\top x + \lambda I` and :math:`H = \alpha X^\top X + (1 - \alpha) \sum x^\top e` the solution is

    .. math::
        B = G^{-1} H - G^{-1} \operatorname{diag}(\mu), \qquad \mu_j = (G^{-1} H)_{jj} / (G^{-1})_{jj}.

    Fitting holds two float32 matrices of ``num_items`` squared, 2.7 GB for 18,000 items. Only the order of times is
    used, and ratings are not.

    Args:
        num_items: Number of items.
        l2: The penalty λ, above 0; or several values.
        recency: δ, after how many further items an item's weight has fallen to 1/e, above 0; or several values.
        alpha: The share of what is learned without order, within 0..1; or several values. All combinations are tried
            on validation; without one, the values in the middle are used.

    Raises:
        ArgumentError: A value outside its range, or no value at all.

    Example:
        >>> model = SLIST(num_items=3, l2=1.0, recency=1.0, alpha=0.0)
        >>> model.fit(Histories.from_lists([[0, 1, 2], [0, 1, 2]]))
        {}
        >>> [model.score(Histories.from_lists([past]))[0].argmax().item() for past in ([0], [0, 1])]
        [1, 2]

    Source:
        Choi, Kim, Lee, Shim and Lee, "Session-aware Linear Item-Item Models for Session-based Recommendation" (WWW
        2021), eq. 9 and 11, with the next item as the only target, and the zero diagonal of EASE.
    """

    weight: Tensor
    chosen: Tensor

    def __init__(
        self,
        num_items: int,
        l2: float | Sequence[float] = (20.0, 50.0, 100.0),
        recency: float | Sequence[float] = (2.0, 8.0, 32.0),
        alpha: float | Sequence[float] = 0.3,
    ) -> None:
        super().__init__(num_items)
        self.l2 = one_or_several("l2", l2, 0.0, above=True)
        self.recency = one_or_several("recency", recency, 0.0, above=True)
        self.alpha = one_or_several("alpha", alpha, 0.0)
        for value in self.alpha:
            check_range("alpha", value, low=0.0, high=1.0)
        self.register_result("weight", num_items, num_items)
        self.register_result("chosen", 3, dtype=torch.float64)  # l2, recency and alpha

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items; options are the constructor's keyword arguments.

        Raises:
            ArgumentError: The graph does not know when its interactions happened.
        """
        check_times(graph, cls.__name__)
        return cls(graph.num_items, **options)

    @property
    def chosen_values(self) -> tuple[float, float, float]:
        """λ, δ and α as they are used: those chosen on validation, or else those in the middle."""
        if self.chosen.numel():
            l2, recency, alpha = self.chosen.tolist()
            return l2, recency, alpha
        l2, recency, alpha = (values[len(values) // 2] for values in (self.l2, self.recency, self.alpha))
        return l2, recency, alpha

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Solve for :math:`B`, with validation for each combination; see :meth:`ClosedFormRecommender.fit`.

        Raises:
            ArgumentError: A value of ``l2`` is too small for float32 and these data.
        """
        histories.check_items(self.num_items)
        histories = histories.in_order()
        held = self.chosen_values
        if validate is None or len(self.l2) == len(self.recency) == len(self.alpha) == 1:
            self._solve(histories, held)
            return {}
        values = {}
        for tried in product(self.l2, self.recency, self.alpha):
            self._solve(histories, tried)
            values[tried] = validate()
        best = max(values, key=values.__getitem__)
        if best != tried:
            self._solve(histories, best)
        return dict(zip(("l2", "recency", "alpha"), best, strict=True))

    def _solve(self, histories: Histories, values: tuple[float, float, float]) -> None:
        l2, recency, alpha = values
        device = self.weight.device
        self.unfit()  # an earlier fit goes before the new matrices come
        gram, weight = (square_matrix(self.num_items, device) for _ in range(2))
        for rows, block in cooccurrence_blocks(histories, self.num_items, BLOCK_ROWS):
            weight[rows] = torch.from_numpy(block.toarray()).mul_(alpha)
        gram.copy_(weight)
        if alpha < 1:
            for pairs in _pairs(histories):
                _count(pairs, gram, weight, recency, 1 - alpha)
        gram.diagonal().add_(l2)
        inverse = negative_inverse_(gram, l2).neg_()
        for start in range(0, self.num_items, BLOCK_ROWS):
            columns = slice(start, start + BLOCK_ROWS)
            weight[:, columns] = _product(inverse, weight[:, columns])
        diagonal = inverse.diagonal().clone()
        weight.sub_(inverse.mul_(weight.diagonal() / diagonal))  # each column by its own
        weight.fill_diagonal_(0.0)
        self.weight = weight
        self.chosen = torch.tensor(values, dtype=torch.float64, device=device)
        self.forget()

    def score(self, histories: Histories) -> Tensor:
        """Sum the rows of :math:`B` over each history, the last ones weighing most; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        ordered = histories.in_order()
        return F.embedding_bag(
            ordered.items,
            self.weight,
            ordered.offsets,
            mode="sum",
            per_sample_weights=self._decayed(ordered),
            include_last_offset=True,
        )  # [batch_size, num_items]

    def contributions(self, histories: Histories, item: int) -> Tensor:
        r"""Return :math:`e^{-(n - k) / \delta} B_{ij}` of each history entry; see :meth:`Recommender.contributions`."""
        self.check_ready(histories)
        order = histories.order()
        ordered = histories.in_order()
        given = self.weight[ordered.items, item] * self._decayed(ordered)
        return torch.empty_like(given).index_copy_(0, order, given)

    @property
    def reach(self) -> int:
        """Those that weigh more than rounding takes away; see :attr:`Recommender.reach`."""
        _, recency, _ = self.chosen_values
        return math.ceil(-recency * math.log(torch.finfo(self.weight.dtype).eps))

    def score_without_each(self, histories: Histories, item: int) -> Tensor:
        """Score one item without each history entry in turn; see :meth:`Recommender.score_without_each`."""
        return self._without_each(histories, slice(item, item + 1))[:, 0]

    def scores_without_each(self, histories: Histories) -> Tensor:
        """Score all items without each history entry in turn; see :meth:`Recommender.scores_without_each`."""
        return self._without_each(histories, slice(None))

    def _without_each(self, histories: Histories, columns: slice) -> Tensor:
        """Score some items, ``[total, num_columns]``: those before the entry come one place nearer to the end."""
        self.check_ready(histories)
        order, ordered = histories.order(), histories.in_order()
        nearer = self.weight[:, columns][ordered.items] * self._decayed(ordered, nearer=1).unsqueeze(1)
        out = torch.zeros_like(nearer)
        if len(out) > 1:
            # Without an entry those before it are one place nearer. Of those behind it the last alone weighs the same
            # in `nearer`, as no entry is nearer than that.
            before = nearer[:-1].cumsum(0)
            behind = before[-1] - before
            _, recency, _ = self.chosen_values
            out[:-1] = behind.mul_(math.exp(-1 / recency)).add_(nearer[-1])
            out[1:] += before
        return torch.empty_like(out).index_copy_(0, order, out)

    def _decayed(self, ordered: Histories, nearer: int = 0) -> Tensor:
        """Return the weight of each entry, ``[total]``, as if it were some places nearer to the end."""
        _, recency, _ = self.chosen_values
        return torch.exp((nearer - ordered.from_end.to(self.weight.dtype)).clamp_(max=0.0) / recency)


def _product(symmetric: Tensor, columns: Tensor) -> Tensor:
    """Multiply a symmetric matrix by columns, of which most are zeros where catalogues are large."""
    if columns.count_nonzero() > SPARSE * columns.numel():
        return symmetric @ columns.contiguous()
    column, row = columns.t().nonzero(as_tuple=True)
    begins = torch.searchsorted(column, torch.arange(columns.size(1) + 1, device=column.device))
    told = columns.t()[column, row]
    return F.embedding_bag(row, symmetric, begins, mode="sum", per_sample_weights=told, include_last_offset=True).t()


class _Pairs(NamedTuple):
    """Two entries of one user, or one entry twice, int64 columns ``[num_pairs]``."""

    former: Tensor
    latter: Tensor
    distance: Tensor
    """Entries from the former to the latter."""
    after: Tensor
    """Entries of the user after the latter."""


def _pairs(ordered: Histories) -> Iterator[_Pairs]:
    """Yield the pairs of entries of each user, some users at a time."""
    until = (ordered.lengths * (ordered.lengths + 1) // 2).cumsum(0)
    start = 0
    while start < len(ordered):
        before = int(until[start - 1]) if start else 0
        end = max(start + 1, int(torch.searchsorted(until, before + MOST_PAIRS, right=True)))
        some = ordered.select(torch.arange(start, end, device=until.device))
        endings = some.endings()
        former = torch.repeat_interleave(some.items, endings.lengths)
        distance = torch.arange(len(former), device=former.device) - endings.offsets[endings.rows]
        yield _Pairs(former, endings.items, distance, endings.from_end)
        start = end


def _count(pairs: _Pairs, gram: Tensor, weight: Tensor, recency: float, share: float) -> None:
    r"""Add ``share`` of :math:`\sum x^\top x` to ``gram`` and of :math:`\sum x^\top e` to ``weight``.

    Two entries d apart, with n after the latter, are in the inputs of n targets together, so with :math:`\rho =
    e^{-1/\delta}` they add :math:`\rho^d (1 + \rho^2 + ... + \rho^{2(n - 1)})` to the one sum. The latter is a
    target of the former once: :math:`\rho^{d - 1}` to the other.
    """
    size = len(gram)
    distance, after = pairs.distance.to(gram.dtype), pairs.after.to(gram.dtype)
    together = (
        torch.exp(-distance / recency) * torch.expm1(-2 * after / recency) / torch.expm1(after.new_tensor(-2 / recency))
    )
    together.mul_(share)
    two = pairs.distance > 0
    forward = pairs.former * size + pairs.latter
    gram.view(-1).index_add_(0, forward, together)
    gram.view(-1).index_add_(0, (pairs.latter * size + pairs.former)[two], together[two])
    follows = torch.exp(-(distance[two] - 1) / recency).mul_(share)
    weight.view(-1).index_add_(0, forward[two], follows)
