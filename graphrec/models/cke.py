"""CKE: matrix factorisation whose items are also entities of a translated knowledge graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.pairwise import PairwiseRecommender
from graphrec.models.triples import check_triples


class CKE(PairwiseRecommender):
    r"""Adds to each item's vector its vector as an entity, which the knowledge graph trains.

    .. math::
        s(u, j) = p_u \cdot (q_j + e_j), \qquad
        \mathcal{L} = \mathcal{L}_\text{BPR} + \mathcal{L}_\text{TransR}

    The structural part of the paper; its textual and visual parts need text and images. Each step draws triples of
    its own.

    Args:
        num_users: Number of users.
        num_items: Number of items; they are the first entities.
        num_entities: Number of entities, items included.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one.
        dim: Width of the users', items' and entities' vectors.
        relation_dim: Width of the relations' spaces.
        triples_per_step: Triples that a step draws.
        kg_weight: Weight of the knowledge graph's loss.
        l2: Penalty on the vectors that a pair uses.

    Raises:
        ArgumentError: A value outside its range, or no triples.

    Source:
        Zhang et al., "Collaborative Knowledge Base Embedding for Recommender Systems" (KDD 2016), eq. 1-5 and 14.
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
        relation_dim: int = 64,
        triples_per_step: int = 2048,
        kg_weight: float = 1.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__(num_users, num_items, num_items, dim, l2)
        check_range("triples_per_step", triples_per_step, low=1)
        check_range("kg_weight", kg_weight, low=0.0)
        check_triples("CKE", triples, num_entities, num_relations)
        # It brings torch_geometric, which takes two seconds to import; other models never pay for it.
        from graphrec.encoders import TransR

        self.triples_per_step = triples_per_step
        self.kg_weight = kg_weight
        self.entity = nn.Parameter(torch.empty(num_entities, dim))
        self.trans_r = TransR(num_relations, dim, relation_dim)
        self.triples: Tensor
        self.register_buffer("triples", triples, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        nn.init.xavier_uniform_(self.entity)
        self.trans_r.reset_parameters()

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the users, and the items as :math:`q_j + e_j`; see :meth:`PairwiseRecommender.vectors`."""
        return self.user, self.item + self.entity[: self.num_items]

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the loss of the pairs and of triples drawn for this step."""
        pairs = super().loss(histories, generator)
        if not histories.items.numel():
            return pairs
        drawn = torch.randint(len(self.triples), (self.triples_per_step,), generator=generator)
        triples = self.triples[drawn.to(self.triples.device)]
        return pairs + self.kg_weight * self.trans_r.loss(self.entity, triples, generator)
