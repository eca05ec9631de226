"""Mean reciprocal rank at k."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def mrr(ranking: Ranking, k: int) -> Tensor:
    """One over the rank of the first relevant item, 0 where there is none among the first ``k``.

    **Denominator**: the rank, counted from 1; the number of relevant items plays no part.
    **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    gains = ranking.gains[:, :k]
    ranks = torch.arange(1, gains.size(1) + 1, device=gains.device)
    return (gains / ranks).amax(dim=1)
