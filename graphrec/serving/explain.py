"""explain: which past items, and which facts of the knowledge graph, a recommendation leans on."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.models.blend import Blend
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.modality_effects import ModalityEffect, effects_on
from graphrec.serving.naming import entity_name, relation_name
from graphrec.serving.recommender import RunRecommender
from kg_loaders import RecGraph

if TYPE_CHECKING:
    from graphrec.encoders import ItemEdges

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
        more_past: How many more past items lead over the same entity.
        past_relation: What the entity is to the past item, in words; empty where its id is no words.
        entity_id: The entity's id.
        entity: Its name; empty where it has none.
        known_from: Other items linked to an entity without a name.
        relation: What the entity is to the recommended item, likewise.
        attention: Product of the attentions along the path.
        specificity: How much the entity tells, 0 (it is linked to every item) to 1 (to one item).
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

    def __str__(self) -> str:
        past = self.past_title + (f" and {self.more_past} more you took" if self.more_past else "")
        known = f" (also {', '.join(self.known_from)})" if self.known_from else ""
        if not (self.relation and self.past_relation):
            return f"shares {self.entity or 'an entity'} with {past}{known}"
        if self.relation == self.past_relation:
            return f"same {self.relation} as {past}" + (f": {self.entity}" if self.entity else known)
        entity = f", {self.entity}," if self.entity else ""
        article = "an" if self.past_relation[0] in "aeiou" else "a"  # a film has several actors and awards
        return f"its {self.relation}{entity} is also {article} {self.past_relation} of {past}{known}"


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended.

    Args:
        item_id: The recommended item.
        title: Its title, or its id.
        score: Its score.
        base: What any history would give it (its popularity); the rest of the score comes from the past items.
        past: The past items that add most, largest first.
        paths: Paths through the knowledge graph, in the order of :func:`paths_to`; empty where the model reads none.
        modalities: What each modality of the item does to the score, the strongest first; empty where the model fuses
            none. A blend's are those of the first model in it, on that model's scale.
    """

    item_id: str
    title: str
    score: float
    base: float
    past: tuple[PastItem, ...]
    paths: tuple[Path, ...]
    modalities: tuple[ModalityEffect, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """The reasons in words, strongest first."""
        lines = [f"you took {p.title}: {percent(p.share)} of what speaks for it" for p in self.past if p.share > 0]
        lines += [str(path) for path in self.paths]
        lines += [str(effect) for effect in self.modalities]
        return lines or ["it is popular; nothing in the history speaks for it"]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {**asdict(self), "sentences": self.sentences}


def explain(recommender: RunRecommender, histories: Histories, item: int, k: int = NUM_REASONS) -> Explanation:
    """Explain the score of one item for one user.

    For InductiveKGAT the split over past items is exact: its score is a sum over them, before which nothing is
    nonlinear but the attention itself. For other models a past item's summand is what the score loses when it is
    left out (leave-one-out). A blend's paths are those of the first model in it.

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
    attended: Recommender = model
    while isinstance(attended, Blend):
        attended = attended.first
    paths = paths_to(attended, graph, histories, item, k) if isinstance(attended, InductiveKGAT) else []
    base = score - float(parts.sum())
    effects = effects_on(attended, histories, item)
    return Explanation(graph.items.id_of(item), graph.item_labels[item], score, base, past, tuple(paths), effects)


def paths_to(model: InductiveKGAT, graph: RecGraph, histories: Histories, item: int, k: int) -> list[Path]:
    r"""Return the ``k`` paths past item - entity - ``item`` that tell a person most.

    A path's attention is the model's, :math:`A_{up} \, \alpha_{pe} \, \alpha_{je}`: the product of the user's to the
    past item and of both items' to the entity. The order is ours, for by attention alone comes first what all items
    share:

    - Of the paths over one entity the one with equal relations ("same director"), then the most attended, stands for
      all; of paths that read alike, the first.
    - Paths that words can tell (of both relations, or of the entity) come before the others.
    - Then by attention times specificity, :math:`\log(n / n_e) / \log n` for an entity linked to :math:`n_e` of
      :math:`n` items.
    """
    with torch.no_grad():
        sides = model.cached("kg attention", model.kg_attention)
        attention = model.history_attention(histories)
    if sides is None or not histories.items.numel():
        return []
    past_side, candidate_side = sides
    into_item = candidate_side.item == item
    shared = torch.isin(past_side.entity, candidate_side.entity[into_item])
    linked = _items_by_entity(past_side.entity[shared], past_side.item[shared])
    weight_past = torch.zeros(graph.num_items).index_add(0, histories.items, attention)
    near = shared & torch.isin(past_side.item, histories.items) & (past_side.item != item)

    ends = defaultdict(list)  # entity -> (what it is to the item, attention)
    for entity, relation, alpha in _rows(candidate_side, into_item, "entity", "relation", "alpha"):
        ends[int(entity)].append((relation_name(graph, int(relation)), alpha))
    found = defaultdict(list)  # entity -> (the relations differ, minus the attention, past item, both relations)
    for entity, relation, past, alpha in _rows(past_side, near, "entity", "relation", "item", "alpha"):
        there = relation_name(graph, int(relation))
        for here, other_alpha in ends[int(entity)]:
            strength = float(weight_past[int(past)]) * alpha * other_alpha
            found[int(entity)].append((here != there, -strength, int(past), there, here))

    paths = []
    for entity, ways in found.items():
        _, strength, past, there, here = min(ways)
        name = entity_name(graph, entity)
        others = linked[entity] - {past, item}
        paths.append(
            Path(
                past_title=graph.item_labels[past],
                more_past=len({way[2] for way in ways}) - 1,
                past_relation=there,
                entity_id=graph.entities.id_of(entity),
                entity=name,
                known_from=() if name else _most_taken(graph, others),
                relation=here,
                attention=-strength,
                specificity=1 - math.log(len(linked[entity])) / math.log(max(graph.num_items, 2)),
            )
        )
    in_words = [bool(path.entity or (path.relation and path.past_relation)) for path in paths]
    order = sorted(range(len(paths)), key=lambda i: (not in_words[i], -paths[i].attention * paths[i].specificity, i))
    told: dict[str, Path] = {}
    for i in order:
        told.setdefault(str(paths[i]), paths[i])
    return list(told.values())[:k]


def percent(share: float) -> str:
    """Return a share in per cent, with a decimal where it is small.

    Example:
        >>> percent(0.256), percent(0.0123), percent(0.00004)
        ('26 %', '1.2 %', '<0.1 %')
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 or not share else f"{100 * share:.1f} %"


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


def _rows(edges: ItemEdges, mask: torch.Tensor, *names: str) -> list[tuple[float, ...]]:
    columns = [getattr(edges, name)[mask].tolist() for name in names]
    return list(zip(*columns, strict=True))


def _items_by_entity(entity: torch.Tensor, item: torch.Tensor) -> dict[int, set[int]]:
    linked: dict[int, set[int]] = defaultdict(set)
    for one, other in zip(entity.tolist(), item.tolist(), strict=True):
        linked[one].add(other)
    return linked


def _most_taken(graph: RecGraph, items: set[int]) -> tuple[str, ...]:
    taken = np.bincount(graph.interactions.item, minlength=graph.num_items)
    best = sorted(items, key=lambda item: (-taken[item], item))[:NUM_NEIGHBOURS]
    return tuple(graph.item_labels[item] for item in best)
