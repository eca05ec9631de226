"""RecGraph: the one form that data has after reading."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError
from kg_loaders.vocabulary import Vocabulary

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")  # a split's code is its position here
# A pair stays in the earliest part that has it; what reading took out of (later, earlier) it counts in `dropped`.
LEAKS: dict[tuple[Split, Split], str] = {
    (later, earlier): f"{later} pairs also in {earlier}" for earlier, later in itertools.combinations(SPLITS, 2)
}

LABEL_FEATURES = ("title", "label", "name")  # text features that name a node, best first


@dataclass(frozen=True, eq=False)
class Interactions:
    """Distinct (user, item) pairs, grouped by user; within a user by time, else by item.

    Args:
        user: User indices, int64 ``[num_interactions]``.
        item: Item indices, int64 ``[num_interactions]``.
        time: Seconds since 1970 (or any clock), float64; ``None`` where unknown.
        weight: Ratings or counts, float32; ``None`` where unknown.
        split: Codes into :data:`SPLITS`, int8; ``None`` before splitting.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.float64] | None = None
    weight: NDArray[np.float32] | None = None
    split: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        for name, dtype in (
            ("user", np.int64),
            ("item", np.int64),
            ("time", np.float64),
            ("weight", np.float32),
            ("split", np.int8),
        ):
            column = getattr(self, name)
            if column is None:
                continue
            if not isinstance(column, np.ndarray) or column.dtype != dtype or column.ndim != 1:
                raise GraphError(f"interactions.{name} must be a 1-d {np.dtype(dtype)} array, got {_describe(column)}")
            if len(column) != len(self.user):
                raise GraphError(f"interactions.{name} has {len(column)} rows, user has {len(self.user)}")
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                raise GraphError(f"interactions.{name} holds NaN or infinity at row {_first(~np.isfinite(column))}")
        if self.split is not None and len(self) and not (self.split.min() >= 0 and self.split.max() < len(SPLITS)):
            raise GraphError(f"interactions.split holds codes outside 0..{len(SPLITS) - 1} ({', '.join(SPLITS)})")

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Interactions:
        """Return the interactions at ``rows`` (a mask, indices or a slice)."""
        return Interactions(
            self.user[rows],
            self.item[rows],
            None if self.time is None else self.time[rows],
            None if self.weight is None else self.weight[rows],
            None if self.split is None else self.split[rows],
        )

    def columns(self) -> Iterator[tuple[str, NDArray[Any] | None]]:
        """Yield ``(name, array or None)`` in a fixed order."""
        for name in ("user", "item", "time", "weight", "split"):
            yield name, getattr(self, name)

    def __repr__(self) -> str:
        columns = [name for name, column in self.columns() if column is not None]
        return f"Interactions({len(self)} pairs: {', '.join(columns)})"


@dataclass(frozen=True, eq=False)
class Feature:
    """One column of side information, a row per node.

    Args:
        values: Text (``object`` array of str, ``""`` where missing) or vectors (float32 ``[num_nodes, dim]``).
        present: Which rows are known, bool ``[num_nodes]``; missing rows are masked by models, never guessed.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]

    @classmethod
    def text(cls, values: list[str] | NDArray[Any]) -> Feature:
        """Make a text feature; an empty string counts as missing."""
        array = np.asarray(values, dtype=object)
        return cls(array, np.asarray([bool(v) for v in array], dtype=np.bool_))

    @classmethod
    def vectors(cls, values: NDArray[Any], present: NDArray[np.bool_] | None = None) -> Feature:
        """Make a vector feature from a ``[num_nodes, dim]`` array of numbers."""
        array = np.ascontiguousarray(values, dtype=np.float32)
        return cls(array, np.ones(len(array), dtype=np.bool_) if present is None else present)

    def __post_init__(self) -> None:
        if self.is_text:
            if self.values.ndim != 1 or not all(issubclass(kind, str) for kind in set(map(type, self.values))):
                raise GraphError("a text feature must be a 1-d array of str")
        elif self.values.dtype != np.float32 or self.values.ndim != 2:
            raise GraphError(f"a vector feature must be float32 [num_nodes, dim], got {_describe(self.values)}")
        elif not np.isfinite(self.values).all():
            row = _first(~np.isfinite(self.values).all(axis=1))
            raise GraphError(f"a vector feature holds NaN or infinity in row {row}; mark missing rows in `present`")
        if self.present.shape != self.values.shape[:1] or self.present.dtype != np.bool_:
            raise GraphError(f"`present` must be bool [{len(self.values)}], got {_describe(self.present)}")

    @property
    def is_text(self) -> bool:
        """Whether the values are text rather than vectors."""
        return bool(self.values.dtype == object)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        kind = "texts" if self.is_text else f"vectors of width {self.values.shape[1]}"
        return f"Feature({len(self)} {kind}, {int(self.present.sum())} known)"


Features = Mapping[str, Feature]


def _no_features() -> Features:
    return MappingProxyType({})


@dataclass(frozen=True, eq=False)
class RecGraph:
    """Users, items, entities and relations with all that connects them, checked on construction.

    Item ``i`` *is* entity ``i``: the items are the first ``num_items`` entities. There is no padding row.
    A triple ``(h, r, t)`` is stored once, in the direction of its source; models add inverses themselves.

    Args:
        users: The users.
        entities: Items first, then all other entities of the knowledge graph.
        num_items: How many of the entities are items.
        interactions: Who took what.
        relations: The relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), distinct.
        user_features: By name, a row per user.
        item_features: By name, a row per item.
        entity_features: By name, a row per entity.
        name: What to call the data set in tables.
        dropped: What reading left out, by reason; shown by :meth:`summary`.

    Raises:
        GraphError: The arrays contradict each other; the message says which, where, and what is allowed.

    Example:
        >>> import numpy as np
        >>> graph = RecGraph(
        ...     users=Vocabulary(["ann", "bob"], "user"), entities=Vocabulary(["Alien", "Heat", "Scott"], "entity"),
        ...     num_items=2, interactions=Interactions(np.array([0, 1]), np.array([0, 1])),
        ...     relations=Vocabulary(["director"], "relation"), triples=np.array([[0, 0, 2]]))
        >>> graph
        RecGraph(num_users=2, num_items=2, num_interactions=2, num_entities=3, num_relations=1, num_triples=1)
    """

    users: Vocabulary
    entities: Vocabulary
    num_items: int
    interactions: Interactions
    relations: Vocabulary = field(default_factory=lambda: Vocabulary((), "relation"))
    triples: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 3), dtype=np.int64))
    user_features: Features = field(default_factory=_no_features)
    item_features: Features = field(default_factory=_no_features)
    entity_features: Features = field(default_factory=_no_features)
    name: str = "unnamed"
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.num_items <= len(self.entities):
            allowed = f"0..{len(self.entities)} (items are entities)"
            raise GraphError(f"num_items must be within {allowed}, got {self.num_items}")
        _check_range("interactions.user", self.interactions.user, self.num_users)
        _check_range("interactions.item", self.interactions.item, self.num_items)
        self._check_pairs()
        if self.triples.dtype != np.int64 or self.triples.ndim != 2 or self.triples.shape[1] != 3:
            raise GraphError(f"triples must be int64 [num_triples, 3], got {_describe(self.triples)}")
        for column, (name, size) in enumerate(
            (("head", self.num_entities), ("relation", self.num_relations), ("tail", self.num_entities))
        ):
            _check_range(f"triples {name}", self.triples[:, column], size)
        for kind, features, size in (
            ("user", self.user_features, self.num_users),
            ("item", self.item_features, self.num_items),
            ("entity", self.entity_features, self.num_entities),
        ):
            for name, feature in features.items():
                if len(feature) != size:
                    raise GraphError(f"{kind} feature {name!r} has {len(feature)} rows, there are {size} {kind}s")

    def _check_pairs(self) -> None:
        user, item = self.interactions.user, self.interactions.item
        keys = user * max(self.num_items, 1) + item
        if (keys[1:] > keys[:-1]).all():
            return  # as without times: in the order of users and items, each pair once
        if (np.diff(user) < 0).any():
            raise GraphError("interactions must be grouped by user in index order; sort them with sort_interactions()")
        keys.sort()
        repeated = keys[1:] == keys[:-1]
        if repeated.any():
            first = divmod(int(keys[1:][repeated][0]), max(self.num_items, 1))
            who, what = self.users.id_of(first[0]), self.entities.id_of(first[1])
            raise GraphError(
                f"{int(repeated.sum())} repeated (user, item) pairs, first: user {who!r}, item {what!r}; "
                "remove and count them before construction"
            )

    # Sizes

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.users)

    @property
    def num_entities(self) -> int:
        """Number of entities, items among them."""
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        """Number of relations, inverses not counted."""
        return len(self.relations)

    @property
    def num_triples(self) -> int:
        """Number of distinct triples."""
        return len(self.triples)

    @property
    def num_interactions(self) -> int:
        """Number of distinct (user, item) pairs over all splits."""
        return len(self.interactions)

    # Views

    @cached_property
    def items(self) -> Vocabulary:
        """The items: the first ``num_items`` entities."""
        return self.entities.head(self.num_items, "item")

    @cached_property
    def item_labels(self) -> list[str]:
        """A name for every item that a person can read: its title where known, else its id."""
        return _labels(self.items, self.item_features)

    @cached_property
    def entity_labels(self) -> list[str]:
        """A name for every entity: an item's label, a label feature, else the id."""
        labels = _labels(self.entities, self.entity_features)
        items = zip(self.item_labels, self.items, labels[: self.num_items], strict=True)
        return [own if own != id_ else label for own, id_, label in items] + labels[self.num_items :]

    def part(self, *splits: Split) -> Interactions:
        """Return the interactions of one or several splits.

        Raises:
            GraphError: The graph has not been split.
        """
        for name in splits:
            if name not in SPLITS:
                raise GraphError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {name!r}")
        if self.interactions.split is None:
            raise GraphError(f"graph {self.name!r} has not been split; use kg_loaders.splits first")
        codes = [SPLITS.index(name) for name in splits]
        return self.interactions[np.isin(self.interactions.split, codes)]

    def has_split(self, split: Split) -> bool:
        """Whether any interaction belongs to ``split``."""
        codes = self.interactions.split
        return codes is not None and bool((codes == SPLITS.index(split)).any())

    # Copies

    def with_split(self, split: NDArray[np.int8] | None) -> RecGraph:
        """Return the same graph with other split codes."""
        return replace(self, interactions=replace(self.interactions, split=split))

    def without_kg(self) -> RecGraph:
        """Return the same graph with no triples: the *no KG* row of every table."""
        return replace(self, triples=np.empty((0, 3), dtype=np.int64))

    def shuffled_kg(self, seed: int) -> RecGraph:
        """Return the same graph with tails permuted within each relation: the *shuffled KG* row.

        Every head keeps its out-degree and every tail its in-degree, per relation; only who meets whom is false.
        Triples that coincide after the permutation are merged, so a few may be lost.
        """
        rng = np.random.default_rng(seed)
        triples = self.triples[np.argsort(self.triples[:, 1], kind="stable")].copy()
        bounds = np.searchsorted(triples[:, 1], np.arange(self.num_relations + 1))
        for start, end in itertools.pairwise(bounds):
            triples[start:end, 2] = rng.permutation(triples[start:end, 2])
        return replace(self, triples=np.unique(triples, axis=0))

    # Identity

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 over everything but ``name`` and ``dropped``: equal graphs have equal fingerprints."""
        digest = hashlib.sha256()
        for part in self._content():
            digest.update(part)
        return digest.hexdigest()

    def _content(self) -> Iterator[bytes]:
        for vocabulary in (self.users, self.entities, self.relations):
            yield f"{len(vocabulary)}:".encode()
            yield "\x00".join(vocabulary).encode("utf-8", "surrogatepass")
        yield f"{self.num_items}".encode()
        for name, column in self.interactions.columns():
            if column is not None:
                yield name.encode() + np.ascontiguousarray(column).tobytes()
        yield np.ascontiguousarray(self.triples).tobytes()
        for features in (self.user_features, self.item_features, self.entity_features):
            yield f"{len(features)}".encode()
            for name in sorted(features):
                feature = features[name]
                yield name.encode()
                yield (
                    "\x00".join(feature.values).encode("utf-8", "surrogatepass")
                    if feature.is_text
                    else np.ascontiguousarray(feature.values).tobytes()
                )
                yield feature.present.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecGraph) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"RecGraph(num_users={self.num_users}, num_items={self.num_items}, "
            f"num_interactions={self.num_interactions}, num_entities={self.num_entities}, "
            f"num_relations={self.num_relations}, num_triples={self.num_triples})"
        )


def sort_interactions(interactions: Interactions) -> Interactions:
    """Return the interactions in canonical order: by user, then time (stable), or item where no time is known."""
    keys = interactions.item if interactions.time is None else interactions.time
    by_key = np.argsort(keys, kind="stable")
    order = by_key[np.argsort(interactions.user[by_key], kind="stable")]
    return interactions[cast("NDArray[Any]", order)]


def _labels(vocabulary: Vocabulary, features: Features) -> list[str]:
    for name in LABEL_FEATURES:
        if name in features and features[name].is_text:
            return [str(value) or id_ for value, id_ in zip(features[name].values, vocabulary, strict=True)]
    return list(vocabulary)


def _check_range(name: str, indices: NDArray[np.int64], size: int) -> None:
    if len(indices) and (indices.min() < 0 or indices.max() >= size):
        row = _first((indices < 0) | (indices >= size))
        raise GraphError(f"{name} must be within 0..{size - 1}, got {indices[row]} at row {row}")


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.argmax(mask))


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
