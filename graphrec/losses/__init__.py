"""Training losses on plain tensors."""
