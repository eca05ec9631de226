"""Two domains to link, written by hand."""

from __future__ import annotations

import numpy as np

from kg_loaders import Interactions, RecGraph, Vocabulary, sort_interactions

TRAIN, VALID, TEST = range(3)


def graph(
    users, items, pairs, split=None, others=(), triples=(), relations=("r",), time=None, weight=None, name="toy", **rest
):
    """A graph from lists; ``pairs`` are (user, item) ids, ``triples`` (head, relation, tail) ids."""
    user, entity = {u: i for i, u in enumerate(users)}, {e: i for i, e in enumerate([*items, *others])}
    relation = {r: i for i, r in enumerate(relations)}
    interactions = Interactions(
        np.array([user[u] for u, _ in pairs], dtype=np.int64),
        np.array([entity[i] for _, i in pairs], dtype=np.int64),
        None if time is None else np.array(time, dtype=np.float64),
        None if weight is None else np.array(weight, dtype=np.float32),
        None if split is None else np.array(split, dtype=np.int8),
    )
    return RecGraph(
        users=Vocabulary(users, "user"),
        entities=Vocabulary([*items, *others], "entity"),
        num_items=len(items),
        interactions=sort_interactions(interactions),
        relations=Vocabulary(relations, "relation"),
        triples=np.array([[entity[h], relation[r], entity[t]] for h, r, t in triples], dtype=np.int64).reshape(-1, 3),
        name=name,
        **rest,
    )


def books_and_films(**rest):
    """Two domains that share the users ann and bob, and the entity Dune; item ids collide on purpose."""
    books = graph(
        ["cid", "ann", "bob"],
        ["1", "2", "3"],
        [("cid", "1"), ("ann", "2"), ("ann", "3"), ("bob", "1")],
        others=["q:herbert", "q:dune"],
        triples=[("1", "author", "q:herbert"), ("1", "about", "q:dune"), ("2", "author", "q:herbert")],
        relations=["about", "author"],
        name="books",
        **rest,
    )
    films = graph(
        ["ann", "bob", "dan", "eve"],
        ["1", "2"],
        [("ann", "1"), ("ann", "2"), ("bob", "1"), ("bob", "2"), ("dan", "2"), ("eve", "1")],
        split=[TRAIN, TEST, VALID, TRAIN, TRAIN, TRAIN],
        others=["q:lynch", "q:dune"],
        triples=[("1", "director", "q:lynch"), ("1", "about", "q:dune")],
        relations=["about", "director"],
        name="films",
    )
    return books, films


def two_records_of_one_site():
    """Equal users and items; the source holds a test pair, a validation pair and a train pair of the target."""
    films = books_and_films()[1]
    source = graph(
        ["ann", "bob", "zoe"], ["1", "2"], [("ann", "2"), ("ann", "1"), ("bob", "1"), ("zoe", "2")], name="s"
    )
    return source, films


def pairs_of(graph, split=None):
    """The (user, item) ids of a graph, or of a part of it."""
    part = graph.part(split) if split else graph.interactions
    users, items = (v.ids_of(i) for v, i in ((graph.users, part.user), (graph.items, part.item)))
    return set(zip(users, items, strict=True))
