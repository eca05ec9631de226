"""Attention layers over graphs, histories and modalities; plain tensors in and out.

A layer's module is imported when it is asked for: the graph layers bring torch_geometric, which takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphrec.layers.concat_fusion import ConcatFusion
    from graphrec.layers.cross_modal_attention import CrossModalAttention
    from graphrec.layers.gated_fusion import GatedFusion
    from graphrec.layers.hetero_attention_conv import HeteroAttentionConv
    from graphrec.layers.history_attention_pooling import HistoryAttentionPooling
    from graphrec.layers.history_match import HistoryMatch
    from graphrec.layers.history_self_attention import HistorySelfAttention
    from graphrec.layers.hstu_block import HSTUBlock
    from graphrec.layers.kgat_conv import KGATConv
    from graphrec.layers.kgcn_conv import KGCNConv
    from graphrec.layers.kgin_conv import KGINConv
    from graphrec.layers.light_gcn_conv import LightGCNConv
    from graphrec.layers.match_head import MatchHead
    from graphrec.layers.modality_tokens import ModalityTokens
    from graphrec.layers.ragged_self_attention import RaggedSelfAttention
    from graphrec.layers.relation_attention_conv import RelationAttentionConv
    from graphrec.layers.self_attention_block import SelfAttentionBlock
    from graphrec.layers.target_attention_pooling import TargetAttentionPooling

__all__ = [
    "ConcatFusion",
    "CrossModalAttention",
    "GatedFusion",
    "HSTUBlock",
    "HeteroAttentionConv",
    "HistoryAttentionPooling",
    "HistoryMatch",
    "HistorySelfAttention",
    "KGATConv",
    "KGCNConv",
    "KGINConv",
    "LightGCNConv",
    "MatchHead",
    "ModalityTokens",
    "RaggedSelfAttention",
    "RelationAttentionConv",
    "SelfAttentionBlock",
    "TargetAttentionPooling",
]

_MODULES = {
    "ConcatFusion": "concat_fusion",
    "CrossModalAttention": "cross_modal_attention",
    "GatedFusion": "gated_fusion",
    "HSTUBlock": "hstu_block",
    "HeteroAttentionConv": "hetero_attention_conv",
    "HistoryAttentionPooling": "history_attention_pooling",
    "HistoryMatch": "history_match",
    "HistorySelfAttention": "history_self_attention",
    "KGATConv": "kgat_conv",
    "KGCNConv": "kgcn_conv",
    "KGINConv": "kgin_conv",
    "LightGCNConv": "light_gcn_conv",
    "MatchHead": "match_head",
    "ModalityTokens": "modality_tokens",
    "RaggedSelfAttention": "ragged_self_attention",
    "RelationAttentionConv": "relation_attention_conv",
    "SelfAttentionBlock": "self_attention_block",
    "TargetAttentionPooling": "target_attention_pooling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
