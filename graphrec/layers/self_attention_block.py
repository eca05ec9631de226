"""SelfAttentionBlock: self-attention and a feed-forward network, each with a residual, over ragged sequences."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers.ops.biased_attention import drop
from graphrec.layers.ops.sequences import SequenceLayout, as_offsets
from graphrec.layers.ragged_self_attention import RaggedSelfAttention

INITIAL_STD = 0.02  # of all weights, as in the published code of BERT
# Entries that go through the feed-forward network at once where nothing is kept for gradients: what is between its two
# layers stays in a core's cache, which takes a third of the time off.
ENTRIES_AT_ONCE = 1024


class SelfAttentionBlock(nn.Module):
    r"""One block of a transformer, on sequences without padding.

    .. math::
        y = x + \operatorname{drop}(\operatorname{Attention}(\operatorname{LN}(x))), \qquad
        z = y + \operatorname{drop}(W_2 \, \sigma(W_1 \operatorname{LN}(y)))

    with the norms before (``norm="pre"``), or after each sum, :math:`y = \operatorname{LN}(x + \ldots)`
    (``norm="post"``).

    Args:
        channels: Width of the vectors.
        heads: Number of heads; must divide ``channels``.
        hidden_channels: Width between :math:`W_1` and :math:`W_2`; 0 for four times ``channels``.
        causal: Whether an entry sees only itself and the entries before it.
        dropout: Probability that an attention weight, or a channel of what a residual adds, is dropped in training.
        norm: ``"pre"`` or ``"post"``.
        activation: :math:`\sigma`, ``"gelu"`` or ``"relu"``.
        num_distances: As in :class:`RaggedSelfAttention`.
        num_time_buckets: As in :class:`RaggedSelfAttention`.

    Shape:
        - x: ``[total, channels]``; sequence b owns ``x[offsets[b]:offsets[b + 1]]``
        - offsets: int ``[batch_size + 1]``, or a :class:`~graphrec.layers.ops.sequences.SequenceLayout` of it
        - times, query_times: float64 ``[total]``, seconds, as in :class:`RaggedSelfAttention`; the first is needed
          with ``num_time_buckets``
        - output: ``[total, channels]``; with ``last_only`` ``[batch_size, channels]``, zeros for an empty sequence

    Raises:
        ArgumentError: A value outside its range, or shapes that do not fit.

    Example:
        >>> import torch
        >>> block = SelfAttentionBlock(8, heads=2, num_distances=50)
        >>> block(torch.randn(6, 8), torch.tensor([0, 4, 4, 6])).shape
        torch.Size([6, 8])

    Source:
        Vaswani et al., "Attention Is All You Need" (NIPS 2017), section 3.1, as used by Kang and McAuley, "SASRec"
        (ICDM 2018), eq. 2-5 (pre-norm, ReLU, no widening) and Sun et al., "BERT4Rec" (CIKM 2019), eq. 2-4 (post-norm,
        GELU).
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        hidden_channels: int = 0,
        causal: bool = True,
        dropout: float = 0.0,
        norm: Literal["pre", "post"] = "pre",
        activation: Literal["gelu", "relu"] = "gelu",
        num_distances: int = 0,
        num_time_buckets: int = 0,
    ) -> None:
        super().__init__()
        check_range("hidden_channels", hidden_channels, low=0)
        check_choice("norm", norm, ("pre", "post"))
        check_choice("activation", activation, ("gelu", "relu"))
        self.attention = RaggedSelfAttention(
            channels, heads, causal, num_distances=num_distances, num_time_buckets=num_time_buckets, dropout=dropout
        )
        self.dropout = dropout
        self.norm = norm
        self.activation = activation
        self.norm_attention = nn.LayerNorm(channels)
        self.norm_forward = nn.LayerNorm(channels)
        self.lin_in = nn.Linear(channels, hidden_channels or 4 * channels)
        self.lin_out = nn.Linear(hidden_channels or 4 * channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, small, so that the block begins as little more than the residual."""
        self.attention.reset_parameters()
        for norm in (self.norm_attention, self.norm_forward):
            norm.reset_parameters()
        for linear in (self.attention.lin_qkv, self.attention.lin_out, self.lin_in, self.lin_out):
            nn.init.normal_(linear.weight, std=INITIAL_STD)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Tensor,
        offsets: Tensor | SequenceLayout,
        times: Tensor | None = None,
        query_times: Tensor | None = None,
        last_only: bool = False,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Transform all entries, or with ``last_only`` the last of each sequence alone.

        With ``return_attention_weights``, which needs ``last_only``, also return how much each last entry attends to
        each entry, ``[total, heads]``.
        """
        if x.dim() != 2 or x.size(1) != self.attention.channels:
            raise ArgumentError(f"x must have shape [total, {self.attention.channels}], got {list(x.shape)}")
        pre = self.norm == "pre"
        normed = self.norm_attention(x) if pre else x
        if not last_only:
            if return_attention_weights:
                raise ArgumentError("return_attention_weights needs last_only=True, got last_only=False")
            return self._forward(x, self.attention(normed, offsets, times, query_times))
        mixed, alpha = self.attention(
            normed, offsets, times, query_times, last_only=True, return_attention_weights=True
        )
        bounds = as_offsets(offsets, len(x))
        filled = bounds[1:] > bounds[:-1]
        out = x.new_zeros(len(filled), x.size(1))
        if bool(filled.any()):
            last = self._forward(x.index_select(0, bounds[1:][filled] - 1), mixed[filled])
            out = out.index_copy(0, filled.nonzero().squeeze(1), last)
        return (out, alpha) if return_attention_weights else out

    def without_each(
        self, x: Tensor, nearer: Tensor, times: Tensor | None = None, closer: Tensor | None = None
    ) -> Tensor:
        """Transform one sequence without each of its entries in turn; for causal blocks in evaluation mode.

        Entries before the one left out come out the same whichever it is, and are computed once.

        Args:
            x: One sequence, ``[length, channels]``.
            nearer: Its entries as they are when one behind them is left out; ``x`` itself where that is the same.
            times: When each entry happened, ``[length]``; needed with ``num_time_buckets``.
            closer: Its entries as each is when the one right before it is left out; ``x`` itself where not given.

        Returns:
            ``[length, length - 1, channels]``: the first index is the entry left out.

        Example:
            >>> import torch
            >>> block = SelfAttentionBlock(8, num_distances=5).eval()
            >>> x = torch.randn(4, 8)
            >>> rest = block(x[[0, 2, 3]], torch.tensor([0, 3]))
            >>> torch.allclose(block.without_each(x, x)[1], rest, atol=1e-6)
            True
        """
        size = max(len(x) - 1, 0)
        out = x.new_empty(len(x), size, self.attention.channels)
        if not size:
            return out
        ends = torch.tensor([0, size], device=x.device)
        out[:] = self(nearer[:-1], ends, None if times is None else times[:-1])
        same, pre = nearer is x, self.norm == "pre"
        normed = self.norm_attention(x) if pre else x
        near_normed = normed if same else self.norm_attention(nearer) if pre else nearer
        close_normed = self.norm_attention(closer) if pre and closer is not None else closer
        for left_out, entry, mixed in self.attention.without_each(normed, near_normed, times, close_normed):
            own = x.index_select(0, entry)
            if closer is not None:
                own = torch.where((entry == left_out + 1).unsqueeze(1), closer.index_select(0, entry), own)
            out[left_out, entry - 1] = self._forward(own, mixed)
        return out

    def _forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Do as :meth:`combine`, in parts where that is faster."""
        if len(x) <= ENTRIES_AT_ONCE or x.device.type != "cpu" or torch.is_grad_enabled():
            return self.combine(x, mixed)
        parts = zip(torch.split(x, ENTRIES_AT_ONCE), torch.split(mixed, ENTRIES_AT_ONCE), strict=True)
        return torch.cat([self.combine(some, brought) for some, brought in parts])

    def combine(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add to entries what attention brought them, and the feed-forward network; each ``[..., channels]``."""
        y = x + drop(mixed, self.dropout, self.training)
        y = y if self.norm == "pre" else self.norm_attention(y)
        hidden = self.lin_in(self.norm_forward(y) if self.norm == "pre" else y)
        hidden = F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden)
        z: Tensor = y + drop(self.lin_out(hidden), self.dropout, self.training)
        return z if self.norm == "pre" else self.norm_forward(z)

    def __repr__(self) -> str:
        a = self.attention
        return f"{type(self).__name__}({a.channels}, heads={a.heads}, causal={a.causal}, norm={self.norm!r})"
