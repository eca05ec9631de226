"""CooccurrenceEncoder: what the items that the same users took say of each item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.sparse import cooccurrence_blocks, history_matrix

SHRINKAGE = 10.0
USER_POWER = 0.5
BLOCK_ROWS = 256  # items whose similarities to all others are held at once


class CooccurrenceEncoder(nn.Module):
    r"""Attention of each item to the items that the same users took, gated channel by channel.

    .. math::
        k_i = \gamma \odot \sum_{j \in \mathcal{N}_i} \alpha_{ij} \, x_j, \qquad
        \alpha_{ij} = \frac{c_{ij}}{\sum_{k \in \mathcal{N}_i} c_{ik}}, \qquad
        c_{ij} = \frac{\sum_{u : i, j \in \mathcal{H}_u} |\mathcal{H}_u|^{-1/2}}{\sqrt{n_i n_j} + 10}

    where :math:`n_i` users took item i and :math:`\mathcal{N}_i` are the ``num_neighbors`` items with the largest
    :math:`c_{ij}` above 0; of equal ones, those that more users took. The attention is read off the histories by
    :meth:`prepare`, before which there is none, and stays as it is in training: a rarely taken item starts where its
    neighbours are, instead of at random.

    Args:
        num_items: Number of items.
        num_neighbors: Neighbours an item, at least 1.
        dim: Width of the vectors.
        gate: Start value of the gates :math:`\gamma`.
        num_sides: How many outputs to make, each with gates of its own.

    Raises:
        ArgumentError: A value below 1.

    Example:
        >>> encoder = CooccurrenceEncoder(num_items=4, num_neighbors=1, dim=2, gate=1.0)
        >>> encoder.prepare(Histories.from_lists([[0, 1], [0, 1], [1, 2]]))
        >>> (near,) = encoder(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [5.0, 5.0]]))
        >>> near.tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]

    Source:
        The similarity of item-based neighbourhoods (Deshpande and Karypis, TOIS 2004) with the shrinkage of Bell and
        Koren (ICDM 2007), as edges of one linear propagation (He et al., "LightGCN", SIGIR 2020).
    """

    neighbor: Tensor
    attention: Tensor

    def __init__(self, num_items: int, num_neighbors: int, dim: int, gate: float = 0.5, num_sides: int = 1) -> None:
        super().__init__()
        for name, value in (("num_items", num_items), ("num_neighbors", num_neighbors), ("dim", dim)):
            check_range(name, value, low=1)
        check_range("num_sides", num_sides, low=1)
        self.gate = gate
        self.gates = nn.Parameter(torch.empty(num_sides, dim))
        self.register_buffer("neighbor", torch.zeros(num_items, num_neighbors, dtype=torch.int64))
        self.register_buffer("attention", torch.zeros(num_items, num_neighbors))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the gates to their start value."""
        nn.init.constant_(self.gates, self.gate)

    def prepare(self, histories: Histories) -> None:
        """Read the neighbours and the attention off the training histories."""
        num_items, num_neighbors = self.neighbor.shape
        neighbor = np.zeros((num_items, num_neighbors), dtype=np.int64)
        attention = np.zeros((num_items, num_neighbors), dtype=np.float32)
        counts = np.asarray(history_matrix(histories, num_items).sum(axis=0, dtype=np.float64)).ravel()
        for rows, block in cooccurrence_blocks(histories, num_items, BLOCK_ROWS, USER_POWER):
            row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            item, other = row + rows.start, block.indices.astype(np.int64)
            similarity = block.data / (np.sqrt(counts[item] * counts[other]) + SHRINKAGE)
            similarity[item == other] = 0.0
            # Sorting is dear, so only what reaches the last place is sorted, those of equal similarity too.
            dense = torch.zeros(block.shape)
            dense[torch.from_numpy(row), torch.from_numpy(other)] = torch.from_numpy(similarity).float()
            last = dense.topk(min(num_neighbors, num_items), dim=1).values[:, -1].numpy()
            near = (similarity.astype(np.float32) >= last[row]) & (similarity > 0)
            item, other, similarity = item[near], other[near], similarity[near]
            order = np.lexsort((-counts[other], -similarity, item))
            item, other, similarity = item[order], other[order], similarity[order]
            rank = np.arange(len(item)) - np.searchsorted(item, item)
            near = rank < num_neighbors
            neighbor[item[near], rank[near]] = other[near]
            attention[item[near], rank[near]] = similarity[near]
        attention /= np.maximum(attention.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        self.neighbor.copy_(torch.from_numpy(neighbor))
        self.attention.copy_(torch.from_numpy(attention))

    def forward(self, *tables: Tensor, rows: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """Return :math:`k_i` once for each side.

        Args:
            tables: The vectors that are attended to, one ``[num_items, dim]`` for each side.
            rows: Which items to make, int64, for each side; ``None`` means all. A step of training needs few.

        Returns:
            ``[num_items or len(rows), dim]`` for each side; rows of items without neighbours are zero.
        """
        return [
            gate
            * F.embedding_bag(
                self.neighbor if at is None else self.neighbor.index_select(0, at),
                table,
                per_sample_weights=self.attention if at is None else self.attention.index_select(0, at),
                mode="sum",
            )
            for table, gate, at in zip(tables, self.gates.unbind(), rows or [None] * len(tables), strict=True)
        ]
