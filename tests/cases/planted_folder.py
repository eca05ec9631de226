"""A planted graph as files, for tests that begin with a data set's path."""

from __future__ import annotations

from pathlib import Path

from kg_loaders.formats import tables
from kg_loaders.synthetic import planted


def write_planted(folder: Path) -> Path:
    """Write a small planted graph as CSV tables: train, valid and test, titles, and a knowledge graph."""
    tables.write(planted(num_users=30, num_items=40, num_cold_items=4), folder)
    return folder
