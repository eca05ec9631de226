"""Scores of edges as products of node vectors."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.layers.ops import compiled
from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.kernels import product, sampled_product, working_dtype
from graphrec.layers.ops.standalone import standalone, standalone_backward


@standalone
def dot_scores(query: Tensor, key: Tensor, layout: EdgeLayout) -> Tensor:
    """Return ``query[d] · key[s]`` for each edge ``s → d`` and head.

    Args:
        query: Vectors of the destinations, ``[num_dst, heads, channels]``.
        key: Vectors of the sources, ``[num_src, heads, channels]``.
        layout: The sorted edges.

    Returns:
        ``[num_edges, heads]`` in layout order. Backward is one product and one transposed product.

    Raises:
        ArgumentError: Shapes that do not fit each other or the layout.
    """
    layout.check_rows("destination", query=query)
    layout.check_rows("source", key=key)
    if query.shape[1:] != key.shape[1:]:
        raise ArgumentError(
            f"query and key must have the same heads and channels, got {list(query.shape)}, {list(key.shape)}"
        )
    dtype = working_dtype(query, key)
    return cast(Tensor, _DotScores.apply(query.to(dtype), key.to(dtype), layout))  # type: ignore[no-untyped-call]


class _DotScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, layout: EdgeLayout) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.layout = layout
        ctx.compiled = compiled.usable(layout, *query.shape[1:], query, key)
        if ctx.compiled:
            return compiled.dot(query, key, layout)
        rows = [
            sampled_product(layout.rowptr, layout.src, query[:, head], key[:, head]) for head in range(query.size(1))
        ]
        return rows[0].unsqueeze(1) if len(rows) == 1 else torch.stack(rows).t()

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        query, key = ctx.saved_tensors
        layout: EdgeLayout = ctx.layout
        if ctx.compiled:
            return (
                compiled.weighted_sum(grad, key, layout) if ctx.needs_input_grad[0] else None,
                compiled.transposed_sum(grad, query, layout) if ctx.needs_input_grad[1] else None,
                None,
            )
        to_query, to_key = [], []
        for head in range(grad.size(1)):
            weight = grad[:, head].contiguous()
            if ctx.needs_input_grad[0]:
                to_query.append(product(layout.rowptr, layout.src, weight, key[:, head].contiguous()))
            if ctx.needs_input_grad[1]:
                weight = weight.index_select(0, layout.transpose)
                to_key.append(product(layout.colptr, layout.dst, weight, query[:, head].contiguous()))
        return _stacked(to_query), _stacked(to_key), None


def _stacked(parts: list[Tensor]) -> Tensor | None:
    if len(parts) == 1:
        return parts[0].unsqueeze(1)
    return torch.stack(parts, dim=1) if parts else None
