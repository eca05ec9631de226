"""The content of items by modality: vectors as given, texts encoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphrec.errors import ArgumentError
from kg_loaders import RecGraph
from kg_loaders.graph import Feature

ALL_TEXT = "text"


def content_of(graph: RecGraph, modalities: Sequence[str], text_encoder: str) -> dict[str, Feature]:
    """Return the vectors of each modality, a row an item.

    A modality is an item feature of the graph: vectors are taken as they are, text is encoded by
    :class:`~graphrec.encoders.TextEncoder`. ``"text"``, where no feature has this name, means all features of text,
    joined.

    Args:
        graph: The graph.
        modalities: Names of item features.
        text_encoder: A checkpoint folder or package; see :class:`~graphrec.encoders.TextEncoder`. Read for text only.

    Raises:
        ArgumentError: There is no such feature, or it is known for no item; a name is given twice.
        ImportError: There is text to encode, and transformers is not installed.
    """
    if len(set(modalities)) < len(modalities):
        raise ArgumentError(f"modalities must be distinct, got {list(modalities)}")
    found = {}
    for name in modalities:
        feature = graph.item_features.get(name)
        if feature is None and name == ALL_TEXT and any(f.is_text for f in graph.item_features.values()):
            feature = Feature.text(joined_texts(graph))
        if feature is None:
            known = [*(() if not any(f.is_text for f in graph.item_features.values()) else (ALL_TEXT,))]
            allowed = ", ".join(map(repr, dict.fromkeys([*known, *graph.item_features]))) or "none"
            raise ArgumentError(
                f"modalities must be item features of {graph.name} ({allowed}), got {name!r}; "
                "data.features adds files of features"
            )
        if not feature.present.any():
            raise ArgumentError(f"modalities: {name!r} is known for none of the items of {graph.name}")
        found[name] = encoded(feature, text_encoder) if feature.is_text else feature
    return found


def text_of(graph: RecGraph, name: str) -> list[str] | None:
    """Return the text of each item that a modality stands for; ``None`` where it is given as vectors."""
    feature = graph.item_features.get(name)
    if feature is None:
        return joined_texts(graph)
    return feature.values.tolist() if feature.is_text else None


def encoded(feature: Feature, text_encoder: str) -> Feature:
    """Return a feature of text as vectors."""
    from graphrec.encoders.text import TextEncoder

    return TextEncoder(text_encoder).encode(feature.values.tolist())


def joined_texts(graph: RecGraph) -> list[str]:
    """Return all that is told of each item in words, ``""`` for an item without a word.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> joined_texts(planted())[3]
        'Item 3'
    """
    columns = [feature.values for feature in graph.item_features.values() if feature.is_text]
    return [". ".join(cell.strip() for cell in row if cell.strip()) for row in zip(*columns, strict=True)]


def scale_of(feature: Feature) -> tuple[np.ndarray, float]:
    """Return the mean of the known rows, ``[width]``, and their mean distance from it (1 where that is 0)."""
    if not feature.present.any():
        return np.zeros(feature.values.shape[1]), 1.0
    known = feature.values[feature.present].astype(np.float64)
    mean = known.mean(axis=0)
    length = float(np.linalg.norm(known - mean, axis=1).mean())
    return mean, length if length > 0 else 1.0


def standardised(feature: Feature) -> np.ndarray:
    """Return vectors whose mean over the known rows is 0 and whose mean length is 1; unknown rows are zeros."""
    mean, length = scale_of(feature)
    result: np.ndarray = np.where(feature.present[:, None], (feature.values - mean) / length, 0.0).astype(np.float32)
    return result
