"""KGAT: attention over users, items and entities in one graph."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.pairwise import PairwiseRecommender
from graphrec.models.triples import both_ways, check_triples


class KGAT(PairwiseRecommender):
    r"""Propagates over the collaborative knowledge graph with attention, and trains it by TransR beside BPR.

    Users, items and entities are nodes; the interactions are one more relation. Each layer attends to the neighbours
    (:class:`~graphrec.layers.KGATConv`), and all layers' outputs, brought to unit length, are put side by side:

    .. math::
        s(u, j) = \bigl( e_u^{(0)} \| \dots \| e_u^{(L)} \bigr) \cdot \bigl( e_j^{(0)} \| \dots \| e_j^{(L)} \bigr),
        \qquad \mathcal{L} = \mathcal{L}_\text{BPR} + \mathcal{L}_\text{TransR}

    The attention is part of every step and receives a gradient, each layer has relation spaces of its own, and the two
    losses are trained together. (The authors' code computes one attention for all layers from TransR's spaces, once an
    epoch and without a gradient, and trains the losses in turn.) Every step propagates over the whole graph, so batches
    should be large.

    Args:
        num_users: Number of users.
        num_items: Number of items; they are the first entities.
        num_entities: Number of entities, items included.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one.
        dim: Width of the nodes' vectors, and of the relations' spaces.
        layer_dims: Width of each layer's output.
        aggregator: How a layer joins a node with its neighbourhood; see :class:`~graphrec.layers.KGATConv`.
        dropout: Share of each layer's output that is dropped in training.
        triples_per_step: Triples that a step draws, out of the interactions too.
        kg_weight: Weight of TransR's loss.
        l2: Penalty on the vectors, before propagation, that a pair uses.

    Raises:
        ArgumentError: A value outside its range, or no triples.

    Source:
        Wang et al., "KGAT: Knowledge Graph Attention Network for Recommendation" (KDD 2019), eq. 1-13; widths and
        dropout of its published runs.
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
        layer_dims: tuple[int, ...] = (64, 32, 16),
        aggregator: str = "bi-interaction",
        dropout: float = 0.1,
        triples_per_step: int = 2048,
        kg_weight: float = 1.0,
        l2: float = 1e-5,
    ) -> None:
        super().__init__(num_users, num_items, num_entities, dim, l2)
        check_range("triples_per_step", triples_per_step, low=1)
        check_range("kg_weight", kg_weight, low=0.0)
        check_range("dropout", dropout, low=0.0, high=1.0)
        check_triples("KGAT", triples, num_entities, num_relations)
        # They bring torch_geometric, which takes two seconds to import; other models never pay for it.
        from graphrec.encoders import TransR
        from graphrec.layers import KGATConv

        self.dropout = dropout
        self.triples_per_step = triples_per_step
        self.kg_weight = kg_weight
        self.num_relations = num_relations
        types = 2 * num_relations + 2  # of the KG and of the interactions, both ways
        widths = [dim, *layer_dims]
        self.convs = nn.ModuleList(KGATConv(width, out, types, dim, aggregator) for width, out in pairwise(widths))
        self.trans_r = TransR(types, dim, dim)
        self.triples: Tensor
        self.register_buffer("triples", triples, persistent=False)
        self.edges: Tensor
        self.edge_type: Tensor
        self.register_result("edges", 2, None, dtype=torch.int64)
        self.register_result("edge_type", None, dtype=torch.int64)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        for module in (*self.convs, self.trans_r):
            module.reset_parameters()

    def prepare(self, histories: Histories) -> None:
        """Join the interactions to the triples; see :meth:`GradientRecommender.prepare`."""
        self.forget()
        user = self.check_known(histories, self.num_users)[histories.rows]
        taken = torch.full_like(user, self.num_relations)
        # Nodes: entities, items first, then users; "was taken by" is the relation after those of the triples.
        joined = torch.stack([histories.items, taken, user + len(self.item)], dim=1)
        self.edges, self.edge_type = both_ways(torch.cat([self.triples, joined]), self.num_relations + 1)

    def prepared_names(self) -> frozenset[str]:
        """Return the names of the edges, which :meth:`prepare` makes."""
        return frozenset({"edges", "edge_type"})

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return all layers' vectors side by side; see :meth:`PairwiseRecommender.vectors`."""
        self.check_prepared(self.edges)
        x = torch.cat([self.item, self.user])
        layers = [x]
        for conv in self.convs:
            x = F.dropout(conv(x, self.edges, self.edge_type), self.dropout, self.training)
            layers.append(F.normalize(x, dim=1))
        joined = torch.cat(layers, dim=1)
        return joined[len(self.item) :], joined[: self.num_items]

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the loss of the pairs and of triples drawn for this step."""
        pairs = super().loss(histories, generator)
        if not histories.items.numel():
            return pairs
        drawn = torch.randint(self.edges.size(1), (self.triples_per_step,), generator=generator).to(self.edges.device)
        tail, head = self.edges[:, drawn]
        triples = torch.stack([head, self.edge_type[drawn], tail], dim=1)
        nodes = torch.cat([self.item, self.user])
        return pairs + self.kg_weight * self.trans_r.loss(nodes, triples, generator)
