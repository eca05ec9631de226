"""GatedFusion: a gate a channel between the modalities that an item has."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.layers.ops.modalities import present_tokens


class GatedFusion(nn.Module):
    r"""Share each channel out among the modalities that are there.

    .. math::
        g_{nm} = \operatorname{softmax}_{m \in \mathcal{M}_n} (W t_{nm}) \in \mathbb{R}^{channels}, \qquad
        y_n = \sum_{m \in \mathcal{M}_n} g_{nm} \odot t_{nm}

    where the softmax runs over the modalities, for each channel by itself. A row without any receives zeros.

    Args:
        channels: Width of tokens and output.

    Shape:
        - tokens: ``[num_rows, num_tokens, channels]``, as :class:`ModalityTokens` makes them
        - mask: bool ``[num_rows, num_tokens]``, which are there, or ``None`` for all
        - output: ``[num_rows, channels]``

    Raises:
        ArgumentError: Sizes that do not fit.

    Example:
        >>> fusion = GatedFusion(8)
        >>> tokens = torch.randn(1, 2, 8)
        >>> torch.equal(fusion(tokens, torch.tensor([[False, True]])), tokens[:, 1])  # the only one has all the weight
        True

    Source:
        Arevalo et al., "Gated Multimodal Units for Information Fusion" (2017), with a softmax in place of the
        sigmoids, so that a missing modality leaves its share to the others.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        self.channels = channels
        self.lin_gate = nn.Linear(channels, channels, bias=False)  # the softmax would not notice a bias
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.xavier_uniform_(self.lin_gate.weight)

    @overload
    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, return_attention_weights: Literal[False] = False
    ) -> Tensor: ...
    @overload
    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, return_attention_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, return_attention_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Fuse; with ``return_attention_weights`` also return the gates, ``[num_rows, num_tokens, channels]``."""
        tokens, mask = present_tokens(tokens, mask, self.channels)
        some = mask.any(dim=1, keepdim=True)
        gates = self.lin_gate(tokens).masked_fill((~mask & some).unsqueeze(2), -torch.inf).softmax(dim=1)
        fused: Tensor = (gates * tokens).sum(dim=1)  # the tokens of a row without any are zeros
        return (fused, gates * mask.unsqueeze(2)) if return_attention_weights else fused

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels})"
