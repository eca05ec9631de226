"""Training losses on plain tensors."""

from graphrec.losses.bpr import bpr
from graphrec.losses.gbce import gbce, gbce_power
from graphrec.losses.reduction import weighted_mean
from graphrec.losses.sampled_softmax import accidental_hits, sampled_softmax, softmax_over_samples

__all__ = [
    "accidental_hits",
    "bpr",
    "gbce",
    "gbce_power",
    "sampled_softmax",
    "softmax_over_samples",
    "weighted_mean",
]
