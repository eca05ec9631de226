"""TargetAttentionPooling: from a ragged history to what in it speaks for one target."""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers.ops import EdgeLayout, segment_softmax, weighted_sum


class TargetAttentionPooling(nn.Module):
    r"""Pool each user's items by how much each has to do with a target.

    For a user u, an item i of the history and a target with the vector v,

    .. math::
        a(x_i, v) = w^\top \operatorname{PReLU}\big(W_x x_i + W_p (x_i \odot v) + W_v v + b\big) + c, \qquad
        h_u(v) = \sum_{i \in \mathcal{H}_u} A_{ui} \, x_i

    where :math:`A = a`, so that a strong interest gives a long vector, or :math:`A = \operatorname{softmax}_i a`. A
    user without items receives zeros. The terms of the item and of the target alone are computed once for each, and
    the sum is a sparse product; what is stored for each history entry and target is one vector of ``hidden_channels``
    and one of ``channels``.

    Args:
        channels: Width of the item and target vectors.
        hidden_channels: Width of the hidden layer.
        normalizer: ``"none"`` takes the weights as they are, as published; ``"softmax"`` makes them sum to one (then
            there is no c, which it would not notice).

    Shape:
        - x: ``[num_items, channels]``
        - items: int64 ``[total]``; user ``b`` owns ``items[offsets[b]:offsets[b + 1]]``
        - offsets: int64 ``[batch_size + 1]``
        - target: ``[batch_size, channels]``, or ``[batch_size, num_targets, channels]`` for several a user
        - output: of the shape of ``target``

    Raises:
        ArgumentError: Sizes that do not fit, an item out of range, or an unknown ``normalizer``.

    Example:
        >>> pool = TargetAttentionPooling(8)
        >>> x, items, offsets = torch.randn(10, 8), torch.tensor([1, 3, 9]), torch.tensor([0, 2, 2, 3])
        >>> pool(x, items, offsets, target=x[[4, 4, 7]]).shape
        torch.Size([3, 8])
        >>> pool(x, items, offsets, target=torch.randn(3, 5, 8)).shape  # five candidates a user
        torch.Size([3, 5, 8])

    Source:
        Zhou et al., "Deep Interest Network for Click-Through Rate Prediction" (KDD 2018), eq. 3 and figure 2, with the
        elementwise product of its public code in place of the outer product.
    """

    def __init__(
        self, channels: int, hidden_channels: int = 36, normalizer: Literal["none", "softmax"] = "none"
    ) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("hidden_channels", hidden_channels, low=1)
        check_choice("normalizer", normalizer, ("none", "softmax"))
        self.channels = channels
        self.hidden_channels = hidden_channels
        self.normalizer = normalizer
        self.lin_item = nn.Linear(channels, hidden_channels)
        self.lin_product = nn.Linear(channels, hidden_channels, bias=False)
        self.lin_target = nn.Linear(channels, hidden_channels, bias=False)
        self.slope = nn.Parameter(torch.empty(hidden_channels))
        self.lin_score = nn.Linear(hidden_channels, 1, bias=normalizer == "none")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for lin in (self.lin_item, self.lin_product, self.lin_target, self.lin_score):
            nn.init.xavier_uniform_(lin.weight)
            if lin.bias is not None:
                nn.init.zeros_(lin.bias)
        nn.init.constant_(self.slope, 0.25)

    @overload
    def forward(
        self,
        x: Tensor,
        items: Tensor,
        offsets: Tensor,
        target: Tensor,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, items: Tensor, offsets: Tensor, target: Tensor, return_attention_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self, x: Tensor, items: Tensor, offsets: Tensor, target: Tensor, return_attention_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pool; with ``return_attention_weights`` also return ``A`` in the order of ``items``.

        It is ``[total]`` for one target a user, and ``[total, num_targets]`` for several.
        """
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ArgumentError(f"x must have shape [num_items, {self.channels}], got {list(x.shape)}")
        layout = EdgeLayout.from_rowptr(offsets, items, x.size(0), name="offsets")
        if target.dim() not in (2, 3) or (target.size(0), target.size(-1)) != (layout.num_dst, self.channels):
            shape = f"[{layout.num_dst}, {self.channels}] or [{layout.num_dst}, num_targets, {self.channels}]"
            raise ArgumentError(f"target must have shape {shape}, got {list(target.shape)}")
        targets = target if target.dim() == 3 else target.unsqueeze(1)  # [batch_size, num_targets, channels]

        users = layout.destination.long()
        product = F.embedding(items, x).unsqueeze(1) * targets.index_select(0, users)
        hidden = self.lin_product(product) + self.lin_target(targets).index_select(0, users)
        hidden = hidden + F.embedding(items, self.lin_item(x)).unsqueeze(1)  # [total, num_targets, hidden_channels]
        weights = self.lin_score(torch.where(hidden > 0, hidden, hidden * self.slope)).squeeze(2)
        if self.normalizer == "softmax":
            weights = segment_softmax(weights, layout)
        # The kernels give single precision.
        out = weighted_sum(weights, x, layout).to(torch.promote_types(x.dtype, self.lin_item.weight.dtype))
        if target.dim() == 2:
            out, weights = out.squeeze(1), weights.squeeze(1)
        return (out, weights) if return_attention_weights else out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.hidden_channels}, normalizer={self.normalizer!r})"
