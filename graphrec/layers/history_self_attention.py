"""HistorySelfAttention: a stack of self-attention blocks that turns a history into states, or into one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops.biased_attention import drop
from graphrec.layers.ops.sequences import SequenceLayout, as_layout
from graphrec.layers.self_attention_block import SelfAttentionBlock

# Entries of histories without one entry that go through the blocks at once.
ENTRIES_AT_ONCE = 2**13


class HistorySelfAttention(nn.Module):
    r"""Blocks of self-attention over ragged histories: dropout, the blocks, and for pre-norm blocks a last norm.

    .. math:: s = \operatorname{LN}(B_L(\cdots B_1(\operatorname{drop}(x + p)) \cdots))

    with a learned vector p for each place, counted from the end of its history: a history has no fixed beginning once
    only its most recent entries are kept.

    Args:
        channels: Width of the vectors.
        num_blocks: Number of blocks, at least 1.
        heads: Attention heads of each block; must divide ``channels``.
        hidden_channels: Width within each feed-forward network; 0 for four times ``channels``.
        causal: Whether an entry sees only itself and the entries before it.
        dropout: As in :class:`SelfAttentionBlock`, and on the input.
        norm: ``"pre"`` or ``"post"``.
        activation: Of the feed-forward networks, ``"gelu"`` or ``"relu"``.
        num_positions: Places from the end that have a vector of their own; further ones share the last. 0 for no p.
        num_distances: Distances between two places that have a bias in the attention; 0 for none.
        num_time_buckets: Time intervals that have a bias in the attention; 0 for none.

    Shape:
        - x: ``[total, channels]``; history b owns ``x[offsets[b]:offsets[b + 1]]``, in order of time
        - offsets: int ``[batch_size + 1]``
        - times, query_times: float64 ``[total]``, seconds, as in :class:`RaggedSelfAttention`; the first is needed
          with ``num_time_buckets``
        - output: ``[total, channels]``; with ``last_only`` ``[batch_size, channels]``, zeros for an empty history

    Raises:
        ArgumentError: A value outside its range, or shapes that do not fit.

    Example:
        >>> encoder = HistorySelfAttention(8, num_blocks=2, num_positions=50).eval()
        >>> x, offsets = torch.randn(6, 8), torch.tensor([0, 4, 4, 6])
        >>> states, last = encoder(x, offsets), encoder(x, offsets, last_only=True)
        >>> states.shape, torch.allclose(states[[3, 5]], last[[0, 2]], atol=1e-5)
        (torch.Size([6, 8]), True)

    Source:
        Kang and McAuley, "SASRec" (ICDM 2018), section III.
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int = 2,
        heads: int = 1,
        hidden_channels: int = 0,
        causal: bool = True,
        dropout: float = 0.0,
        norm: Literal["pre", "post"] = "pre",
        activation: Literal["gelu", "relu"] = "gelu",
        num_positions: int = 0,
        num_distances: int = 0,
        num_time_buckets: int = 0,
    ) -> None:
        super().__init__()
        check_range("num_blocks", num_blocks, low=1)
        check_range("num_positions", num_positions, low=0)
        self.channels = channels
        self.dropout = dropout
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(
                channels, heads, hidden_channels, causal, dropout, norm, activation, num_distances, num_time_buckets
            )
            for _ in range(num_blocks)
        )
        self.position = nn.Parameter(torch.empty(num_positions, channels)) if num_positions else None
        self.norm = nn.LayerNorm(channels) if norm == "pre" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for block in self.blocks:
            block.reset_parameters()  # type: ignore[operator]
        if self.position is not None:
            nn.init.normal_(self.position, std=0.02)
        if self.norm is not None:
            self.norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        offsets: Tensor | SequenceLayout,
        times: Tensor | None = None,
        query_times: Tensor | None = None,
        last_only: bool = False,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the states of all entries, or with ``last_only`` that of each history's last entry.

        Args:
            x: The entries of all histories, one history after the other.
            offsets: Where each history begins and ends.
            times: When each entry happened.
            query_times: The moment from which each entry looks back; its own time where not given.
            last_only: Leave out what only the other entries of the last block would need.
            return_attention_weights: Also return how much, in the last block, each last entry attends to each entry,
                ``[total, heads]``; needs ``last_only``.
        """
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ArgumentError(f"x must have shape [total, {self.channels}], got {list(x.shape)}")
        layout = as_layout(offsets, len(x))
        if self.position is not None:
            lengths = layout.offsets[1:] - layout.offsets[:-1]
            ends = torch.repeat_interleave(layout.offsets[1:], lengths)
            x = self._placed(x, ends - 1 - torch.arange(len(x), device=x.device))
        x = drop(x, self.dropout, self.training)
        return self._through(self.blocks, x, layout, (times, query_times), last_only, return_attention_weights)

    def last_without_each(self, x: Tensor, times: Tensor | None = None, closer: Tensor | None = None) -> Tensor:
        r"""Return the state of the last entry of one history without each of its entries in turn.

        That of the last but one, where the last is left out, and zeros where nothing is left. Causal blocks of the
        first layer share what does not depend on the entry left out: half of the states, and all projections.

        Args:
            x: One history, ``[length, channels]``, in order of time.
            times: When each entry happened, float64 ``[length]``; needed with ``num_time_buckets``.
            closer: The entries as each is when the one right before it is left out, such as with another time since
                then, ``[length, channels]``; ``x`` itself where not given. The first is never read.

        Returns:
            ``[length, channels]``.

        Raises:
            ArgumentError: The module is in training mode, or shapes do not fit.

        Example:
            >>> encoder = HistorySelfAttention(8, num_blocks=2, num_positions=50).eval()
            >>> x = torch.randn(4, 8)
            >>> rest = encoder(x[[0, 2, 3]], torch.tensor([0, 3]), last_only=True)[0]
            >>> torch.allclose(encoder.last_without_each(x)[1], rest, atol=1e-5)
            True
        """
        if self.training:
            raise ArgumentError("last_without_each needs evaluation mode, got training mode")
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ArgumentError(f"x must have shape [length, {self.channels}], got {list(x.shape)}")
        length = len(x)
        if closer is not None and closer.shape != x.shape:
            raise ArgumentError(f"closer must have shape {list(x.shape)}, got {list(closer.shape)}")
        if length < 2:
            return torch.zeros_like(x)
        entries = torch.arange(length, device=x.device)
        left = entries[:-1] + (entries[:-1] >= entries.unsqueeze(1))  # [left out, length - 1]
        nearer = x
        if self.position is not None:
            from_end = length - 1 - entries
            x, nearer = self._placed(x, from_end), self._placed(x, (from_end - 1).clamp(min=0))
            closer = None if closer is None else self._placed(closer, from_end)
        blocks = [cast(SelfAttentionBlock, block) for block in self.blocks]
        if len(blocks) > 1 and blocks[0].attention.causal:
            states = blocks.pop(0).without_each(x, nearer, times, closer)
        else:
            states = torch.where((left < entries.unsqueeze(1)).unsqueeze(2), nearer[left], x[left])
            if closer is not None:
                states[entries[:-1], entries[:-1]] = closer[1:]
        # The last block reads the last entries alone: it needs no layout, and makes little of the others.
        only_final = len(blocks) == 1
        at_once = length if only_final else max(1, ENTRIES_AT_ONCE // (length - 1))
        found = []
        for some, kept in zip(torch.split(states, at_once), torch.split(left, at_once), strict=True):
            bounds = torch.arange(len(some) + 1, device=x.device) * (length - 1)
            layout = bounds if only_final else SequenceLayout.from_offsets(bounds)
            at = None if times is None else times[kept].flatten()
            found.append(cast(Tensor, self._through(blocks, some.flatten(0, 1), layout, (at, None), last_only=True)))
        return torch.cat(found)

    def _placed(self, x: Tensor, from_end: Tensor) -> Tensor:
        """Return the entries with the vectors of their places, counted from the end."""
        assert self.position is not None
        return x + self.position.index_select(0, from_end.clamp(max=len(self.position) - 1))

    def _through(
        self,
        blocks: Iterable[nn.Module],
        x: Tensor,
        layout: Tensor | SequenceLayout,
        clock: tuple[Tensor | None, Tensor | None],
        last_only: bool,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let entries through some blocks, the last ones."""
        *first, final = blocks
        for block in first:
            x = block(x, layout, *clock)
        alpha = None
        if return_attention_weights:
            x, alpha = final(x, layout, *clock, last_only=last_only, return_attention_weights=True)
        else:
            x = final(x, layout, *clock, last_only=last_only)
        if self.norm is not None:
            x = self.norm(x)
            if last_only:  # the norm of an empty history's zeros would be the norm's bias
                bounds = layout if isinstance(layout, Tensor) else layout.offsets
                x = x * (bounds[1:] > bounds[:-1]).unsqueeze(1)
        return x if alpha is None else (x, alpha)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, num_blocks={len(self.blocks)})"
