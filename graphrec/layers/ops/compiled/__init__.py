"""Attention's passes over the edges as compiled loops, all heads in one, where the machine has a C compiler.

torch offers its sparse products for one head at a time, and none that GATv2's scores could use without a vector for
each edge. These loops read each vector once for all heads, and fetch it ahead. Everything here is a plain function of
tensors, without gradients of its own; the callers ask :func:`usable` first, and take torch's kernels where the answer
is no.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from graphrec.layers.ops.compiled.build import library
from graphrec.layers.ops.edges import EdgeLayout

# With fewer numbers at the edges, torch's kernels take about as long as starting the threads.
MIN_NUMBERS = 1 << 20
LANES = 8
MAX_WIDTH = 512
# The loops over scalars keep as many sums as those over vectors keep vectors: MAX_VECTORS in loops.c.
MAX_HEADS = MAX_WIDTH // LANES
# Each part of the rows is one call; their number must not follow the machine's, or sums over parts would.
NUM_PARTS = 16


def usable(layout: EdgeLayout, heads: int, channels: int, *tensors: Tensor | None) -> bool:
    """Return whether the loops serve these vectors: enough of them, single precision, on the processor."""
    if layout.num_edges * heads * channels < MIN_NUMBERS or heads * channels > MAX_WIDTH or channels % LANES:
        return False
    return _plain(layout, *tensors)


def usable_scalars(layout: EdgeLayout, heads: int, *tensors: Tensor | None) -> bool:
    """Return whether the loops serve these numbers, one for each node or edge and head."""
    if layout.num_edges * heads < MIN_NUMBERS // LANES or heads > MAX_HEADS:
        return False
    return _plain(layout, *tensors)


def _plain(layout: EdgeLayout, *tensors: Tensor | None) -> bool:
    given = [tensor for tensor in tensors if tensor is not None]
    alike = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in given)
    return alike and layout.src.dtype == torch.int32 and library() is not None


# Vectors


def attend(scores: Tensor, x: Tensor, layout: EdgeLayout) -> tuple[Tensor, Tensor]:
    """Return ``(out, alpha)``, ``[num_dst, heads, channels]`` and ``[num_edges, heads]``; see ``ops.attend``."""
    scores = scores.contiguous()
    # One maximum for all saves a pass; where it made a segment's numbers too small, the loop takes the segment's own.
    top = scores.max()
    if not top.isfinite():  # such a score is its own segment's affair
        top = scores.masked_fill(~scores.isfinite(), -torch.inf).max()
    alpha = (scores - top).exp_()
    out = x.new_empty(layout.num_dst, *x.shape[1:])
    _run("attend", layout.rowptr, x.shape[1:], layout.src, scores, alpha, x.contiguous(), out)
    return out, alpha


def attend_gradient(alpha: Tensor, x: Tensor, grad: Tensor, grad_alpha: Tensor | None, layout: EdgeLayout) -> Tensor:
    """Return the gradient of the scores, ``[num_edges, heads]``."""
    out = torch.empty_like(alpha)
    to_alpha = None if grad_alpha is None else grad_alpha.contiguous()
    tensors = (layout.src, alpha, x.contiguous(), grad.contiguous(), to_alpha, out)
    _run("attend_gradient", layout.rowptr, x.shape[1:], *tensors)
    return out


def weighted_sum(weights: Tensor, x: Tensor, layout: EdgeLayout) -> Tensor:
    """Return ``out[d] = Σ_(e: s→d) weight_e · x_s``, ``[num_dst, heads, channels]``."""
    out = x.new_empty(layout.num_dst, *x.shape[1:])
    _run("sum", layout.rowptr, x.shape[1:], layout.src, None, weights.contiguous(), x.contiguous(), out)
    return out


def transposed_sum(weights: Tensor, x: Tensor, layout: EdgeLayout) -> Tensor:
    """Return ``out[s] = Σ_(e: s→d) weight_e · x_d``, ``[num_src, heads, channels]``."""
    out = x.new_empty(layout.num_src, *x.shape[1:])
    given = (layout.dst, layout.transpose, weights.contiguous(), x.contiguous(), out)
    _run("sum", layout.colptr, x.shape[1:], *given)
    return out


def dot(left: Tensor, right: Tensor, layout: EdgeLayout) -> Tensor:
    """Return ``left[d] · right[s]`` for each edge and head, ``[num_edges, heads]``."""
    out = left.new_empty(layout.num_edges, left.size(1))
    _run("dot", layout.rowptr, left.shape[1:], layout.src, left.contiguous(), right.contiguous(), out)
    return out


def gatv2(
    att: Tensor,
    source: Tensor,
    destination: Tensor,
    vectors: Tensor,
    layout: EdgeLayout,
    types: Tensor,
    negative_slope: float,
) -> Tensor:
    """Return the scores of ``ops.gatv2_scores``, ``[num_edges, heads]``."""
    kinds, middle, shift = _typed(destination, vectors, types)
    out = att.new_empty(layout.num_edges, att.size(0))
    ends = (middle.contiguous(), source.contiguous(), shift)
    _run("gatv2", layout.rowptr, att.shape, layout.src, kinds, att.contiguous(), *ends, negative_slope, out)
    return out


def gatv2_gradient(
    att: Tensor,
    source: Tensor,
    destination: Tensor,
    vectors: Tensor,
    layout: EdgeLayout,
    types: Tensor,
    negative_slope: float,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of ``att``, ``source``, ``destination`` and ``vectors``, in their shapes."""
    kinds, middle, shift = _typed(destination, vectors, types)
    to_source, to_destination = (torch.empty(end.shape, dtype=end.dtype) for end in (source, destination))
    # Each part adds up its own; the sum over parts comes last, in their order.
    to_att = att.new_zeros(NUM_PARTS, *att.shape)
    by_type = None if kinds is None else att.new_zeros(NUM_PARTS, *vectors.shape)
    left, right, grad = middle.contiguous(), source.contiguous(), grad.contiguous()
    rows = (layout.src, kinds, left, right, shift, None, grad, negative_slope, to_destination)
    _run("gatv2_gradient", layout.rowptr, att.shape, *rows, by_part=(to_att, by_type))
    # The other way round: the sources own the rows.
    columns = (layout.dst, kinds, right, left, shift, layout.transpose, grad, negative_slope, to_source)
    _run("gatv2_gradient", layout.colptr, att.shape, *columns, by_part=(None, None))
    total = to_destination.sum(dim=0, keepdim=True) if by_type is None else by_type.sum(dim=0)
    return to_att.sum(dim=0), to_source.mul_(att), to_destination.mul_(att), total.view_as(vectors) * att


def _typed(destination: Tensor, vectors: Tensor, types: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return the edges' types, the destinations and the types' vectors; one type's vector joins the destinations."""
    if vectors.size(0) == 1:
        return None, destination + vectors, None
    return types, destination, vectors.contiguous()


# Scalars


def additive(
    layout: EdgeLayout,
    source: Tensor | None,
    destination: Tensor | None,
    by_type: Tensor | None,
    types: Tensor | None,
    edge: Tensor | None,
    negative_slope: float,
) -> Tensor:
    """Return the scores of ``ops.additive_scores``; ``types`` is each edge's type in layout order."""
    if by_type is not None and by_type.size(0) == 1:  # one type for all edges: its scalar joins another's
        if destination is not None:
            destination, by_type = destination + by_type, None
        elif edge is not None:
            edge, by_type = edge + by_type, None
            if source is None and negative_slope == 1.0:
                return edge
    parts = [None if part is None else part.contiguous() for part in (source, destination, by_type, edge)]
    first = next(part for part in parts if part is not None)
    out = first.new_empty(layout.num_edges, first.size(1))
    _run("additive", layout.rowptr, first.shape[1:], layout.src, types, *parts, negative_slope, out)
    return out


def row_sums(values: Tensor, ptr: Tensor, place: Tensor | None = None) -> Tensor:
    """Return the sums of each row's ``values`` (``[num_edges, heads]``, taken at ``place``), ``[num_rows, heads]``."""
    out = values.new_empty(ptr.numel() - 1, values.size(1))
    _run("row_sums", ptr, values.shape[1:], place, values.contiguous(), out)
    return out


def _run(
    name: str,
    ptr: Tensor,
    sizes: torch.Size,
    *given: Tensor | float | None,
    by_part: tuple[Tensor | None, ...] = (),
) -> None:
    """Call a loop on all rows, in parts of about as many edges, on as many threads as torch may use.

    Of tensors in ``by_part`` each part gets its own row.
    """
    loop = getattr(library(), f"graphrec_{name}")
    bounds = _bounds(ptr)

    def call(part: int) -> None:
        own = (None if tensor is None else tensor[part] for tensor in by_part)
        rows = map(ctypes.c_int64, bounds[part : part + 2])
        loop(*rows, *map(ctypes.c_int, sizes), *map(_argument, (ptr, *given, *own)))

    threads = min(torch.get_num_threads(), NUM_PARTS)
    if threads == 1:
        for part in range(NUM_PARTS):
            call(part)
        return
    # Threads of their own for each call: they cost .1 ms, and none is left behind for a fork to lose.
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(call, range(NUM_PARTS)):
            pass


def _bounds(ptr: Tensor) -> list[int]:
    """Return where the parts begin and end, as rows."""
    num_edges, num_rows = int(ptr[-1]), ptr.numel() - 1
    shares = torch.tensor([num_edges * part // NUM_PARTS for part in range(1, NUM_PARTS)], dtype=ptr.dtype)
    return [0, *torch.searchsorted(ptr, shares).clamp_(max=num_rows).tolist(), num_rows]


def _argument(value: Tensor | float | None) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else ctypes.c_float(value)
