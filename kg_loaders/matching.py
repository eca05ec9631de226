"""Which nodes of two graphs are the same: by id, by a map, by a predicate, by label, by vectors."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.errors import FormatError, GraphError, KGLoaderError
from kg_loaders.graph import RecGraph
from kg_loaders.texttable import TextTable, read_table
from kg_loaders.vocabulary import Vocabulary

Nodes = Literal["user", "item", "entity"]

LABEL_CHUNK = 2**22  # pairs of labels compared in one go
VECTOR_CHUNK = 2**24  # cosines held at once
ARTICLES = "the|a|an|le|la|les|il|lo|el|los|las|der|die|das|un|une"
ROMAN = re.compile(r"x{0,3}(ix|iv|v?i{0,3})")


@dataclass(frozen=True, eq=False)
class Matches:
    """Candidate pairs of nodes, none of them twice.

    Args:
        source: Node of the source graph, int64 ``[num_matches]``.
        target: Node of the target graph, int64 ``[num_matches]``.
        score: How alike they are, 0 to 1; 1 for equal ids and equal labels, float64 ``[num_matches]``.
        reason: What ties them together, in a word or two, ``[num_matches]``.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    score: NDArray[np.float64]
    reason: Sequence[str]

    @classmethod
    def of_pairs(cls, pairs: NDArray[np.int64], reason: str) -> Matches:
        """Make certain matches of ``[num_matches, 2]`` pairs (source, target); repeated pairs count once."""
        pairs = np.unique(pairs.reshape(-1, 2), axis=0)
        return cls(pairs[:, 0].copy(), pairs[:, 1].copy(), np.ones(len(pairs)), [reason] * len(pairs))

    def and_also(self, other: Matches) -> Matches:
        """Return both."""
        return Matches(
            np.concatenate([self.source, other.source]),
            np.concatenate([self.target, other.target]),
            np.concatenate([self.score, other.score]),
            [*self.reason, *other.reason],
        )

    @property
    def ambiguous(self) -> NDArray[np.bool_]:
        """Which matches have a node that another match has too, bool ``[num_matches]``."""
        more = np.zeros(len(self), dtype=np.bool_)
        for nodes in (self.source, self.target):
            if len(nodes):
                more |= np.bincount(nodes)[nodes] > 1
        return more

    def __len__(self) -> int:
        return len(self.source)


def vocabulary_of(graph: RecGraph, nodes: Nodes) -> Vocabulary:
    """Return the ids of the users, the items or all entities."""
    return {"user": graph.users, "item": graph.items, "entity": graph.entities}[nodes]


def labels_of(graph: RecGraph, nodes: Nodes, features: Sequence[str] | None = None) -> list[str]:
    """Return what a person would call each node.

    Args:
        graph: The graph.
        nodes: Whose labels.
        features: Text features to join with blanks, those of them that the graph has; ``None``: the graph's own labels.

    Raises:
        KGLoaderError: The graph has none of the features.
    """
    if features is None:
        own = {"user": lambda: list(graph.users), "item": lambda: graph.item_labels}
        return own.get(nodes, lambda: graph.entity_labels)()
    known = {"user": graph.user_features, "item": graph.item_features, "entity": graph.entity_features}[nodes]
    texts = [known[name].values for name in features if name in known and known[name].is_text]  # noqa: PD011
    if not texts:
        there = ", ".join(repr(name) for name, feature in known.items() if feature.is_text) or "none"
        raise KGLoaderError(
            f"labels must name text features of the {nodes}s of {graph.name!r} ({there}), got {list(features)}"
        )
    return [" ".join(filter(None, map(str, cells))) for cells in zip(*texts, strict=True)]


def by_id(source: RecGraph, target: RecGraph, nodes: Nodes) -> Matches:
    """Match nodes of equal ids."""
    found = vocabulary_of(target, nodes).indices_of(vocabulary_of(source, nodes).ids, on_unknown="drop")
    there = np.flatnonzero(found >= 0)
    return Matches.of_pairs(np.stack([there, found[there]], axis=1), "equal id")


def by_map(
    source: RecGraph,
    target: RecGraph,
    nodes: Nodes,
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    counts: dict[str, int],
) -> Matches:
    """Match nodes by a table of two columns, source id and target id, or by two tables that share their second column.

    Args:
        source: The source.
        target: The target.
        nodes: What the ids name.
        files: One CSV file with a header; more columns than two are allowed where two are called ``source_id`` and
            ``target_id``. Or two files, one for each graph: a node's id, and a key that both files use (an IRI, say);
            a node without a key is left out.
        counts: Rows that name a node which is not there are counted here.

    Raises:
        FormatError: A file is malformed.
        GraphError: No row matches anything.
    """
    if isinstance(files, str | os.PathLike):
        pairs = _pairs_of(Path(files))
    else:
        if len(files) != 2:
            raise KGLoaderError(f"map must be one file, or two (source, target), got {len(files)}")
        ours, theirs = (_keys_of(Path(file)) for file in files)
        pairs = [(id_, other) for key, ids in ours.items() for id_ in ids for other in theirs.get(key, ())]
    indexed = np.stack(
        [
            vocabulary_of(graph, nodes).indices_of([pair[side] for pair in pairs], on_unknown="drop")
            for side, graph in enumerate((source, target))
        ],
        axis=1,
    )
    there = (indexed >= 0).all(axis=1)
    if not there.any():
        first = f", the first of them {pairs[0]}" if pairs else ""
        raise GraphError(
            f"map matches no {nodes}: none of its {len(pairs)} pairs{first} has both ids; {source.name!r} has ids such "
            f"as {_example(source, nodes)}, {target.name!r} such as {_example(target, nodes)}"
        )
    if not there.all():
        counts["rows of the map with an unknown id"] = int((~there).sum())
    return Matches.of_pairs(indexed[there], "map")


def _pairs_of(file: Path) -> list[tuple[str, str]]:
    table = _read_map(file)
    names = table.names if len(table.names) == 2 else ("source_id", "target_id")
    return list(zip(*(map(str, table.texts(name)) for name in names), strict=True))


def _keys_of(file: Path) -> dict[str, list[str]]:
    table = _read_map(file)
    if len(table.names) != 2:
        raise FormatError(file, 1, f"{len(table.names)} columns, expected two: an id and a key")
    keys: dict[str, list[str]] = {}
    for id_, key in zip(*(map(str, table.texts(name)) for name in table.names), strict=True):
        if key.strip():
            keys.setdefault(key.strip(), []).append(id_)
    return keys


def _read_map(file: Path) -> TextTable:
    if not file.is_file():
        raise KGLoaderError(f"map must name a CSV file, got {os.fspath(file)!r}, which is not there")
    return read_table(file, ",")


def _example(graph: RecGraph, nodes: Nodes) -> str:
    return ", ".join(map(repr, vocabulary_of(graph, nodes).ids[:2])) or "none"


def by_predicate(source: RecGraph, target: RecGraph, nodes: Nodes, predicate: str) -> Matches:
    """Match nodes that a triple ``(a, predicate, b)`` of either graph, in either direction, says to be the same.

    A node is found in the other graph by its id; two nodes that are both said to be the same as a third match too.

    Raises:
        GraphError: Neither graph has the predicate, or its triples reach no node of the other graph.
    """
    ties = [_ties(graph, predicate) for graph in (source, target)]
    if not any(map(len, ties)):
        raise GraphError(
            f"predicate {predicate!r} is no relation of {source.name!r} or {target.name!r}, or has no triples"
        )
    own, tied = [], []  # by id: the node that has it, and the nodes that are said to be the same as what has it
    for graph, tie in zip((source, target), ties, strict=True):
        size = len(vocabulary_of(graph, nodes))
        own.append({id_: {index} for index, id_ in enumerate(graph.entities.ids[:size])})
        same: dict[str, set[int]] = {}
        for head, tail in tie.tolist():
            for node, other in ((head, tail), (tail, head)):
                if node < size:
                    same.setdefault(graph.entities.id_of(other), set()).add(node)
        tied.append(same)
    pairs = [
        (a, b)
        for ours, theirs in ((own[0], tied[1]), (tied[0], own[1]), (tied[0], tied[1]))
        for id_ in ours.keys() & theirs.keys()
        for a in ours[id_]
        for b in theirs[id_]
    ]
    if not pairs:
        raise GraphError(f"predicate {predicate!r} ties no {nodes} of {source.name!r} to one of {target.name!r}")
    return Matches.of_pairs(np.asarray(pairs, dtype=np.int64), predicate.rsplit("/", 1)[-1].rsplit("#", 1)[-1])


def _ties(graph: RecGraph, predicate: str) -> NDArray[np.int64]:
    if predicate not in graph.relations:
        return np.empty((0, 2), dtype=np.int64)
    ties: NDArray[np.int64] = graph.triples[graph.triples[:, 1] == graph.relations.index_of(predicate)][:, [0, 2]]
    return ties


def normalized(label: str) -> str:
    """Return a label without what two sources write differently: case, accents, punctuation, a leading article.

    Example:
        >>> normalized("Misérables, Les (1995)"), normalized("Les Miserables 1995")
        ('miserables 1995', 'miserables 1995')
    """
    plain = unicodedata.normalize("NFKD", label).casefold().replace("&", " and ")
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(rf"^(.+), (?:{ARTICLES})(?=$| \(| \d)", r"\1", plain)
    words = re.sub(r"[^\w]+|_", " ", plain.replace("'", "")).split()
    if len(words) > 1 and re.fullmatch(ARTICLES, words[0]):
        words = words[1:]
    return " ".join(words)


def by_label(
    source_labels: Sequence[str], target_labels: Sequence[str], threshold: float | None, counts: dict[str, int]
) -> Matches:
    """Match equal labels, then, among nodes that have no such match, similar ones.

    Labels are compared as :func:`normalized`. A similar label is the best for its node, and its node the best for it
    (both among those of the same numbers, years and sequels being what similar titles differ in), by rapidfuzz's
    ``ratio``, at least ``threshold``.

    Args:
        source_labels: One a node; an empty one matches nothing.
        target_labels: The same of the target.
        threshold: From which share of equal letters on labels are similar, above 0 and at most 1; ``None``: equal
            labels only.
        counts: Nodes without a label are counted here.

    Raises:
        KGLoaderError: rapidfuzz is not installed, or the threshold is not allowed.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise KGLoaderError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    ours, theirs = ([normalized(label) for label in labels] for labels in (source_labels, target_labels))
    for name, labels in (("source", ours), ("target", theirs)):
        if missing := labels.count(""):
            counts[f"{name} nodes without a label"] = missing
    places: dict[str, list[int]] = {}
    for index, label in enumerate(theirs):
        places.setdefault(label, []).append(index)
    exact = [(i, j) for i, label in enumerate(ours) if label for j in places.get(label, ())]
    found = Matches.of_pairs(np.asarray(exact, dtype=np.int64), "equal label")
    if threshold is None:
        return found
    rows, columns = (
        np.asarray([i for i, label in enumerate(labels) if label and i not in taken], dtype=np.int64)
        for labels, taken in ((ours, set(found.source.tolist())), (theirs, set(found.target.tolist())))
    )
    return found.and_also(_similar(ours, theirs, rows, columns, threshold))


def _similar(
    ours: Sequence[str],
    theirs: Sequence[str],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    threshold: float,
) -> Matches:
    try:
        from rapidfuzz import fuzz, process
    except ImportError as error:
        raise KGLoaderError(
            f"similar labels need the extra 'link' (pip install 'graphrec[link]'); threshold=None matches equal ones "
            f"alone: {error}"
        ) from None
    choices = [theirs[j] for j in columns]
    numbers = _codes([_numbers(theirs[j]) for j in columns], others := [_numbers(ours[i]) for i in rows])

    def alike(part: NDArray[np.int64]) -> NDArray[np.float64]:
        ratios = process.cdist([ours[i] for i in rows[part]], choices, scorer=fuzz.ratio, score_cutoff=100 * threshold)
        same = _codes(others, others)[part][:, None] == numbers[None]
        return np.where(same, np.asarray(ratios, dtype=np.float64) / 100, 0.0)

    return _mutual(alike, rows, columns, threshold, LABEL_CHUNK, "similar label")


def _numbers(label: str) -> str:
    return " ".join(w for w in label.split() if any(map(str.isdigit, w)) or (w and ROMAN.fullmatch(w)))


def _codes(labels: Sequence[str], universe: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each label in the universe, -1 where it has none."""
    place = {label: code for code, label in enumerate(dict.fromkeys(universe))}
    return np.asarray([place.get(label, -1) for label in labels], dtype=np.int64)


def by_vectors(source: NDArray[np.float32], target: NDArray[np.float32], threshold: float) -> Matches:
    """Match nodes whose vectors are each other's nearest by cosine, and at least ``threshold`` alike.

    Args:
        source: ``[num_nodes, dim]``; a row of zeros is unknown and matches nothing.
        target: The same of the target, of the same width.
        threshold: Least cosine, above 0 and at most 1.

    Raises:
        KGLoaderError: Widths differ, or the threshold is not allowed.
    """
    if not 0 < threshold <= 1:
        raise KGLoaderError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise KGLoaderError(
            f"vectors must be [num_nodes, dim] of one width, got {list(source.shape)} and {list(target.shape)}"
        )
    lengths = [np.linalg.norm(vectors, axis=1) for vectors in (source, target)]
    rows, columns = (np.flatnonzero(length > 0) for length in lengths)
    ours, theirs = (
        vectors[known] / length[known, None]
        for vectors, known, length in zip((source, target), (rows, columns), lengths, strict=True)
    )
    return _mutual(
        lambda part: np.asarray(ours[part] @ theirs.T, dtype=np.float64).clip(max=1.0),
        rows, columns, threshold, VECTOR_CHUNK, "similar text",
    )  # fmt: skip


def _mutual(
    alike: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    threshold: float,
    chunk: int,
    reason: str,
) -> Matches:
    """Return the pairs that are best for both sides; equally good ones are all returned, and so ambiguous."""
    pairs: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float64]] = []
    best = np.zeros(len(columns))
    if len(rows) and len(columns):
        for part in np.array_split(np.arange(len(rows)), min(len(rows), -(-len(rows) * len(columns) // chunk))):
            values = alike(part)
            best = np.maximum(best, values.max(axis=0))
            i, j = np.nonzero((values >= threshold) & (values >= values.max(axis=1)[:, None]))
            pairs.append(np.stack([part[i], j], axis=1))
            scores.append(values[i, j])
    found = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
    score = np.concatenate(scores) if scores else np.empty(0)
    mutual = score >= best[found[:, 1]]
    found, score = found[mutual], score[mutual]
    return Matches(rows[found[:, 0]], columns[found[:, 1]], score, [reason] * len(found))


def review_table(
    source: RecGraph, target: RecGraph, nodes: Nodes, matches: Matches, linked: NDArray[np.bool_],
    labels: Mapping[str, Sequence[str]],
) -> pd.DataFrame:  # fmt: skip
    """Return what a person should look at: matches that are not linked, and those that are only similar.

    Columns: ``source_id``, ``source_label``, ``target_id``, ``target_label``, ``score``, ``reason``, ``linked``. Saved
    as CSV and thinned out by hand, it is a map for ``link(..., map=FILE)``.
    """
    shown = np.flatnonzero(~linked | (matches.score < 1))
    shown = shown[np.lexsort((matches.target[shown], matches.source[shown], matches.score[shown]))]
    ours, theirs = matches.source[shown], matches.target[shown]
    return pd.DataFrame(
        {
            "source_id": vocabulary_of(source, nodes).ids_of(ours),
            "source_label": [labels["source"][i] for i in ours],
            "target_id": vocabulary_of(target, nodes).ids_of(theirs),
            "target_label": [labels["target"][j] for j in theirs],
            "score": matches.score[shown],
            "reason": [matches.reason[k] for k in shown.tolist()],
            "linked": linked[shown],
        }
    )
