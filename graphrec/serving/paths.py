"""Paths through the knowledge graph, from what a user took to what is recommended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.histories import Histories
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.attribution import AttendedScore
from graphrec.serving.naming import entity_name, relation_name
from kg_loaders import RecGraph

if TYPE_CHECKING:
    from graphrec.encoders import ItemEdges

Indices = NDArray[np.int64]
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


class _Ways(NamedTuple):
    """Paths, one at each place; ``entity`` is the past item where that is linked straight to the other."""

    past: Indices
    entity: Indices
    to_past: Indices  # edge types; -1 where there is no such edge
    to_item: Indices
    attention: NDArray[np.float64]


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
        if sides is None or not histories.items.numel():
            return []
        attention = model.history_attention(histories)
        past_side, candidate_side = model.cached("indexed kg attention", lambda: _index(sides, graph.num_items))
        linked: _Linked = model.cached("linked items", lambda: _Linked(sides[0], graph))
        words: list[str] = model.cached(
            "relation words", lambda: [relation_name(graph, relation) for relation in range(2 * graph.num_relations)]
        )
    weight_past = torch.zeros(graph.num_items).index_add(0, histories.items, attention).double().numpy()
    ways = _ways(past_side, candidate_side, weight_past, histories, item)
    told = _told(ways, words)
    effects = None if score is None else _effects(score, ways, told, histories, graph)
    paths, strengths = [], []
    for number, group in enumerate(told):
        best = int(group[0])
        past, entity, to_past, to_item = (int(column[best]) for column in ways[:4])
        others = linked.of(entity)
        effect = None if effects is None else effects[number]
        if effect is not None and effect <= 0:
            continue
        direct = to_past < 0
        name = graph.item_labels[past] if direct else entity_name(graph, entity)
        specificity = 1 - math.log(max(len(others), 1)) / math.log(max(graph.num_items, 2))
        path = Path(
            past_title=graph.item_labels[past],
            more_past=len(group) - 1,
            past_relation="" if direct else words[to_past],
            entity_id=graph.entities.id_of(entity),
            entity=name,
            known_from=() if name else _names(graph, others, {past, item}),
            relation=words[to_item],
            attention=float(ways.attention[best]),
            specificity=specificity,
            direct=direct,
            effect=effect,
        )
        paths.append(path)
        strengths.append(path.attention * specificity if effect is None else effect)
    in_words = [bool(path.direct or path.entity or (path.relation and path.past_relation)) for path in paths]
    order = sorted(range(len(paths)), key=lambda i: (not in_words[i], -strengths[i], i))
    first: dict[str, Path] = {}
    for i in order:
        first.setdefault(str(paths[i]), paths[i])
    return list(first.values())[:k]


def _told(ways: _Ways, words: list[str]) -> list[Indices]:
    """Group the paths by their entity, and return the places of those that count, the best of each group first.

    They are the best path over an entity, straight ones apart, and the best of each other past item over the same
    entity: one that ends as the best does, if there is one.
    """
    if not len(ways.past):
        return []
    number_of = {word: number for number, word in enumerate(dict.fromkeys(words))}
    word = np.array([number_of[word] for word in words])
    straight = ways.to_past < 0
    differs = straight | (word[ways.to_past] != word[ways.to_item])
    _, first, group = np.unique(2 * ways.entity + straight, return_index=True, return_inverse=True)
    worse = (ways.past, -ways.attention, differs)  # the last decides first
    by_group = np.lexsort((*worse, group))
    best = by_group[_starts(group[by_group])]  # of each group
    other_end = ways.to_item != ways.to_item[best[group]]
    by_past = np.lexsort((*worse, other_end, ways.past, group))
    kept = by_past[_starts(group[by_past], ways.past[by_past])]
    parts = np.split(kept, np.flatnonzero(_starts(group[kept]))[1:])
    return [np.concatenate([best[g : g + 1], parts[g][parts[g] != best[g]]]) for g in np.argsort(first)]


def _starts(*columns: Indices) -> NDArray[np.bool_]:
    """Return where a run of equal rows begins."""
    starts = np.ones(len(columns[0]), dtype=np.bool_)
    starts[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return starts


class _Edges(NamedTuple):
    """Edges into items, one at each place."""

    entity: Indices
    relation: Indices
    item: Indices
    alpha: NDArray[np.float64]


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

    def rows(self, at: torch.Tensor) -> _Edges:
        """Return the edges at some positions."""
        edges = self.edges
        entity, relation, item = (column[at].numpy() for column in (edges.entity, edges.relation, edges.item))
        return _Edges(entity, relation, item, edges.alpha[at].double().numpy())


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
    past_side: _Side, candidate_side: _Side, weight_past: NDArray[np.float64], histories: Histories, item: int
) -> _Ways:
    """Return all paths from past items to ``item``, the straight ones first."""
    past_items = np.setdiff1d(histories.items.numpy(), [item])
    ends = candidate_side.rows(candidate_side.into([item]))
    straight = np.isin(ends.entity, past_items)
    source = ends.entity[straight]
    near = past_side.into(past_items.tolist())
    near = near[torch.isin(past_side.edges.entity[near], torch.from_numpy(ends.entity))]
    edges = past_side.rows(near)
    by_entity = np.argsort(ends.entity, kind="stable")
    low = np.searchsorted(ends.entity[by_entity], edges.entity, side="left")
    high = np.searchsorted(ends.entity[by_entity], edges.entity, side="right")
    many = high - low  # edges from the same entity into the item
    at = np.repeat(np.arange(len(edges.item)), many)
    end = by_entity[np.arange(len(at)) + np.repeat(low - (np.cumsum(many) - many), many)]
    past = edges.item[at]
    return _Ways(
        past=np.concatenate([source, past]),
        entity=np.concatenate([source, edges.entity[at]]),
        to_past=np.concatenate([np.full(len(source), -1), edges.relation[at]]),
        to_item=np.concatenate([ends.relation[straight], ends.relation[end]]),
        attention=np.concatenate(
            [weight_past[source] * ends.alpha[straight], weight_past[past] * edges.alpha[at] * ends.alpha[end]]
        ),
    )


def _effects(
    score: AttendedScore, ways: _Ways, told: list[Indices], histories: Histories, graph: RecGraph
) -> list[float]:
    """Return how far the score falls without the edges of each group of paths, of which the first one's end counts."""
    if not told:
        return []

    def keys(item: Indices | int, entity: Indices, relation: Indices) -> Indices:
        return (item * graph.num_entities + entity) * 2 * graph.num_relations + relation

    at, best = np.concatenate(told), np.array([group[0] for group in told])
    group = np.repeat(np.arange(len(told)), [len(places) for places in told])
    first, second = np.full(len(at), -1), np.full(len(told), -1)
    if score.past is not None:
        entity = score.past.entity.numpy()
        used = np.flatnonzero(np.isin(entity, ways.entity[best]))  # few of all edges
        entry, relation = score.past.row.numpy()[used], score.past.relation.numpy()[used]
        wanted = keys(ways.past[at], ways.entity[at], ways.to_past[at])
        wanted[ways.to_past[at] < 0] = -1
        place = _places(keys(histories.items.numpy()[entry], entity[used], relation), wanted)
        first = np.append(used, -1)[place]
    if score.candidate is not None:
        ends = keys(0, score.candidate.entity.numpy(), score.candidate.relation.numpy())
        second = _places(ends, keys(0, ways.entity[best], ways.to_item[best]))
    left = score.without(*(torch.from_numpy(column) for column in (first, second, group)))
    effects: list[float] = (score.full - left).tolist()
    return effects


def _places(having: Indices, wanted: Indices) -> Indices:
    """Return where each wanted key is, the last place where there are several; -1 where it is not."""
    order = np.argsort(having, kind="stable")
    at = np.searchsorted(having[order], wanted, side="right") - 1
    there = (at >= 0) & (having[order][at] == wanted) if len(having) else np.zeros(len(wanted), dtype=np.bool_)
    return np.where(there, np.append(order, -1)[at], -1)


def _names(graph: RecGraph, items: list[int], but: set[int]) -> tuple[str, ...]:
    """Return the labels of the first few items."""
    return tuple([graph.item_labels[item] for item in items if item not in but][:NUM_NEIGHBOURS])
