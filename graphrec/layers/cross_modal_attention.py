"""CrossModalAttention: one vector from the modalities that an item has."""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops.modalities import present_tokens


class CrossModalAttention(nn.Module):
    r"""Let a query attend to the tokens of an item's modalities, leaving out those that are missing.

    For each row n and head,

    .. math::
        \alpha_{nm} = \operatorname{softmax}_{m \in \mathcal{M}_n}
            \frac{(W_q q_n + b_q)^\top W_k t_{nm}}{\sqrt{d}}, \qquad
        y_n = W_o \sum_{m \in \mathcal{M}_n} \alpha_{nm} (W_v t_{nm} + b_v) + b_o

    where :math:`\mathcal{M}_n` are the tokens that are there and the query is learned, or given, such as the item's
    vector in the graph. A row without any token receives zeros. As :math:`q^\top (W_k t) = (W_k^\top q)^\top t`, no
    token is projected: the work grows with the rows, hardly with the tokens.

    Args:
        channels: Width of tokens, queries and output.
        heads: Number of heads; must divide ``channels``.
        learned_query: One query for all rows, which is learned; ``False`` when each call gives its own.
        dropout: Probability that an attention weight is dropped in training.

    Shape:
        - tokens: ``[num_rows, num_tokens, channels]``, as :class:`ModalityTokens` makes them
        - mask: bool ``[num_rows, num_tokens]``, which are there, or ``None`` for all
        - query: ``[num_rows, channels]``, or ``None`` where it is learned
        - output: ``[num_rows, channels]``

    Raises:
        ArgumentError: Sizes that do not fit, or a query where it is learned, or none where it is not.

    Example:
        >>> fusion = CrossModalAttention(8, heads=2)
        >>> tokens, mask = torch.randn(2, 3, 8), torch.tensor([[True, True, False], [False, False, False]])
        >>> out, alpha = fusion(tokens, mask, return_attention_weights=True)
        >>> out.shape, alpha.shape, alpha[0, 2].tolist(), out[1].abs().sum().item()
        (torch.Size([2, 8]), torch.Size([2, 3, 2]), [0.0, 0.0], 0.0)

    Source:
        Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), eq. 1 and section 3.2.2; one query over a set of any
        size as in Lee et al., "Set Transformer" (ICML 2019), eq. 11, without the feed-forward part.
    """

    def __init__(self, channels: int, heads: int = 1, learned_query: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("heads", heads, low=1)
        if channels % heads:
            raise ArgumentError(f"heads must divide channels, got {heads} heads and {channels} channels")
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Parameter(torch.empty(channels)) if learned_query else None
        self.lin_query = nn.Linear(channels, channels)
        self.lin_key = nn.Linear(channels, channels, bias=False)  # the softmax would not notice a bias
        self.lin_value = nn.Linear(channels, channels)
        self.lin_out = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for lin in (self.lin_query, self.lin_key, self.lin_value, self.lin_out):
            nn.init.xavier_uniform_(lin.weight)
            if lin.bias is not None:
                nn.init.zeros_(lin.bias)
        if self.query is not None:
            nn.init.normal_(self.query)

    @overload
    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        query: Tensor | None = None,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        query: Tensor | None = None,
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        query: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Fuse; with ``return_attention_weights`` also return ``alpha``, ``[num_rows, num_tokens, heads]``."""
        tokens, mask = present_tokens(tokens, mask, self.channels)
        if (query is None) == (self.query is None):
            told = "a learned query takes none" if query is not None else "learned_query=False needs one"
            raise ArgumentError(f"query must fit the layer: {told}, got {None if query is None else list(query.shape)}")
        if query is not None and query.shape != (tokens.size(0), self.channels):
            raise ArgumentError(f"query must have shape [{tokens.size(0)}, {self.channels}], got {list(query.shape)}")
        asked = self.query.unsqueeze(0) if query is None and self.query is not None else query
        width = self.channels // self.heads
        heads = self.lin_query(asked).view(-1, self.heads, width) * width**-0.5
        probe = torch.einsum("nhd,hdc->nhc", heads, self.lin_key.weight.view(self.heads, width, -1))
        scores = torch.matmul(tokens, probe.transpose(1, 2))  # [num_rows, num_tokens, heads]
        # A row without tokens attends to all of its zeros, and then to nothing: no NaN on the way.
        some = mask.any(dim=1, keepdim=True)
        alpha = scores.masked_fill((~mask & some).unsqueeze(2), -torch.inf).softmax(dim=1) * mask.unsqueeze(2)
        used = F.dropout(alpha, self.dropout, self.training).to(tokens.dtype)
        pooled = torch.matmul(used.transpose(1, 2), tokens)  # [num_rows, heads, channels]
        value = torch.einsum("nhc,hdc->nhd", pooled, self.lin_value.weight.view(self.heads, width, -1))
        value = value + used.sum(dim=1).unsqueeze(2) * self.lin_value.bias.view(self.heads, width)
        out = self.lin_out(value.flatten(1)) * some
        return (out, alpha) if return_attention_weights else out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, heads={self.heads}, learned_query={self.query is not None})"
