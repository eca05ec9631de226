"""DualEASE: EASE for catalogues wider than the data have users."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.block_triangle import BlockTriangle
from graphrec.models.ease import EASE
from graphrec.models.inversion import best_penalty, column_scales, item_penalties, large_tensor, sweep_
from graphrec.models.shallow_autoencoder import ShallowAutoencoder
from graphrec.sparse import history_matrix
from kg_loaders import RecGraph


class DualEASE(ShallowAutoencoder):
    r"""The scores of :class:`EASE`, from a matrix of users instead of items.

    By Woodbury's identity the inverse that EASE needs is

    .. math::
        P = (X^\top X + \Lambda)^{-1} = \frac{1}{\lambda} (D - D X^\top M X D), \qquad
        M = (X D X^\top + \lambda I)^{-1}, \qquad D = \lambda \Lambda^{-1},

    so with fewer users than items one inverts the smaller matrix, and never holds ``num_items`` squared numbers, but
    half of ``num_users`` squared: 1.1 GB for 23,600 users (:class:`~graphrec.models.block_triangle.BlockTriangle`). The
    model keeps the training histories :math:`X`; :math:`\Lambda` is :math:`\lambda I` without ``input_dropout`` and
    weights of items, and with weights of users :math:`W^{1/2} X` stands for :math:`X`.

    Args:
        num_items: Number of items.
        l2: The penalty λ, above 0; or several values, all tried on validation. Without a validation, the one in the
            middle is used.
        input_dropout: As in :class:`EASE`.
        relax: As in :class:`EASE`.
        user_weights: As in :class:`EASE`.
        item_weights: As in :class:`EASE`.
        triples: As in :class:`EASE`; each entity is one more row of the matrix that is inverted.
        kg_weight: As in :class:`EASE`.

    Raises:
        ArgumentError: ``l2`` is empty or holds a value that is not above 0; another value is outside its range, or
            weights are not positive numbers, one for each.

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
    items: Tensor
    offsets: Tensor
    chosen: Tensor

    def register_results(self) -> None:
        """Make room for the matrix of users, and for what it is read with."""
        self.register_result("kernel", None)  # M, as BlockTriangle holds it
        self.register_result("diagonal", self.num_items)  # of P
        self.register_result("items", None, dtype=torch.int64)  # of all users, one after another: X
        self.register_result("offsets", None, dtype=torch.int64)  # where each begins, and the end
        self.register_result("chosen", 1)

    @property
    def chosen_l2(self) -> float:
        """The penalty that is used: the one chosen on validation, or else the one in the middle."""
        return float(self.chosen) if self.chosen.numel() else self.l2[len(self.l2) // 2]

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Invert, with validation for each value of ``l2``; see :meth:`ClosedFormRecommender.fit`."""
        histories.check_items(self.num_items)
        self.check_users(histories)
        return best_penalty(self.l2, self.chosen_l2, lambda l2: self._solve(histories, l2), validate)

    def _solve(self, histories: Histories, l2: float) -> None:
        device = self.kernel.device
        self.unfit()  # an earlier fit goes before the new matrix comes
        histories = self.with_entities(histories)
        matrix = history_matrix(histories, self.num_items)  # [num_users, num_items]
        self.items, self.offsets = (
            torch.from_numpy(part.astype(np.int64)).to(device) for part in (matrix.indices, matrix.indptr)
        )
        penalties = self._penalties(l2).cpu().numpy()
        if (roots := self._roots()) is not None:
            matrix = matrix.multiply(roots.unsqueeze(1).cpu().numpy()).tocsr()
        shares = l2 / penalties  # D
        weighted = matrix.multiply(shares).tocsr() if self._penalties_differ else matrix
        size = len(histories)
        kernel = BlockTriangle(large_tensor(BlockTriangle.numel(size), device), size)
        for rows, block in kernel.blocks:
            block.copy_(torch.from_numpy((weighted[rows] @ matrix[: rows.stop].T).toarray()))
            block[:, rows].diagonal().add_(l2)
        sweep_([block for _, block in kernel.blocks], l2)
        kernel.values.neg_()
        told = np.zeros(self.num_items)  # what M says of each item: the diagonal of X^T M X
        for rows, block in kernel.blocks:
            half = block.cpu().numpy().copy()
            half[:, rows] /= 2  # the blocks on the diagonal are whole, and all others stand for two
            read = matrix[: rows.stop].T @ half.T  # [num_items, num_rows]
            told += 2 * np.asarray(matrix[rows].T.multiply(read).sum(axis=1)).ravel()
        diagonal = ((1 - shares * told) / penalties).astype(np.float32)
        self.kernel, self.diagonal = kernel.values, torch.from_numpy(diagonal).to(device)
        self.chosen = torch.tensor([l2], device=device)
        self.forget()

    @property
    def _penalties_differ(self) -> bool:
        return bool(self.input_dropout) or self.item_weights is not None

    def _penalties(self, l2: float) -> Tensor:
        of_rows = self.row_weights(len(self.offsets) - 1)
        weights = None if of_rows is None else of_rows.to(self.items.device)[self._users()]
        counts = torch.bincount(self.items, weights, minlength=self.num_items)
        return item_penalties(counts, l2, self.input_dropout, self.item_weights)

    def _scales(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return D, and by what the two parts of a score are multiplied.

        .. math:: s(u, j) = P_{jj} \kappa_j x_{uj} - \frac{\kappa_j}{\Lambda_j} (x_u - x_u D X^\top M X)_j

        with :math:`\kappa_j` of :func:`~graphrec.models.inversion.column_scales`; the first part leaves out what an
        item says of itself.
        """
        penalties = self._penalties(self.chosen_l2).to(self.diagonal.dtype)
        scales = column_scales(self.diagonal, penalties, self.relax)
        return self.chosen_l2 / penalties, self.diagonal * scales, scales / penalties

    def _roots(self) -> Tensor | None:
        """Return the root of the weight of each row of X; ``None`` for ones."""
        weights = self.row_weights(len(self.offsets) - 1)
        return None if weights is None else weights.to(self.offsets.device).sqrt()

    def _users(self) -> Tensor:
        """Return whose each of ``items`` is."""
        lengths = self.offsets.diff()
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    def _of_item(self) -> tuple[Tensor, Tensor]:
        """Return the items' users one after another, and where each item begins."""
        by_item = self.items.argsort(stable=True)
        return self._users()[by_item], F.pad(torch.bincount(self.items, minlength=self.num_items).cumsum(0), (1, 0))

    def score(self, histories: Histories) -> Tensor:
        """Return what EASE would; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        users, of_item = self.cached("of_item", self._of_item)
        _, own, others = self.cached("scales", self._scales)
        wide = self.kernel.new_zeros(len(histories), self.num_items)
        wide[histories.rows, histories.items] = 1.0
        seen = self._seen(wide).t()
        roots = self.cached("roots", self._roots)
        seen = seen.contiguous() if roots is None else seen * roots.unsqueeze(1)
        left = wide - _sums(seen, users, of_item).t()
        return wide.mul_(own) - left.mul_(others)

    def _seen(self, wide: Tensor) -> Tensor:
        """Return x D X^T M, ``[batch_size, num_users]``, for histories x that are written out.

        With weights of users the X of the product, not the histories, are those by their roots.
        """
        kernel = BlockTriangle(self.kernel, len(self.offsets) - 1)
        items, of_user = self.items, self.offsets
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
        seen[row] = -self.chosen_l2 * kernel.rows(user)
        seen[row, user] += 1.0
        roots = self.cached("roots", self._roots)
        if roots is not None:  # a row of X is one of W^(1/2) X by its root
            seen[row] /= roots[user].unsqueeze(1)
        other = (known == 0).nonzero().squeeze(1)
        if len(other):
            told = common[:, other]
            if self._penalties_differ:
                told = _sums(columns[:, other] * shares.unsqueeze(1), items, of_user)
            if roots is not None:
                told = told * roots.unsqueeze(1)
            seen[other] = kernel.product(told.t())
        return seen


def _sums(rows: Tensor, index: Tensor, begins: Tensor) -> Tensor:
    return F.embedding_bag(index, rows, begins, mode="sum", include_last_offset=True)


def smaller_ease(graph: RecGraph) -> type[EASE | DualEASE]:
    """Return the form of EASE that inverts the smaller matrix."""
    return DualEASE if graph.num_items > graph.num_users else EASE
