"""ConcatFusion: all modalities side by side, and one linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops.modalities import present_tokens


class ConcatFusion(nn.Module):
    r"""Put the modalities side by side and map them to one vector; the yardstick for the fusions by attention.

    .. math:: y_n = W \, [\tilde t_{n1}; \dots; \tilde t_{nM}] + b

    where :math:`\tilde t_{nm}` is the token, or the learned vector that stands for a missing token m. A row without any
    token receives zeros.

    Args:
        channels: Width of tokens and output.
        num_tokens: Number of tokens of a row, M.

    Shape:
        - tokens: ``[num_rows, num_tokens, channels]``, as :class:`ModalityTokens` makes them
        - mask: bool ``[num_rows, num_tokens]``, which are there, or ``None`` for all
        - output: ``[num_rows, channels]``

    Raises:
        ArgumentError: Sizes that do not fit.

    Example:
        >>> ConcatFusion(8, num_tokens=3)(torch.randn(5, 3, 8)).shape
        torch.Size([5, 8])

    Source:
        Ngiam et al., "Multimodal Deep Learning" (ICML 2011), section 3, the shallow fusion; learned stand-ins for what
        is missing.
    """

    def __init__(self, channels: int, num_tokens: int) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("num_tokens", num_tokens, low=1)
        self.channels = channels
        self.num_tokens = num_tokens
        self.missing = nn.Parameter(torch.empty(num_tokens, channels))
        self.lin = nn.Linear(num_tokens * channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.zeros_(self.missing)
        nn.init.xavier_uniform_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fuse."""
        tokens, mask = present_tokens(tokens, mask, self.channels)
        if tokens.size(1) != self.num_tokens:
            raise ArgumentError(f"tokens must hold {self.num_tokens} a row, got {tokens.size(1)}")
        side_by_side = torch.where(mask.unsqueeze(2), tokens, self.missing.to(tokens.dtype)).flatten(1)
        out: Tensor = self.lin(side_by_side) * mask.any(dim=1, keepdim=True)
        return out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, num_tokens={self.num_tokens})"
