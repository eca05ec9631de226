"""LightGCN: vectors averaged over the interaction graph."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.pairwise import PairwiseRecommender


class LightGCN(PairwiseRecommender):
    r"""Propagates user and item vectors linearly over the interactions, and averages the layers.

    .. math::
        e_u^{(k+1)} = \sum_{i \in \mathcal{N}_u} \frac{e_i^{(k)}}{\sqrt{|\mathcal{N}_u| |\mathcal{N}_i|}}, \qquad
        p_u = \frac{1}{K + 1} \sum_{k=0}^K e_u^{(k)}, \qquad s(u, j) = p_u \cdot q_j

    and the same for items. Every step propagates over the whole graph, so batches should be large.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        dim: Width of the vectors.
        num_layers: K, at least 1.
        l2: Penalty on the vectors, before propagation, that a pair uses.

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> model = LightGCN(num_users=2, num_items=3, dim=8)
        >>> histories = Histories.from_lists([[0, 1], [2]], user_index=[0, 1])
        >>> model.prepare(histories)
        >>> model.score(histories).shape
        torch.Size([2, 3])

    Source:
        He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation" (SIGIR 2020),
        eq. 3-8 and 15.
    """

    def __init__(self, num_users: int, num_items: int, dim: int = 64, num_layers: int = 3, l2: float = 1e-4) -> None:
        super().__init__(num_users, num_items, num_items, dim, l2)
        check_range("num_layers", num_layers, low=1)
        # It brings torch_geometric, which takes two seconds to import; other models never pay for it.
        from graphrec.layers import LightGCNConv

        self.num_layers = num_layers
        self.conv = LightGCNConv(dim)
        self.edges: Tensor
        self.register_result("edges", 2, None, dtype=torch.int64)
        self.reset_parameters()

    def prepare(self, histories: Histories) -> None:
        """Take the interactions as edges; see :meth:`GradientRecommender.prepare`."""
        self.forget()
        pair = torch.stack([self.check_known(histories, self.num_users)[histories.rows], histories.items])
        pair[1] += self.num_users  # nodes: the users, then the items
        self.edges = torch.cat([pair, pair.flip(0)], dim=1)

    def prepared_names(self) -> frozenset[str]:
        """Return the name of the edges, which :meth:`prepare` makes."""
        return frozenset({"edges"})

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the averages over all layers; see :meth:`PairwiseRecommender.vectors`."""
        self.check_prepared(self.edges)
        layer = total = torch.cat([self.user, self.item])
        for _ in range(self.num_layers):
            layer = self.conv(layer, self.edges)
            total = total + layer
        users, items = torch.split(total / (self.num_layers + 1), [self.num_users, self.num_items])
        return users, items
