"""Encoders: side information becomes one row per item.

An encoder's module is imported when it is asked for: the KG's brings torch_geometric, which takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphrec.encoders.content import content_of
    from graphrec.encoders.cooccurrence import CooccurrenceEncoder
    from graphrec.encoders.knowledge_graph import AttendedEdges, ItemEdges, KnowledgeGraphEncoder
    from graphrec.encoders.likeness import LikenessEncoder
    from graphrec.encoders.modality import ModalityEncoder
    from graphrec.encoders.side_features import SideFeatureEncoder, side_features_of
    from graphrec.encoders.text import TextEncoder
    from graphrec.encoders.trans_r import TransR
    from graphrec.encoders.tuned_text import TunedText
    from graphrec.encoders.vectors import read_item_features

__all__ = [
    "AttendedEdges",
    "CooccurrenceEncoder",
    "ItemEdges",
    "KnowledgeGraphEncoder",
    "LikenessEncoder",
    "ModalityEncoder",
    "SideFeatureEncoder",
    "TextEncoder",
    "TransR",
    "TunedText",
    "content_of",
    "read_item_features",
    "side_features_of",
]

_MODULES = {
    "AttendedEdges": "knowledge_graph",
    "CooccurrenceEncoder": "cooccurrence",
    "ItemEdges": "knowledge_graph",
    "KnowledgeGraphEncoder": "knowledge_graph",
    "LikenessEncoder": "likeness",
    "ModalityEncoder": "modality",
    "SideFeatureEncoder": "side_features",
    "TextEncoder": "text",
    "TransR": "trans_r",
    "TunedText": "tuned_text",
    "content_of": "content",
    "read_item_features": "vectors",
    "side_features_of": "side_features",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
