"""explain: which past items, and which facts of the knowledge graph, a recommendation leans on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.recommender import RunRecommender
from kg_loaders import RecGraph

NUM_REASONS = 5
NUM_NEIGHBOURS = 2  # films that stand in for an entity without a name


@dataclass(frozen=True)
class PastItem:
    """A past item and what it adds to the score.

    Args:
        item_id: Its original id.
        title: Its title, or its id.
        contribution: Its summand of the score; negative where it speaks against the item.
        share: Its part of all positive summands, 0..1.
    """

    item_id: str
    title: str
    contribution: float
    share: float


@dataclass(frozen=True)
class Path:
    """A path from a past item over one entity to the recommended item.

    Args:
        past_title: Title of the past item.
        past_relation: Relation between it and the entity.
        entity: Name of the entity, or its id.
        known_from: Other items linked to an entity that has no name.
        relation: Relation between the entity and the recommended item.
        attention: Product of the attentions along the path.
    """

    past_title: str
    past_relation: str
    entity: str
    known_from: tuple[str, ...]
    relation: str
    attention: float

    def __str__(self) -> str:
        known = f" (also: {', '.join(self.known_from)})" if self.known_from else ""
        if self.past_relation == self.relation:
            return f"same {self.relation} as {self.past_title}: {self.entity}{known}"
        return f"{self.past_title} — {self.past_relation} — {self.entity}{known} — {self.relation}"


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended.

    Args:
        item_id: The recommended item.
        title: Its title, or its id.
        score: Its score.
        base: What any history would give it (its popularity); the rest of the score comes from the past items.
        past: The past items that add most, largest first.
        paths: Paths through the knowledge graph, most attended first; empty where the model reads none.
    """

    item_id: str
    title: str
    score: float
    base: float
    past: tuple[PastItem, ...]
    paths: tuple[Path, ...]

    @property
    def sentences(self) -> list[str]:
        """The reasons in words, strongest first."""
        lines = [f"you took {p.title}: {p.share:.0%} of what speaks for it" for p in self.past if p.contribution > 0]
        lines += [str(path) for path in self.paths]
        return lines or ["it is popular; nothing in the history speaks for it"]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {**asdict(self), "sentences": self.sentences}


def explain(recommender: RunRecommender, histories: Histories, item: int, k: int = NUM_REASONS) -> Explanation:
    """Explain the score of one item for one user.

    For InductiveKGAT the split over past items is exact: its score is a sum over them, before which nothing is
    nonlinear but the attention itself. For other models a past item's summand is what the score loses when it is
    left out (leave-one-out).

    Args:
        recommender: Model and graph.
        histories: One row: the user's past.
        item: Index of the item.
        k: At most so many past items and paths.

    Raises:
        ArgumentError: Not one row, or an item outside the catalogue.
    """
    graph, model = recommender.graph, recommender.model
    if len(histories) != 1:
        raise ArgumentError(f"histories must hold one row, got {len(histories)}")
    if not 0 <= item < graph.num_items:
        raise ArgumentError(f"item must be within 0..{graph.num_items - 1}, got {item}")
    with torch.no_grad():
        score = float(model.score(histories)[0, item])
        parts = _contributions(model, histories, item, score)
    items = histories.items.numpy()
    positive = parts.clip(min=0).sum() or 1.0
    order = np.argsort(-parts, kind="stable")[:k]
    past = tuple(
        PastItem(
            graph.items.id_of(int(items[i])),
            graph.item_labels[int(items[i])],
            float(parts[i]),
            float(max(parts[i], 0) / positive),
        )
        for i in order
    )
    paths = paths_to(model, graph, histories, item, k) if isinstance(model, InductiveKGAT) else []
    base = score - float(parts.sum())
    return Explanation(graph.items.id_of(item), graph.item_labels[item], score, base, past, tuple(paths))


def paths_to(model: InductiveKGAT, graph: RecGraph, histories: Histories, item: int, k: int) -> list[Path]:
    """Return the ``k`` most attended paths past item - entity - ``item``.

    A path's attention is the product of the user's to the past item and of both items' to the entity.
    """
    with torch.no_grad():
        sides = model.cached("kg attention", model.kg_attention)
        attention = model.history_attention(histories)
    if sides is None or not histories.items.numel():
        return []
    past_side, candidate_side = sides
    into_item = candidate_side.item == item
    weight_past = torch.zeros(graph.num_items).index_add(0, histories.items, attention)
    near = torch.isin(past_side.item, histories.items) & torch.isin(past_side.entity, candidate_side.entity[into_item])
    found = []
    for edge in torch.nonzero(near)[:, 0].tolist():
        entity, past = int(past_side.entity[edge]), int(past_side.item[edge])
        for other in torch.nonzero(into_item & (candidate_side.entity == entity))[:, 0].tolist():
            strength = float(weight_past[past] * past_side.alpha[edge] * candidate_side.alpha[other])
            found.append((strength, past, int(past_side.relation[edge]), entity, int(candidate_side.relation[other])))
    found.sort(key=lambda path: (-path[0], path[1:]))
    paths, met = [], set()
    for strength, past, relation, entity, other_relation in found:
        # The same fact told by a relation and its inverse is one path.
        if (past, entity) in met:
            continue
        met.add((past, entity))
        name, known_from = _entity_name(graph, entity, leave_out=(past, item))
        paths.append(
            Path(
                graph.item_labels[past],
                relation_name(graph, relation),
                name,
                known_from,
                relation_name(graph, other_relation),
                strength,
            )
        )
        if len(paths) == k:
            break
    return paths


def relation_name(graph: RecGraph, edge_type: int) -> str:
    """Return what an edge between an entity and an item says, in a word or two.

    ``film.film.directed_by`` becomes "directed by". Where the item is the tail of a Freebase property, the type of the
    head says more than the property: ``film.director.film`` becomes "director".
    """
    item_is_head = edge_type >= graph.num_relations
    id_ = graph.relations.id_of(edge_type % graph.num_relations)
    words = re.split(r"[/#.]", id_)
    freebase = len(words) >= 3 and "/" not in id_ and "#" not in id_
    word = words[-2] if freebase and not item_is_head else words[-1]
    return word.replace("_", " ") or id_


def _contributions(model: Recommender, histories: Histories, item: int, score: float) -> np.ndarray:
    if isinstance(model, InductiveKGAT):
        return model.contributions(histories, item).double().numpy()
    size = histories.items.numel()
    if not size:
        return np.empty(0)
    # Row i is the history without its i-th item.
    left = histories.items.repeat(size).view(size, size)[~torch.eye(size, dtype=torch.bool)]
    offsets = torch.arange(size + 1) * (size - 1)
    users = None if histories.user_index is None else histories.user_index.repeat(size)
    without = model.score(Histories(left, offsets, users))[:, item]
    return score - without.double().numpy()


def _entity_name(graph: RecGraph, entity: int, leave_out: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    name = graph.entity_labels[entity]
    if name != graph.entities.id_of(entity):
        return name, ()
    ends = graph.triples[(graph.triples[:, 0] == entity) | (graph.triples[:, 2] == entity)][:, [0, 2]]
    linked = np.unique(ends[(ends < graph.num_items) & ~np.isin(ends, leave_out)])
    taken = np.bincount(graph.interactions.item, minlength=graph.num_items)[linked]
    best = linked[np.argsort(-taken, kind="stable")][:NUM_NEIGHBOURS]
    return name, tuple(graph.item_labels[i] for i in best)
