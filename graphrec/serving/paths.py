"""Paths through the knowledge graph, from what a user took to what is recommended."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from graphrec.histories import Histories
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.attribution import AttendedScore
from graphrec.serving.naming import entity_name, relation_name
from kg_loaders import RecGraph

if TYPE_CHECKING:
    from graphrec.encoders import ItemEdges

NUM_NEIGHBOURS = 2  # films that stand in for an entity without a name


@dataclass(frozen=True)
class Path:
    """A path from a past item over one entity, or straight, to the recommended item.

    Args:
        past_title: Title of the past item.
        more_past: How many more past items lead over the same entity.
        past_relation: What the entity is to the past item, in words; empty where its id is no words.
        entity_id: The entity's id.
        entity: Its name; empty where it has none.
        known_from: Other items linked to an entity without a name.
        relation: What the entity is to the recommended item, likewise.
        attention: Product of the attentions along the path.
        specificity: How much the entity tells, 0 (it is linked to every item) to 1 (to one item).
        direct: Whether the KG links the past item itself to the recommended one; it is then the entity.
        effect: How far the score falls without the edges between the entity and these past items and between it and
            the recommended item; ``None`` where it was not asked for.
    """

    past_title: str
    more_past: int
    past_relation: str
    entity_id: str
    entity: str
    known_from: tuple[str, ...]
    relation: str
    attention: float
    specificity: float
    direct: bool = False
    effect: float | None = None

    def __str__(self) -> str:
        past = self.past_title + (f" and {self.more_past} more you took" if self.more_past else "")
        if self.direct:
            return f"{past} is its {self.relation}" if self.relation else f"is linked to {past}"
        known = f" (also {', '.join(self.known_from)})" if self.known_from else ""
        if not (self.relation and self.past_relation):
            return f"shares {self.entity or 'an entity'} with {past}{known}"
        if self.relation == self.past_relation:
            return f"same {self.relation} as {past}" + (f": {self.entity}" if self.entity else known)
        entity = f", {self.entity}," if self.entity else ""
        article = "an" if self.past_relation[0] in "aeiou" else "a"  # a film has several actors and awards
        return f"its {self.relation}{entity} is also {article} {self.past_relation} of {past}{known}"


class _Way(NamedTuple):
    """One of the paths over an entity; ``entity`` is the past item where that is linked straight to the other."""

    past: int
    entity: int
    to_past: int | None  # edge types; None where there is no such edge
    to_item: int
    attention: float


def paths_to(
    model: InductiveKGAT,
    graph: RecGraph,
    histories: Histories,
    item: int,
    k: int,
    score: AttendedScore | None = None,
) -> list[Path]:
    r"""Return the ``k`` paths past item - entity - ``item`` that tell a person most.

    A path's attention is the model's, :math:`A_{up} \, \alpha_{pe} \, \alpha_{je}`: the product of the user's to the
    past item and of both items' to the entity. A path is also an edge from a past item straight to ``item``, with
    :math:`A_{up} \, \alpha_{jp}`. The order is ours, for by attention alone comes first what all items share:

    - Of the paths over one entity the one with equal relations ("same director"), then the most attended, stands for
      all; of paths that read alike, the first.
    - Paths that words can tell (of both relations, or of the entity) come before the others.
    - Then by attention times specificity, :math:`\log(n / n_e) / \log n` for an entity linked to :math:`n_e` of
      :math:`n` items.

    Args:
        model: In evaluation mode.
        graph: The graph it was made of.
        histories: One row.
        item: Index of the item.
        k: How many.
        score: That of the item and the history: order by how far it falls without all of the paths over an entity,
            found exactly, instead of by attention and specificity; leave out paths without which it does not fall.
    """
    with torch.no_grad():
        sides = model.cached("kg attention", model.kg_attention)
        attention = model.history_attention(histories)
    if sides is None or not histories.items.numel():
        return []
    past_side, candidate_side = model.cached("indexed kg attention", lambda: _index(sides, graph.num_items))
    linked: _Linked = model.cached("linked items", lambda: _Linked(sides[0], graph))
    weight_past = torch.zeros(graph.num_items).index_add(0, histories.items, attention)
    word = cache(partial(relation_name, graph))
    groups: dict[tuple[int, bool], list[_Way]] = defaultdict(list)  # by entity, and whether straight
    for way in _ways(past_side, candidate_side, weight_past, histories, item):
        groups[way.entity, way.to_past is None].append(way)

    def worse(way: _Way) -> tuple[bool, float, int]:
        return way.to_past is None or word(way.to_past) != word(way.to_item), -way.attention, way.past

    told = [_told(ways, worse) for ways in groups.values()]  # the strongest of each group first
    effects = None if score is None else _effects(score, told, histories)
    paths, strengths = [], []
    for number, ways in enumerate(told):
        way, others = ways[0], linked.of(ways[0].entity)
        effect = None if effects is None else effects[number]
        if effect is not None and effect <= 0:
            continue
        direct = way.to_past is None
        name = graph.item_labels[way.past] if direct else entity_name(graph, way.entity)
        specificity = 1 - math.log(max(len(others), 1)) / math.log(max(graph.num_items, 2))
        path = Path(
            past_title=graph.item_labels[way.past],
            more_past=len(ways) - 1,
            past_relation="" if way.to_past is None else word(way.to_past),
            entity_id=graph.entities.id_of(way.entity),
            entity=name,
            known_from=() if name else _names(graph, others, {way.past, item}),
            relation=word(way.to_item),
            attention=way.attention,
            specificity=specificity,
            direct=direct,
            effect=effect,
        )
        paths.append(path)
        strengths.append(way.attention * specificity if effect is None else effect)
    in_words = [bool(path.direct or path.entity or (path.relation and path.past_relation)) for path in paths]
    order = sorted(range(len(paths)), key=lambda i: (not in_words[i], -strengths[i], i))
    first: dict[str, Path] = {}
    for i in order:
        first.setdefault(str(paths[i]), paths[i])
    return list(first.values())[:k]


def _told(ways: list[_Way], worse: Callable[[_Way], tuple[bool, float, int]]) -> list[_Way]:
    """Return the best way over an entity, then the best of each other past item that ends as it does, if any does."""
    best = min(ways, key=worse)
    of_past: dict[int, _Way] = {}
    for way in sorted(ways, key=lambda way: (way.to_item != best.to_item, *worse(way))):
        of_past.setdefault(way.past, way)
    del of_past[best.past]
    return [best, *of_past.values()]


class _Side:
    """A side's edges, found by their items without a look at all the others."""

    def __init__(self, edges: ItemEdges, num_items: int) -> None:
        self.edges = edges
        self._order = torch.argsort(edges.item, stable=True)
        self._start = torch.bincount(edges.item, minlength=num_items).cumsum(0).tolist()

    def into(self, items: list[int]) -> torch.Tensor:
        """Return the positions of all edges into some items, ascending."""
        parts = [self._order[self._start[item - 1] if item else 0 : self._start[item]] for item in items]
        return torch.cat([self._order[:0], *parts]).sort().values


class _Linked:
    """The items that each entity is linked to, the most taken first."""

    def __init__(self, edges: ItemEdges, graph: RecGraph) -> None:
        taken = np.bincount(graph.interactions.item, minlength=graph.num_items)
        pairs = np.unique(np.stack([edges.entity.numpy(), edges.item.numpy()]), axis=1)
        entity, self._items = pairs[:, np.lexsort((pairs[1], -taken[pairs[1]], pairs[0]))]
        self._start = np.zeros(graph.num_entities + 1, dtype=np.int64)
        np.cumsum(np.bincount(entity, minlength=graph.num_entities), out=self._start[1:])

    def of(self, entity: int) -> list[int]:
        """Return an entity's items."""
        items: list[int] = self._items[self._start[entity] : self._start[entity + 1]].tolist()
        return items


def _index(sides: tuple[ItemEdges, ItemEdges], num_items: int) -> tuple[_Side, _Side]:
    past, candidate = sides
    first = _Side(past, num_items)
    return first, first if candidate is past else _Side(candidate, num_items)


def _ways(
    past_side: _Side, candidate_side: _Side, weight_past: torch.Tensor, histories: Histories, item: int
) -> list[_Way]:
    """Return all paths from past items to ``item``."""
    into_item = candidate_side.into([item])
    near = past_side.into(sorted(set(histories.items.tolist()) - {item}))
    near = near[torch.isin(past_side.edges.entity[near], candidate_side.edges.entity[into_item])]
    ends = defaultdict(list)  # entity -> (edge type into the item, attention)
    ways = []
    past_items = set(histories.items.tolist()) - {item}
    for entity, relation, alpha in _rows(candidate_side.edges, into_item, "entity", "relation", "alpha"):
        ends[int(entity)].append((int(relation), alpha))
        if int(entity) in past_items:
            strength = float(weight_past[int(entity)]) * alpha
            ways.append(_Way(int(entity), int(entity), None, int(relation), strength))
    for entity, relation, past, alpha in _rows(past_side.edges, near, "entity", "relation", "item", "alpha"):
        for to_item, other_alpha in ends[int(entity)]:
            strength = float(weight_past[int(past)]) * alpha * other_alpha
            ways.append(_Way(int(past), int(entity), int(relation), to_item, strength))
    return ways


def _effects(score: AttendedScore, told: list[list[_Way]], histories: Histories) -> list[float]:
    """Return how far the score falls without the edges of each group of paths, of which the first one's end counts."""
    past, candidate = score.past, score.candidate
    near: dict[tuple[int, int, int | None], int] = {}
    if past is not None:
        columns = (histories.items[past.row.long()], past.entity, past.relation)
        keys = zip(*(column.tolist() for column in columns), strict=True)
        near = {key: number for number, key in enumerate(keys)}
    far: dict[tuple[int, int], int] = {}
    if candidate is not None:
        ends = zip(candidate.entity.tolist(), candidate.relation.tolist(), strict=True)
        far = {end: number for number, end in enumerate(ends)}
    first = [near.get((way.past, way.entity, way.to_past), -1) for ways in told for way in ways]
    second = [far.get((ways[0].entity, ways[0].to_item), -1) for ways in told]
    group = [number for number, ways in enumerate(told) for _ in ways]
    left = score.without(*(torch.tensor(column, dtype=torch.int64) for column in (first, second, group)))
    effects: list[float] = (score.full - left).tolist()
    return effects


def _rows(edges: ItemEdges, at: torch.Tensor, *names: str) -> list[tuple[float, ...]]:
    columns = [getattr(edges, name)[at].tolist() for name in names]
    return list(zip(*columns, strict=True))


def _names(graph: RecGraph, items: list[int], but: set[int]) -> tuple[str, ...]:
    """Return the labels of the first few items."""
    return tuple([graph.item_labels[item] for item in items if item not in but][:NUM_NEIGHBOURS])
