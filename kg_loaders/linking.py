"""link: two graphs that share users, items, entities or only language become one, and nothing leaks on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError, KGLoaderError, did_you_mean
from kg_loaders.graph import RecGraph
from kg_loaders.linked_pair import By, LinkedPair, On
from kg_loaders.nodes import Nodes, is_number, labels_of, vectors_of, vocabulary_of

if TYPE_CHECKING:
    import pandas as pd

    from kg_loaders.matching import Matches

OnAmbiguous = Literal["raise", "review"]

COSINE = 0.9  # how alike vectors must be where the caller does not say
SAME_AS = "http://www.w3.org/2002/07/owl#sameAs"

AMBIGUOUS = "ambiguous matches"
EQUAL_NUMBERS = "entities of equal numbers, which are not the same"


def link(
    source: RecGraph,
    target: RecGraph,
    on: On,
    by: By | None = None,
    *,
    map: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,  # noqa: A002 - what people call it
    predicate: str | None = None,
    labels: Sequence[str] | None = None,
    vectors: str | tuple[NDArray[Any], NDArray[Any]] | None = None,
    threshold: float | None = None,
    same_users: bool = False,
    same_entities: bool | None = None,
    on_ambiguous: OnAmbiguous = "raise",
) -> LinkedPair:
    """Link two graphs over what they share, and join them to one.

    Linked nodes become one node, with the target's id. What is not linked stays apart: where a source id is taken in
    the target by something else, all unlinked source ids of that kind get the source's name before them
    (``ml-1m:17``). A pair that the target holds out (validation, test) is left out of the source and counted, so that
    no part of the answer is in the union's train.

    Args:
        source: Where there is much to learn from. Its own split, if any, is dropped: all of it is train.
        target: Where it is to help; split, since what it holds out decides what the union may hold.
        on: What is the same in both: ``"user"``, ``"item"``, ``"entity"`` (items among them; ids that are plain numbers
            mean nothing elsewhere and are left out, unless ``same_entities`` says so), or ``"text"``: items that say
            the same, by vectors.
        by: ``"id"``: equal ids. ``"map"``: a table alone. ``"predicate"``: triples such as ``owl:sameAs``.
            ``"label"``: equal names, then similar ones. ``"vectors"``: nearest texts. When not given, what the other
            arguments are for (``map`` last), else ``"id"``.
        map: A CSV file with a header and the columns source id, target id (or with columns of the names ``source_id``
            and ``target_id`` in any order, among others, as a review table has). Or two files, source's and target's,
            each from id to a key that both share, such as an IRI. Beside another way to match, it is what a person says
            of that way's matches, such as a ``review`` without the wrong ones: of the ambiguous and the similar ones,
            those in the map are linked and no others; sure ones are linked as before, but for nodes of the map.
        predicate: The relation's id; ``owl:sameAs`` when not given.
        labels: Text features to join to a label, those of them that each graph has: ``("title", "release_year")``;
            the graphs' own labels when not given.
        vectors: The name of a vector feature of items that both graphs have; or two arrays ``[num_nodes, dim]``, a
            row of zeros where nothing is known.
        threshold: How alike similar labels (share of equal letters, by rapidfuzz; ``None``: only equal labels match) or
            vectors (cosine; .9 when not given) must be, above 0 and at most 1.
        same_users: Whether users of equal ids are the same too, where something else is linked (two records of one
            site).
        same_entities: Whether entities and relations of equal ids are the same in both. When not given: yes, unless
            the entities of a graph are merely numbered.
        on_ambiguous: What to do when a node matches several: ``"raise"``, or ``"review"``: link none of them and list
            them in ``pair.review``.

    Raises:
        KGLoaderError: An argument has a value that is not allowed, or does not go with another.
        GraphError: Nothing matches, a match is ambiguous, or the target has no split.
        FormatError: A malformed map.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> pair = link(planted(num_users=110, seed=1), planted(), on="item", by="label")
        >>> pair
        LinkedPair('planted' -> 'planted' on item; shared: 0 users, 80 items, 11 entities)
        >>> pair.union.num_users, pair.union.users.id_of(120), pair.union.user_features["domain"].values[120]
        (230, 'planted:user-000', 'source')
    """
    nodes, by = _check(on, by, map, predicate, labels, vectors, threshold, same_users, on_ambiguous)
    dropped: dict[str, int] = {}
    from kg_loaders import likeness, matching  # they need pandas, which kg_loaders does not load at import

    if by == "id":
        matches = matching.by_id(source, target, nodes)
        if nodes == "entity" and not same_entities:
            matches = _without_numbers(source, matches, dropped)
    elif by == "map":
        assert map is not None
        matches = matching.by_map(source, target, nodes, map, dropped)
    elif by == "predicate":
        matches = matching.by_predicate(source, target, nodes, predicate or SAME_AS)
    elif by == "label":
        ours, theirs = (_names(graph, nodes, labels) for graph in (source, target))
        matches = likeness.by_label(ours, theirs, threshold, dropped)
    else:
        given = _vectors(source, target, nodes, vectors)
        matches = likeness.by_vectors(*given, COSINE if threshold is None else threshold)
    if map is not None and by != "map":
        matches = matching.settled(matches, matching.by_map(source, target, nodes, map, dropped), dropped)
    if not len(matches):
        raise GraphError(
            f"no {nodes} of {source.name!r} ({_examples(source, nodes)}) matches one of {target.name!r} "
            f"({_examples(target, nodes)}) by {by}{_numbers_left_out(dropped)}"
        )
    shown = {
        name: labels_of(graph, nodes, labels if by == "label" else None)
        for name, graph in (("source", source), ("target", target))
    }
    linked = ~matches.ambiguous
    review = matching.review_table(source, target, nodes, matches, linked, shown)
    if not linked.all():
        if on_ambiguous == "raise":
            raise GraphError(_ambiguous_message(review, nodes))
        dropped[AMBIGUOUS] = int((~linked).sum())
    if same_entities is None:
        same_entities = not any(_are_numbers(graph) for graph in (source, target))
    pairs = matches.pairs[linked]
    return LinkedPair.of_matches(source, target, on, by, pairs, same_users, same_entities, review, dropped)


def _check(
    on: On,
    by: By | None,
    map_: object,
    predicate: str | None,
    labels: Sequence[str] | None,
    vectors: object,
    threshold: float | None,
    same_users: bool,
    on_ambiguous: OnAmbiguous,
) -> tuple[Nodes, By]:
    """Return what is matched and how, after making sure that the arguments go together."""
    _check_choice("on", on, get_args(On))
    _check_choice("on_ambiguous", on_ambiguous, get_args(OnAmbiguous))
    given: dict[By, tuple[str, object]] = {
        "predicate": ("predicate", predicate),
        "label": ("labels", labels),
        "vectors": ("vectors", vectors),
    }
    if by is None:
        meant: list[By] = [way for way, (_, value) in given.items() if value is not None]
        alone: By = "id" if map_ is None else "map"
        by = "vectors" if on == "text" else meant[0] if meant else alone
    _check_choice("by", by, get_args(By))
    for way, (name, value) in given.items():
        if value is not None and way != by:
            raise KGLoaderError(f"{name} is for by={way!r}, got by={by!r}")
    if threshold is not None and by not in ("label", "vectors"):
        raise KGLoaderError(f"threshold is for by='label' or by='vectors', got by={by!r}")
    if (by == "map" and map_ is None) or (by == "vectors" and vectors is None):
        raise KGLoaderError(f"by={by!r} needs {by}, got none")
    if on == "user" and same_users:
        raise KGLoaderError("same_users is for links on something else: on='user' says which users are the same")
    if on == "user" and by == "predicate":
        raise KGLoaderError("by='predicate' links items or entities: users have no triples")
    if on == "text" and by != "vectors":
        raise KGLoaderError(f"on='text' links by vectors, got by={by!r}; on='item', by='label' compares names")
    if isinstance(labels, str):
        raise KGLoaderError(f"labels must be a list of features such as ('title', 'year'), got {labels!r}")
    return ("item" if on == "text" else on), by


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        named = ", ".join(map(repr, allowed))
        raise KGLoaderError(f"{name} must be one of {named}, got {value!r}{did_you_mean(str(value), allowed)}")


def _without_numbers(source: RecGraph, matches: Matches, dropped: dict[str, int]) -> Matches:
    """Return the matches of equal ids without those of plain numbers, which are counted."""
    from kg_loaders.matching import Matches

    named = np.array([not is_number(id_) for id_ in source.entities.ids_of(matches.source)], dtype=np.bool_)
    if named.all():
        return matches
    dropped[EQUAL_NUMBERS] = int((~named).sum())
    return Matches.of_pairs(matches.pairs[named], "equal id")


def _vectors(
    source: RecGraph, target: RecGraph, nodes: Nodes, vectors: object
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if isinstance(vectors, str):
        return vectors_of(source, nodes, vectors), vectors_of(target, nodes, vectors)
    if not isinstance(vectors, tuple | list) or len(vectors) != 2 or any(isinstance(given, str) for given in vectors):
        raise KGLoaderError(f"vectors must be a feature's name or two arrays (source, target), got {vectors!r:.80}")
    return vectors_of(source, nodes, vectors[0]), vectors_of(target, nodes, vectors[1])


def _examples(graph: RecGraph, nodes: Nodes) -> str:
    ids = vocabulary_of(graph, nodes).ids
    return f"such as {ids[0]!r}" if ids else "none there"


def _ambiguous_message(review: pd.DataFrame, nodes: Nodes) -> str:
    open_ = review[~review["linked"]]
    first = "; ".join(
        f"{row.source_id!r} ({row.source_label}) - {row.target_id!r} ({row.target_label})"
        for row in open_.head(3).itertuples()
    )
    return (
        f"{len(open_)} matches of {nodes}s are ambiguous, such as {first}; on_ambiguous='review' leaves them out and "
        "lists them in pair.review, and a map settles them"
    )


def _names(graph: RecGraph, nodes: Nodes, labels: Sequence[str] | None) -> list[str]:
    """Return what each node is called, ``""`` where that is nothing but the number that it has in a file."""
    names = labels_of(graph, nodes, labels)
    ids = vocabulary_of(graph, nodes).ids
    return ["" if name == id_ and is_number(id_) else name for name, id_ in zip(names, ids, strict=True)]


def _numbers_left_out(dropped: Mapping[str, int]) -> str:
    count = dropped.get(EQUAL_NUMBERS, 0)
    return f"; {count:,} {EQUAL_NUMBERS} (same_entities=True where they are)" if count else ""


def _are_numbers(graph: RecGraph) -> bool:
    """Whether a graph's entities have ids that mean nothing elsewhere."""
    others = graph.entities.ids[graph.num_items :]
    return bool(others) and all(map(is_number, others))
