"""Entities as users: what a KG says of items, as rows of the history matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from kg_loaders import RecGraph

FEWEST_ITEMS = 3  # an entity of fewer tells hardly anything, and each is a row


def entity_rows(triples: Tensor, num_items: int) -> Histories:
    """Return a history for each entity and relation that are linked to three items or more: these items.

    Relations are told apart, not which end of a triple the item is.

    Args:
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail); the first ``num_items`` entities are the items.
        num_items: Number of items.

    Example:
        >>> rows = entity_rows(torch.tensor([[0, 0, 5], [1, 0, 5], [5, 0, 3], [2, 0, 6]]), num_items=4)
        >>> len(rows), rows.items.tolist()
        (1, [0, 1, 3])
    """
    head, relation, tail = triples.unbind(dim=1)
    both = torch.cat([torch.stack([relation, tail, head], dim=1), torch.stack([relation, head, tail], dim=1)])
    both = torch.unique(both[both[:, 2] < num_items], dim=0)  # by relation, entity and item
    _, lengths = torch.unique_consecutive(both[:, :2], dim=0, return_counts=True)
    kept = lengths >= FEWEST_ITEMS
    items = both[kept.repeat_interleave(lengths), 2]
    return Histories(items, torch.nn.functional.pad(lengths[kept].cumsum(0), (1, 0)))


def triples_of(graph: RecGraph, relations: Sequence[str]) -> Tensor:
    """Return a graph's triples of some relations, of all where none are named, int64 ``[num_triples, 3]``.

    A graph without triples has none, whatever is named: so a model is compared with itself without a KG.

    Raises:
        ArgumentError: The graph has triples, and no such relation.
    """
    triples = torch.from_numpy(graph.triples)
    if not relations or not len(triples):
        return triples
    for name in relations:
        if name not in graph.relations:
            known = ", ".join(map(repr, graph.relations.ids))
            raise ArgumentError(f"kg_relations must be among those of {graph.name} ({known}), got {name!r}")
    wanted = torch.tensor([graph.relations.index_of(name) for name in relations])
    return triples[torch.isin(triples[:, 1], wanted)]
