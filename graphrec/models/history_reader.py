"""HistoryReader: self-attention over the items of a history, told of the time between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.layers import HistorySelfAttention
from graphrec.layers.ops.biased_attention import time_bucket


class HistoryReader(nn.Module):
    r"""Causal self-attention over histories in order of time.

    .. math:: z = \operatorname{SelfAttention}(x), \qquad
        x_k = \sqrt{d} \, h_{i_k} + v_{\operatorname{bucket}(t_k - t_{k-1})} + w_{\operatorname{bucket}(t_{k+1} - t_k)}

    Softmax attention hears of a time only what it changes among the intervals, so vectors tell of it, too: v of the
    time since the item before, and w, with ``request_time``, of that until the next one was taken or is asked for.

    Args:
        dim: Width of the vectors.
        num_blocks: Blocks of self-attention.
        heads: Attention heads of each; must divide ``dim``.
        max_length: Most recent items of a history that are read; distances between them have a bias each.
        num_time_buckets: Time intervals that have a bias in the attention, a vector v, and a vector w; 0 for none.
        request_time: Whether intervals end when the next item was taken or is asked for, instead of when the entry that
            looks back was, and there is a w.
        dropout: Probability that a channel or an attention weight is dropped in training.

    Shape:
        - entries: the vectors h of the histories' items, ``[total, dim]``
        - output: the state after each entry, ``[total, dim]``; with ``last_only`` ``[batch_size, dim]``, zeros for an
          empty history

    Raises:
        ArgumentError: A value outside its range, or histories without the times that are to be read.

    Example:
        >>> reader = HistoryReader(8, num_blocks=2, max_length=3).eval()
        >>> read = reader.recent(Histories.from_lists([[5, 0, 1, 2], [4]]))
        >>> read.items.tolist(), reader(torch.randn(4, 8), read, last_only=True).shape
        ([0, 1, 2, 4], torch.Size([2, 8]))
    """

    def __init__(
        self,
        dim: int,
        num_blocks: int,
        heads: int = 1,
        max_length: int = 50,
        num_time_buckets: int = 0,
        request_time: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_range("max_length", max_length, low=1)
        if request_time and not num_time_buckets:
            raise ArgumentError("request_time needs num_time_buckets above 0, got 0: no other part reads times")
        self.dim = dim
        self.max_length = max_length
        self.attention = HistorySelfAttention(
            dim, num_blocks, heads, dropout=dropout, num_distances=max_length, num_time_buckets=num_time_buckets
        )
        # The last v is for where there is no item before.
        self.gap = nn.Parameter(torch.zeros(num_time_buckets + 1, dim)) if num_time_buckets else None
        self.wait = nn.Parameter(torch.zeros(num_time_buckets, dim)) if request_time else None

    def reset_parameters(self) -> None:
        """Draw all weights anew; v and w start at 0."""
        self.attention.reset_parameters()
        for vectors in (self.gap, self.wait):
            if vectors is not None:
                nn.init.zeros_(vectors)

    def recent(self, histories: Histories) -> Histories:
        """Return what is read of histories: their most recent items, in order of time."""
        return histories.in_order().recent(self.max_length)

    def forward(
        self, entries: Tensor, read: Histories, last_only: bool = False, return_attention_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the states after all entries, or with ``last_only`` after the last one of each history.

        Args:
            entries: The vectors of the items of ``read``.
            read: In order, none longer than ``max_length``, or than one entry more in :meth:`without_each`.
            last_only: Leave out what only the other entries of the last block would need.
            return_attention_weights: Also return how much, in the last block, each last entry attends to each entry,
                ``[total, heads]``; needs ``last_only``.
        """
        found: Tensor | tuple[Tensor, Tensor] = self.attention(
            self._told(entries, read), read.offsets, read.times, self._asked(read), last_only, return_attention_weights
        )
        return found

    def without_each(self, entries: Tensor, read: Histories) -> Tensor:
        """Return the state after one history without each of its entries in turn, ``[length, dim]``.

        The one behind the entry left out has another item before it, and so another v.

        Raises:
            ArgumentError: Training mode, or ``request_time``: then an entry left out is read off the one before it.
        """
        if self.wait is not None:
            raise ArgumentError("without_each knows no request_time: ask for each of the histories")
        closer = None if self.gap is None else self._told(entries, read, back=2)
        return self.attention.last_without_each(self._told(entries, read), read.times, closer)

    def _told(self, entries: Tensor, read: Histories, back: int = 1) -> Tensor:
        """Return x; with ``back=2`` as if the item before each were not there."""
        # Long enough for what the blocks add at the start to be little beside it.
        x = entries * math.sqrt(self.dim)
        if self.gap is None or read.times is None:
            return x
        gap = time_bucket(read.times - read.times.roll(back), len(self.gap) - 1)
        place = read.lengths[read.rows] - 1 - read.from_end
        x = x + self.gap.index_select(0, gap.masked_fill(place < back, len(self.gap) - 1))
        if self.wait is None or read.followed_at is None:
            return x
        return x + self.wait.index_select(0, time_bucket(read.followed_at - read.times, len(self.wait)))

    def _asked(self, read: Histories) -> Tensor | None:
        """Return the moment from which each entry looks back; ``None`` for its own time."""
        return None if self.wait is None or read.times is None else read.followed_at
