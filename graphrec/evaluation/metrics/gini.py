"""Gini index at k: how unequally recommendations fall on items."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def gini(ranking: Ranking, k: int) -> Tensor:
    r"""Inequality of how often each item is recommended: 0 if all equally often, near 1 if always the same.

    .. math:: gini@k = \frac{\sum_{i=1}^{I} (2 i - I - 1) \, c_i}{I \sum_i c_i}

    with the counts c in ascending order over all I items. The largest value is ``(I - 1) / I``; lower is more equal.
    **Denominator**: all items times all recommendations, so items never recommended count.
    **No test items**: the user's list is not made. 0 where no item is recommended.

    Returns:
        float64 scalar.
    """
    counts = ranking.list_counts(k).double().sort().values
    num_items = counts.numel()
    weights = 2.0 * torch.arange(1, num_items + 1, device=counts.device) - num_items - 1
    return torch.dot(weights.double(), counts) / (num_items * counts.sum()).clamp(min=1)
