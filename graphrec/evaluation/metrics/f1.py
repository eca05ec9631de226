"""F1 at k."""

from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def f1(ranking: Ranking, k: int) -> Tensor:
    """Harmonic mean of the user's own precision and recall, 0 where both are 0.

    ``f1@k = 2 precision recall / (precision + recall) = 2 hits@k / (k + num_relevant)``. The mean over users is a
    mean of F1 values, not the F1 of mean precision and mean recall. **Denominator**: ``k`` plus all relevant items
    of the user. **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    return 2.0 * ranking.num_hits(k) / (k + ranking.num_relevant)
