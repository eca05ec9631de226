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
BLOCK_NUMBERS = 1 << 18


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
        for head in range(heads):
            parts = _parts(head, source, destination, vectors)
            for start, end in _blocks(layout.num_edges, channels):
                index = (layout.src[start:end], layout.destination[start:end], types.src[start:end])
                hidden = F.leaky_relu_(_hidden(parts, index), negative_slope)
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
        transposed = (layout.src.index_select(0, layout.transpose), layout.dst)
        transposed_types = types.src.index_select(0, layout.transpose)
        by_destination = (layout.src, layout.destination, types.src)
        by_source = (*transposed, transposed_types)
        for head in range(att.size(0)):
            parts = _parts(head, source, destination, vectors)
            weight = grad[:, head].contiguous()
            slopes = _Slopes(parts, att[head], ctx.negative_slope)
            table = torch.zeros_like(parts[2])
            to_destination[:, head] = slopes.sum(by_destination, layout.rowptr, weight, to_att[head], table)
            to_vectors[:, head] = table
            to_source[:, head] = slopes.sum(by_source, layout.colptr, weight.index_select(0, layout.transpose))
        return to_att, to_source, to_destination, to_vectors, None, None, None


class _Slopes:
    """Sums of ``weight_e · att ⊙ LeakyReLU'(z_e)`` over segments of edges, a block at a time."""

    def __init__(self, parts: tuple[Tensor, Tensor, Tensor], att: Tensor, negative_slope: float) -> None:
        self.parts = parts
        self.att = att
        self.negative_slope = negative_slope

    def sum(
        self,
        index: tuple[Tensor, Tensor, Tensor],
        ptr: Tensor,
        weight: Tensor,
        to_att: Tensor | None = None,
        to_types: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of each segment, ``[num_segments, channels]``; add up the other gradients on the way."""
        out = self.parts[0].new_zeros(ptr.numel() - 1, self.att.numel())
        for start, end in _blocks(weight.numel(), self.att.numel()):
            block = tuple(part[start:end] for part in index)
            hidden = _hidden(self.parts, block)
            share = weight[start:end]
            negative = hidden <= 0
            if to_att is not None:
                to_att += share @ F.leaky_relu(hidden, self.negative_slope)
            slope = torch.where(negative, self.att * self.negative_slope, self.att)  # [block, channels]
            if to_types is not None:
                to_types.index_add_(0, block[2], slope * share.unsqueeze(1))
            # The segments that this block meets; the first and the last may go on beyond it.
            bounds = torch.tensor([start, end - 1], dtype=ptr.dtype, device=ptr.device)
            first, last = (torch.searchsorted(ptr, bounds, right=True) - 1).tolist()
            local = (ptr[first : last + 2] - start).clamp(0, end - start)
            columns = torch.arange(end - start, dtype=ptr.dtype, device=ptr.device)
            out[first : last + 1] += product(local, columns, share, slope)
        return out


def _parts(head: int, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    source, destination, vectors = (table[:, head].contiguous() for table in tables)
    return source, destination, vectors


def _hidden(parts: tuple[Tensor, Tensor, Tensor], index: tuple[Tensor, ...]) -> Tensor:
    source, destination, vectors = (part.index_select(0, edges) for part, edges in zip(parts, index, strict=True))
    return source.add_(destination).add_(vectors)


def _blocks(num_edges: int, channels: int) -> list[tuple[int, int]]:
    size = max(BLOCK_NUMBERS // channels, 1)
    return [(start, min(start + size, num_edges)) for start in range(0, num_edges, size)]
