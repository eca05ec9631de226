"""KGCN: an item as its sampled neighbourhood, seen with the user's eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.base import GradientRecommender
from graphrec.models.triples import KgSizes, both_ways, check_triples
from graphrec.sampling import untaken_items
from kg_loaders import RecGraph

if TYPE_CHECKING:
    from graphrec.layers import KGCNConv
    from graphrec.layers.ops import EdgeLayout

SCORED_AT_ONCE = 2**16  # (user, entity) pairs


class Hop(NamedTuple):
    """The entities that a layer computes, each with its neighbours, as rows of what the layer before computed.

    Args:
        nodes: int64 ``[num_nodes]``.
        neighbor: int64 ``[num_nodes, num_neighbors]``.
        neighbor_type: int64 ``[num_nodes, num_neighbors]``.
    """

    nodes: Tensor
    neighbor: Tensor
    neighbor_type: Tensor


class KGCN(GradientRecommender):
    r"""Gathers each item's neighbourhood by how much the user cares for the relations, and scores the product.

    .. math:: s(u, j) = p_u \cdot x_j^{u}

    where :math:`x_j^{u}` comes out of ``num_hops`` layers (:class:`~graphrec.layers.KGCNConv`) over a tree of
    ``num_neighbors`` neighbours an entity, drawn with replacement when the weights are drawn; each layer has relation
    vectors of its own, where the paper shares them. An item thus has another
    vector for each user, and ranking costs users times items times neighbours. Trained by binary cross-entropy on the
    pairs of a batch and as many pairs with an item that the user did not take. The model keeps a table of its users and
    refuses strangers.

    Args:
        num_users: Number of users.
        num_items: Number of items; they are the first entities.
        num_entities: Number of entities, items included.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one.
        dim: Width of all vectors.
        num_hops: Depth of the tree, at least 1.
        num_neighbors: Neighbours drawn an entity, at least 1.
        aggregator: How a layer joins an entity with its neighbourhood; see :class:`~graphrec.layers.KGCNConv`.
        l2: Penalty on the vectors of the user and the item of a pair.

    Raises:
        ArgumentError: A value outside its range, or no triples.

    Source:
        Wang et al., "Knowledge Graph Convolutional Networks for Recommender Systems" (WWW 2019), eq. 1-7 and
        algorithm 1.
    """

    inductive: bool = False
    needs_kg = True
    logits = True

    def __init__(
        self,
        num_users: int,
        num_items: int,
        num_entities: int,
        num_relations: int,
        triples: Tensor,
        dim: int = 64,
        num_hops: int = 1,
        num_neighbors: int = 4,
        aggregator: str = "sum",
        l2: float = 1e-7,
    ) -> None:
        super().__init__(num_items)
        for name, value in (("num_users", num_users), ("dim", dim)):
            check_range(name, value, low=1)
        check_range("num_hops", num_hops, low=1, high=4)
        check_range("num_neighbors", num_neighbors, low=1)
        check_range("l2", l2, low=0.0)
        check_triples("KGCN", triples, num_entities, num_relations)
        # It brings torch_geometric, which takes two seconds to import; other models never pay for it.
        from graphrec.layers import KGCNConv

        self.num_users = num_users
        self.num_hops = num_hops
        self.num_neighbors = num_neighbors
        self.l2 = l2
        self.num_types = 2 * num_relations + 1  # both ways, and "none" for an entity without triples
        self.user = nn.Parameter(torch.empty(num_users, dim))
        self.entity = nn.Parameter(torch.empty(num_entities, dim))
        self.convs = nn.ModuleList(KGCNConv(dim, dim, self.num_types, aggregator=aggregator) for _ in range(num_hops))
        self._edges = both_ways(triples, num_relations)
        self.neighbor: Tensor
        self.neighbor_type: Tensor
        for name in ("neighbor", "neighbor_type"):
            self.register_buffer(name, torch.empty(num_entities, num_neighbors, dtype=torch.int64))
        self.reset_parameters()

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's users, items and triples; options are the constructor's keyword arguments."""
        return cls(*KgSizes.of(graph), **options)

    def reset_parameters(self) -> None:
        """Draw all weights and the neighbourhoods anew."""
        for table in (self.user, self.entity):
            nn.init.xavier_uniform_(table)
        for conv in self.convs:
            cast("KGCNConv", conv).reset_parameters()
        self._draw_neighbors()

    def _draw_neighbors(self) -> None:
        (source, destination), edge_type = self._edges
        order = destination.argsort(stable=True)
        degree = torch.bincount(destination, minlength=len(self.entity)).unsqueeze(1)
        start = degree.cumsum(0) - degree
        drawn = (torch.rand(self.neighbor.shape) * degree).long().clamp(max=(degree - 1).clamp(min=0)) + start
        edge = order[drawn.clamp(max=len(order) - 1)]
        alone = degree == 0  # such an entity is its own neighbour, by the relation "none"
        itself = torch.arange(len(self.entity)).unsqueeze(1)
        self.neighbor.copy_(torch.where(alone, itself, source[edge]))
        self.neighbor_type.copy_(torch.where(alone, self.num_types - 1, edge_type[edge]))

    def item_vectors(self, users: Tensor, items: Tensor) -> Tensor:
        """Return :math:`x_j^u` of pairs, ``[num_pairs, dim]``.

        Args:
            users: Each pair's user vector, ``[num_pairs, dim]``.
            items: Each pair's item, int64 ``[num_pairs]``.
        """
        entities, types = [items], []
        for _ in range(self.num_hops):
            types.append(self.neighbor_type[entities[-1]].flatten())
            entities.append(self.neighbor[entities[-1]].flatten())
        levels = [self.entity.index_select(0, level) for level in entities]
        for number, conv in enumerate(self.convs, start=1):
            activate = torch.tanh if number == self.num_hops else F.relu
            # All levels but the last take in the one below; each pair's tree hangs on its own user.
            of_level = [users.repeat_interleave(self.num_neighbors**depth, 0) for depth in range(len(levels) - 1)]
            levels = [
                activate(conv((below, level), self._tree(len(level)), edge_type, user))
                for level, below, edge_type, user in zip(levels[:-1], levels[1:], types, of_level, strict=False)
            ]
        return levels[0]

    def _tree(self, num_parents: int) -> EdgeLayout:
        """Return the edges from children to parents: each parent's children stand side by side."""
        from graphrec.layers.ops import EdgeLayout

        children = torch.arange(num_parents * self.num_neighbors, device=self.entity.device)
        rowptr = torch.arange(num_parents + 1, device=self.entity.device) * self.num_neighbors
        return EdgeLayout.from_rowptr(rowptr, children, len(children))

    def score(self, histories: Histories) -> Tensor:
        """Score all items for each known user; see :meth:`Recommender.score`."""
        known = self.check_known(histories, self.num_users)
        hops: list[Hop] = self.cached("hops", self._hops)
        most = max(len(hop.nodes) for hop in hops)
        scores = [self.user.new_empty(0, self.num_items)]
        for users in torch.split(self.user[known], max(1, SCORED_AT_ONCE // most)):
            x: Tensor = self.entity
            for number, (conv, hop) in enumerate(zip(self.convs, hops, strict=True), start=1):
                activate = torch.tanh if number == self.num_hops else F.relu
                x = activate(cast("KGCNConv", conv).for_all_users(x, *hop, users))
            scores.append(torch.einsum("iuc,uc->ui", x, users))
        return torch.cat(scores)  # [batch_size, num_items]

    def _hops(self) -> list[Hop]:
        """Return what each layer computes for the last to have all items: an entity once, whichever trees have it."""
        hops: list[Hop] = []
        nodes = torch.arange(self.num_items, device=self.entity.device)
        for number in range(self.num_hops, 0, -1):
            neighbor, types = self.neighbor[nodes], self.neighbor_type[nodes]
            if number == 1:  # reads the table of all entities
                hops.append(Hop(nodes, neighbor, types))
                break
            below = torch.unique(torch.cat([nodes, neighbor.flatten()]))
            hops.append(Hop(torch.searchsorted(below, nodes), torch.searchsorted(below, neighbor), types))
            nodes = below
        return hops[::-1]

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of all pairs of the batch and their negatives."""
        known = self.check_known(histories, self.num_users)
        negative = untaken_items(histories.to("cpu"), self.num_items, generator).to(known.device)
        chosen = negative >= 0  # a user who took everything teaches nothing
        items = torch.cat([histories.items[chosen], negative[chosen]])
        if not len(items):
            return (self.user[:0].sum() + self.entity[:0].sum()) * 0.0
        users = self.user.index_select(0, known[histories.rows[chosen]].repeat(2))
        logits = (self.item_vectors(users, items) * users).sum(dim=1)
        taken = (torch.arange(len(items), device=known.device) < len(items) // 2).to(logits.dtype)
        squares = users.square().sum() + self.entity.index_select(0, items).square().sum()
        return F.binary_cross_entropy_with_logits(logits, taken) + self.l2 * squares / len(items)
