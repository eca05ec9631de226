"""DualEASE: EASE for catalogues wider than the data have users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.models.ease import EASE, MOST_DROPPED, PENALTIES
from graphrec.models.inversion import (
    BLOCK_ROWS,
    best_penalty,
    column_scales,
    item_penalties,
    negative_inverse_,
    square_matrix,
)
from graphrec.sparse import history_matrix
from kg_loaders import RecGraph


class DualEASE(ClosedFormRecommender):
    r"""The scores of :class:`EASE`, from a matrix of users instead of items.

    By Woodbury's identity the inverse that EASE needs is

    .. math::
        P = (X^\top X + \Lambda)^{-1} = \frac{1}{\lambda} (D - D X^\top M X D), \qquad
        M = (X D X^\top + \lambda I)^{-1}, \qquad D = \lambda \Lambda^{-1},

    so with fewer users than items one inverts the smaller matrix, and never holds ``num_items`` squared numbers. The
    model keeps the training histories :math:`X`; :math:`\Lambda` is :math:`\lambda I` without ``input_dropout``.

    Args:
        num_items: Number of items.
        l2: The penalty λ, above 0; or several values, all tried on validation. Without a validation, the one in the
            middle is used.
        input_dropout: As in :class:`EASE`.
        relax: As in :class:`EASE`.

    Raises:
        ArgumentError: ``l2`` is empty or holds a value that is not above 0; another value is outside its range.

    Example:
        >>> model = DualEASE(num_items=3, l2=1.0)
        >>> model.fit(Histories.from_lists([[0, 1], [0, 1], [2]]))
        {}
        >>> model.score(Histories.from_lists([[0]]))[0].argmax().item()
        1

    Source:
        Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019), eq. 8; see :class:`EASE`.
    """

    kernel: Tensor
    diagonal: Tensor
    pairs: Tensor
    chosen: Tensor

    def __init__(
        self,
        num_items: int,
        l2: float | Sequence[float] = PENALTIES,
        input_dropout: float = 0.0,
        relax: float = 0.0,
    ) -> None:
        super().__init__(num_items)
        self.l2 = one_or_several("l2", l2, 0.0, above=True)
        check_range("input_dropout", input_dropout, 0.0, MOST_DROPPED)
        check_range("relax", relax, 0.0, 1.0)
        self.input_dropout = input_dropout
        self.relax = relax
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
        penalties = item_penalties(torch.from_numpy(np.diff(columns.indptr)), l2, self.input_dropout).numpy()
        shares = l2 / penalties  # D
        weighted = matrix.multiply(shares).tocsr() if self.input_dropout else matrix
        kernel = square_matrix(len(histories), device)
        for start in range(0, len(histories), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            kernel[rows] = torch.from_numpy((weighted[rows] @ columns).toarray())
        kernel.diagonal().add_(l2)
        negative_inverse_(kernel, l2).neg_()
        dense = kernel.cpu().numpy()
        diagonal = np.empty(self.num_items, dtype=np.float32)
        for start in range(0, self.num_items, BLOCK_ROWS):
            block = columns[start : start + BLOCK_ROWS]
            read = block.multiply(block @ dense)  # [block, num_users]
            rows = slice(start, start + BLOCK_ROWS)
            diagonal[rows] = (1 - shares[rows] * np.asarray(read.sum(axis=1)).ravel()) / penalties[rows]
        self.kernel, self.diagonal = kernel, torch.from_numpy(diagonal).to(device)
        self.pairs = torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64)).to(device)  # by user
        self.chosen = torch.tensor([l2], device=device)
        self.forget()

    def _scales(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return D, and by what the two parts of a score are multiplied.

        .. math:: s(u, j) = P_{jj} \kappa_j x_{uj} - \frac{\kappa_j}{\Lambda_j} (x_u - x_u D X^\top M X)_j

        with :math:`\kappa_j` of :func:`~graphrec.models.inversion.column_scales`; the first part leaves out what an
        item says of itself.
        """
        counts = torch.bincount(self.pairs[1], minlength=self.num_items)
        penalties = item_penalties(counts, self.chosen_l2, self.input_dropout).to(self.diagonal.dtype)
        scales = column_scales(self.diagonal, penalties, self.relax)
        return self.chosen_l2 / penalties, self.diagonal * scales, scales / penalties

    def _bags(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the users' items one after another and where each user begins, and the items' users likewise."""
        users, items = self.pairs
        by_item = items.argsort(stable=True)
        return items, _begins(users, len(self.kernel)), users[by_item], _begins(items[by_item], self.num_items)

    def score(self, histories: Histories) -> Tensor:
        """Return what EASE would; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        _, _, users, of_item = self.cached("bags", self._bags)
        _, own, others = self.cached("scales", self._scales)
        wide = self.kernel.new_zeros(len(histories), self.num_items)
        wide[histories.rows, histories.items] = 1.0
        left = wide - _sums(self._seen(wide).t().contiguous(), users, of_item).t()
        return wide.mul_(own) - left.mul_(others)

    def _seen(self, wide: Tensor) -> Tensor:
        """Return x D X^T M, ``[batch_size, num_users]``, for histories x that are written out."""
        items, of_user, _, _ = self.cached("bags", self._bags)
        shares, _, _ = self.cached("scales", self._scales)
        # Sums of rows: torch's products with a sparse matrix take ten times as long.
        columns = wide.t().contiguous()
        common = _sums(columns, items, of_user)  # X x^T, [num_users, batch_size]
        lengths = wide.sum(dim=1)
        same = (common == lengths) & (of_user.diff().unsqueeze(1) == lengths)  # x is a row of X
        known, user = same.to(torch.uint8).max(dim=0)
        # As X D X^T M = I - λ M, a training history costs no product with M.
        row, user = known.nonzero().squeeze(1), user[known.bool()]
        seen = common.new_empty(common.t().shape)
        seen[row] = -self.chosen_l2 * self.kernel[user]
        seen[row, user] += 1.0
        other = (known == 0).nonzero().squeeze(1)
        if len(other):
            told = common[:, other]
            if self.input_dropout:
                told = _sums(columns[:, other] * shares.unsqueeze(1), items, of_user)
            seen[other] = told.t() @ self.kernel
        return seen


def _sums(rows: Tensor, index: Tensor, begins: Tensor) -> Tensor:
    return F.embedding_bag(index, rows, begins, mode="sum", include_last_offset=True)


def _begins(ascending: Tensor, size: int) -> Tensor:
    return F.pad(torch.bincount(ascending, minlength=size).cumsum(0), (1, 0))


def smaller_ease(graph: RecGraph) -> type[EASE | DualEASE]:
    """Return the form of EASE that inverts the smaller matrix."""
    return DualEASE if graph.num_items > graph.num_users else EASE
