"""The fused kernels that the layers share."""

from graphrec.layers.ops.attention import segment_softmax, weighted_sum
from graphrec.layers.ops.edges import EdgeLayout

__all__ = ["EdgeLayout", "segment_softmax", "weighted_sum"]
