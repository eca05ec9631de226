"""Legacy: NDCG as KGAT's code computes it, only for comparison with figures published that way."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import Ranking, discounts
from graphrec.evaluation.metrics.ndcg import dcg

RETRIEVED = 100
"""How many items KGAT retrieves: the largest of its cut-offs 20, 40, 60, 80, 100."""


def ndcg_kgat(ranking: Ranking, k: int) -> Tensor:
    """**Legacy, do not report as NDCG.** The discounted hits relative to the best order of the hits *retrieved*.

    It equals :func:`~graphrec.evaluation.metrics.ndcg.ndcg` but for the ideal list. **Denominator**: an ideal list
    of ``min(k, h)`` hits, ``h`` being the hits among the first ``max(k, 100)`` items: what was not found is not
    missed, so values are far too high (last-fm .1366 where .074 is right), and finding one more item low in the
    list lowers it. 0 where ``h`` is 0. **No test items**: the user is left out.

    Returns:
        float64 ``[num_users]``.

    Source:
        ``Model/utility/metrics.py`` and ``batch_test.py`` of the KGAT repository; KGIN issue 18.
    """
    found = ranking.hits[:, : max(k, RETRIEVED)].sum(dim=1).clamp(max=k)
    # One zero in front: nothing found has an ideal value of 0, and the clamp keeps 0 / 0 from arising.
    ideal = torch.nn.functional.pad(discounts(k, found.device).cumsum(0), (1, 0))
    return dcg(ranking, k) / ideal[found].clamp(min=1e-12)
