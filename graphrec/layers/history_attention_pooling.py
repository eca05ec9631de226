"""HistoryAttentionPooling: from a ragged history to one interest vector."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops import EdgeLayout, segment_softmax, weighted_sum


class HistoryAttentionPooling(nn.Module):
    r"""Pool each user's items into interest vectors by attention over item -> user edges.

    For every user :math:`u` and head,

    .. math::
        A_{ui} = \operatorname{softmax}_{i \in \mathcal{H}_u} (a^\top x_i + b_i), \qquad
        h_u = \sum_{i \in \mathcal{H}_u} A_{ui} \, x_i .

    A user without items receives zeros. No item vector is copied per history entry: the sum is a sparse product.

    Args:
        channels: Width of the item vectors.
        heads: Number of interest vectors a user.

    Shape:
        - x: ``[num_items, channels]``
        - items: int64 ``[total]``; user ``b`` owns ``items[offsets[b]:offsets[b + 1]]``
        - offsets: int64 ``[batch_size + 1]``
        - bias: ``[num_items]``, each item's own readiness to be attended, or ``None``
        - output: ``[batch_size, heads * channels]``

    Raises:
        ArgumentError: Sizes that do not fit, or an item out of range.

    Example:
        >>> pool = HistoryAttentionPooling(8, heads=2)
        >>> pool(torch.randn(10, 8), items=torch.tensor([1, 3, 9]), offsets=torch.tensor([0, 2, 2, 3])).shape
        torch.Size([3, 16])

    Source:
        Attention over history items as in He et al., "NAIS" (TKDE 2018), eq. 5, with a plain softmax; several heads as
        the interests of Cen et al., "ComiRec-SA" (KDD 2020), eq. 7-8.
    """

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("heads", heads, low=1)
        self.channels = channels
        self.heads = heads
        self.att = nn.Parameter(torch.empty(heads, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; a single head starts as the plain mean."""
        if self.heads == 1:
            nn.init.zeros_(self.att)
        else:
            nn.init.xavier_uniform_(self.att)  # equal heads would stay equal

    @overload
    def forward(
        self,
        x: Tensor,
        items: Tensor,
        offsets: Tensor,
        bias: Tensor | None = None,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, items: Tensor, offsets: Tensor, bias: Tensor | None, return_attention_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,
        items: Tensor,
        offsets: Tensor,
        bias: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pool; with ``return_attention_weights`` also return ``A``, ``[total, heads]`` in the order of ``items``."""
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ArgumentError(f"x must have shape [num_items, {self.channels}], got {list(x.shape)}")
        if bias is not None and bias.shape != x.shape[:1]:
            raise ArgumentError(f"bias must have shape [{x.size(0)}], got {list(bias.shape)}")
        num_users = offsets.numel() - 1
        users = torch.repeat_interleave(torch.arange(num_users, device=items.device), offsets[1:] - offsets[:-1])
        # Users already come one after the other, so the layout keeps the order of the items.
        layout = EdgeLayout.from_edge_index(torch.stack([items, users]), x.size(0), num_users)

        score = x @ self.att.t()  # [num_items, heads]
        if bias is not None:
            score = score + bias.unsqueeze(1)
        alpha = segment_softmax(score.index_select(0, items), layout.rowptr)  # [total, heads]
        out = weighted_sum(alpha, x.unsqueeze(1).expand(-1, self.heads, -1), layout).flatten(1)
        return (out, alpha) if return_attention_weights else out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, heads={self.heads})"
