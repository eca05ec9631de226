"""RaggedSelfAttention: multi-head self-attention over ragged sequences, without padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers.ops import EdgeLayout, dot_scores, segment_softmax, weighted_sum
from graphrec.layers.ops.biased_attention import biased_attention, clock_of, time_bucket
from graphrec.layers.ops.sequences import LengthBucket, SequenceLayout, as_layout, as_offsets
from graphrec.layers.ops.standalone import uncompiled

# Queries whose attention without each entry is held at once.
QUERIES_AT_ONCE = 16


class RaggedSelfAttention(nn.Module):
    r"""Let every entry of a sequence attend to the entries before it, or to all of its sequence.

    For entries i and j of one sequence and each head,

    .. math::
        S_{ij} = \frac{(W_q x_i)^\top W_k x_j}{\sqrt{d}} + P_{i-j} + T_{b(|t'_i - t_j|)}, \qquad
        y_i = W_o \sum_j A_{ij} W_v x_j, \qquad A_{i\cdot} = \operatorname{softmax}(S_{i\cdot})

    with the position bias P and the time-interval bias T inside the softmax, both learned, and
    :math:`b(\Delta) = \lfloor \log(\max(\Delta, 1)) / 0.301 \rfloor` for an interval in seconds. Sequences of similar
    length are computed together, so little is spent on padding; the projections see no padding at all.

    Args:
        channels: Width of the vectors.
        heads: Number of heads; must divide ``channels``.
        causal: Whether an entry sees only itself and the entries before it.
        num_distances: Distances in places that have a bias of their own; further ones share the last. 0 for no P.
        num_time_buckets: Time intervals that have a bias of their own (64 reach beyond seven years); longer ones
            share the last. 0 for no T.
        dropout: Probability that an attention weight is dropped in training.
        bias: Whether the projections add a bias.
        activation: ``"silu"`` replaces the softmax by :math:`A_{ij} = \operatorname{silu}(S_{ij}) / n_i`, where
            :math:`n_i` is the number of entries that i sees.

    Shape:
        - x: ``[total, channels]``; sequence b owns ``x[offsets[b]:offsets[b + 1]]``
        - offsets: int ``[batch_size + 1]``, or a :class:`SequenceLayout` of it, which layers on one batch share
        - times: float64 ``[total]``, seconds; needed with ``num_time_buckets``
        - query_times: float64 ``[total]``, the moment from which entry i looks back, such as that of the next entry
        - output: ``[total, channels]``; with ``last_only`` ``[batch_size, channels]``, zeros for an empty sequence

    Raises:
        ArgumentError: Sizes that do not fit, offsets that do not rise from 0 to ``total``, or times that are missing
            or not finite.

    Example:
        >>> attention = RaggedSelfAttention(8, heads=2, num_distances=50)
        >>> x, offsets = torch.randn(6, 8), torch.tensor([0, 4, 4, 6])  # three sequences, the second is empty
        >>> out = attention(x, offsets)
        >>> last = attention(x, offsets, last_only=True)
        >>> out.shape, last.shape, torch.allclose(out[[3, 5]], last[[0, 2]], atol=1e-6)
        (torch.Size([6, 8]), torch.Size([3, 8]), True)

    Source:
        Kang and McAuley, "SASRec" (ICDM 2018), eq. 2-3; bidirectional as in Sun et al., "BERT4Rec" (CIKM 2019),
        eq. 1-2; the biases and ``"silu"`` as in Zhai et al., "Actions Speak Louder than Words" (HSTU, ICML 2024),
        eq. 2 and its code.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        causal: bool = True,
        num_distances: int = 0,
        num_time_buckets: int = 0,
        dropout: float = 0.0,
        bias: bool = True,
        activation: Literal["softmax", "silu"] = "softmax",
    ) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("heads", heads, low=1)
        if channels % heads:
            raise ArgumentError(f"heads must divide channels, got {heads} heads and {channels} channels")
        check_range("num_distances", num_distances, low=0)
        check_range("num_time_buckets", num_time_buckets, low=0)
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        check_choice("activation", activation, ("softmax", "silu"))
        self.channels = channels
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.activation = activation
        self.lin_qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.lin_out = nn.Linear(channels, channels, bias=bias)
        num_rows = num_distances if causal else 2 * num_distances - 1
        self.position_bias = nn.Parameter(torch.empty(num_rows, heads)) if num_distances else None
        self.time_bias = nn.Parameter(torch.empty(num_time_buckets, heads)) if num_time_buckets else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; biases start at zero."""
        for weight in (*self.lin_qkv.weight.chunk(3), self.lin_out.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.lin_qkv.bias, self.lin_out.bias, self.position_bias, self.time_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    @overload
    def forward(
        self,
        x: Tensor,
        offsets: Tensor | SequenceLayout,
        times: Tensor | None = None,
        query_times: Tensor | None = None,
        last_only: bool = False,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor,
        offsets: Tensor | SequenceLayout,
        times: Tensor | None = None,
        query_times: Tensor | None = None,
        *,
        last_only: Literal[True],
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @uncompiled  # the blocks have other sizes in every batch, and each would be compiled anew
    def forward(
        self,
        x: Tensor,
        offsets: Tensor | SequenceLayout,
        times: Tensor | None = None,
        query_times: Tensor | None = None,
        last_only: bool = False,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: The entries of all sequences, one sequence after the other.
            offsets: Where each sequence begins and ends.
            times: When each entry happened.
            query_times: The moment each entry looks back from; its own time where not given.
            last_only: Compute the last entry of each sequence alone, in time and memory linear in ``total``.
            return_attention_weights: Also return how much each last entry attends to each entry,
                ``[total, heads]``; needs ``last_only``, as the weights of all pairs are never kept.
        """
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ArgumentError(f"x must have shape [total, {self.channels}], got {list(x.shape)}")
        clock = clock_of(self.time_bias, x.size(0), times, query_times)
        if last_only:
            out, weights = self._last(x, as_offsets(offsets, x.size(0)), clock)
            return (out, weights) if return_attention_weights else out
        layout = as_layout(offsets, x.size(0))
        if return_attention_weights:
            raise ArgumentError("return_attention_weights needs last_only=True, got last_only=False")
        qkv = layout.fill(self.lin_qkv(x)).view(-1, 3, self.heads, self.channels // self.heads)
        filled = None if clock is None else (clock[0][layout.entry], clock[1][layout.entry])
        blocks = [
            self._attend(block.view(bucket.num_rows, bucket.length, *block.shape[1:]), bucket, layout, filled)
            for bucket, block in zip(layout.buckets, torch.split(qkv, layout.sizes), strict=True)
        ]
        mixed = torch.cat([block.flatten(0, 1).flatten(1) for block in blocks]) if blocks else x[:0]
        attended: Tensor = self.lin_out(layout.empty(mixed))
        return attended

    def _attend(
        self, qkv: Tensor, bucket: LengthBucket, layout: SequenceLayout, clock: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Attend within one bucket: ``[num_rows, length, 3, heads, d]`` to ``[num_rows, length, heads, d]``."""
        lengths = layout.lengths(bucket) if bucket.ragged and not self.causal else None
        dropout = self.dropout if self.training else 0.0
        if self.activation == "softmax" and self.position_bias is None and self.time_bias is None and dropout == 0:
            # torch's own kernel stores no weights at all, but has no gradient for biases, and is slow with dropout.
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            mask = None
            if lengths is not None:
                mask = (torch.arange(bucket.length, device=qkv.device) < lengths.unsqueeze(1))[:, None, None]
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal)
            return out.transpose(1, 2)
        times = None
        if clock is not None:
            key_times, query_times = (column[bucket.slots].view(qkv.shape[:2]) for column in clock)
            times = query_times, key_times
        return biased_attention(
            qkv, self.causal, lengths, self.position_bias, self.time_bias, times, self.activation, dropout
        )

    def _last(self, x: Tensor, offsets: Tensor, clock: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Attend from the last entries alone; keys and values need no projection, as the query takes it over."""
        if not len(x):
            return x.new_zeros(offsets.numel() - 1, self.channels), x.new_zeros(0, self.heads)
        width = self.channels // self.heads
        weight_q, weight_k, weight_v = self.lin_qkv.weight.view(3, self.heads, width, self.channels)
        bias = x.new_zeros(3 * self.channels) if self.lin_qkv.bias is None else self.lin_qkv.bias
        bias_q, bias_k, bias_v = bias.view(3, self.heads, width)
        lengths = offsets[1:] - offsets[:-1]
        entries = torch.arange(len(x), device=x.device)
        edges = EdgeLayout.from_rowptr(offsets, entries, len(x))
        row = edges.destination.long()
        last = (offsets[1:] - 1).clamp(min=0)  # an empty sequence's is never read

        query = (torch.einsum("bc,hdc->bhd", x.index_select(0, last), weight_q) + bias_q) * width**-0.5
        probe = torch.einsum("bhd,hdc->bhc", query, weight_k)  # q^T (W_k x_j) = (W_k^T q)^T x_j
        scores = dot_scores(probe, x.unsqueeze(1).expand(-1, self.heads, -1), edges)  # [total, heads]
        scores = scores + torch.einsum("bhd,hd->bh", query, bias_k).index_select(0, row)
        if self.position_bias is not None:
            reach = len(self.position_bias) if self.causal else (len(self.position_bias) + 1) // 2
            away = (last.index_select(0, row) - entries).clamp_(max=reach - 1)
            scores = scores + self.position_bias[away if self.causal else away + reach - 1]
        if self.time_bias is not None:
            assert clock is not None
            interval = clock[1].index_select(0, last).index_select(0, row) - clock[0]
            scores = scores + self.time_bias[time_bucket(interval, len(self.time_bias))]
        if self.activation == "softmax":
            alpha = segment_softmax(scores, edges)
        else:
            alpha = F.silu(scores) / lengths.index_select(0, row).unsqueeze(1)
        used = F.dropout(alpha, self.dropout, self.training)
        pooled = weighted_sum(used, x, edges)  # [batch_size, heads, channels]
        share = used.new_zeros(len(lengths), self.heads).index_add(0, row, used)
        # The sums are in single precision at least; weights in half precision want them in theirs.
        pooled, share = (part.to(torch.promote_types(x.dtype, weight_v.dtype)) for part in (pooled, share))
        mixed = torch.einsum("bhc,hdc->bhd", pooled, weight_v) + share.unsqueeze(2) * bias_v
        out: Tensor = self.lin_out(mixed.flatten(1))
        return out * (lengths > 0).unsqueeze(1), alpha

    def without_each(
        self, x: Tensor, nearer: Tensor, times: Tensor | None = None, closer: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        r"""Let the entries of one sequence attend as if an entry before them were left out, each in its turn.

        Without entry j, entry i behind it attends to the entries k < j, which are one place nearer, and to those of
        j < k <= i; entries before j are not concerned. Softmax of causal attention alone; nothing is dropped.

        Args:
            x: One sequence, ``[length, channels]``.
            nearer: Its entries as they are when one behind them is left out, of the same shape: another tensor than
                ``x`` where their places are part of them. The last is never read.
            times: When each entry happened, ``[length]``; needed with ``num_time_buckets``.
            closer: The entries as each is when the one right before it is left out, of the same shape; ``x`` itself
                where not given. The first is never read.

        Yields:
            Some entries at a time: which entry is left out, j, and which entry attends, i, both ``[num_pairs]``, and
            what it receives, ``[num_pairs, channels]``. Together they are all pairs of j < i.

        Example:
            >>> attention = RaggedSelfAttention(8, heads=2, num_distances=5)
            >>> x = torch.randn(4, 8)
            >>> left_out, entry, received = next(attention.without_each(x, x))
            >>> list(zip(left_out.tolist(), entry.tolist()))
            [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
            >>> rest = attention(x[[0, 2, 3]], torch.tensor([0, 3]))  # as if entry 1 had never been
            >>> torch.allclose(received[[2, 4]], rest[1:], atol=1e-6)
            True
        """
        if not self.causal or self.activation != "softmax":
            raise ArgumentError(
                f"without_each needs causal softmax attention, got causal={self.causal}, activation={self.activation!r}"
            )
        for name, value in (("x", x), ("nearer", nearer), ("closer", x if closer is None else closer)):
            if value.shape != (len(x), self.channels):
                raise ArgumentError(f"{name} must have shape [length, {self.channels}], got {list(value.shape)}")
        clock = clock_of(self.time_bias, len(x), times)
        query, key, value = self._projected(x)  # [heads, length, d], values [heads, length, channels]
        _, near_key, near_value = (query, key, value) if nearer is x else self._projected(nearer)
        entries = torch.arange(len(x), device=x.device)
        away = entries.unsqueeze(1) - entries

        def scored(asking: Tensor, asked: Tensor, places: Tensor) -> Tensor:  # [queries, heads, keys]
            scores = asking @ asked.transpose(1, 2)
            if self.position_bias is not None:
                scores = scores + self.position_bias.t()[:, places.clamp(0, len(self.position_bias) - 1)]
            if clock is not None and self.time_bias is not None:
                interval = time_bucket(clock[1].unsqueeze(1) - clock[0], len(self.time_bias))
                scores = scores + self.time_bias.t()[:, interval.long()]
            return scores.masked_fill(away < 0, -torch.inf).transpose(0, 1).contiguous()

        behind, before = scored(query, key, away), scored(query, near_key, away - 1)
        if closer is not None:
            close_query, close_key, close_value = self._projected(closer)
            onto, of = scored(query, close_key, away), scored(close_query, near_key, away - 1)
            own = scored(close_query, close_key, away).diagonal(dim1=0, dim2=2)  # [heads, entries]
            of.diagonal(dim1=0, dim2=2).copy_(own)
        gone_after = entries.unsqueeze(1) > entries  # [left out, keys]
        bias = 0.0 if self.lin_out.bias is None else self.lin_out.bias
        for start in range(1, len(x), QUERIES_AT_ONCE):
            stop = min(start + QUERIES_AT_ONCE, len(x))
            # [queries, left out, heads, keys]
            first, second = (part[start:stop, None, :, :stop] for part in (before, behind))
            scores = torch.where(gone_after[: stop - 1, None, :stop], first, second)
            if closer is not None:
                scores.diagonal(1, dim1=1, dim2=3).copy_(onto[start:stop, :, 1:stop])
                rows = entries[start:stop]
                scores[rows - start, rows - 1] = of[start:stop, :, :stop]
            scores.diagonal(dim1=1, dim2=3).fill_(-torch.inf)
            alpha = scores.softmax(dim=-1)
            entry, left_out = (entries[start:stop].unsqueeze(1) > entries[: stop - 1]).nonzero(as_tuple=True)
            received = alpha.flatten(2) @ value[:, :stop].flatten(0, 1)
            if nearer is not x:
                kept = alpha * gone_after[: stop - 1, None, :stop]
                received = received + kept.flatten(2) @ (near_value - value)[:, :stop].flatten(0, 1)
            if closer is not None:
                share = alpha.diagonal(1, dim1=1, dim2=3)  # [queries, heads, left out], to the entry behind that
                received = received + torch.einsum("qhj,hjc->qjc", share, (close_value - value)[:, 1:stop])
            yield left_out, entry + start, received[entry, left_out] + bias

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, scaled, and keys ``[heads, length, d]``, and values as they leave, ``[heads, length, c]``."""
        width = self.channels // self.heads
        query, key, value = self.lin_qkv(x).view(len(x), 3, self.heads, width).permute(1, 2, 0, 3)
        out = self.lin_out.weight.view(self.channels, self.heads, width).permute(1, 2, 0)
        return query * width**-0.5, key, value @ out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, heads={self.heads}, causal={self.causal})"
