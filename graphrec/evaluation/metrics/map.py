"""Mean average precision at k."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking


def mean_average_precision(ranking: Ranking, k: int) -> Tensor:
    r"""Mean of the precision at each hit among the first ``k``.

    .. math:: map@k = \frac{1}{\min(k, R)} \sum_{r \le k} hit_r \cdot precision@r

    with R relevant items. **Denominator**: ``min(k, num_relevant)``, so that the best list has 1 (as in
    torch_geometric; trec_eval divides by ``num_relevant``). **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.
    """
    gains = ranking.gains[:, :k]
    ranks = torch.arange(1, gains.size(1) + 1, device=gains.device)
    return (gains * gains.cumsum(dim=1) / ranks).sum(dim=1) / ranking.num_relevant.clamp(max=k)
