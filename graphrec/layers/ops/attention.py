"""Attention over edges as sparse products: no feature vector is ever stored per edge."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphrec.layers.ops.edges import EdgeLayout

# torch says once a process that CSR tensors are in beta; hear it here, where it is known, not in a user's program.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), (1, 1))


def segment_softmax(scores: Tensor, rowptr: Tensor) -> Tensor:
    """Softmax of ``scores`` within consecutive segments.

    Args:
        scores: float ``[num_edges]`` or ``[num_edges, heads]``, segments one after the other.
        rowptr: Segment boundaries, ``[num_segments + 1]``; empty segments are fine.

    Returns:
        Weights of the same shape, positive and summing to one in every segment that is not empty.
    """
    return cast(Tensor, _SegmentSoftmax.apply(scores, rowptr))  # type: ignore[no-untyped-call]


def weighted_sum(alpha: Tensor, x: Tensor, layout: EdgeLayout) -> Tensor:
    """Sum source vectors into destinations: ``out[d] = Σ_(e: s→d) alpha_e · x_s``, for each head.

    Args:
        alpha: Weights in layout order, ``[num_edges]`` or ``[num_edges, heads]``.
        x: Source vectors, ``[num_src, channels]`` or ``[num_src, heads, channels]``.
        layout: The sorted edges.

    Returns:
        ``[num_dst, channels]`` or ``[num_dst, heads, channels]``. Memory: the output, plus one scalar per edge
        and head. Backward is one transposed product and one product sampled at the edges.
    """
    if alpha.dim() == 1:
        return cast(Tensor, _WeightedSum.apply(alpha, x, layout))  # type: ignore[no-untyped-call]
    return torch.stack([weighted_sum(alpha[:, h], x[:, h], layout) for h in range(alpha.size(1))], dim=1)


class _SegmentSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, rowptr: Tensor) -> Tensor:
        lengths = (rowptr[1:] - rowptr[:-1]).long()
        peak = _segment_reduce(scores, rowptr, "max")
        weights = (scores - torch.repeat_interleave(peak, lengths, dim=0)).exp_()
        total = _segment_reduce(weights, rowptr, "sum")
        weights /= torch.repeat_interleave(total, lengths, dim=0)
        ctx.save_for_backward(weights, rowptr)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weights, rowptr = ctx.saved_tensors
        weighted = weights * grad
        total = _segment_reduce(weighted, rowptr, "sum")
        lengths = (rowptr[1:] - rowptr[:-1]).long()
        return weighted - weights * torch.repeat_interleave(total, lengths, dim=0), None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, x: Tensor, layout: EdgeLayout) -> Tensor:
        ctx.save_for_backward(alpha, x)
        ctx.layout = layout
        return _csr(layout.rowptr, layout.src, alpha, layout.num_src) @ x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        alpha, x = ctx.saved_tensors
        layout: EdgeLayout = ctx.layout
        grad = grad.contiguous()
        grad_alpha = grad_x = None
        if ctx.needs_input_grad[0]:
            pattern = _csr(layout.rowptr, layout.src, torch.zeros_like(alpha), layout.num_src)
            grad_alpha = torch.sparse.sampled_addmm(pattern, grad, x.t(), beta=0.0).values()
        if ctx.needs_input_grad[1]:
            grad_x = _csr(layout.colptr, layout.dst, alpha[layout.transpose], layout.num_dst) @ grad
        return grad_alpha, grad_x, None


def _segment_reduce(values: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    # `initial=0` keeps empty segments finite; they own no edge, so their value is never read.
    offsets = rowptr.long()
    if reduce == "sum":
        return torch.segment_reduce(values, "sum", offsets=offsets, initial=0.0)
    return torch.segment_reduce(values, reduce, offsets=offsets).nan_to_num_(neginf=0.0)


def _csr(rowptr: Tensor, col: Tensor, values: Tensor, num_cols: int) -> Tensor:
    size = (rowptr.numel() - 1, num_cols)
    return torch.sparse_csr_tensor(rowptr, col, values.contiguous(), size, check_invariants=False)
