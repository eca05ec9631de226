"""Matches: pairs of nodes of two graphs, found by id, by a map or by a predicate, and shown for review."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.errors import FormatError, GraphError, KGLoaderError
from kg_loaders.graph import RecGraph
from kg_loaders.nodes import Nodes, vocabulary_of
from kg_loaders.texttable import TextTable, read_table

DENIED = "unsure matches that the map does not have"
OVERRULED = "sure matches of nodes that the map links to others"


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

    def at(self, rows: NDArray[np.bool_]) -> Matches:
        """Return those of a mask."""
        reasons = [self.reason[k] for k in np.flatnonzero(rows).tolist()]
        return Matches(self.source[rows], self.target[rows], self.score[rows], reasons)

    def and_also(self, other: Matches) -> Matches:
        """Return both."""
        return Matches(
            np.concatenate([self.source, other.source]),
            np.concatenate([self.target, other.target]),
            np.concatenate([self.score, other.score]),
            [*self.reason, *other.reason],
        )

    @property
    def pairs(self) -> NDArray[np.int64]:
        """The matches as (source, target), int64 ``[num_matches, 2]``."""
        return np.stack([self.source, self.target], axis=1)

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
        files: One CSV file with a header; where two of its columns are called ``source_id`` and ``target_id``, it may
            have others and any order. Or two files, one for each graph: a node's id, and a key that both files use (an
            IRI, say); a node without a key is left out.
        counts: Rows that name a node which is not there are counted here.

    Raises:
        FormatError: A file is malformed.
        GraphError: There are rows, and none of them matches anything.
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
    if pairs and not there.any():
        raise GraphError(
            f"map matches no {nodes}: none of its {len(pairs)} pairs, the first of them {pairs[0]}, has both ids; "
            f"{source.name!r} has ids such as {_example(source, nodes)}, {target.name!r} such as "
            f"{_example(target, nodes)}"
        )
    if not there.all():
        counts["rows of the map with an unknown id"] = int((~there).sum())
    return Matches.of_pairs(indexed[there], "map")


def settled(found: Matches, by_hand: Matches, counts: dict[str, int]) -> Matches:
    """Return what a person says of matches: of the unsure ones those that stand in a map, and all sure ones.

    Unsure are those that :func:`review_table` shows: ambiguous ones and merely similar ones. What the map ties together
    is tied though nothing was found, and other matches of its nodes give way.

    Args:
        found: All matches that were found.
        by_hand: Those of the map.
        counts: Matches that are not in the map, or give way to it, are counted here.
    """
    unsure = found.ambiguous | (found.score < 1)
    mapped = set(map(tuple, by_hand.pairs.tolist()))
    denied = np.array([pair not in mapped for pair in map(tuple, found.pairs.tolist())], dtype=np.bool_)
    elsewhere = np.isin(found.source, by_hand.source) | np.isin(found.target, by_hand.target)
    for reason, count in (
        (DENIED, (unsure & denied).sum()),
        (OVERRULED, (~unsure & denied & elsewhere).sum()),
    ):
        if count:
            counts[reason] = int(count)
    return by_hand.and_also(found.at(~unsure & ~elsewhere))


def _pairs_of(file: Path) -> list[tuple[str, str]]:
    table = _read_map(file)
    named = ("source_id", "target_id")
    names = table.names if len(table.names) == 2 and set(table.names) != set(named) else named  # in whatever order
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


def review_table(
    source: RecGraph, target: RecGraph, nodes: Nodes, matches: Matches, linked: NDArray[np.bool_],
    labels: Mapping[str, Sequence[str]],
) -> pd.DataFrame:  # fmt: skip
    """Return what a person should look at: matches that are not linked, and those that are only similar.

    Columns: ``source_id``, ``source_label``, ``target_id``, ``target_label``, ``score``, ``reason``, ``linked``. Saved
    as CSV and thinned out by hand, it is a map that settles them: ``link(..., map=FILE)`` with all else as it was.
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
