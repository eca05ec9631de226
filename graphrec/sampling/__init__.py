"""Samplers: negatives, batches, neighbours."""

from graphrec.sampling.negatives import Negatives, PopularityNegatives, UniformNegatives, untaken_items
from graphrec.sampling.neighbors import NeighborSampler

__all__ = ["Negatives", "NeighborSampler", "PopularityNegatives", "UniformNegatives", "untaken_items"]
