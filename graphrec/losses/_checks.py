"""What the losses ask of the shapes that they are given."""

from __future__ import annotations

from torch import Tensor

from graphrec.errors import ArgumentError


def check_size(name: str, tensor: Tensor, size: int) -> None:
    """Raise :class:`ArgumentError` unless a tensor is a row of ``size`` numbers: another shape may broadcast."""
    if tensor.shape != (size,):
        raise ArgumentError(f"{name} must have shape [{size}], got {list(tensor.shape)}")


def check_negatives(positive: Tensor, negative: Tensor) -> None:
    """Raise :class:`ArgumentError` unless there is a score for each target, and a row of others for each."""
    check_size("positive", positive, positive.numel())
    if negative.dim() != 2 or len(negative) != len(positive):
        raise ArgumentError(f"negative must have shape [{len(positive)}, num_negatives], got {list(negative.shape)}")
