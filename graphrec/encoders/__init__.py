"""Encoders: side information becomes one row per item."""

from graphrec.encoders.knowledge_graph import ItemEdges, KnowledgeGraphEncoder

__all__ = ["ItemEdges", "KnowledgeGraphEncoder"]
