"""Reduction of losses to one number."""

from __future__ import annotations

from torch import Tensor


def weighted_mean(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Return :math:`\sum_t w_t \ell_t / \sum_t w_t`, and 0, with a gradient of 0, where there is nothing to average.

    Args:
        losses: :math:`\ell_t`, ``[num_targets]``.
        weights: :math:`w_t`, at least 0, ``[num_targets]``; 1 where not given.

    Example:
        >>> import torch
        >>> weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])).item()
        2.0
    """
    weights = losses.new_ones(losses.shape) if weights is None else weights
    total = weights.sum()
    return (losses * weights).sum() / total.where(total > 0, total.new_ones(()))
