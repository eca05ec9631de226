"""Area under the ROC curve of the click-through protocol: all users' pairs together."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import LabelledScores, Ranking


def ctr_auc(ranking: Ranking) -> Tensor:
    r"""Probability that a relevant item has a higher score than an untaken one, of whichever users; a tie counts 1/2.

    .. math:: ctr\_auc = \frac{1}{P^2} \sum_{p, n} \left( [s_p > s_n] + \tfrac{1}{2} [s_p = s_n] \right)

    over the P relevant items of all users and the P untaken items drawn beside them. Scores of different users are
    compared, so a model whose scores grow with the history loses here what it does not lose in a user's own ranking;
    ``auc`` compares within each user, over all candidates. Figures of this protocol are far above those of a whole
    ranking, and popularity alone does well: the relevant items are popular, the drawn ones are not.
    **Denominator**: all pairs of a relevant and an untaken item. **No test items**: the user is left out.

    Returns:
        float64 scalar.

    Source:
        Click-through prediction of Wang et al., "RippleNet" (CIKM 2018), section 4.3, with one area over all pairs,
        where the authors average areas of batches.
    """
    labelled = ranking.labelled
    assert isinstance(labelled, LabelledScores), "the evaluator provides labelled scores where a metric needs them"
    others = labelled.untaken.sort().values
    below, not_above = (torch.searchsorted(others, labelled.relevant, right=right) for right in (False, True))
    # Half of the pairs won and half of the pairs won or tied: sums of whole numbers, exact in float64.
    return (below + not_above).double().sum() / (2 * max(len(others), 1) ** 2)
