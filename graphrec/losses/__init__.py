"""Training losses on plain tensors."""

from graphrec.losses.bpr import bpr
from graphrec.losses.reduction import weighted_mean
from graphrec.losses.sampled_softmax import sampled_softmax, softmax_over_samples

__all__ = ["bpr", "sampled_softmax", "softmax_over_samples", "weighted_mean"]
