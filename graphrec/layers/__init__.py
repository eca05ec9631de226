"""Attention layers over graphs, histories and modalities; plain tensors in and out."""

from graphrec.layers.history_attention_pooling import HistoryAttentionPooling
from graphrec.layers.relation_attention_conv import RelationAttentionConv

__all__ = ["HistoryAttentionPooling", "RelationAttentionConv"]
