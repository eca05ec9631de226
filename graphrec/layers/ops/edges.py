"""Edge layouts: a graph's edges sorted once by destination and by source, for the fused kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphrec.errors import ArgumentError

INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class EdgeLayout:
    """Edges in compressed form, in both directions.

    Sorting costs more than attention itself, so a model sorts once and keeps the layout.
    Kernels see edges *in layout order*: edge ``k`` of the layout is edge ``order[k]`` of the caller.

    Args:
        num_src: Number of source nodes.
        num_dst: Number of destination nodes.
        rowptr: Where each destination's edges begin, ``[num_dst + 1]``.
        src: Source of each edge, ``[num_edges]``.
        order: The caller's edge number of each edge, int64 ``[num_edges]``.
        colptr: Where each source's edges begin in transposed order, ``[num_src + 1]``.
        dst: Destination of each edge in transposed order, ``[num_edges]``.
        transpose: Layout position of each edge in transposed order, int64 ``[num_edges]``.
    """

    num_src: int
    num_dst: int
    rowptr: Tensor
    src: Tensor
    order: Tensor
    colptr: Tensor
    dst: Tensor
    transpose: Tensor

    @classmethod
    def from_edge_index(cls, edge_index: Tensor, num_src: int, num_dst: int) -> EdgeLayout:
        """Sort ``edge_index`` (``[2, num_edges]``, row 0 source, row 1 destination) both ways.

        Both sorts are stable, so equal inputs give equal layouts, and parallel edges stay apart.

        Raises:
            ArgumentError: A wrong shape or type, or an index out of range.
        """
        if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
            raise ArgumentError(
                f"edge_index must be integers [2, num_edges], got {edge_index.dtype} {list(edge_index.shape)}"
            )
        source, destination = edge_index[0].long(), edge_index[1].long()
        for name, index, size in (("source", source, num_src), ("destination", destination, num_dst)):
            if index.numel() and not (0 <= int(index.min()) and int(index.max()) < size):
                raise ArgumentError(
                    f"edge_index {name}s must be within 0..{size - 1}, got {int(index.min())}..{int(index.max())}"
                )
        order = torch.argsort(destination, stable=True)
        src = source[order]
        transpose = torch.argsort(src, stable=True)
        # int32 halves the memory traffic and is what MKL wants; larger graphs keep int64.
        small = max(num_src, num_dst, src.numel()) <= INT32_MAX
        index_dtype = torch.int32 if small else torch.int64
        return cls(
            num_src=num_src,
            num_dst=num_dst,
            rowptr=_pointers(destination, num_dst).to(index_dtype),
            src=src.to(index_dtype),
            order=order,
            colptr=_pointers(source, num_src).to(index_dtype),
            dst=destination[order][transpose].to(index_dtype),
            transpose=transpose,
        )

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.src.numel()

    @cached_property
    def destination(self) -> Tensor:
        """Destination of each edge in layout order, ``[num_edges]``."""
        nodes = torch.arange(self.num_dst, device=self.rowptr.device, dtype=self.rowptr.dtype)
        return torch.repeat_interleave(nodes, (self.rowptr[1:] - self.rowptr[:-1]).long())


def _pointers(index: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(torch.bincount(index, minlength=size).cumsum(0), (1, 0))
