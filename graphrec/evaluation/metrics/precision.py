"""Precision at k."""

from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def precision(ranking: Ranking, k: int) -> Tensor:
    """Share of the first ``k`` that are relevant.

    ``precision@k = hits@k / k``. **Denominator**: ``k``, also where fewer than ``k`` items are left to recommend.
    **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    return ranking.num_hits(k) / k
