"""Recommendation on graphs with attention. Import the part you need: ``graphrec.layers``, ``graphrec.models``, ..."""

__version__ = "0.1.0"
