"""Planted graphs: small data of which we know what a model must find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import KGLoaderError
from kg_loaders.graph import SPLITS, Feature, Interactions, RecGraph, sort_interactions
from kg_loaders.vocabulary import Vocabulary

TRAIN, VALID, TEST = range(len(SPLITS))

MIN_WARM_ITEMS_PER_TASTE = 4  # one each for validation and test, and a history of two


def planted(
    num_users: int = 120,
    num_items: int = 80,
    num_tastes: int = 4,
    num_cold_items: int = 8,
    num_studios: int = 7,
    activity: float = 0.6,
    noise: float = 0.1,
    seed: int = 0,
) -> RecGraph:
    """Make users with tastes and items with genres, some of them known to the knowledge graph only.

    User ``u`` has taste ``u % num_tastes``, item ``i`` has genre ``i % num_tastes``, and both counts are one truth:
    a user takes a random share ``activity`` of the warm items of the own genre. One of those is the user's validation
    item, one a test item. The last ``num_cold_items`` items are *cold*: nobody takes them in train or validation, and
    each user has all cold items of the own genre in test. Only the triple (item, ``genre``, genre) tells what they
    are, so a model that reads the triples finds them, and one that does not can only guess. The triples (item,
    ``studio``, studio) are drawn at random and mean nothing.

    Args:
        num_users: Number of users, at least one per taste.
        num_items: Number of items, cold ones included; at least four warm ones per taste.
        num_tastes: Number of tastes, which are the genres; at least 2.
        num_cold_items: Number of cold items; a multiple of ``num_tastes`` gives each taste as many.
        num_studios: Number of meaningless entities, at least 1.
        activity: Share of the warm items of the own genre that a user takes, above 0, at most 1.
        noise: Train items of other genres, as a share of a user's train items; at least 0.
        seed: Seed of all draws, at least 0.

    Returns:
        A graph with times (train before validation before test), all three splits, item titles and entity labels.

    Raises:
        KGLoaderError: An argument is not allowed.

    Example:
        >>> graph = planted()
        >>> graph
        RecGraph(num_users=120, num_items=80, num_interactions=1680, num_entities=91, num_relations=2, num_triples=160)
        >>> cold_items(graph).tolist()
        [72, 73, 74, 75, 76, 77, 78, 79]
    """
    num_warm = num_items - num_cold_items
    for name, value, allowed, is_allowed in (
        ("seed", seed, "at least 0", seed >= 0),
        ("num_tastes", num_tastes, "at least 2", num_tastes >= 2),
        ("num_studios", num_studios, "at least 1", num_studios >= 1),
        ("activity", activity, "above 0 and at most 1", 0 < activity <= 1),
        ("noise", noise, "at least 0", noise >= 0),
        ("num_users", num_users, f"at least {num_tastes} (one per taste)", num_users >= num_tastes),
        ("num_cold_items", num_cold_items, "at least 0", num_cold_items >= 0),
        (
            "num_items",
            num_items,
            f"at least {num_cold_items + num_tastes * MIN_WARM_ITEMS_PER_TASTE} "
            f"({MIN_WARM_ITEMS_PER_TASTE} warm ones per taste beside {num_cold_items} cold ones)",
            num_warm >= num_tastes * MIN_WARM_ITEMS_PER_TASTE,
        ),
    ):
        if not is_allowed:
            raise KGLoaderError(f"{name} must be {allowed}, got {value}")
    rng = np.random.default_rng(seed)
    genre = np.arange(num_items) % num_tastes
    pairs = np.vstack([_pairs_of(user, genre, num_warm, activity, noise, rng) for user in range(num_users)])
    pairs = _with_all_warm_items(pairs, num_warm, num_tastes)
    # A draw within each split's own day: train on day 0, validation on day 1, test on day 2.
    time = np.floor((pairs[:, 2] + rng.random(len(pairs))) * 86_400)
    interactions = sort_interactions(
        Interactions(pairs[:, 0].copy(), pairs[:, 1].copy(), time, split=pairs[:, 2].astype(np.int8))
    )
    items = np.arange(num_items)
    studio = rng.integers(num_studios, size=num_items)
    triples = np.vstack(
        [
            np.column_stack([items, np.zeros_like(items), num_items + genre]),
            np.column_stack([items, np.ones_like(items), num_items + num_tastes + studio]),
        ]
    )
    entity_ids = [*_ids("item", num_items), *_ids("genre", num_tastes), *_ids("studio", num_studios)]
    labels = [*_labels("Item", num_items), *_labels("Genre", num_tastes), *_labels("Studio", num_studios)]
    return RecGraph(
        users=Vocabulary(_ids("user", num_users), "user"),
        entities=Vocabulary(entity_ids, "entity"),
        num_items=num_items,
        interactions=interactions,
        relations=Vocabulary(["genre", "studio"], "relation"),
        triples=np.unique(triples, axis=0),
        item_features={"title": Feature.text(_labels("Item", num_items))},
        entity_features={"label": Feature.text(labels)},
        name="planted",
    )


def cold_items(graph: RecGraph) -> NDArray[np.int64]:
    """Return the items that have test interactions and no others, in index order."""
    test = np.unique(graph.part("test").item)
    return np.setdiff1d(test, graph.part("train", "valid").item)


def _pairs_of(
    user: int, genre: NDArray[np.int64], num_warm: int, activity: float, noise: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return one user's (user, item, split) rows."""
    own = genre == user % (genre.max() + 1)
    liked, cold = np.flatnonzero(own[:num_warm]), num_warm + np.flatnonzero(own[num_warm:])
    num_taken = max(MIN_WARM_ITEMS_PER_TASTE, round(activity * len(liked)))
    taken = rng.permutation(liked)[:num_taken]
    others = rng.permutation(np.flatnonzero(~own[:num_warm]))[: round(noise * (num_taken - 2))]
    items = np.concatenate([taken, others, cold])
    split = np.full(len(items), TRAIN)
    split[:2] = VALID, TEST
    split[len(items) - len(cold) :] = TEST
    return np.column_stack([np.full(len(items), user), items, split])


def _with_all_warm_items(pairs: NDArray[np.int64], num_warm: int, num_tastes: int) -> NDArray[np.int64]:
    """Give each warm item that no train pair has one, so that only cold items are cold."""
    missing = np.setdiff1d(np.arange(num_warm), pairs[pairs[:, 2] == TRAIN, 1])
    user = missing % num_tastes  # shares the genre of the item
    moved = np.isin(pairs[:, 1], missing) & (pairs[:, 0] == pairs[:, 1] % num_tastes)
    return np.vstack([pairs[~moved], np.column_stack([user, missing, np.full(len(missing), TRAIN)])])


def _ids(kind: str, size: int) -> list[str]:
    """Return ids that sort as text in the order of their indices."""
    width = len(str(size - 1))
    return [f"{kind}-{index:0{width}d}" for index in range(size)]


def _labels(kind: str, size: int) -> list[str]:
    return [f"{kind} {index}" for index in range(size)]
