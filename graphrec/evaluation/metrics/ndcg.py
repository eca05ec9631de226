"""Normalised discounted cumulative gain at k."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking, discounts


def ndcg(ranking: Ranking, k: int) -> Tensor:
    r"""Hits discounted by the logarithm of their rank, relative to the best list possible.

    .. math:: ndcg@k = \sum_{r \le k} \frac{hit_r}{\log_2(r + 1)} \Big/ \sum_{r \le \min(k, R)} \frac{1}{\log_2(r + 1)}

    with R relevant items. **Denominator**: an ideal list of ``min(k, num_relevant)`` hits; gains are binary.
    **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.

    Source:
        Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 2002.
    """
    ideal = discounts(k, ranking.gains.device).cumsum(0)
    return dcg(ranking, k) / ideal[ranking.num_relevant.clamp(max=k) - 1]


def dcg(ranking: Ranking, k: int) -> Tensor:
    """Return the sum of ``1 / log2(rank + 1)`` over the hits among the first ``k``, float64 ``[num_users]``."""
    gains = ranking.gains[:, :k]
    return torch.mv(gains, discounts(gains.size(1), gains.device))
