"""OrderedSide: the user side of a model that reads a history in order, on padded histories."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.layers import HistorySelfAttention, SelfAttentionBlock
from graphrec.layers.ops.biased_attention import time_bucket
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.sasrec import SASRec


class OrderedSide(nn.Module):
    r"""Self-attention over padded histories, in operators that ONNX has.

    The same as :class:`~graphrec.models.history_reader.HistoryReader` and
    :class:`~graphrec.layers.HistorySelfAttention` on ragged ones, in evaluation mode and with causal blocks. Time and
    memory grow with the square of the longest history of a batch, so give no more than ``max_length`` items.

    Args:
        attention: The stack of blocks.
        table: The items' vectors as they enter it, ``[num_items, dim]``.
        max_length: Most recent items that are read.
        temperature: Users leave as :math:`z / (\tau |z|)`; 0 leaves z as it is.
        gap: Vectors of the time since the item before, ``[num_buckets + 1, dim]``; see ``HistoryReader``.
        wait: Those of the time until the next, ``[num_buckets, dim]``.

    Shape:
        - items: int64 ``[batch_size, length]``, in order of time, padded with -1 behind the end
        - times: float64 ``[batch_size, length]``, seconds; only where the model reads times
        - asked_at: float64 ``[batch_size]``, when each user asks; only where the model reads that
        - output: float32 ``[batch_size, dim]``, zeros for an empty history
    """

    def __init__(
        self,
        attention: HistorySelfAttention,
        table: Tensor,
        max_length: int,
        temperature: float,
        gap: Tensor | None = None,
        wait: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.table: Tensor
        self.gap: Tensor | None
        self.wait: Tensor | None
        self.attention = attention
        self.max_length = max_length
        self.temperature = temperature
        self.register_buffer("table", table)
        self.register_buffer("gap", gap)
        self.register_buffer("wait", wait)

    @classmethod
    def of(cls, model: InductiveKGAT | SASRec) -> OrderedSide:
        """Return the user side of a model in evaluation mode."""
        with torch.no_grad():
            if isinstance(model, SASRec):
                table = model.item.detach() * model.dim**0.5
                return cls(model.encoder, table, model.max_length, model.temperature)
            reader = model.sequence
            assert reader is not None  # a pooled model has another side
            h, _ = model.cached("vectors", model.item_vectors)
            vectors = (None if of is None else of.detach().clone() for of in (reader.gap, reader.wait))
            return cls(reader.attention, h * model.dim**0.5, reader.max_length, model.temperature, *vectors)

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of what it takes."""
        first = cast(SelfAttentionBlock, self.attention.blocks[0]).attention
        if self.gap is None and first.time_bias is None:
            return ("items",)
        return ("items", "times") if self.wait is None else ("items", "times", "asked_at")

    def forward(self, items: Tensor, times: Tensor | None = None, asked_at: Tensor | None = None) -> Tensor:
        """Return the vector of each user."""
        place = torch.arange(items.size(1), device=items.device).unsqueeze(0)
        count = (items >= 0).sum(dim=1, keepdim=True)
        from_end = count - 1 - place  # [batch_size, length]
        read = (from_end >= 0) & (from_end < self.max_length)
        x = self.table[items.clamp(min=0)]
        asked = times
        if times is not None and self.gap is not None:
            since = times - torch.cat([times[:, :1], times[:, :-1]], dim=1)
            first = (place == 0) | (from_end == self.max_length - 1)
            x = x + self.gap[time_bucket(since, len(self.gap) - 1).long().masked_fill(first, len(self.gap) - 1)]
        if times is not None and asked_at is not None and self.wait is not None:
            following = torch.cat([times[:, 1:], times[:, -1:]], dim=1)
            asked = torch.where(from_end == 0, asked_at.unsqueeze(1), following)
            x = x + self.wait[time_bucket(asked - times, len(self.wait)).long()]
        if self.attention.position is not None:
            x = x + self.attention.position[from_end.clamp(0, len(self.attention.position) - 1)]

        blocks = [cast(SelfAttentionBlock, block) for block in self.attention.blocks]
        at = place.expand_as(items)
        for block in blocks[:-1]:
            x = _attended(block, x, x, read, at, times, asked)
        last = (count - 1).clamp(min=0)  # [batch_size, 1]; an empty history's is never read
        own = x.gather(1, last.unsqueeze(2).expand(-1, -1, x.size(2)))
        asked = None if asked is None else asked.gather(1, last)
        state = _attended(blocks[-1], own, x, read, last, times, asked)[:, 0]
        if self.attention.norm is not None:
            state = self.attention.norm(state)
        state = state * (count > 0)
        return F.normalize(state, dim=1) / self.temperature if self.temperature else state


def _attended(
    block: SelfAttentionBlock,
    own: Tensor,
    x: Tensor,
    read: Tensor,
    at: Tensor,
    times: Tensor | None,
    asked: Tensor | None,
) -> Tensor:
    """Let some entries go through a block.

    Args:
        block: Causal.
        own: The entries that attend, ``[batch_size, num_queries, dim]``.
        x: All entries, ``[batch_size, length, dim]``.
        read: Which of these are read, bool ``[batch_size, length]``.
        at: The places of those that attend, int64 ``[batch_size, num_queries]``.
        times: When each entry happened, ``[batch_size, length]``.
        asked: From when each entry that attends looks back, ``[batch_size, num_queries]``.
    """
    pre, attention = block.norm == "pre", block.attention
    key_of, query_of = (block.norm_attention(part) if pre else part for part in (x, own))
    heads, channels = attention.heads, attention.channels
    width = channels // heads
    weight, bias = attention.lin_qkv.weight, attention.lin_qkv.bias
    query = F.linear(query_of, weight[:channels], None if bias is None else bias[:channels])
    both = F.linear(key_of, weight[channels:], None if bias is None else bias[channels:])
    query, key, value = (
        part.view(*part.shape[:2], heads, width).transpose(1, 2) for part in (query, *both.chunk(2, dim=2))
    )  # [batch_size, heads, num_queries or length, width]
    scores = query @ key.transpose(2, 3) * width**-0.5
    away = at.unsqueeze(2) - torch.arange(x.size(1), device=x.device)  # [batch_size, num_queries, length]
    if attention.position_bias is not None:
        distance = away.clamp(0, len(attention.position_bias) - 1)
        scores = scores + attention.position_bias[distance].permute(0, 3, 1, 2)
    if attention.time_bias is not None and times is not None and asked is not None:
        interval = time_bucket(asked.unsqueeze(2) - times.unsqueeze(1), len(attention.time_bias)).long()
        scores = scores + attention.time_bias[interval].permute(0, 3, 1, 2)
    seen = read.unsqueeze(1) & (away >= 0)
    alpha = scores.masked_fill(~seen.unsqueeze(1), torch.finfo(scores.dtype).min).softmax(dim=-1)
    mixed = attention.lin_out((alpha @ value).transpose(1, 2).flatten(2))
    return block.combine(own, mixed)
