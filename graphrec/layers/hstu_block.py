"""HSTUBlock: pointwise aggregated attention with a gate, over ragged sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops.biased_attention import biased_attention, clock_of, drop
from graphrec.layers.ops.sequences import SequenceLayout, as_layout
from graphrec.layers.ops.standalone import uncompiled


class HSTUBlock(nn.Module):
    r"""Attention without a softmax, so that how much was found is not normalised away; a gate replaces the MLP.

    .. math::
        (U, V, Q, K) &= \operatorname{silu}(W_1 \operatorname{LN}(x)) \\
        Y &= x + W_2 \operatorname{drop}\big(\operatorname{LN}(A V) \odot U\big), \qquad
        A_{ij} = \operatorname{silu}\Big(\frac{Q_i^\top K_j}{\sqrt{d}} + P_{i-j} + T_{b(|t'_i - t_j|)}\Big) / n_i

    where :math:`n_i` is the number of entries that i sees, itself and those before it, :math:`t'_i` the moment from
    which it looks back, and the biases are those of :class:`RaggedSelfAttention`.

    Args:
        channels: Width of the vectors, of the gate and of the values.
        heads: Number of heads; must divide ``channels``.
        dropout: Probability that a channel is dropped before :math:`W_2` in training.
        num_distances: Distances in places that have a bias of their own; 0 for no P.
        num_time_buckets: Time intervals that have a bias of their own; 0 for no T.

    Shape:
        - x: ``[total, channels]``; sequence b owns ``x[offsets[b]:offsets[b + 1]]``
        - offsets: int ``[batch_size + 1]``, or a :class:`~graphrec.layers.ops.sequences.SequenceLayout` of it
        - times, query_times: float64 ``[total]``, seconds, as in :class:`RaggedSelfAttention`; the first is needed
          with ``num_time_buckets``
        - output: ``[total, channels]``

    Raises:
        ArgumentError: A value outside its range, shapes that do not fit, or times that are missing or not finite.

    Example:
        >>> block = HSTUBlock(8, heads=2, num_distances=50, num_time_buckets=64)
        >>> times = torch.tensor([0.0, 60.0, 3600.0, 86400.0, 5.0, 9.0])
        >>> block(torch.randn(6, 8), torch.tensor([0, 4, 6]), times).shape
        torch.Size([6, 8])

    Source:
        Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
        Recommendations" (ICML 2024), eq. 1-3. Its code divides by the longest length of the batch, which makes the
        answer depend on the neighbours in the batch; here each entry counts what it sees.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        dropout: float = 0.0,
        num_distances: int = 0,
        num_time_buckets: int = 0,
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
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.lin_in = nn.Linear(channels, 4 * channels)
        self.lin_out = nn.Linear(channels, channels)
        self.norm_in = nn.LayerNorm(channels)
        self.norm_out = nn.LayerNorm(channels)
        self.position_bias = nn.Parameter(torch.empty(num_distances, heads)) if num_distances else None
        self.time_bias = nn.Parameter(torch.empty(num_time_buckets, heads)) if num_time_buckets else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, so that the block begins as little more than the residual; biases start at zero."""
        for weight in self.lin_in.weight.chunk(4):
            nn.init.xavier_uniform_(weight)
        nn.init.normal_(self.lin_out.weight, std=0.02)
        for bias in (self.lin_in.bias, self.lin_out.bias, self.position_bias, self.time_bias):
            if bias is not None:
                nn.init.zeros_(bias)
        for norm in (self.norm_in, self.norm_out):
            norm.reset_parameters()

    @uncompiled  # the blocks have other sizes in every batch, and each would be compiled anew
    def forward(
        self,
        x: Tensor,
        offsets: Tensor | SequenceLayout,
        times: Tensor | None = None,
        query_times: Tensor | None = None,
    ) -> Tensor:
        """Transform all entries."""
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ArgumentError(f"x must have shape [total, {self.channels}], got {list(x.shape)}")
        layout = as_layout(offsets, len(x))
        clock = clock_of(self.time_bias, len(x), times, query_times)
        parts: Tensor = F.silu(self.lin_in(self.norm_in(x)))
        gate, qkv = torch.split(parts, [self.channels, 3 * self.channels], dim=1)
        filled = layout.fill(qkv).view(-1, 3, self.heads, self.channels // self.heads)
        clock = None if clock is None else (clock[0][layout.entry], clock[1][layout.entry])
        blocks = []
        for bucket, block in zip(layout.buckets, torch.split(filled, layout.sizes), strict=True):
            shape = (bucket.num_rows, bucket.length)
            at = None
            if clock is not None:
                at = clock[1][bucket.slots].view(shape), clock[0][bucket.slots].view(shape)
            found = biased_attention(
                block.view(*shape, *block.shape[1:]),
                position_bias=self.position_bias,
                time_bias=self.time_bias,
                times=at,
                activation="silu",
            )
            blocks.append(found.flatten(2).flatten(0, 1))
        found = layout.empty(torch.cat(blocks)) if blocks else x[:0]
        gated = drop(self.norm_out(found) * gate, self.dropout, self.training)
        out: Tensor = x + self.lin_out(gated)
        return out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, heads={self.heads})"
