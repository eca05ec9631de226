"""KGIN: users through intents, items through relational paths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.pairwise import PairwiseRecommender
from graphrec.models.triples import both_ways, check_triples


class KGIN(PairwiseRecommender):
    r"""Propagates along relational paths, sums the hops, and keeps the users' intents apart.

    .. math::
        s(u, j) = \Bigl( \sum_{l=0}^L e_u^{(l)} \Bigr) \cdot \Bigl( \sum_{l=0}^L e_j^{(l)} \Bigr), \qquad
        \mathcal{L} = \mathcal{L}_\text{BPR} + \lambda_1 \sum_{p < q} \operatorname{dCor}(e_p, e_q)

    A hop is :class:`~graphrec.layers.KGINConv`; its output is dropped out and brought to unit length, as in the
    authors' code, which also leaves out a random part of the edges in each step. Every step propagates over the whole
    graph, so batches should be large.

    Args:
        num_users: Number of users.
        num_items: Number of items; they are the first entities.
        num_entities: Number of entities, items included.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one.
        dim: Width of all vectors.
        num_intents: Number of intents.
        num_hops: L, at least 1.
        independence: :math:`\lambda_1`, weight of the distance correlation of the intents.
        edge_dropout: Share of the triples' and of the interactions' edges left out in a step of training.
        dropout: Share of each hop's output that is dropped in training.
        l2: Penalty on the vectors, before propagation, that a pair uses.
        residual: Whether users also take in the plain mean of their items, as in the authors' code; see
            :class:`~graphrec.layers.KGINConv`.

    Raises:
        ArgumentError: A value outside its range, or no triples.

    Source:
        Wang et al., "Learning Intents behind Interactions with Knowledge Graph for Recommendation" (KGIN, WWW 2021),
        eq. 1-15; defaults of its published runs. Distance correlation: Székely et al. (Annals of Statistics 2007).
    """

    needs_kg = True

    def __init__(
        self,
        num_users: int,
        num_items: int,
        num_entities: int,
        num_relations: int,
        triples: Tensor,
        dim: int = 64,
        num_intents: int = 4,
        num_hops: int = 3,
        independence: float = 1e-4,
        edge_dropout: float = 0.5,
        dropout: float = 0.1,
        l2: float = 1e-5,
        residual: bool = False,
    ) -> None:
        super().__init__(num_users, num_items, num_entities, dim, l2)
        check_range("num_hops", num_hops, low=1)
        check_range("independence", independence, low=0.0)
        check_range("edge_dropout", edge_dropout, low=0.0, high=0.99)
        check_range("dropout", dropout, low=0.0, high=1.0)
        check_triples("KGIN", triples, num_entities, num_relations)
        # It brings torch_geometric, which takes two seconds to import; other models never pay for it.
        from graphrec.layers import KGINConv

        self.num_hops = num_hops
        self.independence = independence
        self.edge_dropout = edge_dropout
        self.dropout = dropout
        # One for all hops: they share the relations.
        self.conv = KGINConv(dim, 2 * num_relations, num_intents, residual)
        edge_index, edge_type = both_ways(triples, num_relations)
        by_destination = edge_index[1].argsort(stable=True)  # so what a step keeps of them needs no sort
        edge_index, edge_type = edge_index[:, by_destination], edge_type[by_destination]
        self.edge_index: Tensor
        self.edge_type: Tensor
        self.interactions: Tensor
        self.register_buffer("edge_index", edge_index, persistent=False)
        self.register_buffer("edge_type", edge_type, persistent=False)
        self.register_result("interactions", 2, None, dtype=torch.int64)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        self.conv.reset_parameters()

    def prepare(self, histories: Histories) -> None:
        """Take the interactions as edges; see :meth:`GradientRecommender.prepare`."""
        self.forget()
        user = self.check_known(histories, self.num_users)[histories.rows]
        self.interactions = torch.stack([histories.items, user])

    def prepared_names(self) -> frozenset[str]:
        """Return the name of the interactions, which :meth:`prepare` makes."""
        return frozenset({"interactions"})

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the sums over all hops; see :meth:`PairwiseRecommender.vectors`."""
        self.check_prepared(self.interactions)
        edge_index, edge_type, interactions = self.edge_index, self.edge_type, self.interactions
        if self.training and self.edge_dropout:
            kept = self._kept(edge_index)
            edge_index, edge_type = edge_index[:, kept], edge_type[kept]
            interactions = interactions[:, self._kept(interactions)]
        entities: Tensor = self.item
        users: Tensor = self.user
        all_entities, all_users = entities, users
        for _ in range(self.num_hops):
            hop = self.conv((entities, users), edge_index, edge_type, interactions)
            entities, users = (F.normalize(F.dropout(x, self.dropout, self.training), dim=1) for x in hop)
            all_entities, all_users = all_entities + entities, all_users + users
        return all_users, all_entities[: self.num_items]

    def _kept(self, edges: Tensor) -> Tensor:
        return torch.rand(edges.size(1), device=edges.device) >= self.edge_dropout

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the loss of the pairs, with the penalty on intents that are alike."""
        pairs = super().loss(histories, generator)
        if not histories.items.numel():
            return pairs
        intents = self.conv.intent.softmax(dim=1) @ self.conv.relation
        return pairs + self.independence * _distance_correlations(intents)


def _distance_correlations(vectors: Tensor) -> Tensor:
    """Return the sum of the distance correlations of all pairs of rows, each row a sample of numbers."""
    distance = (vectors.unsqueeze(2) - vectors.unsqueeze(1)).abs()  # [rows, channels, channels]
    centred = distance - distance.mean(1, keepdim=True) - distance.mean(2, keepdim=True)
    centred = centred + distance.mean((1, 2), keepdim=True)
    covariance = torch.einsum("pij,qij->pq", centred, centred) / centred.size(1) ** 2
    # The square root has no slope at 0, where a row does not vary.
    covariance = covariance.clamp(min=1e-8).sqrt()
    scale = covariance.diagonal().sqrt()
    correlation = covariance / (scale.unsqueeze(1) * scale)
    return correlation.triu(diagonal=1).sum()
