"""Recommenders, from popularity to the flagship."""
