"""Recall at k."""

from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def recall(ranking: Ranking, k: int) -> Tensor:
    """Share of the user's relevant items that are among the first ``k``.

    ``recall@k = hits@k / num_relevant``. **Denominator**: all relevant items of the user, also where there are
    more than ``k`` of them, so 1 may be out of reach. **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    return ranking.num_hits(k) / ranking.num_relevant
