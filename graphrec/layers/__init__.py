"""Attention layers over graphs, histories and modalities; plain tensors in and out."""

from graphrec.layers.concat_fusion import ConcatFusion
from graphrec.layers.cross_modal_attention import CrossModalAttention
from graphrec.layers.gated_fusion import GatedFusion
from graphrec.layers.history_attention_pooling import HistoryAttentionPooling
from graphrec.layers.kgat_conv import KGATConv
from graphrec.layers.kgcn_conv import KGCNConv
from graphrec.layers.kgin_conv import KGINConv
from graphrec.layers.light_gcn_conv import LightGCNConv
from graphrec.layers.modality_tokens import ModalityTokens
from graphrec.layers.ragged_self_attention import RaggedSelfAttention
from graphrec.layers.relation_attention_conv import RelationAttentionConv
from graphrec.layers.target_attention_pooling import TargetAttentionPooling

__all__ = [
    "ConcatFusion",
    "CrossModalAttention",
    "GatedFusion",
    "HistoryAttentionPooling",
    "KGATConv",
    "KGCNConv",
    "KGINConv",
    "LightGCNConv",
    "ModalityTokens",
    "RaggedSelfAttention",
    "RelationAttentionConv",
    "TargetAttentionPooling",
]
