"""join: two graphs with some nodes in common, as one graph that holds nothing of what the target holds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError
from kg_loaders.graph import SPLITS, Feature, Features, Interactions, RecGraph, sort_interactions
from kg_loaders.vocabulary import Vocabulary

DOMAIN = "domain"  # the feature of users and items that says where they come from
DOMAINS = ("target", "source", "both")

HELD_OUT_PAIRS = "source pairs that the target holds out"
COMMON_PAIRS = "source pairs that the target has too"
COMMON_TRIPLES = "triples of both"
LINKED_ELSEWHERE = "entities of equal id that are linked to others"

TRAIN = SPLITS.index("train")

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Joined:
    """Two graphs as one.

    Args:
        union: The graph.
        users: Its index of each source user, int64 ``[source.num_users]``.
        entities: Its index of each source entity, items first, int64 ``[source.num_entities]``.
        target_entities: Its index of each target entity, int64 ``[target.num_entities]``.
        from_target: Which of its interactions are the target's, bool ``[union.num_interactions]``.
        source_rows: The source's interaction that each of its interactions is, int64 ``[union.num_interactions]``; -1
            for those that the source does not have, and for those that the target holds out.
        dropped: What was left out, by reason.
    """

    union: RecGraph
    users: Indices
    entities: Indices
    target_entities: Indices
    from_target: NDArray[np.bool_]
    source_rows: Indices
    dropped: Mapping[str, int]


def join(
    source: RecGraph,
    target: RecGraph,
    users: Indices,
    entities: Indices,
    same_entities: bool,
    dropped: Mapping[str, int],
) -> Joined:
    """Make one graph of two, in which the matched nodes, and only they, are one.

    Args:
        source: All of it is train.
        target: Its split stays.
        users: Users that are the same, int64 ``[num_matches, 2]`` of (source, target).
        entities: Entities (items among them) that are the same.
        same_entities: Whether further entities, no two items among them, and relations of equal ids are the same.
        dropped: What was left out before, by reason.

    Raises:
        GraphError: The target has no split, or features of one name contradict each other.
    """
    split = target.interactions.split
    if split is None:
        raise GraphError(
            f"target {target.name!r} has not been split; use kg_loaders.splits first, since what is held out of it "
            "decides what the source may tell"
        )
    counts = dict(dropped)
    of_users, user_ids = _numbered(source, target.users, source.users, users)
    of_source, of_target, vocabulary, num_items = _join_entities(source, target, entities, same_entities, counts)
    relations, relation_ids = _join_relations(source, target, same_entities)
    interactions, from_target, source_rows = _join_interactions(
        source, target, split, of_users, of_source, num_items, counts
    )
    items, target_items = of_source[: source.num_items], of_target[: target.num_items]
    same_users = np.arange(target.num_users)
    union = RecGraph(
        users=user_ids,
        entities=vocabulary,
        num_items=num_items,
        interactions=interactions,
        relations=relation_ids,
        triples=_join_triples(source, target, of_source, of_target, relations, counts),
        user_features={
            **_join_features("user", source.user_features, target.user_features, of_users, same_users, len(user_ids)),
            DOMAIN: _domains(of_users, target.num_users, len(user_ids)),
        },
        item_features={
            **_join_features("item", source.item_features, target.item_features, items, target_items, num_items),
            DOMAIN: _domains(items, target.num_items, num_items),
        },
        entity_features=_join_features(
            "entity", source.entity_features, target.entity_features, of_source, of_target, len(vocabulary)
        ),
        name=f"{source.name}+{target.name}",
        dropped=counts,
    )
    return Joined(union, of_users, of_source, of_target, from_target, source_rows, counts)


def _numbered(source: RecGraph, kept: Vocabulary, ids: Vocabulary, matches: Indices) -> tuple[Indices, Vocabulary]:
    """Return the union's index of each source id, unlinked ones behind those of the target, and the union's ids."""
    place = np.full(len(ids), -1, dtype=np.int64)
    place[matches[:, 0]] = matches[:, 1]
    new = np.flatnonzero(place < 0)
    place[new] = len(kept) + np.arange(len(new))
    return place, Vocabulary([*kept, *_apart(source, ids.ids_of(new), [kept])], ids.kind)


def _apart(source: RecGraph, ids: Sequence[str], taken: Sequence[Vocabulary]) -> list[str]:
    """Return the ids, all with the source's name before them if one of them is taken."""
    used = {id_ for vocabulary in taken for id_ in vocabulary}
    prefix = ""
    while any(f"{prefix}{id_}" in used for id_ in ids):
        prefix += f"{source.name}:"
    return [f"{prefix}{id_}" for id_ in ids]


def _join_entities(
    source: RecGraph, target: RecGraph, matches: Indices, same_entities: bool, dropped: dict[str, int]
) -> tuple[Indices, Indices, Vocabulary, int]:
    """Return the union's index of each source and target entity, the union's entities, and how many are items.

    Order: the target's items; the source's further items; the target's further entities; the source's.
    """
    to_target = np.full(source.num_entities, -1, dtype=np.int64)
    to_target[matches[:, 0]] = matches[:, 1]
    if same_entities:
        free = np.ones(target.num_entities, dtype=np.bool_)
        free[matches[:, 1]] = False
        equal = target.entities.indices_of(source.entities.ids, on_unknown="drop")
        open_ = (to_target < 0) & (equal >= 0)
        # Two items of equal ids are linked by what `on` says, or not at all.
        open_[: source.num_items] &= equal[: source.num_items] >= target.num_items
        taken = open_ & ~free[equal]
        if taken.any():
            dropped[LINKED_ELSEWHERE] = int(taken.sum())
        open_ &= free[equal]
        to_target[open_] = equal[open_]
    is_item = np.arange(source.num_entities) < source.num_items
    # An entity of the target that is an item of the source is an item of the union.
    promoted = to_target[is_item & (to_target >= target.num_items)]
    own_items = np.flatnonzero(is_item & (to_target < 0))
    of_target = np.full(target.num_entities, -1, dtype=np.int64)
    of_target[: target.num_items] = np.arange(target.num_items)
    of_target[promoted] = target.num_items + np.arange(len(promoted))
    num_items = target.num_items + len(promoted) + len(own_items)
    others = np.flatnonzero(of_target < 0)
    of_target[others] = num_items + np.arange(len(others))
    own_others = np.flatnonzero(~is_item & (to_target < 0))
    of_source = np.where(to_target >= 0, of_target[to_target], -1)
    of_source[own_items] = num_items - len(own_items) + np.arange(len(own_items))
    of_source[own_others] = target.num_entities + len(own_items) + np.arange(len(own_others))
    item_ids = _apart(source, source.entities.ids_of(own_items), [target.entities])
    other_ids = _apart(source, source.entities.ids_of(own_others), [target.entities, Vocabulary(item_ids)])
    ids = [
        *target.items,
        *target.entities.ids_of(promoted),
        *item_ids,
        *target.entities.ids_of(others),
        *other_ids,
    ]
    return of_source, of_target, Vocabulary(ids, "entity"), num_items


def _join_relations(source: RecGraph, target: RecGraph, same: bool) -> tuple[Indices, Vocabulary]:
    found = target.relations.indices_of(source.relations.ids, on_unknown="drop")
    equal = np.flatnonzero(found >= 0) if same else np.empty(0, dtype=np.int64)
    matches = np.stack([equal, found[equal]], axis=1)
    return _numbered(source, target.relations, source.relations, matches)


def _join_triples(
    source: RecGraph,
    target: RecGraph,
    entities: Indices,
    target_entities: Indices,
    relations: Indices,
    dropped: dict[str, int],
) -> Indices:
    ours, theirs = source.triples, target.triples
    both = np.concatenate(
        [
            np.stack([target_entities[theirs[:, 0]], theirs[:, 1], target_entities[theirs[:, 2]]], axis=1),
            np.stack([entities[ours[:, 0]], relations[ours[:, 1]], entities[ours[:, 2]]], axis=1),
        ]
    )
    distinct: Indices = np.unique(both, axis=0)
    if len(distinct) < len(both):
        dropped[COMMON_TRIPLES] = len(both) - len(distinct)
    return distinct


def _join_interactions(
    source: RecGraph,
    target: RecGraph,
    split: NDArray[np.int8],
    users: Indices,
    entities: Indices,
    num_items: int,
    dropped: dict[str, int],
) -> tuple[Interactions, NDArray[np.bool_], Indices]:
    """Return the interactions of both, which are the target's, and where each stands in the source."""
    ours, theirs = source.interactions, target.interactions
    keys = users[ours.user] * num_items + entities[ours.item]
    their_keys = theirs.user * num_items + theirs.item
    held_out = np.isin(keys, their_keys[split != TRAIN])
    common = np.isin(keys, their_keys[split == TRAIN])
    for reason, count in ((HELD_OUT_PAIRS, held_out.sum()), (COMMON_PAIRS, common.sum())):
        if count:
            dropped[reason] = int(count)
    kept = np.flatnonzero(~held_out & ~common)
    columns: dict[str, NDArray[Any] | None] = {}
    for name in ("time", "weight"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        columns[name] = None if mine is None or other is None else np.concatenate([other, mine[kept]])
        if (mine is None) != (other is None):
            lacking = source.name if mine is None else target.name
            dropped[f"{name}s, since {lacking} has none"] = len(theirs) if mine is None else len(kept)
    joined = Interactions(
        np.concatenate([theirs.user, users[ours.user[kept]]]),
        np.concatenate([theirs.item, entities[ours.item[kept]]]),
        split=np.concatenate([split, np.full(len(kept), TRAIN, dtype=np.int8)]),
        **columns,
    )
    joined = sort_interactions(joined)
    all_keys = joined.user * num_items + joined.item
    _, of_both, rows = np.intersect1d(all_keys, keys, assume_unique=True, return_indices=True)
    source_rows = np.full(len(joined), -1, dtype=np.int64)
    source_rows[of_both] = rows
    source_rows[joined.split != TRAIN] = -1  # the source must not tell what the target holds out
    return joined, np.isin(all_keys, their_keys), source_rows


def _join_features(
    kind: str, source: Features, target: Features, of_source: Indices, of_target: Indices, size: int
) -> dict[str, Feature]:
    """Return all features over the union's nodes; where both graphs know a value, the target's counts."""
    joined: dict[str, Feature] = {}
    for name in dict.fromkeys([*target, *source]):
        parts = [
            (feature[name], rows)
            for feature, rows in ((source, of_source), (target, of_target))  # the later one counts
            if name in feature
        ]
        if name == DOMAIN and all(set(part.values) <= {"", *DOMAINS} for part, _ in parts if part.is_text):
            continue  # of an earlier link; this one marks its own
        if name == DOMAIN and kind != "entity":
            raise GraphError(f"{kind}s have a feature {DOMAIN!r} already, which is how a link marks them; rename it")
        shapes = {part.values.shape[1:] for part, _ in parts}
        if len({part.is_text for part, _ in parts}) > 1 or len(shapes) > 1:
            raise GraphError(
                f"{kind} feature {name!r} is {parts[0][0]!r} in the source and {parts[1][0]!r} in the target; "
                "rename one of them"
            )
        first = parts[0][0]
        values = np.full((size, *first.values.shape[1:]), "" if first.is_text else 0, dtype=first.values.dtype)
        present = np.zeros(size, dtype=np.bool_)
        for part, rows in parts:
            values[rows[part.present]] = part.values[part.present]
            present[rows[part.present]] = True
        joined[name] = Feature(values, present)
    return joined


def _domains(of_source: Indices, num_target: int, size: int) -> Feature:
    marks = np.full(size, "source", dtype=object)
    marks[:num_target] = "target"
    marks[of_source[of_source < num_target]] = "both"
    return Feature.text(marks)
