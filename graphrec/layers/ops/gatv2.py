"""GATv2's scores: a nonlinear function of the sum of two vectors, worked out a block of edges at a time."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.kernels import product, working_dtype
from graphrec.layers.ops.standalone import standalone

# Numbers a block may hold: what fits into a processor's second cache.
BLOCK_NUMBERS = 1 << 17


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
    """
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
        heads, channels = att.shape
        scores = att.new_empty(heads, layout.num_edges)
        index = (layout.src, layout.destination, types.src)
        for head in range(heads):
            tables = _tables(head, source, destination, vectors)
            for start, end in _blocks(layout.num_edges, channels):
                hidden = F.leaky_relu_(_hidden(tables, index, start, end), negative_slope)
                torch.mv(hidden, att[head], out=scores[head, start:end])
        return scores.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        att, source, destination, vectors = ctx.saved_tensors
        layout: EdgeLayout = ctx.layout
        types: EdgeLayout = ctx.types
        to_att, to_source = torch.zeros_like(att), torch.empty_like(source)
        to_destination, to_vectors = torch.empty_like(destination), torch.empty_like(vectors)
        by_destination = (layout.src, layout.destination, types.src)
        by_source = tuple(part.index_select(0, layout.transpose) for part in by_destination)
        for head in range(att.size(0)):
            tables = _tables(head, source, destination, vectors)
            weight = grad[:, head].contiguous()
            slopes = _Slopes(tables, ctx.negative_slope)
            by_type = torch.zeros_like(vectors[:, head])
            total = slopes.sum(by_destination, layout.rowptr, weight, to_att[head], by_type)
            if vectors.size(0) == 1:
                by_type = total.sum(dim=0, keepdim=True)
            to_destination[:, head] = total.mul_(att[head])
            to_vectors[:, head] = by_type.mul_(att[head])
            total = slopes.sum(by_source, layout.colptr, weight.index_select(0, layout.transpose))
            to_source[:, head] = total.mul_(att[head])
        return to_att, to_source, to_destination, to_vectors, None, None, None


class _Slopes:
    """Sums of ``weight_e · LeakyReLU'(z_e)`` over segments of edges, a block at a time."""

    def __init__(self, tables: list[Tensor], negative_slope: float) -> None:
        self.tables = tables
        self.negative_slope = negative_slope
        self.channels = tables[0].size(1)
        self.ones = torch.ones_like(tables[0][:1]).expand(max(BLOCK_NUMBERS // self.channels, 1), -1).contiguous()

    def sum(
        self,
        index: tuple[Tensor, ...],
        ptr: Tensor,
        weight: Tensor,
        to_att: Tensor | None = None,
        by_type: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of each segment, ``[num_segments, channels]``; add up the other gradients on the way."""
        out = self.ones.new_zeros(ptr.numel() - 1, self.channels)
        for start, end in _blocks(weight.numel(), self.channels):
            hidden = _hidden(self.tables, index, start, end)
            share = weight[start:end]
            # The derivative in the form of a backward pass over ones: the only one that torch vectorises.
            slope = torch.ops.aten.leaky_relu_backward(self.ones[: end - start], hidden, self.negative_slope, False)
            if to_att is not None:
                to_att += share @ hidden.mul_(slope)
            if by_type is not None and by_type.size(0) > 1:
                by_type.index_add_(0, index[2][start:end], slope * share.unsqueeze(1))
            # The segments that this block meets; the first and the last may go on beyond it.
            bounds = torch.tensor([start, end - 1], dtype=ptr.dtype, device=ptr.device)
            first, last = (torch.searchsorted(ptr, bounds, right=True) - 1).tolist()
            local = (ptr[first : last + 2] - start).clamp_(0, end - start)
            columns = torch.arange(end - start, dtype=ptr.dtype, device=ptr.device)
            out[first : last + 1] += product(local, columns, share, slope)
        return out


def _tables(head: int, source: Tensor, destination: Tensor, vectors: Tensor) -> list[Tensor]:
    if vectors.size(0) == 1:  # one type for all edges: add its vector to the nodes instead
        return [source[:, head].contiguous(), destination[:, head] + vectors[:, head]]
    return [table[:, head].contiguous() for table in (source, destination, vectors)]


def _hidden(tables: list[Tensor], index: tuple[Tensor, ...], start: int, end: int) -> Tensor:
    """Return the sum of the vectors of a block of edges, ``[end - start, channels]``."""
    hidden = tables[0].index_select(0, index[0][start:end])
    for table, edges in zip(tables[1:], index[1:], strict=False):
        hidden += table.index_select(0, edges[start:end])
    return hidden


def _blocks(num_edges: int, channels: int) -> list[tuple[int, int]]:
    size = max(BLOCK_NUMBERS // channels, 1)
    return [(start, min(start + size, num_edges)) for start in range(0, num_edges, size)]
