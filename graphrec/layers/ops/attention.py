"""Attention over edges as sparse products: no feature vector is ever stored per edge."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.layers.ops import compiled
from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.kernels import (
    SMALLEST_TOTAL,
    product,
    sampled_product,
    segment_max,
    segment_sum,
    working_dtype,
)
from graphrec.layers.ops.standalone import standalone, standalone_backward


@standalone
def segment_softmax(scores: Tensor, segments: Tensor | EdgeLayout) -> Tensor:
    """Softmax of ``scores`` within consecutive segments.

    Args:
        scores: float ``[num_edges]`` or ``[num_edges, heads]``, segments one after the other.
        segments: Their boundaries, ``[num_segments + 1]``, or a layout, whose segments are its destinations;
            empty segments are fine.

    Returns:
        Weights of the same shape, positive and summing to one in every segment that is not empty.
    """
    if isinstance(segments, Tensor):
        src = torch.zeros(scores.size(0), dtype=segments.dtype, device=segments.device)
        segments = EdgeLayout(1, segments.numel() - 1, segments, src)
    scores = scores.to(working_dtype(scores))
    if scores.dim() == 1:
        return cast(Tensor, _SegmentSoftmax.apply(scores.unsqueeze(1), segments)).squeeze(1)  # type: ignore[no-untyped-call]
    return cast(Tensor, _SegmentSoftmax.apply(scores, segments))  # type: ignore[no-untyped-call]


@standalone
def weighted_sum(alpha: Tensor, x: Tensor, layout: EdgeLayout) -> Tensor:
    """Sum source vectors into destinations: ``out[d] = Σ_(e: s→d) alpha_e · x_s``, for each head.

    Args:
        alpha: Weights in layout order, ``[num_edges]`` or ``[num_edges, heads]``.
        x: Source vectors, ``[num_src, heads, channels]``; ``[num_src, channels]`` if all heads share them.
        layout: The sorted edges.

    Returns:
        ``[num_dst, channels]`` or ``[num_dst, heads, channels]``. Memory: the output, plus one scalar per edge
        and head. Backward is one transposed product and one product sampled at the edges.

    Raises:
        ArgumentError: Shapes that do not fit each other or the layout.
    """
    _check(layout, x, alpha=alpha)
    dtype = working_dtype(alpha, x)
    heads = alpha.unsqueeze(1) if alpha.dim() == 1 else alpha
    out = cast(Tensor, _WeightedSum.apply(heads.to(dtype), x.to(dtype), layout))  # type: ignore[no-untyped-call]
    return out.squeeze(1) if alpha.dim() == 1 else out


@standalone
def attend(scores: Tensor, x: Tensor, layout: EdgeLayout) -> tuple[Tensor, Tensor]:
    """Softmax and weighted sum in one: half the passes over the edges of the two functions apart.

    Args:
        scores: Scores in layout order, ``[num_edges, heads]``.
        x: Source vectors, ``[num_src, heads, channels]``; ``[num_src, channels]`` if all heads share them.
        layout: The sorted edges.

    Returns:
        ``(out, alpha)``, ``[num_dst, heads, channels]`` and ``[num_edges, heads]`` in layout order.

    Raises:
        ArgumentError: Shapes that do not fit each other or the layout.
    """
    _check(layout, x, scores=scores)
    dtype = working_dtype(scores, x)
    return cast(tuple[Tensor, Tensor], _Attend.apply(scores.to(dtype), x.to(dtype), layout))  # type: ignore[no-untyped-call]


def _check(layout: EdgeLayout, x: Tensor, **of_edges: Tensor) -> None:
    """Make sure that the shapes of what is summed fit."""
    layout.check_rows("source", x=x)
    layout.check_rows("edge", **of_edges)
    for name, tensor in of_edges.items():
        if tensor.dim() == 2 and x.dim() == 3 and tensor.size(1) != x.size(1):
            raise ArgumentError(
                f"{name} must have a column for each of the {x.size(1)} heads of x, got {list(tensor.shape)}"
            )


class _SegmentSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, layout: EdgeLayout) -> Tensor:
        alpha = _softmax(scores, layout)
        ctx.save_for_backward(alpha)
        ctx.layout = layout
        return alpha

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (alpha,) = ctx.saved_tensors
        out = _empty_by_head(alpha).copy_(grad)
        for head in range(alpha.size(1)):
            _softmax_gradient_(alpha[:, head], out[:, head], ctx.layout)
        return out, None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, x: Tensor, layout: EdgeLayout) -> Tensor:
        ctx.compiled = _compiled(alpha, x, layout)
        if ctx.compiled:
            ctx.save_for_backward(alpha, x)
            ctx.layout = layout
            return compiled.weighted_sum(alpha, x, layout)
        parts = _parts(x)
        ctx.save_for_backward(alpha, *parts)
        ctx.layout, ctx.shared = layout, x.dim() == 2
        return _sum(alpha, parts, layout)

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        alpha, *parts = ctx.saved_tensors
        layout: EdgeLayout = ctx.layout
        if ctx.compiled:
            return (
                compiled.dot(grad, parts[0], layout) if ctx.needs_input_grad[0] else None,
                compiled.transposed_sum(alpha, grad, layout) if ctx.needs_input_grad[1] else None,
                None,
            )
        grad_alpha = _zeros_by_head(alpha) if ctx.needs_input_grad[0] else None
        gradients = []
        for head in range(alpha.size(1)):
            grad_head = grad[:, head].contiguous()
            if grad_alpha is not None:
                sampled_product(layout.rowptr, layout.src, grad_head, _of(parts, head), out=grad_alpha[:, head])
            if ctx.needs_input_grad[1]:
                gradients.append(_sum_back(alpha[:, head], grad_head, layout))
        return grad_alpha, _joined(gradients, ctx.shared), None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, x: Tensor, layout: EdgeLayout) -> tuple[Tensor, Tensor]:
        ctx.layout, ctx.shared = layout, x.dim() == 2
        ctx.set_materialize_grads(False)
        ctx.compiled = _compiled(scores, x, layout)
        if ctx.compiled:
            out, alpha = compiled.attend(scores, x, layout)
            ctx.save_for_backward(alpha, x)
            return out, alpha
        alpha, parts = _softmax(scores, layout), _parts(x)
        ctx.save_for_backward(alpha, *parts)
        return _sum(alpha, parts, layout), alpha

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor | None, grad_alpha: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        alpha, *parts = ctx.saved_tensors
        layout: EdgeLayout = ctx.layout
        if ctx.compiled and grad is not None:
            return (
                compiled.attend_gradient(alpha, parts[0], grad, grad_alpha, layout)
                if ctx.needs_input_grad[0]
                else None,
                compiled.transposed_sum(alpha, grad, layout) if ctx.needs_input_grad[1] else None,
                None,
            )
        grad_scores = _zeros_by_head(alpha) if ctx.needs_input_grad[0] else None
        gradients = []
        for head in range(alpha.size(1)):
            grad_head = None if grad is None else grad[:, head].contiguous()
            if grad_scores is not None:
                # First the gradient of alpha, then, in its place, that of the scores.
                pulled = grad_scores[:, head]
                if grad_head is not None:
                    sampled_product(layout.rowptr, layout.src, grad_head, _of(parts, head), out=pulled)
                if grad_alpha is not None:
                    pulled += grad_alpha[:, head]
                _softmax_gradient_(alpha[:, head], pulled, layout)
            if ctx.needs_input_grad[1] and grad_head is not None:
                gradients.append(_sum_back(alpha[:, head], grad_head, layout))
        return grad_scores, _joined(gradients, ctx.shared), None


def _compiled(weights: Tensor, x: Tensor, layout: EdgeLayout) -> bool:
    return x.dim() == 3 and x.size(1) == weights.size(1) and compiled.usable(layout, *x.shape[1:], weights, x)


def _softmax(scores: Tensor, layout: EdgeLayout) -> Tensor:
    alpha = _empty_by_head(scores)
    for head in range(scores.size(1)):
        _softmax_head(scores[:, head], layout, out=alpha[:, head])
    return alpha


def _softmax_head(scores: Tensor, layout: EdgeLayout, out: Tensor) -> None:
    if not scores.numel():
        return
    if scores.device.type == "cpu":
        # One maximum for all saves a pass, and is exact unless a segment lies far below the others.
        torch.sub(scores, scores.max(), out=out).exp_()
        total = segment_sum(out, layout.rowptr, layout.src, layout.num_src)
        exact = int((total >= SMALLEST_TOTAL).sum()) == layout.num_occupied
    else:
        exact = False  # asking would wait for the device
    if not exact:
        peak = segment_max(scores, layout.rowptr)
        torch.sub(scores, peak.index_select(0, layout.destination), out=out).exp_()
        total = segment_sum(out, layout.rowptr, layout.src, layout.num_src)
    out.mul_(total.reciprocal_().index_select(0, layout.destination))


def _softmax_gradient_(alpha: Tensor, pulled: Tensor, layout: EdgeLayout) -> None:
    """Turn ``pulled``, the gradient of ``alpha``, into that of the scores, in place."""
    pulled *= alpha
    total = segment_sum(pulled, layout.rowptr, layout.src, layout.num_src)
    pulled.addcmul_(alpha, total.index_select(0, layout.destination), value=-1)


def _parts(x: Tensor) -> list[Tensor]:
    """Return each head's vectors, contiguous and kept so for backward; one for all if the heads share them."""
    return [x.contiguous()] if x.dim() == 2 else [part.contiguous() for part in x.unbind(dim=1)]


def _of(parts: list[Tensor], head: int) -> Tensor:
    return parts[head % len(parts)]


def _sum(alpha: Tensor, parts: list[Tensor], layout: EdgeLayout) -> Tensor:
    heads = range(alpha.size(1))
    sums = [product(layout.rowptr, layout.src, alpha[:, head], _of(parts, head)) for head in heads]
    return sums[0].unsqueeze(1) if len(sums) == 1 else torch.stack(sums, dim=1)


def _sum_back(alpha: Tensor, grad: Tensor, layout: EdgeLayout) -> Tensor:
    return product(layout.colptr, layout.dst, alpha.index_select(0, layout.transpose), grad)


def _joined(gradients: list[Tensor], shared: bool) -> Tensor | None:
    if not gradients:
        return None
    if shared:
        total = gradients[0]
        for gradient in gradients[1:]:
            total += gradient
        return total
    return gradients[0].unsqueeze(1) if len(gradients) == 1 else torch.stack(gradients, dim=1)


def _empty_by_head(like: Tensor) -> Tensor:
    """Return an empty ``[num_edges, heads]`` whose columns are contiguous."""
    return like.new_empty(like.size(1), like.size(0)).t()


def _zeros_by_head(like: Tensor) -> Tensor:
    return like.new_zeros(like.size(1), like.size(0)).t()
