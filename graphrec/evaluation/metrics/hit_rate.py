"""Hit rate at k."""

from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def hit_rate(ranking: Ranking, k: int) -> Tensor:
    """1 where at least one of the first ``k`` is relevant, else 0.

    With one relevant item a user it equals recall. **Denominator**: none within a user; the mean divides by the
    users with test items. **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    return (ranking.num_hits(k) > 0).double()
