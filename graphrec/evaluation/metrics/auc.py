"""Area under the ROC curve of each user's whole ranking."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking, RelevantScores


def auc(ranking: Ranking) -> Tensor:
    r"""Probability that a relevant item of the user has a higher score than an irrelevant one; a tie counts 1/2.

    .. math:: auc = 1 - \frac{\sum_{p} (above_p + tied_p / 2) - R^2 / 2}{R \, (C - R)}

    over the user's R relevant items, with C candidates (all items not seen): the pairs of relevant items, which the
    sum counts too, make R\ :sup:`2` / 2 in all. Exact, over all candidates, none sampled. **Denominator**: all pairs of
    a relevant and an irrelevant candidate. A user whose candidates are all relevant counts 1/2.
    **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    scores = ranking.relevant
    assert isinstance(scores, RelevantScores), "the evaluator provides the whole ranking where a metric needs it"
    num_relevant = ranking.num_relevant.double()
    num_pairs = num_relevant * (scores.num_candidates - ranking.num_relevant)
    before = torch.zeros_like(num_relevant).index_add_(0, scores.user, scores.above + 0.5 * scores.tied.double())
    wrong = before - num_relevant.square() / 2
    return torch.where(num_pairs > 0, 1 - wrong / num_pairs.clamp(min=1), 0.5)
