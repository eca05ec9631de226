"""What the users, items or entities of a graph are known by: ids, labels, vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import KGLoaderError
from kg_loaders.graph import Features, RecGraph
from kg_loaders.vocabulary import Vocabulary

Nodes = Literal["user", "item", "entity"]


def vocabulary_of(graph: RecGraph, nodes: Nodes) -> Vocabulary:
    """Return the ids of the users, the items or all entities."""
    return {"user": graph.users, "item": graph.items, "entity": graph.entities}[nodes]


def is_number(id_: str) -> bool:
    """Whether an id is merely a node's number in a file, which means nothing elsewhere."""
    # As the formats name what a file merely numbers.
    return re.fullmatch(r"(entity:|attribute:)?\d+", id_) is not None


def labels_of(graph: RecGraph, nodes: Nodes, features: Sequence[str] | None = None) -> list[str]:
    """Return what a person would call each node.

    Args:
        graph: The graph.
        nodes: Whose labels.
        features: Text features to join with blanks, those of them that the graph has; ``None``: the graph's own labels.

    Raises:
        KGLoaderError: The graph has none of the features.
    """
    if features is None:
        own = {"user": lambda: list(graph.users), "item": lambda: graph.item_labels}
        return own.get(nodes, lambda: graph.entity_labels)()
    known = _features_of(graph, nodes)
    texts = [known[name].values for name in features if name in known and known[name].is_text]
    if not texts:
        there = ", ".join(repr(name) for name, feature in known.items() if feature.is_text) or "none"
        raise KGLoaderError(
            f"labels must name text features of the {nodes}s of {graph.name!r} ({there}), got {list(features)}"
        )
    return [" ".join(filter(None, map(str, cells))) for cells in zip(*texts, strict=True)]


def vectors_of(graph: RecGraph, nodes: Nodes, vectors: str | NDArray[Any]) -> NDArray[np.float32]:
    """Return a vector for each node, ``[num_nodes, dim]``; zeros where nothing is known.

    Args:
        graph: The graph.
        nodes: Whose vectors.
        vectors: The name of a vector feature, or the vectors themselves.

    Raises:
        KGLoaderError: There is no such feature, or the array has another number of rows or holds what is not finite.
    """
    if isinstance(vectors, str):
        known = _features_of(graph, nodes)
        if vectors not in known or known[vectors].is_text:
            there = ", ".join(repr(name) for name, feature in known.items() if not feature.is_text) or "none"
            raise KGLoaderError(
                f"vectors must name a vector feature of the {nodes}s of {graph.name!r} ({there}), got {vectors!r}"
            )
        feature = known[vectors]
        return np.where(feature.present[:, None], feature.values, np.float32(0))
    array = np.asarray(vectors, dtype=np.float32)
    size = len(vocabulary_of(graph, nodes))
    if array.ndim != 2 or len(array) != size or not np.isfinite(array).all():
        raise KGLoaderError(
            f"vectors of {graph.name!r} must be finite numbers [{size}, dim], got shape {list(array.shape)}"
        )
    return array


def _features_of(graph: RecGraph, nodes: Nodes) -> Features:
    return {"user": graph.user_features, "item": graph.item_features, "entity": graph.entity_features}[nodes]
