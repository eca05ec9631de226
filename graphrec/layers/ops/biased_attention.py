"""Self-attention of equally long rows with learned biases, in blocks of queries, with its own backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphrec.errors import ArgumentError, check_choice

# A causal block of queries skips the keys behind it. Of 32, 64, 128 and 256 queries, 64 took the least time on a CPU.
BLOCK = 64
# One bucket of time, in natural logarithms: the next is 35 % longer.
LOG_STEP = 0.301
# A score that no query can mean; finite, because silu(-inf) is not a number.
HIDDEN = -1e4


def biased_attention(
    qkv: Tensor,
    causal: bool = True,
    lengths: Tensor | None = None,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    times: tuple[Tensor, Tensor] | None = None,
    activation: str = "softmax",
    dropout: float = 0.0,
) -> Tensor:
    r"""Attend, with biases for the distance in places and in time.

    .. math::
        S_{ij} = \frac{q_i \cdot k_j}{\sqrt{d}} + P_{i-j} + T_{b(|t'_i - t_j|)}, \qquad
        y_i = \sum_j A_{ij} v_j, \qquad b(\Delta) = \Big\lfloor \frac{\log \max(\Delta, 1)}{0.301} \Big\rfloor

    with :math:`A_{i\cdot} = \operatorname{softmax}(S_{i\cdot})`, or :math:`A_{ij} = \operatorname{silu}(S_{ij}) / n_i`
    where :math:`n_i` is the number of keys that query i sees. Distances and intervals beyond the tables use the
    nearest entry that is there. Only the weights are stored for the backward, for causal attention about half of them.

    Args:
        qkv: Queries, keys and values, ``[num_rows, length, 3, heads, d]``.
        causal: Whether place i sees only the places up to i.
        lengths: How many places of each row are real, ``[num_rows]``; ``None`` for all. Causal attention needs none:
            the places behind the end are seen by no real place.
        position_bias: :math:`P`; causal ``[num_distances, heads]`` from 0 on, otherwise ``[2 * num_distances - 1,
            heads]`` from the furthest key ahead to the furthest behind.
        time_bias: :math:`T`, ``[num_buckets, heads]``; needs ``times``.
        times: Seconds :math:`t'` of the queries and :math:`t` of the keys, each float64 ``[num_rows, length]``.
        activation: ``"softmax"`` or ``"silu"``.
        dropout: Probability that a weight is dropped, to the next 1 / 65,536; the others are scaled up.

    Returns:
        ``[num_rows, length, heads, d]``; values behind a row's end mean nothing.

    Raises:
        ArgumentError: An unknown ``activation``, or ``time_bias`` without ``times``.

    Example:
        >>> qkv = torch.randn(2, 5, 3, 4, 8)
        >>> out = biased_attention(qkv, position_bias=torch.zeros(5, 4))
        >>> q, k, v = qkv.permute(2, 0, 3, 1, 4)
        >>> torch.allclose(out.transpose(1, 2), F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6)
        True

    Source:
        A bias a distance as in Raffel et al., "T5" (JMLR 2020), section 2.1, without its buckets; buckets of time and
        the pointwise kind as in Zhai et al., "Actions Speak Louder than Words" (HSTU, ICML 2024), eq. 2 and its code.
    """
    check_choice("activation", activation, ("softmax", "silu"))
    if time_bias is not None and times is None:
        raise ArgumentError("time_bias needs times, got None")
    query_times, key_times = (None, None) if times is None or time_bias is None else times
    spec = _Spec(causal, activation, dropout, lengths, query_times, key_times)
    return cast(Tensor, _BiasedAttention.apply(qkv, position_bias, time_bias, spec))  # type: ignore[no-untyped-call]


def clock_of(
    time_bias: Tensor | None, total: int, times: Tensor | None, query_times: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Return when each entry happened and from when each looks back, float64 ``[total]``; ``None`` without a bias.

    Args:
        time_bias: What the times are for, ``[num_buckets, heads]``.
        total: Number of entries.
        times: When each entry happened.
        query_times: The moment each entry looks back from; its own time where not given.

    Raises:
        ArgumentError: Times are needed and missing, of another number, or not finite.
    """
    for name, value in (("times", times), ("query_times", query_times)):
        if value is not None and value.shape != (total,):
            raise ArgumentError(f"{name} must have shape [{total}], got {list(value.shape)}")
        if value is not None and not bool(value.isfinite().all()):
            place = int((~value.isfinite()).nonzero()[0])
            raise ArgumentError(f"{name} must be finite, got {float(value[place])} at entry {place}")
    if time_bias is None:
        return None
    if times is None:
        raise ArgumentError(f"num_time_buckets={len(time_bias)} needs times [{total}], got None")
    return times.double(), (times if query_times is None else query_times).double()


def time_bucket(seconds: Tensor, num_buckets: int) -> Tensor:
    """Return the bucket of each time interval, int32 of the same shape; the last bucket holds all that are longer.

    Args:
        seconds: Intervals of either sign, any shape.
        num_buckets: Number of buckets; 64 reach beyond seven years.

    Example:
        >>> time_bucket(torch.tensor([0.0, 1.0, 60.0, -3600.0, 86400.0, 1e12]), num_buckets=64).tolist()
        [0, 0, 13, 27, 37, 63]
    """
    step = seconds.abs().float().clamp_(min=1.0).log_().div_(LOG_STEP)
    return step.clamp_(max=num_buckets - 1).int()


def dropout_mask(like: Tensor, probability: float) -> tuple[Tensor, float]:
    """Draw which entries stay, uint8 of the shape of ``like``, and by how much they are scaled up.

    Sixteen random bits an entry, cut from whole random words: on a CPU nine times as fast as ``bernoulli_``.

    Args:
        like: A tensor of the shape and on the device wanted.
        probability: Of an entry to be dropped, at least 0 and below 1; taken to the next 1 / 65,536.

    Example:
        >>> mask, scale = dropout_mask(torch.empty(1000, 100), 0.25)
        >>> round(scale, 3), abs(float(mask.float().mean()) - 0.75) < 0.01
        (1.333, True)
    """
    count = like.numel()
    dropped = min(round(probability * 2**16), 2**16 - 1)  # so many of the 65,536 values
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    mask = words.view(torch.int16)[:count].view(like.shape) >= dropped - 2**15
    return mask.view(torch.uint8), 2**16 / (2**16 - dropped)


def drop(x: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout as :func:`torch.nn.functional.dropout`, with the faster draw of :func:`dropout_mask`.

    Args:
        x: Any shape.
        probability: Of an entry to be dropped, at least 0 and below 1.
        training: Whether to drop at all.

    Example:
        >>> x = torch.ones(1000, 100)
        >>> drop(x, 0.5, training=False) is x, sorted(set(drop(x, 0.5, training=True).flatten().tolist()))
        (True, [0.0, 2.0])
    """
    if not training or probability == 0:
        return x
    mask, scale = dropout_mask(x, probability)
    return x * mask.to(x.dtype).mul_(scale)


@dataclass(frozen=True, eq=False)
class _Spec:
    """What attention needs to know and no gradient flows into."""

    causal: bool
    activation: str
    dropout: float
    lengths: Tensor | None
    query_times: Tensor | None
    key_times: Tensor | None

    def blocks(self, length: int) -> list[tuple[int, int, int]]:
        """Return (first query, one past the last query, one past the last key) of each block."""
        cuts = [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
        return [(start, stop, stop if self.causal else length) for start, stop in cuts]

    def hidden(self, start: int, stop: int, end: int, device: torch.device) -> Tensor | None:
        """Return which keys a query must not see, bool, broadcastable to ``[num_rows, heads, queries, keys]``."""
        keys = torch.arange(end, device=device)
        if self.causal:
            return keys > torch.arange(start, stop, device=device).unsqueeze(1)
        # A row of no places sees one: what it says means nothing, but it must not be NaN, which gradients would spread.
        return None if self.lengths is None else (keys >= self.lengths.clamp(min=1).unsqueeze(1))[:, None, None]

    def seen(self, start: int, stop: int, end: int, device: torch.device) -> Tensor | int:
        """Return how many keys each query sees, broadcastable to ``[num_rows, heads, queries, keys]``."""
        if self.causal:
            return torch.arange(start + 1, stop + 1, device=device).unsqueeze(1)
        return end if self.lengths is None else self.lengths.clamp(min=1)[:, None, None, None]

    def distance(self, start: int, stop: int, end: int, table: Tensor) -> Tensor:
        """Return the row of the position table for each pair, int64 ``[queries, keys]``."""
        reach = table.size(0) if self.causal else (table.size(0) + 1) // 2
        queries, keys = (torch.arange(a, b, device=table.device) for a, b in ((start, stop), (0, end)))
        away = (queries.unsqueeze(1) - keys).clamp_(-reach + 1, reach - 1)
        return away.clamp_(min=0) if self.causal else away + reach - 1

    def interval(self, start: int, stop: int, end: int, table: Tensor) -> Tensor:
        """Return the row of the time table for each pair, int32 ``[num_rows, queries, keys]``."""
        assert self.query_times is not None
        assert self.key_times is not None
        return time_bucket(self.query_times[:, start:stop, None] - self.key_times[:, None, :end], table.size(0))


class _BiasedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, position_bias: Tensor | None, time_bias: Tensor | None, spec: _Spec) -> Tensor:
        rows, length, _, heads, width = qkv.shape
        # One matrix a row and head; a view where there is one head.
        q, k, v = (part.transpose(1, 2).reshape(rows * heads, length, width) for part in qkv.unbind(2))
        q = q * width**-0.5
        out = torch.empty_like(v)
        saved: list[Tensor | None] = []
        for start, stop, end in spec.blocks(length):
            scores = torch.bmm(q[:, start:stop], k[:, :end].transpose(1, 2))
            grid = scores.view(rows, heads, stop - start, end)
            if position_bias is not None:
                away = spec.distance(start, stop, end, position_bias)
                grid += position_bias.to(grid.dtype)[away].permute(2, 0, 1)
            bucket = None
            if time_bias is not None:
                bucket = spec.interval(start, stop, end, time_bias)
                grid += F.embedding(bucket, time_bias.to(grid.dtype)).permute(0, 3, 1, 2)
            hidden = spec.hidden(start, stop, end, qkv.device)
            if hidden is not None:
                grid.masked_fill_(hidden, -torch.inf if spec.activation == "softmax" else HIDDEN)
            if spec.activation == "softmax":
                grid = kept = grid.softmax(dim=-1, dtype=_exact(grid)).to(grid.dtype)
            else:
                kept, grid = grid, F.silu(grid) / spec.seen(start, stop, end, qkv.device)
            mask = None
            if spec.dropout > 0:
                mask, ctx.scale = dropout_mask(grid, spec.dropout)
                grid = grid * mask * ctx.scale
            out[:, start:stop] = torch.bmm(grid.view(scores.shape), v[:, :end])
            saved += [kept, bucket, mask]
        ctx.save_for_backward(q, k, v, out, position_bias, time_bias, *saved)
        ctx.spec, ctx.shape = spec, qkv.shape
        return out.view(rows, heads, length, width).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        q, k, v, out, position_bias, time_bias, *saved = ctx.saved_tensors
        spec: _Spec = ctx.spec
        rows, length, _, heads, width = ctx.shape
        g = grad.transpose(1, 2).reshape(rows * heads, length, width)
        along = (g * out).sum(dim=-1).view(rows, heads, length, 1)  # the softmax's own term, Σ_j A_ij dA_ij
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(q), torch.zeros_like(q)
        d_position, d_time = (
            None if table is None else torch.zeros_like(table, dtype=_exact(table))
            for table in (position_bias, time_bias)
        )
        for number, (start, stop, end) in enumerate(spec.blocks(length)):
            kept, bucket, mask = saved[3 * number : 3 * number + 3]
            flat = (rows * heads, stop - start, end)
            ds = torch.bmm(g[:, start:stop], v[:, :end].transpose(1, 2)).view(kept.shape)
            if spec.activation == "softmax":
                used = kept
            else:
                gate, seen = kept.sigmoid(), spec.seen(start, stop, end, kept.device)
                used = kept * gate / seen
            if mask is not None:
                factor = mask.to(used.dtype) * ctx.scale
                used, ds = used * factor, ds * factor
            dv[:, :end].baddbmm_(used.view(flat).transpose(1, 2), g[:, start:stop])
            if spec.activation == "softmax":
                ds = ds.sub_(along[:, :, start:stop]).mul_(kept)
            else:
                ds = ds.mul_(gate * (1 + kept * (1 - gate)) / seen)
            dq[:, start:stop] = torch.bmm(ds.view(flat), k[:, :end])
            dk[:, :end].baddbmm_(ds.view(flat).transpose(1, 2), q[:, start:stop])
            if d_position is not None:
                away = spec.distance(start, stop, end, d_position).flatten()
                d_position.index_add_(0, away, ds.sum(dim=0).flatten(1).t().to(d_position.dtype))
            if d_time is not None:
                index = bucket.flatten().long()
                for head in range(heads):
                    d_time[:, head].scatter_add_(0, index, ds[:, head].flatten().to(d_time.dtype))
        d_qkv = grad.new_empty(ctx.shape)
        for part, d in enumerate((dq.mul_(width**-0.5), dk, dv)):
            d_qkv[:, :, part] = d.view(rows, heads, length, width).transpose(1, 2)
        return d_qkv, _like(d_position, position_bias), _like(d_time, time_bias), None


def _like(grad: Tensor | None, table: Tensor | None) -> Tensor | None:
    return None if grad is None or table is None else grad.to(table.dtype)


def _exact(x: Tensor) -> torch.dtype:
    """Return the type to add up in: half precision loses too much."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
