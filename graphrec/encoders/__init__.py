"""Encoders: side information becomes one row per item."""

from graphrec.encoders.knowledge_graph import KnowledgeGraphEncoder

__all__ = ["KnowledgeGraphEncoder"]
