"""Reduction of losses to one number."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.losses._checks import check_size


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
