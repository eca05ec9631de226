"""BERT4Rec: a history read in both directions, with items masked."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.layers import HistorySelfAttention
from graphrec.models.sequential import SequentialRecommender


class BERT4Rec(SequentialRecommender):
    r"""Bidirectional self-attention that fills gaps; the next item is a gap behind the end.

    .. math:: P(j) \propto \exp\big(\operatorname{LN}(\operatorname{gelu}(W z + c)) \cdot e_j + b_j\big)

    Training replaces a random share of each history by one learned vector, the last item where nothing else was drawn,
    and asks for what was there by a softmax over items.

    Args:
        num_items: Number of items.
        dim: Width of the vectors.
        num_blocks: Number of blocks.
        heads: Attention heads of each block; must divide ``dim``.
        max_length: Most recent items of a history that are read, at least 2; in answers one of them is the gap.
        dropout: Probability that a channel or an attention weight is dropped in training.
        mask_share: Share of the items that are masked in training, within 0..1.
        num_negatives: Negatives a step, drawn uniformly and shared by the batch; all items where there are no more.
        temperature: Of cosine scores; 0 for plain products, as published.

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> model = BERT4Rec(num_items=5, dim=8).eval()
        >>> model.score(Histories.from_lists([[3, 1], [0], []])).shape
        torch.Size([3, 5])

    Source:
        Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer"
        (CIKM 2019).
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_blocks: int = 2,
        heads: int = 2,
        max_length: int = 50,
        dropout: float = 0.2,
        mask_share: float = 0.2,
        num_negatives: int = 1024,
        temperature: float = 0.0,
    ) -> None:
        super().__init__(num_items, dim, max_length, "softmax", num_negatives, 0.0, temperature, bias=True)
        check_range("max_length", max_length, low=2)
        check_range("mask_share", mask_share, low=0.0, high=1.0)
        self.mask_share = mask_share
        self.mask = nn.Parameter(torch.empty(dim))
        self.encoder = HistorySelfAttention(
            dim, num_blocks, heads, causal=False, dropout=dropout, norm="post", num_positions=max_length
        )
        self.lin = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        nn.init.normal_(self.mask, std=0.02)
        self.encoder.reset_parameters()
        nn.init.xavier_uniform_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)
        self.norm.reset_parameters()

    def last_states(self, histories: Histories) -> Tensor:
        """Return the state of a gap behind each history; see :meth:`SequentialRecommender.last_states`."""
        histories = histories.recent(self.max_length - 1)
        ends = torch.arange(len(histories) + 1, device=self.item.device)
        offsets = histories.offsets + ends  # one entry more in each history
        x = self.mask.new_empty(len(histories.items) + len(histories), self.dim)
        places = torch.arange(len(histories.items), device=self.item.device) + histories.rows
        x = x.index_copy(0, places, self.item.index_select(0, histories.items))
        x = x.index_copy(0, offsets[1:] - 1, self.mask.expand(len(histories), -1))
        return self._head(self.encoder(x * self.dim**0.5, offsets, last_only=True))

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the softmax loss of masked items; see :meth:`GradientRecommender.loss`."""
        histories = histories.in_order().recent(self.max_length)
        masked = torch.rand(len(histories.items), generator=generator).to(self.item.device) < self.mask_share
        drawn = torch.zeros(len(histories), dtype=torch.bool, device=self.item.device)
        drawn[histories.rows[masked]] = True
        masked |= (histories.from_end == 0) & ~drawn[histories.rows]
        x = torch.where(masked.unsqueeze(1), self.mask, self.item.index_select(0, histories.items))
        states = self.encoder(x * self.dim**0.5, histories.offsets)
        return self.loss_of(self._head(states[masked]), histories, masked, generator)

    def _head(self, states: Tensor) -> Tensor:
        """Return what is multiplied with the items."""
        out: Tensor = self.norm(F.gelu(self.lin(states)))
        return out
