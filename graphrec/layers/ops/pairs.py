"""Edges grouped by relation and destination, for what depends on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.kernels import product, working_dtype
from graphrec.layers.ops.standalone import standalone, standalone_backward


@dataclass(frozen=True, eq=False)
class TypedPairs:
    """The distinct (type, destination) pairs of a graph, by type, and the edges of each.

    Args:
        node: Destination of each pair, ``[num_pairs]``.
        bounds: Where the pairs of each type begin, ``num_types + 1`` numbers.
        edges: The layout of sources to pairs; ``edges.permutation`` leads back to the layout they come from.
    """

    node: Tensor
    bounds: list[int]
    edges: EdgeLayout

    @classmethod
    def of(cls, layout: EdgeLayout, types: EdgeLayout, backward: bool = False) -> TypedPairs:
        """Group a layout's edges, once for each ``types``; ``backward`` swaps sources and destinations."""
        name = "pairs by source" if backward else "pairs by destination"
        if name not in types._kept:
            types._kept[name] = cls._group(layout, types, backward)
        return cast(TypedPairs, types._kept[name])

    @classmethod
    @torch.inference_mode(False)
    def _group(cls, layout: EdgeLayout, types: EdgeLayout, backward: bool) -> TypedPairs:
        near, far = (layout.src, layout.destination) if backward else (layout.destination, layout.src)
        num_near, num_far = (layout.num_src, layout.num_dst) if backward else (layout.num_dst, layout.num_src)
        key = types.src.long() * num_near + near
        pairs, pair = torch.unique(key, return_inverse=True)
        bounds = torch.searchsorted(pairs, torch.arange(types.num_src + 1, device=key.device) * num_near)
        edges = EdgeLayout.from_edge_index(torch.stack([far.long(), pair]), num_far, pairs.numel())
        return cls((pairs % num_near).to(layout.src.dtype), bounds.tolist(), edges)


@standalone
def relational_sum(x: Tensor, vectors: Tensor, layout: EdgeLayout, types: EdgeLayout) -> Tensor:
    """Return ``out[d] = Σ_(e: s→d of type r) vectors[r] ⊙ x[s]``.

    Args:
        x: Source vectors, ``[num_src, channels]``.
        vectors: A vector for each type, ``[num_types, channels]``.
        layout: The sorted edges.
        types: The layout of types to destinations, see :meth:`EdgeLayout.types`.

    Returns:
        ``[num_dst, channels]``. One type at a time: memory is that of the destinations of a single type. Backward is
        the same sum over the edges turned round.
    """
    dtype = working_dtype(x, vectors)
    return cast(Tensor, _RelationalSum.apply(x.to(dtype), vectors.to(dtype), layout, types))  # type: ignore[no-untyped-call]


class _RelationalSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, vectors: Tensor, layout: EdgeLayout, types: EdgeLayout) -> Tensor:
        ctx.save_for_backward(x, vectors)
        ctx.layout, ctx.types = layout, types
        out = x.new_zeros(layout.num_dst, x.size(1))
        pairs = TypedPairs.of(layout, types)
        for number, node, total in _sums(pairs, x):
            out.index_add_(0, node, total.mul_(vectors[number]))  # a type's destinations are distinct
        return out

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, vectors = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_vectors = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x)
            for number, node, total in _sums(TypedPairs.of(ctx.layout, ctx.types, backward=True), grad):
                grad_x.index_add_(0, node, total.mul_(vectors[number]))
        if ctx.needs_input_grad[1]:
            grad_vectors = torch.zeros_like(vectors)
            for number, node, total in _sums(TypedPairs.of(ctx.layout, ctx.types), x):
                grad_vectors[number] = total.mul_(grad.index_select(0, node)).sum(dim=0)
        return grad_x, grad_vectors, None, None


def _sums(pairs: TypedPairs, x: Tensor) -> Any:
    """Yield each type with edges, its destinations, and their plain sums."""
    x = x.detach().contiguous()
    rowptr, src = pairs.edges.rowptr, pairs.edges.src
    for number, (low, high) in enumerate(zip(pairs.bounds[:-1], pairs.bounds[1:], strict=True)):
        if low < high:
            start, end = (int(bound) for bound in rowptr[[low, high]])
            ones = x.new_ones(end - start)
            yield number, pairs.node[low:high], product(rowptr[low : high + 1] - start, src[start:end], ones, x)
