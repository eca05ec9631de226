"""What layers that fuse modalities ask of their input."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import ArgumentError


def present_tokens(tokens: Tensor, mask: Tensor | None, channels: int) -> tuple[Tensor, Tensor]:
    """Return the tokens with zeros where they are missing, and which are there.

    Whatever a missing token holds, NaN included, reaches neither the output nor a gradient.

    Args:
        tokens: ``[num_rows, num_tokens, channels]``.
        mask: Which are there, bool ``[num_rows, num_tokens]``; ``None`` for all.
        channels: The width that the layer was made for.

    Raises:
        ArgumentError: Shapes or types that do not fit.

    Example:
        >>> tokens, mask = torch.tensor([[[1.0], [torch.nan]]]), torch.tensor([[True, False]])
        >>> present_tokens(tokens, mask, channels=1)[0].tolist()
        [[[1.0], [0.0]]]
    """
    if tokens.dim() != 3 or tokens.size(2) != channels or tokens.size(1) == 0:
        raise ArgumentError(f"tokens must have shape [num_rows, num_tokens, {channels}], got {list(tokens.shape)}")
    if mask is None:
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if mask.dtype != torch.bool or mask.shape != tokens.shape[:2]:
        raise ArgumentError(f"mask must be bool {list(tokens.shape[:2])}, got {mask.dtype} {list(mask.shape)}")
    return torch.where(mask.unsqueeze(2), tokens, tokens.new_zeros(())), mask
