"""Ranking and catalogue metrics, one file each."""
