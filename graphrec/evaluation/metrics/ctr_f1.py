"""F1 of the click-through protocol: which of all users' pairs are called taken."""

import torch
from torch import Tensor

from graphrec.evaluation.metrics.base import LabelledScores, Ranking


def ctr_f1(ranking: Ranking) -> Tensor:
    """Harmonic mean of precision and recall over relevant and untaken items of all users, each called taken or not.

    An item is called taken from a probability of 1/2 on, where the model gives probabilities. Where its scores are
    no probabilities, half of all items are called taken, since half of them are: from the score on that half of them
    reach. That threshold needs no label; one chosen on validation would be too high for a model that was fitted again
    with the validation part. **Denominator**: items called taken plus relevant items, of all users together.
    **No test items**: the user is left out.

    Returns:
        float64 scalar.

    Source:
        Click-through prediction of Wang et al., "RippleNet" (CIKM 2018) and "Knowledge Graph Convolutional Networks
        for Recommender Systems" (WWW 2019), whose code calls taken what has a probability of at least 1/2.
    """
    labelled = ranking.labelled
    assert isinstance(labelled, LabelledScores), "the evaluator provides labelled scores where a metric needs them"
    num_relevant, scores = len(labelled.relevant), torch.cat([labelled.relevant, labelled.untaken])
    if not num_relevant:
        return torch.zeros((), dtype=torch.float64)
    threshold = labelled.threshold
    if threshold is None:
        threshold = float(scores.sort(descending=True).values[num_relevant - 1])
    found, called = ((part >= threshold).double().sum() for part in (labelled.relevant, scores))
    return 2 * found / (called + num_relevant)
