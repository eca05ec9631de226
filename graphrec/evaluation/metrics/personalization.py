"""Personalization at k: how little the users' lists have in common."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def personalization(ranking: Ranking, k: int) -> Tensor:
    r"""One minus the mean cosine similarity of two users' lists, over all pairs of users.

    Lists u, v are sets; their cosine is :math:`|u \cap v| / \sqrt{|u| |v|}`. All pairs are counted exactly, without
    visiting them: :math:`\sum_{u,v} \cos(u, v) = \sum_i (\sum_{u \ni i} |u|^{-1/2})^2`.
    **Denominator**: the ``U (U - 1) / 2`` pairs of users with a list. **No test items**: the user's list is not made.
    0 with fewer than two lists: nothing sets anybody apart.

    Returns:
        float64 scalar.
    """
    items = ranking.items[:, :k]
    listed = items >= 0
    lengths = listed.sum(dim=1, keepdim=True)
    share = lengths.double().clamp(min=1).rsqrt().expand_as(items)
    sums = torch.zeros(ranking.num_items, dtype=torch.float64, device=items.device)
    sums.index_add_(0, items[listed], share[listed])
    num_users = (lengths > 0).sum().double()
    with_others = sums.square().sum() - num_users  # each list has cosine 1 with itself
    num_pairs = num_users * (num_users - 1)
    return torch.where(num_pairs > 0, 1 - with_others / num_pairs.clamp(min=1), 0.0)
