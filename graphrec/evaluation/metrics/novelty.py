"""Novelty at k: mean self-information of what is recommended."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def novelty(ranking: Ranking, k: int) -> Tensor:
    r"""Mean of :math:`-\log_2` of the popularity share over all recommended items, in bits.

    The share of item i is ``n_i / sum of n``, with ``n_i`` its interactions in the histories that the model was
    given; an item without any counts as if it had one, so that the value stays finite.
    **Denominator**: all places of all lists that hold an item; an item recommended twice counts twice.
    **No test items**: the user's list is not made. 0 where no item is recommended.

    Returns:
        float64 scalar.

    Source:
        Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010 (who take the
        share of users instead of the share of interactions: a constant apart).
    """
    counts = ranking.list_counts(k).double()
    share = ranking.popularity.clamp(min=1).double() / ranking.popularity.sum().clamp(min=1)
    return -torch.dot(counts, share.log2()) / counts.sum().clamp(min=1)
