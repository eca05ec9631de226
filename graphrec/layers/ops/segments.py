"""Normalisers over ragged segments: sparsemax, 1.5-entmax and top-k softmax, exact, with their own backward."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops.standalone import standalone, standalone_backward


def check_offsets(offsets: Tensor, total: int | None = None) -> None:
    """Raise unless ``offsets`` are integers that rise from 0 to ``total``.

    Args:
        offsets: Row boundaries, ``[batch_size + 1]``.
        total: Number of entries that the rows share out; ``None`` where any will do.

    Raises:
        ArgumentError: Another shape or type, boundaries that fall, or a first or last one that does not fit.

    Example:
        >>> check_offsets(torch.tensor([0, 2, 2, 5]), total=5)
    """
    if offsets.dim() != 1 or offsets.numel() == 0 or offsets.is_floating_point() or offsets.is_complex():
        raise ArgumentError(f"offsets must be integers [batch_size + 1], got {offsets.dtype} {list(offsets.shape)}")
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0 or (total is not None and last != total):
        raise ArgumentError(
            f"offsets must rise from 0 to {'their end' if total is None else total}, got {first}..{last}"
        )
    falls = (offsets[1:] < offsets[:-1]).nonzero()
    if len(falls):
        row = int(falls[0])
        raise ArgumentError(f"offsets must not fall, got {int(offsets[row])} and then {int(offsets[row + 1])} at {row}")


def segment_sparsemax(scores: Tensor, offsets: Tensor) -> Tensor:
    r"""Project each segment's scores onto the simplex: most weights become exactly zero.

    .. math::
        p = \operatorname{arg\,min}_{p \in \Delta} \lVert p - z \rVert^2 = [z - \tau(z)]_+, \qquad \textstyle\sum p = 1

    Args:
        scores: float ``[total]`` or ``[total, heads]``, segments one after the other.
        offsets: Segment boundaries, ``[num_segments + 1]``; empty segments are fine.

    Returns:
        Weights of the same shape, at least 0, summing to one in every segment that is not empty.

    Raises:
        ArgumentError: Scores of another shape, or offsets that do not fit.

    Example:
        >>> segment_sparsemax(torch.tensor([1.0, 0.5, -3.0, 7.0]), torch.tensor([0, 3, 4])).tolist()
        [0.75, 0.25, 0.0, 1.0]

    Source:
        Martins and Astudillo, "From Softmax to Sparsemax" (ICML 2016), algorithm 1.
    """
    return _apply(scores, offsets, "sparsemax", 0)


def segment_entmax15(scores: Tensor, offsets: Tensor) -> Tensor:
    r"""Half way between softmax and sparsemax: smooth, and exactly zero for scores far below the best.

    .. math:: p = \big[ z / 2 - \tau(z) \big]_+^2, \qquad \textstyle\sum p = 1

    Args:
        scores: float ``[total]`` or ``[total, heads]``, segments one after the other.
        offsets: Segment boundaries, ``[num_segments + 1]``; empty segments are fine.

    Returns:
        Weights of the same shape, at least 0, summing to one in every segment that is not empty.

    Raises:
        ArgumentError: Scores of another shape, or offsets that do not fit.

    Example:
        >>> segment_entmax15(torch.tensor([4.0, 0.0, 0.0, 3.0]), torch.tensor([0, 3, 4])).tolist()
        [1.0, 0.0, 0.0, 1.0]

    Source:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models" (ACL 2019), algorithm 2.
    """
    return _apply(scores, offsets, "entmax15", 0)


def segment_topk_softmax(scores: Tensor, offsets: Tensor, k: int) -> Tensor:
    r"""Softmax over the ``k`` best scores of each segment, zero for all others; the earlier wins a tie.

    .. math:: p_i = \frac{[i \in T] \, e^{z_i}}{\sum_{j \in T} e^{z_j}}, \qquad T = \text{the } k \text{ best}

    Args:
        scores: float ``[total]`` or ``[total, heads]``, segments one after the other.
        offsets: Segment boundaries, ``[num_segments + 1]``; empty segments are fine.
        k: How many entries share the weight; a shorter segment uses all of its own.

    Returns:
        Weights of the same shape, at least 0, summing to one in every segment that is not empty.

    Raises:
        ArgumentError: Scores of another shape, offsets that do not fit, or ``k`` below 1.

    Example:
        >>> segment_topk_softmax(torch.tensor([1.0, 5.0, 5.0, 2.0]), torch.tensor([0, 4]), k=2).tolist()
        [0.0, 0.5, 0.5, 0.0]

    Source:
        Zhao et al., "Explicit Sparse Transformer" (2019).
    """
    check_range("k", k, low=1)
    return _apply(scores, offsets, "topk", k)


@standalone
def _apply(scores: Tensor, offsets: Tensor, kind: str, k: int) -> Tensor:
    if scores.dim() not in (1, 2) or not scores.is_floating_point():
        raise ArgumentError(f"scores must be float [total] or [total, heads], got {scores.dtype} {list(scores.shape)}")
    check_offsets(offsets, scores.size(0))
    wide = scores if scores.dim() == 2 else scores.unsqueeze(1)
    weights = cast(Tensor, _Normalize.apply(wide, offsets, kind, k))  # type: ignore[no-untyped-call]
    return weights if scores.dim() == 2 else weights.squeeze(1)


class _Normalize(torch.autograd.Function):
    r"""All of them are entmax, whose Jacobian is :math:`diag(s) - s s^T / \sum s` with :math:`s = p^{2 - \alpha}`."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, offsets: Tensor, kind: str, k: int) -> Tensor:
        if scores.numel() == 0:
            weights = torch.zeros_like(scores)
        else:
            exact = scores if scores.dtype == torch.float64 else scores.float()
            lengths = offsets[1:] - offsets[:-1]
            segment = torch.repeat_interleave(torch.arange(len(lengths), device=scores.device), lengths)
            peak = torch.segment_reduce(exact, "max", offsets=offsets.long())  # [num_segments, heads]
            z = exact - peak.index_select(0, segment)
            weights = _topk(z, segment, len(lengths), k) if kind == "topk" else _entmax(z, segment, len(lengths), kind)
            weights = weights.to(scores.dtype)
        ctx.save_for_backward(weights, offsets)
        ctx.kind = kind
        return weights

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        weights, offsets = ctx.saved_tensors
        if weights.numel() == 0:
            return torch.zeros_like(weights), None, None, None
        slope = {"topk": lambda p: p, "entmax15": torch.sqrt, "sparsemax": torch.sign}[ctx.kind](weights)
        weighted = slope * grad
        bounds = offsets.long()
        total = torch.segment_reduce(slope, "sum", offsets=bounds, initial=0.0)
        mean = torch.segment_reduce(weighted, "sum", offsets=bounds, initial=0.0) / total  # NaN where nobody reads it
        return weighted - slope * torch.repeat_interleave(mean, bounds[1:] - bounds[:-1], dim=0), None, None, None


def _entmax(z: Tensor, segment: Tensor, num_segments: int, kind: str) -> Tensor:
    """Find each segment's threshold by one sort of the entries that can be above it; ``z`` is at most 0."""
    heads = z.size(1)
    if kind == "entmax15":
        z = z / 2
    # The best entry is 0 and gets a weight of at most 1, so the threshold is at least -1: leave out what is below.
    entry, head = (z > -1).nonzero(as_tuple=True)
    group = segment[entry] * heads + head
    value = z[entry, head].double()
    # Groups lie 2 apart and values within 1, so one sort orders the groups, and each from the best down.
    order = torch.argsort(2.0 * group - value)
    group, value = group[order], value[order]
    first, rank = _ranks(group, num_segments * heads)

    mean = _running(value, first, group) / rank
    if kind == "entmax15":
        spread = _running(value.square(), first, group) - rank * mean.square()
        tau = mean - ((1 - spread) / rank).clamp(min=0).sqrt()
    else:
        tau = mean - 1 / rank
    support = torch.bincount(group[tau <= value], minlength=num_segments * heads)
    last = (first + support - 1).clamp(min=0, max=len(tau) - 1)  # an empty segment's is never read
    threshold = tau[last].view(num_segments, heads).to(z.dtype)
    above = (z - threshold.index_select(0, segment)).clamp_(min=0)
    return above.square_() if kind == "entmax15" else above


def _topk(z: Tensor, segment: Tensor, num_segments: int, k: int) -> Tensor:
    heads = z.size(1)
    group = (segment.unsqueeze(1) * heads + torch.arange(heads, device=z.device)).flatten()
    order = torch.argsort(z.flatten(), descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    _, rank = _ranks(group[order], num_segments * heads)
    kept = torch.zeros(z.numel(), dtype=z.dtype, device=z.device)
    kept[order] = (rank <= k).to(z.dtype)
    weights = z.exp() * kept.view_as(z)
    total = weights.new_zeros(num_segments, heads).index_add_(0, segment, weights)
    return weights / total.index_select(0, segment)


def _ranks(group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Return where each group begins, and each entry's rank within its group from 1; ``group`` is sorted."""
    counts = torch.bincount(group, minlength=num_groups)
    first = counts.cumsum(0) - counts
    return first, torch.arange(1, len(group) + 1, device=group.device, dtype=torch.float64) - first[group]


def _running(value: Tensor, first: Tensor, group: Tensor) -> Tensor:
    """Return sums from each group's first entry on."""
    total = torch.nn.functional.pad(value.cumsum(0), (1, 0))
    return total[1:] - total[first][group]
