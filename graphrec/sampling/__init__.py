"""Samplers: negatives, batches, neighbours."""

from graphrec.sampling.negatives import Negatives, PopularityNegatives, UniformNegatives

__all__ = ["Negatives", "PopularityNegatives", "UniformNegatives"]
