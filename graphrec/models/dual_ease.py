"""DualEASE: EASE for catalogues wider than the data have users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.models.ease import EASE
from graphrec.models.inversion import BLOCK_ROWS, best_penalty, negative_inverse_, square_matrix
from graphrec.sparse import history_matrix
from kg_loaders import RecGraph


class DualEASE(ClosedFormRecommender):
    r"""The scores of :class:`EASE`, from a matrix of users instead of items.

    By Woodbury's identity the inverse that EASE needs is

    .. math::
        P = (X^\top X + \lambda I)^{-1} = \frac{1}{\lambda} (I - X^\top M X), \qquad M = (X X^\top + \lambda I)^{-1},

    so with fewer users than items one inverts the smaller matrix, and never holds ``num_items`` squared numbers:
    :math:`s(u, j) = x_{uj} - (x_u P)_j / P_{jj}`. The model keeps the training histories :math:`X`.

    Args:
        num_items: Number of items.
        l2: The penalty λ, above 0; or several values, all tried on validation. Without a validation, the one in the
            middle is used.

    Raises:
        ArgumentError: ``l2`` is empty or holds a value that is not above 0.

    Example:
        >>> model = DualEASE(num_items=3, l2=1.0)
        >>> model.fit(Histories.from_lists([[0, 1], [0, 1], [2]]))
        {}
        >>> model.score(Histories.from_lists([[0]]))[0].argmax().item()
        1

    Source:
        Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019), eq. 8.
    """

    kernel: Tensor
    diagonal: Tensor
    pairs: Tensor
    chosen: Tensor

    def __init__(
        self, num_items: int, l2: float | Sequence[float] = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
    ) -> None:
        super().__init__(num_items)
        self.l2 = one_or_several("l2", l2, 0.0, above=True)
        self.register_result("kernel", None, None)  # M, [num_users, num_users]
        self.register_result("diagonal", num_items)  # of P
        self.register_result("pairs", 2, None, dtype=torch.int64)  # of (user, item): X
        self.register_result("chosen", 1)

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items; options are the constructor's keyword arguments."""
        return cls(graph.num_items, **options)

    @property
    def chosen_l2(self) -> float:
        """The penalty that is used: the one chosen on validation, or else the one in the middle."""
        return float(self.chosen) if self.chosen.numel() else self.l2[len(self.l2) // 2]

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Invert, with validation for each value of ``l2``; see :meth:`ClosedFormRecommender.fit`."""
        self.check_items(histories)
        return best_penalty(self.l2, self.chosen_l2, lambda l2: self._solve(histories, l2), validate)

    def _solve(self, histories: Histories, l2: float) -> None:
        device = self.kernel.device
        self.unfit()  # an earlier fit goes before the new matrix comes
        matrix = history_matrix(histories, self.num_items)  # [num_users, num_items]
        columns = matrix.T.tocsr()
        kernel = square_matrix(len(histories), device)
        for start in range(0, len(histories), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            kernel[rows] = torch.from_numpy((matrix[rows] @ columns).toarray())
        kernel.diagonal().add_(l2)
        negative_inverse_(kernel, l2).neg_()
        dense = kernel.cpu().numpy()
        diagonal = np.empty(self.num_items, dtype=np.float32)
        for start in range(0, self.num_items, BLOCK_ROWS):
            block = columns[start : start + BLOCK_ROWS]
            read = block.multiply(block @ dense)  # [block, num_users]
            diagonal[start : start + BLOCK_ROWS] = (1 - np.asarray(read.sum(axis=1)).ravel()) / l2
        self.kernel, self.diagonal = kernel, torch.from_numpy(diagonal).to(device)
        self.pairs = torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64)).to(device)  # by user
        self.chosen = torch.tensor([l2], device=device)
        self.forget()

    def _bags(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the users' items one after another and where each user begins, and the items' users likewise."""
        users, items = self.pairs
        by_item = items.argsort(stable=True)
        return items, _begins(users, len(self.kernel)), users[by_item], _begins(items[by_item], self.num_items)

    def score(self, histories: Histories) -> Tensor:
        """Return what EASE would; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        items, of_user, users, of_item = self.cached("bags", self._bags)
        wide = self.kernel.new_zeros(len(histories), self.num_items)
        wide[histories.rows, histories.items] = 1.0
        # Sums of rows: torch's products with a sparse matrix take ten times as long.
        common = _sums(wide.t().contiguous(), items, of_user)  # X x^T, [num_users, batch_size]
        seen = self._seen(common, wide.sum(dim=1), of_user.diff())
        product = wide - _sums(seen.t().contiguous(), users, of_item).t()
        scores: Tensor = wide - product / (self.chosen_l2 * self.diagonal)
        return scores

    def _seen(self, common: Tensor, lengths: Tensor, user_lengths: Tensor) -> Tensor:
        """Return x X^T M, ``[batch_size, num_users]``, from X x^T and the numbers of items of x and of the users."""
        same = (common == lengths) & (user_lengths.unsqueeze(1) == lengths)  # x is a row of X
        known, user = same.to(torch.uint8).max(dim=0)
        # As X X^T M = I - λ M, a training history costs no product with M.
        row, user = known.nonzero().squeeze(1), user[known.bool()]
        seen = common.new_empty(common.t().shape)
        seen[row] = -self.chosen_l2 * self.kernel[user]
        seen[row, user] += 1.0
        other = (known == 0).nonzero().squeeze(1)
        seen[other] = common.t()[other] @ self.kernel
        return seen


def _sums(rows: Tensor, index: Tensor, begins: Tensor) -> Tensor:
    return F.embedding_bag(index, rows, begins, mode="sum", include_last_offset=True)


def _begins(ascending: Tensor, size: int) -> Tensor:
    return F.pad(torch.bincount(ascending, minlength=size).cumsum(0), (1, 0))


def smaller_ease(graph: RecGraph) -> type[EASE | DualEASE]:
    """Return the form of EASE that inverts the smaller matrix."""
    return DualEASE if graph.num_items > graph.num_users else EASE
