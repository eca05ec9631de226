"""EASE: a linear autoencoder in closed form, hard to beat."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.sparse import cooccurrence_blocks
from kg_loaders import RecGraph

BLOCK_ROWS = 1024  # rows that are counted, swept or mirrored at once


class EASE(ClosedFormRecommender):
    r"""Predicts each item from all others, by ridge regression with a zero diagonal.

    .. math::
        P = (X^\top X + \lambda I)^{-1}, \qquad
        B_{ij} = \begin{cases} 0 & i = j \\ -P_{ij} / P_{jj} & i \ne j \end{cases}, \qquad
        s(u, \cdot) = x_u B

    with the 0/1 history matrix :math:`X`. Ratings and times are not used. Fitting holds one float32 matrix of
    ``num_items`` squared, 3.6 GB for 30,000 items, and inverts it in place; that of an earlier fit is let go before.
    Each value of :math:`\lambda` is one inversion, and if the best is not the last one tried, there is one more.

    Args:
        num_items: Number of items.
        l2: The penalty λ, above 0; or several values, all tried on validation. Without a validation, the one in the
            middle is used.

    Raises:
        ArgumentError: ``l2`` is empty or holds a value that is not above 0.

    Example:
        >>> model = EASE(num_items=3, l2=1.0)
        >>> model.fit(Histories.from_lists([[0, 1], [0, 1], [2]]))
        {}
        >>> model.score(Histories.from_lists([[0]]))[0].argmax().item()
        1

    Source:
        Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019), eq. 8.
    """

    weight: Tensor

    def __init__(
        self,
        num_items: int,
        l2: float | Sequence[float] = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0),
    ) -> None:
        super().__init__(num_items)
        self.l2 = penalties(l2)
        self.chosen_l2 = self.l2[len(self.l2) // 2]
        self.register_result("weight", num_items, num_items)

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items; options are the constructor's keyword arguments."""
        return cls(graph.num_items, **options)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        r"""Solve for :math:`B`, with validation for each value of ``l2``; see :meth:`ClosedFormRecommender.fit`.

        Raises:
            ArgumentError: A value of ``l2`` is too small for float32 and these data.
        """
        self.check_items(histories)
        device = self.weight.device
        self.weight = unfitted = torch.empty(0, device=device)  # an earlier fit goes before the new matrix comes
        matrix = _new_matrix(self.num_items, device)

        def solve(l2: float) -> None:
            self.weight = unfitted  # should this fail, the model holds no half-made matrix
            self.fill(matrix, histories)
            matrix.diagonal().add_(l2)
            _invert(matrix, l2)
            _to_weight(matrix)
            self.weight = matrix
            self.chosen_l2 = l2
            self.forget()

        if validate is None or len(self.l2) == 1:
            solve(self.chosen_l2)
            return {}
        values = {}
        for l2 in self.l2:
            solve(l2)
            values[l2] = validate()
        best = max(values, key=values.__getitem__)
        if best != self.chosen_l2:
            solve(best)
        return {"l2": best}

    def fill(self, matrix: Tensor, histories: Histories) -> None:
        """Write what is to be inverted, but for the penalty, over ``matrix``: the co-occurrences."""
        for rows, block in cooccurrence_blocks(histories, len(matrix), BLOCK_ROWS):
            matrix[rows] = torch.from_numpy(block.toarray())

    def score(self, histories: Histories) -> Tensor:
        """Sum the rows of :math:`B` over each history; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        return F.embedding_bag(
            histories.items, self.weight, histories.offsets, mode="sum", include_last_offset=True
        )  # [batch_size, num_items]

    def contributions(self, histories: Histories, item: int) -> Tensor:
        """Return :math:`B_{ij}` of each history entry; see :meth:`Recommender.contributions`."""
        self.check_ready(histories)
        return self.weight[histories.items, item]


def penalties(l2: float | Sequence[float]) -> tuple[float, ...]:
    """Return the penalties to try; raise :class:`ArgumentError` unless there is one and all are above 0."""
    values = tuple(float(value) for value in l2) if isinstance(l2, Sequence) else (float(l2),)
    if not values or not all(value > 0 and math.isfinite(value) for value in values):
        raise ArgumentError(f"l2 must be a number above 0 or several of them, got {l2!r}")
    return values


def _new_matrix(size: int, device: torch.device) -> Tensor:
    """Return a float32 matrix ``[size, size]`` whose memory goes back to the system with it.

    A heap that keeps what is freed (:func:`~graphrec.process.settle_process`) may fit no second matrix into the hole of
    the first: other blocks have moved in. A refit would then take the memory of two.
    """
    if device.type != "cpu":
        return torch.empty(size, size, device=device)
    # A copy of its own for each process, as any other memory: a fork must not share what it fits.
    pages = mmap.mmap(-1, size * size * torch.float32.itemsize, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=torch.float32).view(size, size)


def _invert(matrix: Tensor, l2: float) -> None:
    """Replace the lower triangle of a positive definite matrix by that of its negative inverse.

    The sweep operator in blocks: nearly all of it is matrix products in place, on any device, and as many operations
    as Cholesky's factorisation and inverse take. (LAPACK's own in scipy crashed with 30,000 rows on two threads.)

    Source:
        Goodnight, "A Tutorial on the SWEEP Operator" (The American Statistician 1979).
    """
    size = len(matrix)
    least = float(matrix.diagonal().max()) * torch.finfo(matrix.dtype).eps
    panels = matrix.new_empty(2, size * min(BLOCK_ROWS, size))  # once for all: each is a hundredth of a large matrix
    for start in range(0, size, BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, size)
        panel, swept = panels[:, : size * (end - start)].view(2, size, end - start)
        panel[:start] = matrix[start:end, :start].T
        panel[start:] = matrix[start:, start:end]
        factor, failed = torch.linalg.cholesky_ex(panel[start:end].double())
        if int(failed) or l2 < least:
            raise ArgumentError(f"l2 must be larger for these data, got {l2}: float32 does not tell it from 0")
        pivot = torch.cholesky_inverse(factor).to(matrix.dtype)
        torch.mm(panel, pivot, out=swept)
        for row in range(0, size, BLOCK_ROWS):
            stop = min(row + BLOCK_ROWS, size)
            matrix[row:stop, :stop].addmm_(swept[row:stop], panel[:stop].T, alpha=-1)
        matrix[start:end, :start] = swept[:start].T
        matrix[end:, start:end] = swept[end:]
        matrix[start:end, start:end] = -pivot


def _to_weight(matrix: Tensor) -> None:
    """Turn the inverse, given by its lower triangle and up to its sign, into the weights."""
    scale = matrix.diagonal().reciprocal().neg_()  # [num_items]
    for start in range(0, len(matrix), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        matrix[:start, rows] = matrix[rows, :start].T
    matrix.mul_(scale)
    matrix.fill_diagonal_(0.0)
