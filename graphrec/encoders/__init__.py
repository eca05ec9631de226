"""Encoders: side information becomes one row per item."""

from graphrec.encoders.cooccurrence import CooccurrenceEncoder
from graphrec.encoders.knowledge_graph import AttendedEdges, ItemEdges, KnowledgeGraphEncoder
from graphrec.encoders.trans_r import TransR

__all__ = ["AttendedEdges", "CooccurrenceEncoder", "ItemEdges", "KnowledgeGraphEncoder", "TransR"]
