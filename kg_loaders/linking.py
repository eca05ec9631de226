"""link: two graphs that share users, items, entities or only language become one, and nothing leaks on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError, KGLoaderError, did_you_mean
from kg_loaders.graph import SPLITS, RecGraph
from kg_loaders.joining import join

if TYPE_CHECKING:
    import pandas as pd

    from kg_loaders.audit import Finding
    from kg_loaders.matching import Nodes

On = Literal["user", "item", "entity", "text"]
By = Literal["id", "map", "predicate", "label", "vectors"]
OnAmbiguous = Literal["raise", "review"]

ONS: tuple[On, ...] = ("user", "item", "entity", "text")
BYS: tuple[By, ...] = ("id", "map", "predicate", "label", "vectors")
COSINE = 0.9  # how alike vectors must be where the caller does not say
SAME_AS = "http://www.w3.org/2002/07/owl#sameAs"

AMBIGUOUS = "ambiguous matches"
EQUAL_NUMBERS = "entities of equal numbers, which are not the same"

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LinkedPair:
    """Two graphs, and the one that they make together; made by :func:`link`.

    In the union the target's users and items keep their indices, and those that only the source has follow. The text
    feature ``domain`` of users and items says ``"target"``, ``"source"`` or ``"both"``. The target's split is as it
    was; all of the source is in train, but for pairs that the target holds out.

    Args:
        source: Where knowledge comes from.
        target: Where it goes to; split.
        union: Both as one ordinary graph.
        on: What was linked.
        by: How.
        users: The union's index of each source user, int64 ``[source.num_users]``.
        entities: The union's index of each source entity, items first, int64 ``[source.num_entities]``.
        target_entities: The union's index of each target entity, int64 ``[target.num_entities]``.
        from_target: Which of the union's interactions are the target's, bool ``[union.num_interactions]``.
        review: Matches to look at: ambiguous ones, which are not linked, and similar ones, which are.
        dropped: What linking left out, by reason.
        matches: The nodes that are linked, int64 ``[num_linked, 2]`` of (source, target).
        same_users: Whether users of equal ids were taken to be the same.
        same_entities: Whether entities of equal ids were taken to be the same.
    """

    source: RecGraph
    target: RecGraph
    union: RecGraph
    on: On
    by: By
    users: Indices
    entities: Indices
    target_entities: Indices
    from_target: NDArray[np.bool_]
    review: pd.DataFrame = field(repr=False)
    dropped: Mapping[str, int]
    matches: Indices
    same_users: bool
    same_entities: bool

    @property
    def items(self) -> Indices:
        """The union's index of each source item, int64 ``[source.num_items]``."""
        return self.entities[: self.source.num_items]

    @cached_property
    def shared_users(self) -> Indices:
        """Users that both have, as indices of the target and the union, ascending."""
        return np.sort(self.users[self.users < self.target.num_users])

    @cached_property
    def shared_items(self) -> Indices:
        """Items that both have, as indices of the target and the union, ascending."""
        return np.sort(self.items[self.items < self.target.num_items])

    def overlap(self) -> dict[str, dict[str, int]]:
        """Return how many users, items and entities only the source, both, and only the target have.

        Entities are those that are no items of the union.
        """
        num_items = self.union.num_items
        ours, theirs = (nodes[nodes >= num_items] for nodes in (self.entities, self.target_entities))
        shared = len(np.intersect1d(ours, theirs))
        sizes = {
            "users": (self.source.num_users, len(self.shared_users), self.target.num_users),
            "items": (self.source.num_items, len(self.shared_items), self.target.num_items),
            "entities": (len(ours), shared, len(theirs)),
        }
        return {
            name: {"source": of_source - both, "both": both, "target": of_target - both}
            for name, (of_source, both, of_target) in sizes.items()
        }

    def summary(self) -> str:
        """Return, as text, what is shared, what was dropped, and what to look at."""
        names = (f"only {self.source.name}", "both", f"only {self.target.name}")
        widths = [max(len(name), 9) for name in names]
        not_ = "" if self.same_entities else "not "
        how = f"linked on {self.on} by {self.by}{', and users by id' if self.same_users else ''}"
        how += f"; entities of equal id are {not_}the same"
        lines = [f"{self.source.name} -> {self.target.name}", how, ""]
        lines.append("  ".join(["          ", *(f"{n:>{w}}" for n, w in zip(names, widths, strict=True))]))
        for kind, counts in self.overlap().items():
            cells = (f"{counts[place]:>{w},}" for place, w in zip(("source", "both", "target"), widths, strict=True))
            lines.append("  ".join([f"{kind:<10}", *cells]))
        lines += ["", f"union: {self.union!r}"]
        lines += [f"{count:,} {reason}" for reason, count in self.dropped.items()]
        numbered = self.source.users.is_integer and self.target.users.is_integer
        if numbered and len(self.shared_users) and (self.same_users or (self.on, self.by) == ("user", "id")):
            lines.append("user ids are plain numbers: the link holds only if both files number the same people")
        if len(self.review):
            open_ = int((~self.review["linked"]).sum())
            lines.append(f"{len(self.review):,} matches to review, {open_:,} of them not linked: see pair.review")
        return "\n".join(lines)

    def audit(self) -> list[Finding]:
        """Look for what could make figures on the target untrue: what of its held-out part the union knows.

        Show the findings with :func:`kg_loaders.audit.format_audit`; those of each graph alone come from
        :func:`kg_loaders.audit.audit`.
        """
        from kg_loaders.pair_audit import audit_pair

        return audit_pair(self)

    def with_target(self, target: RecGraph) -> LinkedPair:
        """Return the pair with the target's interactions or split replaced, linked as before.

        Raises:
            GraphError: The users, entities or items are not the same.
        """
        same = (self.target.users == target.users, self.target.entities == target.entities)
        if not all(same) or target.num_items != self.target.num_items:
            raise GraphError("with_target takes the same users, items and entities; link other graphs anew")
        return _pair(
            self.source, target, self.on, self.by, self.matches, self.same_users, self.same_entities, self.review, {}
        )

    def keep_target(self, share: float, seed: int = 0) -> LinkedPair:
        """Return the pair with a random share of the target's train and validation pairs: a learning curve's point.

        Each part keeps ``round(n * share)`` of its ``n`` pairs, at least one; test is untouched.

        Raises:
            KGLoaderError: ``share`` is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise KGLoaderError(f"share must be above 0 and at most 1, got {share!r}")
        rng = np.random.default_rng(seed)
        split = _codes(self.target)
        kept = split == SPLITS.index("test")
        for part in ("train", "valid"):
            rows = np.flatnonzero(split == SPLITS.index(part))
            kept[rng.permutation(rows)[: max(round(len(rows) * share), 1)]] = True
        return self.with_target(replace(self.target, interactions=self.target.interactions[kept]))

    def without_history(self, users: Indices) -> LinkedPair:
        """Return the pair with these target users' train and validation pairs taken out: they are cold there."""
        pairs = self.target.interactions
        cold = np.isin(pairs.user, users) & (_codes(self.target) != SPLITS.index("test"))
        return self.with_target(replace(self.target, interactions=pairs[~cold]))

    def validate_cold(self, users: Indices) -> LinkedPair:
        """Return the pair with these target users' train pairs moved to validation: they are cold while selecting.

        Settings can then be chosen for users without a target history, and a refit learns of all pairs.
        """
        pairs, split = self.target.interactions, _codes(self.target).copy()
        split[np.isin(pairs.user, users) & (split == SPLITS.index("train"))] = SPLITS.index("valid")
        return self.with_target(self.target.with_split(split))

    def source_only(self) -> RecGraph:
        """Return the union without the target's train and validation pairs: what is known before the target is seen."""
        pairs = self.union.interactions
        return replace(self.union, interactions=pairs[~self.from_target | (_codes(self.union) == SPLITS.index("test"))])

    def __repr__(self) -> str:
        shared = ", ".join(f"{counts['both']} {kind}" for kind, counts in self.overlap().items())
        return f"LinkedPair({self.source.name!r} -> {self.target.name!r} on {self.on}; shared: {shared})"


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
        by: ``"id"``: equal ids. ``"map"``: a table. ``"predicate"``: triples such as ``owl:sameAs``. ``"label"``: equal
            names, then similar ones. ``"vectors"``: nearest texts. When not given, what the other arguments are for,
            else ``"id"``.
        map: A CSV file with a header and the columns source id, target id (or with columns of the names ``source_id``
            and ``target_id`` among others, as a review table has). Or two files, source's and target's, each from id
            to a key that both share, such as an IRI.
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
    from kg_loaders import matching  # it needs pandas, which kg_loaders does not load at import

    if by == "id":
        matches = matching.by_id(source, target, nodes)
        if nodes == "entity" and not same_entities:
            named = np.asarray([not _is_number(source.entities.id_of(node)) for node in matches.source.tolist()], bool)
            if not named.all():
                dropped[EQUAL_NUMBERS] = int((~named).sum())
                matches = matching.Matches.of_pairs(
                    np.stack([matches.source[named], matches.target[named]], axis=1), "equal id"
                )
    elif by == "map":
        assert map is not None
        matches = matching.by_map(source, target, nodes, map, dropped)
    elif by == "predicate":
        matches = matching.by_predicate(source, target, nodes, predicate or SAME_AS)
    elif by == "label":
        ours, theirs = (_names(graph, nodes, labels) for graph in (source, target))
        matches = matching.by_label(ours, theirs, threshold, dropped)
    else:
        given = _vectors(source, target, nodes, vectors)
        matches = matching.by_vectors(*given, COSINE if threshold is None else threshold)
    if not len(matches):
        raise GraphError(
            f"no {nodes} of {source.name!r} ({_examples(source, nodes)}) matches one of {target.name!r} "
            f"({_examples(target, nodes)}) by {by}{_numbers_left_out(dropped)}"
        )
    shown = {
        name: matching.labels_of(graph, nodes, labels if by == "label" else None)
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
    pairs = np.stack([matches.source[linked], matches.target[linked]], axis=1)
    return _pair(source, target, on, by, pairs, same_users, same_entities, review, dropped)


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
    _check_choice("on", on, ONS)
    _check_choice("on_ambiguous", on_ambiguous, ("raise", "review"))
    given: dict[By, tuple[str, object]] = {
        "map": ("map", map_),
        "predicate": ("predicate", predicate),
        "label": ("labels", labels),
        "vectors": ("vectors", vectors),
    }
    if by is None:
        meant: list[By] = [way for way, (_, value) in given.items() if value is not None]
        by = "vectors" if on == "text" else meant[0] if meant else "id"
    _check_choice("by", by, BYS)
    for way, (name, value) in given.items():
        if value is not None and way != by:
            raise KGLoaderError(f"{name} is for by={way!r}, got by={by!r}")
    if threshold is not None and by not in ("label", "vectors"):
        raise KGLoaderError(f"threshold is for by='label' or by='vectors', got by={by!r}")
    if by in ("map", "vectors") and given[by][1] is None:
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


def _vectors(
    source: RecGraph, target: RecGraph, nodes: Nodes, vectors: object
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from kg_loaders.matching import vocabulary_of

    found: list[NDArray[np.float32]] = []
    if isinstance(vectors, str):
        for graph in (source, target):
            known = {"user": graph.user_features, "item": graph.item_features, "entity": graph.entity_features}[nodes]
            if vectors not in known or known[vectors].is_text:
                there = ", ".join(repr(name) for name, feature in known.items() if not feature.is_text) or "none"
                raise KGLoaderError(
                    f"vectors must name a vector feature of the {nodes}s of {graph.name!r} ({there}), got {vectors!r}"
                )
            feature = known[vectors]
            found.append(np.where(feature.present[:, None], feature.values, np.float32(0)))
        return found[0], found[1]
    if not isinstance(vectors, tuple | list) or len(vectors) != 2:
        raise KGLoaderError(f"vectors must be a feature's name or two arrays (source, target), got {vectors!r:.80}")
    for graph, given in zip((source, target), vectors, strict=True):
        array = np.asarray(given, dtype=np.float32)
        size = len(vocabulary_of(graph, nodes))
        if array.ndim != 2 or len(array) != size or not np.isfinite(array).all():
            raise KGLoaderError(
                f"vectors of {graph.name!r} must be finite numbers [{size}, dim], got shape {list(array.shape)}"
            )
        found.append(array)
    return found[0], found[1]


def _examples(graph: RecGraph, nodes: Nodes) -> str:
    from kg_loaders.matching import vocabulary_of

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
    from kg_loaders import matching

    names = matching.labels_of(graph, nodes, labels)
    ids = matching.vocabulary_of(graph, nodes).ids
    return ["" if name == id_ and _is_number(id_) else name for name, id_ in zip(names, ids, strict=True)]


def _numbers_left_out(dropped: Mapping[str, int]) -> str:
    count = dropped.get(EQUAL_NUMBERS, 0)
    return f"; {count:,} {EQUAL_NUMBERS} (same_entities=True where they are)" if count else ""


def _are_numbers(graph: RecGraph) -> bool:
    """Whether a graph's entities have ids that mean nothing elsewhere."""
    others = graph.entities.ids[graph.num_items :]
    return bool(others) and all(map(_is_number, others))


def _is_number(id_: str) -> bool:
    # As the formats name what a file merely numbers.
    return re.fullmatch(r"(entity:|attribute:)?\d+", id_) is not None


def _pair(
    source: RecGraph,
    target: RecGraph,
    on: On,
    by: By,
    matches: Indices,
    same_users: bool,
    same_entities: bool,
    review: pd.DataFrame,
    dropped: Mapping[str, int],
) -> LinkedPair:
    from kg_loaders.matching import by_id

    users = entities = matches[:0]
    if on == "user":
        users = matches
    else:
        entities = matches
        if same_users:
            found = by_id(source, target, "user")
            users = np.stack([found.source, found.target], axis=1)
    joined = join(source, target, users, entities, same_entities, dropped)
    return LinkedPair(
        source=source,
        target=target,
        union=joined.union,
        on=on,
        by=by,
        users=joined.users,
        entities=joined.entities,
        target_entities=joined.target_entities,
        from_target=joined.from_target,
        review=review,
        dropped=joined.dropped,
        matches=matches,
        same_users=same_users,
        same_entities=same_entities,
    )


def _codes(graph: RecGraph) -> NDArray[np.int8]:
    split = graph.interactions.split
    assert split is not None, "a pair's target and union are split"
    return split
