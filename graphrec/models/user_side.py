"""UserSide: how InductiveKGAT makes a user of a history."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.layers import HistoryAttentionPooling, HistoryMatch
from graphrec.layers.history_match import LEAST_TEMPERATURE
from graphrec.models.history_reader import HistoryReader
from graphrec.models.item_side import ItemSide

# Beside an item of weight 1, of any item in a history: from there on a sum of few may lose digits to underflow.
SMALLEST_WEIGHT = 1e-25


class UserSide(ItemSide):
    """The users of a model: a history pooled by attention, left for candidates to attend to, or read in order.

    What is learned of items is :class:`ItemSide`'s affair; how a candidate is scored, and what the loss is, the
    subclass's.
    """

    def _add_user_side(
        self,
        *,
        attend_history: bool,
        match_temperature: float,
        sequence: int,
        sequence_heads: int,
        max_length: int,
        num_time_buckets: int,
        request_time: bool,
        dropout: float,
    ) -> None:
        """Make what reads a history; for the arguments see :class:`InductiveKGAT`.

        Raises:
            ArgumentError: A value outside its range, or matching of what is read in order.
        """
        check_range("sequence", sequence, low=0)
        check_range("max_length", max_length, low=1)
        if match_temperature:
            check_range("match_temperature", match_temperature, low=LEAST_TEMPERATURE)
        if sequence and match_temperature:
            raise ArgumentError(
                f"match_temperature must be 0 with sequence={sequence}, got {match_temperature}: "
                "matching reads each item of a history by itself, without order"
            )
        attend_history = attend_history and not sequence
        self.attention_bias = nn.Parameter(torch.empty(self.num_items)) if attend_history else None
        self.match = HistoryMatch(match_temperature) if match_temperature else None
        self.shares_work = self.match is not None
        self.pool = HistoryAttentionPooling(self.dim)
        self.pool.requires_grad_(attend_history)
        self.max_length = max_length
        self.request_time = request_time and sequence > 0
        self.sequence: HistoryReader | None = None
        if sequence:
            self.sequence = HistoryReader(
                self.dim, sequence, sequence_heads, max_length, num_time_buckets, request_time, dropout
            )

    def _draw_user_side(self) -> None:
        """Draw the weights of what reads a history anew."""
        if self.attention_bias is not None:
            nn.init.zeros_(self.attention_bias)
        self.pool.reset_parameters()
        if self.sequence is not None:
            self.sequence.reset_parameters()

    def user_vectors(self, histories: Histories, h: Tensor) -> Tensor:
        """Pool each history over the item vectors ``h``, or attend to it in order.

        Returns:
            ``[batch_size, dim]``, zeros for an empty history.
        """
        if self.sequence is not None:
            return self._last_states(self.sequence, self.sequence.recent(histories), h)[0]
        weights = None
        # What is remembered is of the model's own vectors, not of others that a caller may have.
        if not (self.training or torch.is_grad_enabled()) and h is self.cached("vectors", self.item_vectors)[0]:
            weights = self.cached("history weights", lambda: self._history_weights(h))
        if weights is None:
            pooled: Tensor = self.pool(h, histories.items, histories.offsets, self.attention_bias)
            return pooled
        # The same mean, in three operators: a service asks for few users at a time.
        items, offsets, taken = histories.items, histories.offsets, weights.index_select(0, histories.items)
        total = F.embedding_bag(items, weights.unsqueeze(1), offsets, mode="sum", include_last_offset=True)
        sums = F.embedding_bag(items, h, offsets, mode="sum", per_sample_weights=taken, include_last_offset=True)
        return sums / total.clamp_(min=SMALLEST_WEIGHT)

    def history_attention(self, histories: Histories) -> Tensor:
        """Return :math:`A_{ui}` for every history entry, ``[total]``.

        With self-attention, the attention of the last block from the last entry, averaged over the heads; entries that
        are not read have none.
        """
        histories.check_items(self.num_items)
        h, _ = self.cached("vectors", self.item_vectors)
        if self.sequence is not None:
            read = self.sequence.recent(histories)
            _, alpha = self._last_states(self.sequence, read, h)
            return self._given_back(histories, alpha.mean(dim=1), read)
        _, alpha = self.pool(h, histories.items, histories.offsets, self.attention_bias, return_attention_weights=True)
        weights: Tensor = alpha[:, 0]
        return weights

    def _users_without_each(self, sequence: HistoryReader, histories: Histories) -> tuple[Tensor, Histories, Tensor]:
        """Return user vectors of length 1 without each entry that is read, these entries, and the places of all."""
        histories.check_items(self.num_items)
        h, _ = self.cached("vectors", self.item_vectors)
        read, place = histories.recent_without_each(self.max_length)

        def states() -> Tensor:  # the same for any item: whoever asks why of a whole list waits for them once
            return F.normalize(sequence.without_each(h[read.items], read), dim=1)

        return self.cached_of("states without each", read, states), read, place

    def _last_states(self, sequence: HistoryReader, read: Histories, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state of the last entry of each history that is read, and its attention ``[total, heads]``."""

        def states() -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = sequence(h[read.items], read, True, return_attention_weights=True)
            return found

        # An explanation asks several things of one history. What is remembered is of the model's own vectors.
        remembers = not (self.training or torch.is_grad_enabled())
        # That of no items at all would take the place of the user's own.
        if len(read) == 1 and read.items.numel() and remembers and h is self.cached("vectors", self.item_vectors)[0]:
            found: tuple[Tensor, Tensor] = self.cached_of("last state", read, states)
            return found
        return states()

    def _history_scores(self, h: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the pooling's attention is a softmax of, for each item."""
        scores = h @ self.pool.att[0]
        return scores if bias is None else scores + bias

    def _history_weights(self, h: Tensor) -> Tensor | None:
        """Return what the pooling's attention is in proportion to, for each item; ``None`` where some would be lost."""
        scores = self._history_scores(h, self.attention_bias)
        if h.device.type != "cpu" or h.dtype != torch.float32 or not scores.numel():
            return None
        weights = (scores - scores.max()).exp_()
        return weights if float(weights.min()) >= SMALLEST_WEIGHT else None

    def _given_back(self, histories: Histories, values: Tensor, read: Histories) -> Tensor:
        """Return one value for each entry of ``histories`` as it came, 0 where self-attention did not read it."""
        order = histories.order()
        out = values.new_zeros(histories.items.numel())
        ordered = histories.from_end < self.max_length
        assert int(ordered.sum()) == read.items.numel()
        return out.index_copy(0, order[ordered], values)
