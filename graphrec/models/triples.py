"""What the comparators that cannot do without a knowledge graph ask of one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.errors import ArgumentError
from kg_loaders import RecGraph


class KgSizes(NamedTuple):
    """A graph's sizes and triples, in the order in which the models take them."""

    num_users: int
    num_items: int
    num_entities: int
    num_relations: int
    triples: Tensor

    @classmethod
    def of(cls, graph: RecGraph) -> KgSizes:
        """Read them off a graph."""
        triples = torch.from_numpy(graph.triples)
        return cls(graph.num_users, graph.num_items, graph.num_entities, graph.num_relations, triples)


def check_triples(model: str, triples: Tensor, num_entities: int, num_relations: int) -> None:
    """Make sure that there are triples, and that they fit the numbers of entities and relations.

    Raises:
        ArgumentError: They do not.
    """
    if triples.dtype != torch.int64 or triples.dim() != 2 or triples.size(1) != 3:
        raise ArgumentError(f"triples must be int64 [num_triples, 3], got {triples.dtype} {list(triples.shape)}")
    if not len(triples):
        raise ArgumentError(f"{model} needs a knowledge graph, and triples is empty; without one, use BPRMF")
    for column, name, size in (
        (0, "entity", num_entities),
        (1, "relation", num_relations),
        (2, "entity", num_entities),
    ):
        low, high = int(triples[:, column].min()), int(triples[:, column].max())
        if low < 0 or high >= size:
            raise ArgumentError(f"triples must name each {name} within 0..{size - 1}, got {low}..{high}")


def both_ways(triples: Tensor, num_relations: int) -> tuple[Tensor, Tensor]:
    """Return triples as edges in both directions.

    Returns:
        ``edge_index`` int64 ``[2, 2 * num_triples]`` and ``edge_type`` ``[2 * num_triples]``: tails to heads with the
        triple's relation, then heads to tails with ``relation + num_relations``.
    """
    head, relation, tail = triples.unbind(dim=1)
    edge_index = torch.stack([torch.cat([tail, head]), torch.cat([head, tail])])
    return edge_index, torch.cat([relation, relation + num_relations])
