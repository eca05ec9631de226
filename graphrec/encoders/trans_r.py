"""TransR: triples as translations in the space of their relation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range


class TransR(nn.Module):
    r"""Scores triples by how far the translated head falls from the tail.

    .. math::
        d(h, r, t) = | M_r e_h + e_r - M_r e_t |^2, \qquad
        \mathcal{L} = \operatorname{mean} \left[ -\log \sigma \bigl( d(h, r, t') - d(h, r, t) \bigr) \right]

    with a false tail :math:`t'` drawn uniformly for each triple. The entity vectors belong to the caller.

    Args:
        num_relations: Number of relations.
        dim: Width of the entity vectors.
        relation_dim: Width of the relations' spaces; ``None``: ``dim``.

    Raises:
        ArgumentError: A value below 1.

    Example:
        >>> trans_r = TransR(num_relations=2, dim=4)
        >>> triples = torch.tensor([[0, 1, 2], [1, 0, 0], [2, 1, 1]])
        >>> trans_r.distance(torch.randn(3, 4), triples).shape
        torch.Size([3])

    Source:
        Lin et al., "Learning Entity and Relation Embeddings for Knowledge Graph Completion" (AAAI 2015), eq. 7-9;
        the pairwise loss after Wang et al., "KGAT" (KDD 2019), eq. 1-2.
    """

    def __init__(self, num_relations: int, dim: int, relation_dim: int | None = None) -> None:
        super().__init__()
        relation_dim = dim if relation_dim is None else relation_dim
        for name, value in (("num_relations", num_relations), ("dim", dim), ("relation_dim", relation_dim)):
            check_range(name, value, low=1)
        self.relation = nn.Parameter(torch.empty(num_relations, relation_dim))
        self.projection = nn.Parameter(torch.empty(num_relations, dim, relation_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.xavier_uniform_(self.relation)
        for matrix in self.projection:
            nn.init.xavier_uniform_(matrix)

    def distance(self, entity: Tensor, triples: Tensor) -> Tensor:
        """Return :math:`d` of each triple.

        Args:
            entity: Entity vectors, ``[num_entities, dim]``.
            triples: (head, relation, tail), int64 ``[num_triples, 3]``.
        """
        head, relation, tail = triples.unbind(dim=1)
        difference = entity.index_select(0, head) - entity.index_select(0, tail)
        # One product for each relation, on the triples that have it, instead of a matrix for each triple.
        order = relation.argsort(stable=True)
        counts = torch.bincount(relation, minlength=len(self.projection)).tolist()
        groups = torch.split(difference[order], counts)
        moved = torch.cat([group @ matrix for group, matrix in zip(groups, self.projection, strict=True)])
        offset = moved + self.relation.index_select(0, relation[order])
        return offset.square().sum(dim=1)[order.argsort()]

    def loss(self, entity: Tensor, triples: Tensor, generator: torch.Generator) -> Tensor:
        r"""Return :math:`\mathcal{L}`, a scalar; 0 where there are no triples.

        Args:
            entity: Entity vectors, ``[num_entities, dim]``.
            triples: True triples, int64 ``[num_triples, 3]``.
            generator: Draws the false tails, on the CPU.
        """
        if not len(triples):
            return entity.new_zeros(())
        false = triples.clone()
        false[:, 2] = torch.randint(len(entity), (len(triples),), generator=generator).to(triples.device)
        true_distance, false_distance = self.distance(entity, torch.cat([triples, false])).chunk(2)
        return F.softplus(true_distance - false_distance).mean()
