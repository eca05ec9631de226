"""Attention layers over graphs, histories and modalities; plain tensors in and out."""
