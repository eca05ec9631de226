"""BlockTriangle: a symmetric matrix in half of its memory."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from graphrec.models import inversion


class BlockTriangle:
    """A symmetric matrix of which the lower triangle is held.

    ``BLOCK_ROWS`` rows at once make a block, which ends with the columns of its own rows; the blocks lie one after
    another. So rows are read and products are taken by large matrix products, as of a whole matrix, and no more than a
    few numbers of a triangle stand for themselves twice.

    Args:
        values: The blocks, ``[numel(size)]``.
        size: Rows of the matrix.

    Example:
        >>> import torch
        >>> matrix = BlockTriangle(torch.tensor([2.0, 1.0, 1.0, 3.0]), size=2)
        >>> matrix.product(torch.tensor([[1.0, 10.0]]))
        tensor([[12., 31.]])
    """

    def __init__(self, values: Tensor, size: int) -> None:
        self.values = values
        self.size = size

    @staticmethod
    def numel(size: int) -> int:
        """Return how many numbers hold a matrix of ``size`` rows."""
        return sum(len(range(rows.start, rows.stop)) * rows.stop for rows in _block_rows(size))

    @cached_property
    def blocks(self) -> list[tuple[slice, Tensor]]:
        """Each block's rows, and its part of ``values``, ``[num_rows, rows.stop]``."""
        blocks, start = [], 0
        for rows in _block_rows(self.size):
            numel = (rows.stop - rows.start) * rows.stop
            blocks.append((rows, self.values[start : start + numel].view(-1, rows.stop)))
            start += numel
        return blocks

    def rows(self, index: Tensor) -> Tensor:
        """Return some rows of the matrix, ``[len(index), size]``."""
        out = self.values.new_empty(len(index), self.size)
        for rows, block in self.blocks:
            above = (index < rows.start).nonzero().squeeze(1)
            out[above, rows] = block[:, index[above]].T
            within = ((index >= rows.start) & (index < rows.stop)).nonzero().squeeze(1)
            out[within, : rows.stop] = block[index[within] - rows.start]
        return out

    def product(self, left: Tensor) -> Tensor:
        """Return the product of ``left``, ``[num_rows, size]``, with the matrix."""
        out = self.values.new_zeros(len(left), self.size)
        for rows, block in self.blocks:
            out[:, rows] += left[:, : rows.stop] @ block.T
            out[:, : rows.start] += left[:, rows] @ block[:, : rows.start]
        return out


def _block_rows(size: int) -> list[slice]:
    starts = range(0, size, inversion.BLOCK_ROWS)
    return [slice(start, min(start + inversion.BLOCK_ROWS, size)) for start in starts]
