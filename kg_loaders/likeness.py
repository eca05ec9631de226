"""Which nodes of two graphs are alike: by label, by vectors."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import KGLoaderError
from kg_loaders.matching import Matches

LABEL_CHUNK = 2**22  # pairs of labels compared in one go
VECTOR_CHUNK = 2**24  # cosines held at once
ARTICLES = "the|a|an|le|la|les|il|lo|el|los|las|der|die|das|un|une"
ARTICLE_BEHIND = re.compile(rf"^(.+), ({ARTICLES})(?=$| \(| \d)")
SYMBOLS = "#%@*"  # beside what Unicode calls one: they tell C# from C++
ACCENTED = ("LATIN", "GREEK", "COPTIC", "CYRILLIC")  # letters whose marks are left out: others mean another letter
APOSTROPHES = str.maketrans("", "", "'\u2019\u2018\u02bc")  # typed, printed (both ways round), and the letter
ALMOST = 0.999  # of labels that differ in an article or a symbol
ROMAN = re.compile(r"x{0,3}(ix|iv|v?i{0,3})")


def normalized(label: str) -> str:
    """Return a label without what two sources write differently: case, accents, punctuation, a leading article.

    Accents are those of Latin, Greek and Cyrillic letters; marks of other scripts belong to the letter.

    Example:
        >>> normalized("Misérables, Les (1995)"), normalized("Les Miserables 1995")
        ('miserables 1995', 'miserables 1995')
    """
    words = _words(re.sub(ARTICLE_BEHIND, r"\1", _plain(label)))
    if len(words) > 1 and re.fullmatch(ARTICLES, words[0]):
        words = words[1:]
    return " ".join(words)


def _exact(label: str) -> str:
    """Return a label as :func:`normalized` does, but with its article, in front, and its symbols."""
    return " ".join(_words(re.sub(ARTICLE_BEHIND, r"\2 \1", _plain(label)), symbols=True))


def _plain(label: str) -> str:
    plain = unicodedata.normalize("NFKD", label).casefold().replace("&", " and ").translate(APOSTROPHES)
    if plain.isascii():
        return plain
    kept, base = [], ""
    for letter in plain:
        if unicodedata.category(letter)[0] != "M":
            base = letter
        elif not base.isalpha() or unicodedata.name(base, "").startswith(ACCENTED):
            continue
        kept.append(letter)
    return "".join(kept)


def _words(plain: str, symbols: bool = False) -> list[str]:
    """Split into words of letters, digits and marks, and, where asked for, symbols."""
    kinds = "MS" if symbols else "M"
    return "".join(
        letter
        if letter.isalnum() or unicodedata.category(letter)[0] in kinds or (symbols and letter in SYMBOLS)
        else " "
        for letter in plain
    ).split()


def by_label(
    source_labels: Sequence[str], target_labels: Sequence[str], threshold: float | None, counts: dict[str, int]
) -> Matches:
    """Match equal labels, then, among nodes that have no such match, similar ones.

    Labels are compared as :func:`normalized`; where they are equal but for an article or a symbol ("Die Hard", "Hard")
    the score is just below 1, so that somebody looks at them. A similar label is the best for its node, and its node
    the best for it (both among those of the same numbers, years and sequels being what similar titles differ in), by
    rapidfuzz's ``ratio``, at least ``threshold``.

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
    for row, (i, j) in enumerate(found.pairs.tolist()):
        if source_labels[i] != target_labels[j] and _exact(source_labels[i]) != _exact(target_labels[j]):
            found.score[row] = ALMOST
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
