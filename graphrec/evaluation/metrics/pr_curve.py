"""Precision over recall on each user's whole ranking: the curve and the area under it."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking, RelevantScores

LEVELS = tuple(level / 10 for level in range(11))
"""The recall levels of a whole curve: 0, 0.1, ..., 1."""


def pr_curve(ranking: Ranking, level: float) -> Tensor:
    """Interpolated precision: the best precision at any threshold that reaches a recall of ``level``.

    A threshold keeps all candidates (items not seen) with at least some score, so tied items come together.
    ``pr_curve`` without a level stands for the eleven levels 0, 0.1, ..., 1; averaged over users they draw the curve.
    **Denominator**: of precision, the candidates kept; of recall, all relevant items of the user.
    **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.

    Source:
        Manning, Raghavan, Schütze, Introduction to Information Retrieval, section 8.4.
    """
    precision, recall, user = _thresholds(ranking)
    reached = recall >= level
    best = torch.zeros_like(ranking.num_relevant, dtype=torch.float64)
    return best.scatter_reduce_(0, user[reached], precision[reached], "amax")


def pr_auc(ranking: Ranking) -> Tensor:
    """Area under precision over recall as a step function: the average precision of the whole ranking.

    ``sum over thresholds of (recall - recall of the threshold before) * precision``, tied items together: all of
    them get the precision at the end of their tie, which is not the mean over its orders.
    **Denominator**: all relevant items of the user. **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    precision, _, user = _thresholds(ranking)
    # Each relevant item raises recall by 1 / num_relevant at the threshold of its own score.
    total = torch.zeros_like(ranking.num_relevant, dtype=torch.float64).index_add_(0, user, precision)
    return total / ranking.num_relevant


def _thresholds(ranking: Ranking) -> tuple[Tensor, Tensor, Tensor]:
    """Return precision and recall at the score of each relevant item, float64 ``[num_pairs]``, and its user."""
    scores = ranking.relevant
    assert isinstance(scores, RelevantScores), "the evaluator provides the whole ranking where a metric needs it"
    keys = scores.user * (ranking.num_items + 1) + scores.above
    order = keys.argsort()
    keys, user = keys[order], scores.user[order]
    first = ranking.num_relevant.cumsum(0) - ranking.num_relevant  # where each user's rows begin
    found = (torch.searchsorted(keys, keys, right=True) - first[user]).double()  # relevant with at least this score
    kept = (scores.above + scores.tied)[order]
    return found / kept, found / ranking.num_relevant[user], user
