"""Large symmetric matrices of closed forms, inverted in place."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.process import return_freed_memory

BLOCK_ROWS = 1024  # rows that are counted, swept or mirrored at once
LARGE = 2**26  # numbers of a quarter of a GB


def large_tensor(numel: int, device: torch.device) -> Tensor:
    """Return a float32 tensor ``[numel]`` whose memory goes back to the system with it.

    A heap that keeps what is freed (:func:`~graphrec.process.settle_process`) may fit no second matrix into the hole of
    the first: other blocks have moved in. A refit would then take the memory of two. Nor does what training freed stay
    beside a large one.
    """
    if device.type != "cpu" or not numel:
        return torch.empty(numel, device=device)
    if numel >= LARGE:
        return_freed_memory()
    # A copy of its own for each process, as any other memory: a fork must not share what it fits.
    pages = mmap.mmap(-1, numel * torch.float32.itemsize, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=torch.float32)


def square_matrix(size: int, device: torch.device) -> Tensor:
    """Return a :func:`large_tensor` of ``[size, size]``."""
    return large_tensor(size * size, device).view(size, size)


def negative_inverse_(matrix: Tensor, l2: float) -> Tensor:
    """Replace a positive definite matrix, given by its lower triangle, by its negative inverse.

    Args:
        matrix: float32 ``[size, size]``.
        l2: The penalty on its diagonal, for the error.

    Returns:
        The same matrix, both of its triangles.

    Raises:
        ArgumentError: ``l2`` is too small for float32.
    """
    size = len(matrix)
    starts = range(0, size, BLOCK_ROWS)
    sweep_([matrix[start : start + BLOCK_ROWS, : start + BLOCK_ROWS] for start in starts], l2)
    for start in starts:
        rows = slice(start, start + BLOCK_ROWS)
        matrix[:start, rows] = matrix[rows, :start].T
    return matrix


def sweep_(blocks: Sequence[Tensor], l2: float) -> None:
    """Replace the lower triangle of a positive definite matrix by that of its negative inverse.

    The sweep operator in blocks: nearly all of it is matrix products in place, on any device, and as many operations
    as Cholesky's factorisation and inverse take. (LAPACK's own in scipy crashed with 30,000 rows on two threads, and
    with 23,600 rows on one took more than four times as long.)

    Args:
        blocks: Its rows from the first to the last, some at once, float32; each block ends with the columns of its own
            rows, ``[num_rows, end]``, and what it holds right of the diagonal is the mirror of what is left of it.
        l2: The penalty on its diagonal, for the error.

    Raises:
        ArgumentError: ``l2`` is too small for float32.

    Source:
        Goodnight, "A Tutorial on the SWEEP Operator" (The American Statistician 1979).
    """
    size = blocks[-1].shape[1]
    rows_of = [slice(block.shape[1] - len(block), block.shape[1]) for block in blocks]
    dtype = blocks[0].dtype
    largest = max(float(block[:, rows].diagonal().max()) for block, rows in zip(blocks, rows_of, strict=True))
    # Once for all: each is a hundredth of a large matrix.
    panels = blocks[0].new_empty(2, size * max(len(block) for block in blocks))
    for number, (own, columns) in enumerate(zip(blocks, rows_of, strict=True)):
        before, below = slice(columns.start), list(zip(blocks, rows_of, strict=True))[number + 1 :]
        panel, swept = panels[:, : size * len(own)].view(2, size, len(own))
        panel[before] = own[:, before].T
        panel[columns] = own[:, columns]
        for block, rows in below:
            panel[rows] = block[:, columns]
        factor, failed = torch.linalg.cholesky_ex(panel[columns].double())
        if int(failed) or l2 < largest * torch.finfo(dtype).eps:
            raise ArgumentError(f"l2 must be larger for these data, got {l2}: float32 does not tell it from 0")
        pivot = torch.cholesky_inverse(factor).to(dtype)
        torch.mm(panel, pivot, out=swept)
        for block, rows in zip(blocks, rows_of, strict=True):
            block.addmm_(swept[rows], panel[: rows.stop].T, alpha=-1)
        own[:, before] = swept[before].T
        own[:, columns] = -pivot
        for block, rows in below:
            block[:, columns] = swept[rows]


def item_penalties(counts: Tensor, l2: float, input_dropout: float, weights: Tensor | None = None) -> Tensor:
    r"""Return :math:`\Lambda_j = (\lambda + \frac{p}{1 - p} c_j) / v_j` of each item, float32.

    Args:
        counts: :math:`c_j`, how many users took it.
        l2: λ.
        input_dropout: p.
        weights: :math:`v_j`; 1 where they are not given.
    """
    penalties = (counts * (input_dropout / (1 - input_dropout)) + l2).float()
    return penalties if weights is None else penalties / weights


def column_scales(diagonal: Tensor, penalties: Tensor, relax: float) -> Tensor:
    r"""Return by what the columns of :math:`-P` are multiplied, :math:`\max(\Lambda_j, (1 - \xi) / P_{jj})`.

    Args:
        diagonal: That of P.
        penalties: Λ.
        relax: ξ; with 0 an item says nothing of itself.
    """
    return torch.maximum((1 - relax) / diagonal, penalties) if relax else diagonal.reciprocal()


def best_penalty(
    penalties: Sequence[float], held: float, solve: Callable[[float], None], validate: Callable[[], float] | None
) -> dict[str, float]:
    """Solve for the penalty held, or with a validation for each, and leave the best one solved.

    Returns:
        The best one as "l2"; empty where there was nothing to choose.
    """
    if validate is None or len(penalties) == 1:
        solve(held)
        return {}
    values = {}
    for l2 in penalties:
        solve(l2)
        values[l2] = validate()
    best = max(values, key=values.__getitem__)
    if best != penalties[-1]:
        solve(best)
    return {"l2": best}
