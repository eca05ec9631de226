"""Reduction of losses to one number."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import ArgumentError


def weighted_mean(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Return :math:`\sum_t w_t \ell_t / \sum_t w_t`, and 0, with a gradient of 0, where there is nothing to average.

    Args:
        losses: :math:`\ell_t`, ``[num_targets]``; those of half precision are summed up in float32.
        weights: :math:`w_t`, at least 0, ``[num_targets]``; 1 where not given.

    Raises:
        ArgumentError: There is not one weight for each loss.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])).item()
        2.0
    """
    # In float16 a count of targets ends at 65,504.
    losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
    weights = losses.new_ones(losses.shape) if weights is None else weights.to(losses.dtype)
    check_size("weights", weights, len(losses))
    total = weights.sum()
    return (losses * weights).sum() / total.where(total > 0, total.new_ones(()))


def check_size(name: str, tensor: Tensor, size: int) -> None:
    """Raise :class:`ArgumentError` unless a tensor is a row of ``size`` numbers: another shape may broadcast."""
    if tensor.shape != (size,):
        raise ArgumentError(f"{name} must have shape [{size}], got {list(tensor.shape)}")


def check_negatives(positive: Tensor, negative: Tensor) -> None:
    """Raise :class:`ArgumentError` unless there is a score for each target, and a row of others for each."""
    check_size("positive", positive, positive.numel())
    if negative.dim() != 2 or len(negative) != len(positive):
        raise ArgumentError(f"negative must have shape [{len(positive)}, num_negatives], got {list(negative.shape)}")
