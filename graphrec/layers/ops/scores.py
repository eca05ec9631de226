"""Scores of edges as sums of scalars of nodes and types, with gradients that are sums over segments."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from graphrec.layers.ops import compiled
from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.kernels import segment_sum, working_dtype
from graphrec.layers.ops.standalone import standalone, standalone_backward


@standalone
def additive_scores(
    layout: EdgeLayout,
    source: Tensor | None = None,
    destination: Tensor | None = None,
    by_type: Tensor | None = None,
    types: EdgeLayout | None = None,
    edge: Tensor | None = None,
    negative_slope: float = 1.0,
) -> Tensor:
    """Return ``LeakyReLU(source[s] + destination[d] + by_type[r] + edge[e])`` for each edge ``e: s → d`` of type ``r``.

    Any of the four may be missing, but not all.

    Args:
        layout: The sorted edges.
        source: ``[num_src, heads]``.
        destination: ``[num_dst, heads]``.
        by_type: ``[num_types, heads]``; needs ``types``.
        types: The layout of types to destinations, see :meth:`EdgeLayout.types`.
        edge: ``[num_edges, heads]``, in layout order.
        negative_slope: Slope of the LeakyReLU, above 0; 1 leaves the sum as it is.

    Returns:
        ``[num_edges, heads]`` in layout order. Gradients take one pass over the edges for each summand.

    Raises:
        ArgumentError: Shapes that do not fit the layouts.
    """
    layout.check_rows("source", source=source)
    layout.check_rows("destination", destination=destination)
    layout.check_rows("edge", edge=edge)
    if types is not None:
        types.check_rows("source", by_type=by_type)
    parts = (source, destination, by_type, edge)
    dtype = working_dtype(*parts)
    cast_parts = (None if part is None else part.to(dtype) for part in parts)
    return cast(Tensor, _AdditiveScores.apply(*cast_parts, layout, types, negative_slope))  # type: ignore[no-untyped-call]


class _AdditiveScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor | None,
        destination: Tensor | None,
        by_type: Tensor | None,
        edge: Tensor | None,
        layout: EdgeLayout,
        types: EdgeLayout | None,
        negative_slope: float,
    ) -> Tensor:
        first = next(part for part in (source, destination, by_type, edge) if part is not None)
        ctx.layout, ctx.types, ctx.negative_slope = layout, types, negative_slope
        kinds = None if types is None else types.src
        ctx.compiled = compiled.usable_scalars(layout, first.size(1), source, destination, by_type, edge)
        if ctx.compiled:
            scores = compiled.additive(layout, source, destination, by_type, kinds, edge, negative_slope)
            if negative_slope != 1.0:
                ctx.save_for_backward(scores)  # their signs are those of the sums
            return scores
        scores = first.new_empty(first.size(1), layout.num_edges)
        for head, out in enumerate(scores.unbind()):
            if source is None:
                out.zero_()
            else:
                torch.index_select(source[:, head].contiguous(), 0, layout.src, out=out)
            if destination is not None:
                out += destination[:, head].contiguous().index_select(0, layout.destination)
            if by_type is not None and types is not None:
                bias = by_type[:, head].contiguous()
                out += bias if types.num_src == 1 else bias.index_select(0, types.src)
            if edge is not None:
                out += edge[:, head]
        if negative_slope != 1.0:
            torch.nn.functional.leaky_relu_(scores, negative_slope)
            ctx.save_for_backward(scores)  # their signs are those of the sums
        return scores.t()

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout: EdgeLayout = ctx.layout
        types: EdgeLayout | None = ctx.types
        if ctx.compiled:
            return *_compiled_gradients(ctx, grad), None, None, None
        grad = grad.t()  # [heads, num_edges]
        for scores in ctx.saved_tensors:
            grad = torch.ops.aten.leaky_relu_backward(grad, scores, ctx.negative_slope, True)
        source = destination = by_type = None
        if ctx.needs_input_grad[0]:
            source = torch.stack(
                [
                    segment_sum(row.index_select(0, layout.transpose), layout.colptr, layout.dst, layout.num_dst)
                    for row in grad
                ],
                dim=1,
            )
        if ctx.needs_input_grad[1]:
            destination = torch.stack(
                [segment_sum(row, layout.rowptr, layout.src, layout.num_src) for row in grad], dim=1
            )
        if ctx.needs_input_grad[2] and types is not None:
            by_type = torch.stack([_sum_by_type(row, types) for row in grad], dim=1)
        edge = grad.t() if ctx.needs_input_grad[3] else None
        return source, destination, by_type, edge, None, None, None


def _compiled_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    layout: EdgeLayout = ctx.layout
    types: EdgeLayout | None = ctx.types
    for scores in ctx.saved_tensors:
        grad = torch.ops.aten.leaky_relu_backward(grad.contiguous(), scores, ctx.negative_slope, True)
    source = destination = by_type = None
    if ctx.needs_input_grad[0]:
        source = compiled.row_sums(grad, layout.colptr, layout.transpose)
    if ctx.needs_input_grad[1]:
        destination = compiled.row_sums(grad, layout.rowptr)
    if ctx.needs_input_grad[2] and types is not None:
        if types.num_src == 1:
            by_type = grad.sum(dim=0, keepdim=True)
        else:
            by_type = compiled.row_sums(grad, types.colptr, types.transpose)
    return source, destination, by_type, grad if ctx.needs_input_grad[3] else None


def _sum_by_type(row: Tensor, types: EdgeLayout) -> Tensor:
    if types.num_src == 1:
        return row.sum(dim=0, keepdim=True)
    return segment_sum(row.index_select(0, types.transpose), types.colptr, types.dst, types.num_dst)
