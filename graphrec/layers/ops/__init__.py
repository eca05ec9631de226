"""The fused kernels that the layers share."""
