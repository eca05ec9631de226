"""gBCE: binary cross-entropy that sampled negatives do not make overconfident."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import check_range
from graphrec.losses._checks import check_negatives
from graphrec.losses.reduction import weighted_mean


def gbce(positive: Tensor, negative: Tensor, beta: float = 1.0, weights: Tensor | None = None) -> Tensor:
    r"""Return the mean generalised binary cross-entropy of targets and their negatives.

    .. math::
        \ell = \frac{\sum_t w_t \ell_t}{\sum_t w_t}, \qquad
        \ell_t = -\frac{1}{N + 1} \Big[ \beta \log \sigma(s_t) + \sum_{n=1}^{N} \log(1 - \sigma(s_{tn})) \Big]

    With :math:`\beta = 1` it is the plain binary cross-entropy, whose predictions are too high by the share of items
    that are not sampled; :func:`gbce_power` gives the :math:`\beta` that puts that right. A negative with a score of
    minus infinity costs nothing.

    Args:
        positive: Scores of taken items, ``[num_targets]``.
        negative: Scores of other items for the same targets, ``[num_targets, num_negatives]``.
        beta: The power of the positive's probability, within 0..1.
        weights: :math:`w_t`, at least 0, ``[num_targets]``; 1 where not given.

    Returns:
        A scalar; 0 where there are no targets.

    Raises:
        ArgumentError: ``beta`` is out of range, or shapes contradict each other.

    Example:
        >>> import torch
        >>> round(gbce(torch.zeros(3), torch.zeros(3, 4)).item(), 4)
        0.6931

    Source:
        Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
        Sampling" (RecSys 2023), section 5.
    """
    check_range("beta", beta, low=0.0, high=1.0)
    check_negatives(positive, negative)
    loss = beta * F.softplus(-positive) + F.softplus(negative).sum(dim=1)
    return weighted_mean(loss / (negative.size(1) + 1), weights)


def gbce_power(num_negatives: int, num_items: int, calibration: float) -> float:
    r"""Return the power :math:`\beta` of :func:`gbce` for a calibration t between none (0) and full (1).

    .. math::
        \beta = \alpha \Big( t \Big(1 - \frac{1}{\alpha}\Big) + \frac{1}{\alpha} \Big), \qquad
        \alpha = \min\Big(1, \frac{N}{|I| - 1}\Big)

    Args:
        num_negatives: N, negatives of a target, at least 1.
        num_items: :math:`|I|`, items that negatives are drawn from.
        calibration: t, within 0..1.

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> gbce_power(10, 101, calibration=0.0), round(gbce_power(10, 101, calibration=1.0), 3)
        (1.0, 0.1)

    Source:
        Petrov and Macdonald (RecSys 2023), section 5.
    """
    check_range("num_negatives", num_negatives, low=1)
    check_range("num_items", num_items, low=1)
    check_range("calibration", calibration, low=0.0, high=1.0)
    rate = min(1.0, num_negatives / max(num_items - 1, 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)
