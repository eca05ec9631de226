"""LikenessEncoder: what the items of like content say of each item."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from graphrec.encoders.cooccurrence import CooccurrenceEncoder
from graphrec.encoders.similarity import ContentSimilarity
from graphrec.histories import Histories
from kg_loaders.graph import Feature


class LikenessEncoder(CooccurrenceEncoder):
    r"""Attention of each item to the items most like it in content, gated channel by channel.

    .. math::
        k_i = \gamma \odot \sum_{j \in \mathcal{N}_i} \alpha_{ij} \, x_j, \qquad
        \alpha_{ij} = \frac{c_{ij}}{\sum_{k \in \mathcal{N}_i} c_{ik}}

    with the cosines :math:`c` of :class:`~graphrec.encoders.similarity.ContentSimilarity`, where they are above 0.
    :math:`\mathcal{N}_i` are items that somebody took: an item that nobody took is where its likes are.

    Args:
        content: Vectors by name, a row an item.
        num_items: Number of items.
        num_neighbors: Neighbours an item, at least 1.
        dim: Width of the vectors.
        gate: Start value of the gates :math:`\gamma`.
        num_sides: How many outputs to make, each with gates of its own.

    Raises:
        ArgumentError: A value below 1, or no content.

    Example:
        >>> image = Feature.vectors([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]])
        >>> encoder = LikenessEncoder({"image": image}, num_items=3, num_neighbors=1, dim=2, gate=1.0)
        >>> encoder.prepare(Histories.from_lists([[0, 2]]))  # nobody took item 1
        >>> (near,) = encoder(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
        >>> near.tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]

    Source:
        Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation"
        (MM 2023), the frozen item-item graph of FREEDOM, eq. 1-4, with one propagation and without its weights of 1.
    """

    def __init__(
        self,
        content: Mapping[str, Feature],
        num_items: int,
        num_neighbors: int,
        dim: int,
        gate: float = 0.5,
        num_sides: int = 1,
    ) -> None:
        super().__init__(num_items, num_neighbors, dim, gate, num_sides)
        self.similarity = ContentSimilarity(num_items, content)

    def prepare(self, histories: Histories) -> None:
        """Find the neighbours among the items that somebody took."""
        num_items, num_neighbors = self.neighbor.shape
        taken = torch.bincount(histories.items.cpu(), minlength=num_items) > 0
        for rows, block in self.similarity.blocks():
            block[:, ~taken] = 0.0
            block[torch.arange(len(block)), torch.arange(rows.start, rows.stop)] = 0.0
            near = block.clamp(min=0.0).topk(min(num_neighbors, num_items), dim=1)
            self.neighbor[rows, : near.indices.size(1)] = near.indices.to(self.neighbor.device)
            total = near.values.sum(dim=1, keepdim=True).clamp(min=1e-12)
            self.attention[rows, : near.indices.size(1)] = (near.values / total).to(self.attention.device)
