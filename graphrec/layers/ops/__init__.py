"""The fused kernels that the layers share."""

from graphrec.layers.ops.attention import attend, segment_softmax, weighted_sum
from graphrec.layers.ops.edges import EdgeLayout
from graphrec.layers.ops.gatv2 import gatv2_scores
from graphrec.layers.ops.linear import linear_maps, stacked_maps
from graphrec.layers.ops.pairs import TypedPairs, relational_sum
from graphrec.layers.ops.products import dot_scores
from graphrec.layers.ops.scores import additive_scores

__all__ = [
    "EdgeLayout",
    "TypedPairs",
    "additive_scores",
    "attend",
    "dot_scores",
    "gatv2_scores",
    "linear_maps",
    "relational_sum",
    "segment_softmax",
    "stacked_maps",
    "weighted_sum",
]
