"""GATv2's scores: a nonlinear function of the sum of two vectors, worked out a block of edges at a time."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.layers.ops import compiled
from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.kernels import product, working_dtype
from graphrec.layers.ops.standalone import standalone, standalone_backward

# Numbers a block may hold. Smaller ones fit a nearer cache, but each costs every operation a wake-up of its threads:
# on amazon-book, 2 cores, 2 ** 17 took 2.4 s where 2 ** 20 takes .83 s (sleeping threads; with spinning ones .75, .55).
BLOCK_NUMBERS = 1 << 20


@standalone
def gatv2_scores(
    att: Tensor,
    source: Tensor,
    destination: Tensor,
    layout: EdgeLayout,
    vectors: Tensor,
    types: EdgeLayout,
    negative_slope: float = 0.2,
) -> Tensor:
    """Return ``att · LeakyReLU(source[s] + destination[d] + vectors[r])`` for each edge ``s → d`` of type ``r``.

    Args:
        att: ``[heads, channels]``.
        source: ``[num_src, heads, channels]``.
        destination: ``[num_dst, heads, channels]``.
        layout: The sorted edges.
        vectors: ``[num_types, heads, channels]``.
        types: The layout of types to destinations, see :meth:`EdgeLayout.types`.
        negative_slope: Slope of the LeakyReLU.

    Returns:
        ``[num_edges, heads]`` in layout order. Vectors of edges exist for a block at a time, in backward too, which
        makes them twice: sorted by destination, and by source.

    Raises:
        ArgumentError: Shapes that do not fit each other or the layouts.
    """
    layout.check_rows("source", source=source)
    layout.check_rows("destination", destination=destination)
    types.check_rows("source", vectors=vectors)
    for name, part in {"source": source, "destination": destination, "vectors": vectors}.items():
        if part.shape[1:] != att.shape:
            raise ArgumentError(f"{name} must have heads and channels {list(att.shape)}, got {list(part.shape)}")
    parts = (att, source, destination, vectors)
    dtype = working_dtype(*parts)
    return cast(
        Tensor,
        _Gatv2Scores.apply(*(part.to(dtype) for part in parts), layout, types, negative_slope),  # type: ignore[no-untyped-call]
    )


class _Gatv2Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        att: Tensor,
        source: Tensor,
        destination: Tensor,
        vectors: Tensor,
        layout: EdgeLayout,
        types: EdgeLayout,
        negative_slope: float,
    ) -> Tensor:
        ctx.save_for_backward(att, source, destination, vectors)
        ctx.layout, ctx.types, ctx.negative_slope = layout, types, negative_slope
        ctx.compiled = compiled.usable(layout, *att.shape, att, source, destination, vectors)
        if ctx.compiled:
            return compiled.gatv2(att, source, destination, vectors, layout, types.src, negative_slope)
        index = (layout.src, layout.destination, types.src)
        tables = _tables(source, destination, vectors)
        by_head = _by_head(att)
        scores = att.new_empty(layout.num_edges, att.size(0))
        for start, end in _blocks(layout.num_edges, att.numel()):
            hidden = F.leaky_relu_(_hidden(tables, index, start, end), negative_slope)
            torch.mm(hidden, by_head, out=scores[start:end])
        return scores

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        att, source, destination, vectors = ctx.saved_tensors
        layout: EdgeLayout = ctx.layout
        types: EdgeLayout = ctx.types
        if ctx.compiled:
            gradients = compiled.gatv2_gradient(
                att, source, destination, vectors, layout, types.src, ctx.negative_slope, grad
            )
            return *gradients, None, None, None
        by_destination = (layout.src, layout.destination, types.src)
        by_source = tuple(part.index_select(0, layout.transpose) for part in by_destination)
        slopes = _Slopes(_tables(source, destination, vectors), att.size(0), ctx.negative_slope)
        to_att, by_type = torch.zeros_like(att), vectors.new_zeros(vectors.size(0), att.numel())
        total = slopes.sum(by_destination, layout.rowptr, grad, to_att, by_type)
        if vectors.size(0) == 1:
            by_type = total.sum(dim=0, keepdim=True)
        to_destination = total.view_as(destination).mul_(att)
        to_vectors = by_type.view_as(vectors).mul_(att)
        total = slopes.sum(by_source, layout.colptr, grad.index_select(0, layout.transpose))
        return to_att, total.view_as(source).mul_(att), to_destination, to_vectors, None, None, None


class _Slopes:
    """Sums of ``weight_e · LeakyReLU'(z_e)`` over segments of edges, a block at a time, all heads together."""

    def __init__(self, tables: list[Tensor], heads: int, negative_slope: float) -> None:
        self.tables = tables
        self.heads = heads
        self.negative_slope = negative_slope
        self.width = tables[0].size(1)
        self.ones = tables[0].new_ones(_block_size(self.width), self.width)

    def sum(
        self,
        index: tuple[Tensor, ...],
        ptr: Tensor,
        weight: Tensor,
        to_att: Tensor | None = None,
        by_type: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of each segment, ``[num_segments, width]``; add up the other gradients on the way."""
        out = self.ones.new_zeros(ptr.numel() - 1, self.width)
        for start, end in _blocks(weight.size(0), self.width):
            size = end - start
            hidden = _hidden(self.tables, index, start, end)
            # The derivative in the form of a backward pass over ones: the only one that torch vectorises.
            slope = torch.ops.aten.leaky_relu_backward(self.ones[:size], hidden, self.negative_slope, False)
            slope.view(size, self.heads, -1).mul_(weight[start:end].unsqueeze(2))
            if to_att is not None:
                to_att += hidden.mul_(slope).sum(dim=0).view_as(to_att)
            if by_type is not None and by_type.size(0) > 1:
                by_type.index_add_(0, index[2][start:end], slope)
            # The segments that this block meets; the first and the last may go on beyond it.
            bounds = torch.tensor([start, end - 1], dtype=ptr.dtype, device=ptr.device)
            first, last = (torch.searchsorted(ptr, bounds, right=True) - 1).tolist()
            local = (ptr[first : last + 2] - start).clamp_(0, size)
            columns = torch.arange(size, dtype=ptr.dtype, device=ptr.device)
            out[first : last + 1] += product(local, columns, self.ones[:size, 0], slope)
        return out


def _tables(source: Tensor, destination: Tensor, vectors: Tensor) -> list[Tensor]:
    """Return what is added up for an edge, each ``[num_rows, heads * channels]``."""
    if vectors.size(0) == 1:  # one type for all edges: add its vector to the nodes instead
        return [source.flatten(1), (destination + vectors).flatten(1)]
    return [source.flatten(1), destination.flatten(1), vectors.flatten(1)]


def _by_head(att: Tensor) -> Tensor:
    """Return ``att`` as a matrix that takes a dot product for each head, ``[heads * channels, heads]``."""
    own = torch.eye(att.size(0), dtype=att.dtype, device=att.device)
    return (att.unsqueeze(2) * own.unsqueeze(1)).flatten(0, 1)


def _hidden(tables: list[Tensor], index: tuple[Tensor, ...], start: int, end: int) -> Tensor:
    """Return the sum of the vectors of a block of edges, ``[end - start, heads * channels]``."""
    hidden = tables[0].index_select(0, index[0][start:end])
    for table, edges in zip(tables[1:], index[1:], strict=False):
        hidden += table.index_select(0, edges[start:end])
    return hidden


def _block_size(width: int) -> int:
    return max(BLOCK_NUMBERS // width, 1)


def _blocks(num_edges: int, width: int) -> list[tuple[int, int]]:
    size = _block_size(width)
    return [(start, min(start + size, num_edges)) for start in range(0, num_edges, size)]
