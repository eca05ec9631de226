"""BPR: a taken item should score above another."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import check_range
from graphrec.losses._checks import check_negatives
from graphrec.losses.reduction import weighted_mean


def bpr(positive: Tensor, negative: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Return the mean pairwise ranking loss.

    .. math:: \ell = \frac{\sum_t w_t \, \mathrm{mean}_n \left[ -\log \sigma(s_t - s_{tn}) \right]}{\sum_t w_t}

    Args:
        positive: Scores of taken items, ``[num_targets]``.
        negative: Scores of other items for the same users, ``[num_targets]`` or ``[num_targets, num_negatives]``.
        weights: :math:`w_t`, at least 0, ``[num_targets]``; 1 where not given.

    Returns:
        A scalar; 0 where there are no targets.

    Raises:
        ArgumentError: Shapes contradict each other, or there is no negative.

    Example:
        >>> import torch
        >>> bpr(torch.tensor([2.0, 0.0]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])).item()
        0.5515923500061035

    Source:
        Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback" (UAI 2009), section 4.
    """
    if negative.dim() == positive.dim():
        negative = negative.unsqueeze(-1)
    check_negatives(positive, negative)
    check_range("number of negatives", negative.size(1), low=1)
    loss = F.softplus(negative - positive.unsqueeze(-1)).mean(dim=-1)  # [num_targets]
    return weighted_mean(loss, weights)
