"""KnowledgeGraphEncoder: what the knowledge graph says of each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers import RelationAttentionConv
from graphrec.layers.ops import EdgeLayout


@dataclass(frozen=True, eq=False)
class ItemEdges:
    """The KG's edges into items with the attention they receive, for explanations.

    Args:
        entity: Entity at the far end, ``[num_edges]``.
        relation: Edge type; ``r + num_relations`` is the inverse of ``r``, ``[num_edges]``.
        item: Item at the near end, ``[num_edges]``.
        alpha: Attention, averaged over the heads, ``[num_edges]``; sums to one per item that has edges.
    """

    entity: Tensor
    relation: Tensor
    item: Tensor
    alpha: Tensor


@dataclass(frozen=True, eq=False)
class AttendedEdges:
    """What single items attend to, with all that is needed to attend anew without some of it.

    Args:
        entity: Entity at the far end, ``[num_edges]``.
        relation: Edge type, as in :class:`ItemEdges`, ``[num_edges]``.
        row: Which of the items asked for is at the near end, ``[num_edges]``, ascending.
        alpha: Attention of each head, ``[num_edges, heads]``; sums to one per item that has edges.
        message: Gated vector that the edge carries, ``[num_edges, dim]``: an item receives the sum of
            ``alpha.mean(dim=1) * message``.
    """

    entity: Tensor
    relation: Tensor
    row: Tensor
    alpha: Tensor
    message: Tensor


class KnowledgeGraphEncoder(nn.Module):
    r"""Attention from entities to items over typed edges, gated channel by channel.

    .. math:: k_i = \gamma \odot \textstyle\sum_{(r, t) \in \mathcal{N}_i} \alpha_{irt} \, x_t

    Triples are followed both ways: ``(h, r, t)`` is an edge ``h → t`` of type ``r`` and an edge ``t → h`` of type
    ``r + num_relations``. Every entity has one vector a side, so the message needs no transform; with
    more hops, entities attend to each other first, transformed. An item that is itself a source (the sequel of a film)
    has entity vectors of its own, apart from any item vector.

    Args:
        num_items: Number of items, the destinations; they are the first entities.
        num_relations: Number of relations, inverses not counted.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one.
        dim: Width of all vectors.
        heads: Attention heads over the edges into items, averaged.
        hops: How many edges away from an item the KG is read, 1 to 3.
        min_entity_items: With one hop, entities linked to fewer distinct items are left out: they connect nothing.
        gate: Start value of the gates :math:`\gamma`.
        num_sides: How many outputs to make, each with entity vectors and attention of its own.

    Raises:
        ArgumentError: A value outside its range, or triples that do not fit ``num_relations``.

    Example:
        >>> triples = torch.tensor([[0, 0, 4], [1, 0, 4], [2, 1, 5]])  # items 0..3, entities 4 and 5
        >>> encoder = KnowledgeGraphEncoder(num_items=4, num_relations=2, triples=triples, dim=8)
        >>> (vectors,) = encoder(torch.randn(4, 8))
        >>> vectors.shape, vectors[3].abs().sum().item()  # item 3 has no triple
        (torch.Size([4, 8]), 0.0)

    Source:
        Wang et al., "KGAT" (KDD 2019), eq. 3-6, with additive scores and gates.
    """

    def __init__(
        self,
        num_items: int,
        num_relations: int,
        triples: Tensor,
        dim: int,
        heads: int = 1,
        hops: int = 1,
        min_entity_items: int = 2,
        gate: float = 0.5,
        num_sides: int = 1,
    ) -> None:
        super().__init__()
        check_range("hops", hops, low=1, high=3)
        check_range("min_entity_items", min_entity_items, low=1)
        if triples.dim() != 2 or triples.size(1) != 3 or not len(triples):
            raise ArgumentError(f"triples must have shape [num_triples, 3], got {list(triples.shape)}")
        if int(triples[:, 1].max()) >= num_relations:
            raise ArgumentError(f"triples name relation {int(triples[:, 1].max())}, num_relations is {num_relations}")
        self.num_items = num_items
        self.gate = gate

        head, relation, tail = triples.unbind(dim=1)
        source, destination = torch.cat([head, tail]), torch.cat([tail, head])
        edge_type = torch.cat([relation, relation + num_relations])
        near_item = destination < num_items
        if hops == 1:
            near_item &= _num_linked_items(source, destination, num_items)[source] >= min_entity_items
        entities = torch.unique(source[near_item] if hops == 1 else source)
        local = torch.full((int(source.max()) + 1,), -1)
        local[entities] = torch.arange(entities.numel())
        # Rebuilt from the triples by every constructor, so no part of the saved weights.
        self.entities: Tensor
        self.item_edges: Tensor
        self.item_edge_type: Tensor
        self.entity_edges: Tensor
        self.entity_edge_type: Tensor
        self.register_buffer("entities", entities, persistent=False)
        edges = torch.stack([local[source], destination])
        self.register_buffer("item_edges", edges[:, near_item], persistent=False)
        self.register_buffer("item_edge_type", edge_type[near_item], persistent=False)
        if hops > 1:
            self.register_buffer("entity_edges", local[torch.stack([source, destination])], persistent=False)
            self.register_buffer("entity_edge_type", edge_type, persistent=False)
        self._layouts: dict[tuple[str, torch.device], EdgeLayout] = {}

        self.entity = nn.Parameter(torch.empty(num_sides, entities.numel(), dim))
        self.gates = nn.Parameter(torch.empty(num_sides, dim))
        types = 2 * num_relations
        self.sides = nn.ModuleList(
            RelationAttentionConv(dim, dim, types, heads, concat=False, relation_message=False, transform=False)
            for _ in range(num_sides)
        )
        self.hops = nn.ModuleList(RelationAttentionConv(dim, dim, types) for _ in range(hops - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; entity vectors start with a length of about 1."""
        nn.init.normal_(self.entity, std=self.entity.size(-1) ** -0.5)
        nn.init.constant_(self.gates, self.gate)
        for conv in (*self.sides, *self.hops):
            conv.reset_parameters()

    def forward(self, *items: Tensor, rows: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """Return :math:`k_i` once for each side.

        Args:
            items: The item vectors that attend, one ``[num_items, dim]`` for each side.
            rows: Which items these are, int64, for each side; ``None`` means all. A step of training needs few.

        Returns:
            As many tensors of the same shapes; rows of items without edges are zero.
        """
        # Unbound once: the gradient of an index would fill a whole table for each side.
        sides = zip(self.entity.unbind(), self.gates.unbind(), items, self.sides, strict=True)
        return [
            gate * conv((self._hop(entity), item), *self._edges_into(at))
            for (entity, gate, item, conv), at in zip(sides, rows or [None] * len(items), strict=True)
        ]

    def _hop(self, x: Tensor) -> Tensor:
        """Take a side's entity vectors through all hops but the last, ``[num_sources, dim]``."""
        for conv in self.hops:
            x = x + conv(x, self._layout("entity", x.size(0), x.size(0)), self.entity_edge_type)
        return x

    def attention(self, item: Tensor, side: int = 0) -> ItemEdges:
        """Return the last hop's edges with the attention that ``item`` vectors pay on ``side``."""
        x = (self._hop(self.entity[side]), item)
        _, alpha = self.sides[side](x, *self._edges_into(None), return_attention_weights=True)
        source, destination = self.item_edges
        return ItemEdges(self.entities[source], self.item_edge_type, destination, alpha.mean(dim=1))

    def attended(self, item: Tensor, rows: Tensor, side: int = 0) -> AttendedEdges:
        """Return the last hop's edges into some items, with the attention these pay and the vectors they receive.

        Args:
            item: The vectors that attend, ``[len(rows), dim]``.
            rows: Which items these are, int64; may repeat.
            side: Which output.
        """
        layout, types = self._edges_into(rows)
        x = self._hop(self.entity[side]).index_select(0, layout.src.long())  # [num_edges, dim]
        own = EdgeLayout.from_rowptr(layout.rowptr, torch.arange(len(x), device=x.device), len(x))
        _, alpha = self.sides[side]((x, item), own, types, return_attention_weights=True)
        return AttendedEdges(self.entities[layout.src.long()], types, own.destination, alpha, self.gates[side] * x)

    def _edges_into(self, items: Tensor | None) -> tuple[EdgeLayout, Tensor]:
        """Return the edges into some items, or into all, and their types."""
        layout = self._layout("item", self.entities.numel(), self.num_items)
        if items is None:
            return layout, self.item_edge_type
        start = layout.rowptr[items].long()
        lengths = layout.rowptr[items + 1].long() - start
        rowptr = F.pad(lengths.cumsum(0), (1, 0))
        position = torch.repeat_interleave(start - rowptr[:-1], lengths)
        position += torch.arange(position.numel(), device=position.device)
        return (
            EdgeLayout.from_rowptr(rowptr, layout.src[position], layout.num_src),
            self.item_edge_type[layout.order[position]],
        )

    def _layout(self, kind: str, num_src: int, num_dst: int) -> EdgeLayout:
        # Sorted once a device; the triples never change.
        key = (kind, self.entity.device)
        if key not in self._layouts:
            edge_index = self.item_edges if kind == "item" else self.entity_edges
            self._layouts[key] = EdgeLayout.from_edge_index(edge_index, num_src, num_dst)
        return self._layouts[key]


def _num_linked_items(source: Tensor, destination: Tensor, num_items: int) -> Tensor:
    """Count the distinct items that each entity is linked to."""
    into_items = destination < num_items
    pairs = torch.unique(torch.stack([source[into_items], destination[into_items]]), dim=1)
    return torch.bincount(pairs[0], minlength=int(source.max()) + 1)
