"""Samplers: negatives, batches, neighbours."""
