"""HistoryAttentionPooling: from a ragged history to one interest vector."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers.ops import EdgeLayout, additive_scores, attend, weighted_sum
from graphrec.layers.ops.segments import segment_entmax15, segment_sparsemax, segment_topk_softmax
from graphrec.layers.ops.standalone import uncompiled


class HistoryAttentionPooling(nn.Module):
    r"""Pool each user's items into interest vectors by attention over item -> user edges.

    For every user :math:`u` and head,

    .. math::
        A_{ui} = \operatorname{softmax}_{i \in \mathcal{H}_u} (a^\top x_i + b_i), \qquad
        h_u = \sum_{i \in \mathcal{H}_u} A_{ui} \, x_i .

    A user without items receives zeros. No item vector is copied per history entry: the sum is a sparse product.

    Attention can adapt: another ``normalizer`` leaves most of a history out, and the scores can be divided by a
    learned temperature :math:`T_{uk} = e^{\tau_k}`, or :math:`e^{\tau_k} |\mathcal{H}_u|^{\sigma_k}` with head k.

    Args:
        channels: Width of the item vectors.
        heads: Number of interest vectors a user.
        normalizer: ``"softmax"``; or ``"entmax15"``, ``"sparsemax"``, ``"topk"``, with weights of exactly zero.
        k: How many items ``"topk"`` attends to.
        temperature: ``"fixed"`` at 1, learned for each ``"head"``, or for each head and ``"length"`` of a history.

    Shape:
        - x: ``[num_items, channels]``
        - items: int64 ``[total]``; user ``b`` owns ``items[offsets[b]:offsets[b + 1]]``
        - offsets: int64 ``[batch_size + 1]``
        - bias: ``[num_items]``, each item's own readiness to be attended, or ``None``
        - output: ``[batch_size, heads * channels]``

    Raises:
        ArgumentError: Sizes that do not fit, an item out of range, or an unknown ``normalizer`` or ``temperature``.

    Example:
        >>> pool = HistoryAttentionPooling(8, heads=2)
        >>> pool(torch.randn(10, 8), items=torch.tensor([1, 3, 9]), offsets=torch.tensor([0, 2, 2, 3])).shape
        torch.Size([3, 16])

    Source:
        Attention over history items as in He et al., "NAIS" (TKDE 2018), eq. 5, with a plain softmax; several heads as
        the interests of Cen et al., "ComiRec-SA" (KDD 2020), eq. 7-8. The length in the temperature as the smoothing of
        NAIS, whose exponent is fixed. The sparse normalisers: see :mod:`graphrec.layers.ops.segments`.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        normalizer: Literal["softmax", "entmax15", "sparsemax", "topk"] = "softmax",
        k: int = 16,
        temperature: Literal["fixed", "head", "length"] = "fixed",
    ) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("heads", heads, low=1)
        check_choice("normalizer", normalizer, ("softmax", "entmax15", "sparsemax", "topk"))
        check_range("k", k, low=1)
        check_choice("temperature", temperature, ("fixed", "head", "length"))
        self.channels = channels
        self.heads = heads
        self.normalizer = normalizer
        self.k = k
        self.att = nn.Parameter(torch.empty(heads, channels))
        self.log_temperature = None if temperature == "fixed" else nn.Parameter(torch.empty(heads))
        self.length_power = nn.Parameter(torch.empty(heads)) if temperature == "length" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; a single head starts as the plain mean."""
        if self.heads == 1:
            nn.init.zeros_(self.att)
        else:
            nn.init.xavier_uniform_(self.att)  # equal heads would stay equal
        for weight in (self.log_temperature, self.length_power):
            if weight is not None:
                nn.init.zeros_(weight)

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
    @uncompiled
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
        layout = EdgeLayout.from_rowptr(offsets, items, x.size(0), name="offsets")
        if items.numel() < x.size(0):  # a few users of a large catalogue: look at no item that they did not take
            x = x.index_select(0, items)
            bias = None if bias is None else bias.index_select(0, items)
            layout = EdgeLayout.from_rowptr(offsets, torch.arange(items.numel(), device=items.device), items.numel())
        score = x @ self.att.t()  # [num_items, heads]
        if bias is not None:
            score = score + bias.unsqueeze(1)
        scores = self._tempered(additive_scores(layout, score), offsets)  # [total, heads]
        if self.normalizer == "softmax":
            out, alpha = attend(scores, x, layout)  # [batch_size, heads, channels]
        else:
            alpha = self._normalized(scores, offsets)
            out = weighted_sum(alpha, x, layout)
        out = out.flatten(1).to(torch.promote_types(x.dtype, self.att.dtype))  # the kernels give single precision
        return (out, alpha) if return_attention_weights else out

    def _tempered(self, scores: Tensor, offsets: Tensor) -> Tensor:
        if self.log_temperature is None:
            return scores
        lengths = offsets[1:] - offsets[:-1]
        cold = -self.log_temperature.expand(len(lengths), -1)
        if self.length_power is not None:
            cold = cold - self.length_power * lengths.clamp(min=1).to(cold.dtype).log().unsqueeze(1)
        return scores * cold.exp().repeat_interleave(lengths, dim=0, output_size=scores.size(0))

    def _normalized(self, scores: Tensor, offsets: Tensor) -> Tensor:
        if self.normalizer == "topk":
            return segment_topk_softmax(scores, offsets, self.k)
        return (segment_entmax15 if self.normalizer == "entmax15" else segment_sparsemax)(scores, offsets)

    def __repr__(self) -> str:
        adapted = "" if self.normalizer == "softmax" else f", normalizer={self.normalizer!r}"
        return f"{type(self).__name__}({self.channels}, heads={self.heads}{adapted})"
