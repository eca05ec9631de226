"""Catalogue coverage at k."""

from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def coverage(ranking: Ranking, k: int) -> Tensor:
    """Share of the catalogue that appears in at least one user's first ``k``.

    **Denominator**: all items, also those that nobody ever took. **No test items**: the user's list is not made,
    and counts for nothing; so the value depends on how many users are evaluated.

    Returns:
        float64 scalar.
    """
    return (ranking.list_counts(k) > 0).double().mean()
