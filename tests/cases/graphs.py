"""The planted graph of the model tests, and the same graph under other indices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from graphrec.histories import Histories
from kg_loaders import Feature, Interactions, RecGraph, Vocabulary, sort_interactions
from kg_loaders.synthetic import planted


@cache
def planted_graph() -> RecGraph:
    """120 users with four tastes, 80 items, 91 entities; split. Graphs are frozen, so one serves all tests."""
    return planted()


@cache
def other_history() -> RecGraph:
    """The planted graph where people took every second item only: same sizes, same triples, other answers."""
    graph = planted_graph()
    return replace(graph, interactions=graph.interactions[::2])


def histories_of(graph: RecGraph) -> Histories:
    """Return the training histories of all users."""
    return Histories.from_interactions(graph.part("train"), graph.num_users)


@dataclass(frozen=True)
class Relabelling:
    """A graph under other indices; ``users[old]`` is the new index of user ``old``, and so on."""

    graph: RecGraph
    users: NDArray[np.int64]
    entities: NDArray[np.int64]

    @property
    def items(self) -> NDArray[np.int64]:
        return self.entities[: self.graph.num_items]


def with_content(graph: RecGraph) -> RecGraph:
    """Return the planted graph, under whatever indices, with pictures that show an item's genre and sounds that do not.

    Every fifth item lacks a picture; it has a sound, as all do.
    """
    number = np.array([int(item_id.removeprefix("item-")) for item_id in graph.items])
    noise = np.random.default_rng(0).normal(size=(graph.num_items, 12))[number]
    image = np.column_stack([10 * np.eye(4)[number % 4], noise[:, :3]])
    features = {"image": Feature.vectors(image, number % 5 > 0), "audio": Feature.vectors(noise[:, 3:])}
    return replace(graph, item_features={**graph.item_features, **features})


def with_attributes(graph: RecGraph) -> RecGraph:
    """Return the planted graph, under whatever indices, with users' tastes, their ages, and a code that each has alone.

    The taste of every seventh user is not known.
    """
    number = np.array([int(user_id.removeprefix("user-")) for user_id in graph.users])
    features = {
        "taste": Feature.text([f"taste {n % 4}" if n % 7 else "" for n in number]),
        "age": Feature.text([str(18 + n % 50) for n in number]),
        "code": Feature.text([f"code {n}" for n in number]),
    }
    return replace(graph, user_features=features)


def relabel(graph: RecGraph, seed: int = 0) -> Relabelling:
    """Give all users, items and other entities new indices; items stay the first entities."""
    rng = np.random.default_rng(seed)
    users = rng.permutation(graph.num_users)
    others = graph.num_items + rng.permutation(graph.num_entities - graph.num_items)
    entities = np.concatenate([rng.permutation(graph.num_items), others])
    old = graph.interactions
    interactions = Interactions(users[old.user], entities[old.item], old.time, old.weight, old.split)
    triples = graph.triples.copy()
    triples[:, [0, 2]] = entities[triples[:, [0, 2]]]
    relabelled = replace(
        graph,
        users=_permuted(graph.users, users),
        entities=_permuted(graph.entities, entities),
        interactions=sort_interactions(interactions),
        triples=triples,
        user_features={name: _moved(f, users) for name, f in graph.user_features.items()},
        item_features={name: _moved(f, entities[: graph.num_items]) for name, f in graph.item_features.items()},
        entity_features={name: _moved(f, entities) for name, f in graph.entity_features.items()},
    )
    return Relabelling(relabelled, users, entities)


def _permuted(vocabulary: Vocabulary, new: NDArray[np.int64]) -> Vocabulary:
    return Vocabulary([vocabulary.id_of(old) for old in np.argsort(new)], vocabulary.kind)


def _moved(feature: Feature, new: NDArray[np.int64]) -> Feature:
    old = np.argsort(new)
    return Feature(feature.values[old], feature.present[old])
