"""Sequences in S3-Rec's text: ``user item item ...`` a line, in order of time, with the items' attributes beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kg_loaders.assemble import assemble
from kg_loaders.errors import FormatError, blamed_on
from kg_loaders.graph import RecGraph
from kg_loaders.textio import (
    check_writable,
    decode,
    find_file,
    line_at,
    need_file,
    read_bytes,
    read_integer_rows,
    stem_of,
    unread_files,
    write_text,
)

ATTRIBUTES = "_item2attributes.json"
RELATION = "attribute"
PREFIX = "attribute:"  # attributes are numbered from 1, as items are
NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def detect(folder: Path) -> bool:
    """Whether the folder holds an ``*_item2attributes.json``, or the file is a text with one beside it."""
    if folder.is_dir():
        return bool(_stems(folder))
    return folder.is_file() and find_file(folder.parent, f"{stem_of(folder)}{ATTRIBUTES}") is not None


def read(path: Path) -> RecGraph:
    """Read one file of sequences.

    The position in the line (0, 1, 2, ...) is the time; an item that comes back counts at its first place. The numbers
    are the ids of users and items. ``NAME_item2attributes.json`` beside ``NAME.txt`` maps items to lists of attribute
    numbers; they become triples (item, ``attribute``, ``attribute:N``). All items that it names are kept.

    Args:
        path: ``NAME.txt`` (or ``NAME.txt.gz``), or a folder with one ``NAME_item2attributes.json``.

    Raises:
        FormatError: A file is missing or malformed, a user has two lines, or the folder holds several data sets.
    """
    file = _sequence_file(path)
    rows = read_integer_rows(file, " ")
    heads = pd.Series(rows.numbers[rows.starts[:-1]])
    twice = np.flatnonzero(heads.duplicated().to_numpy())
    if len(twice):
        raise FormatError(file, int(rows.lines[twice[0]]), f"user {heads[twice[0]]} has a second line")
    user, item, row = rows.head_and_rest()
    if not len(item):
        raise FormatError(file, None, "no user has any item")
    position = np.arange(len(row)) - (rows.starts[:-1] - np.arange(len(rows)))[row]
    items, triples = _read_attributes(find_file(file.parent, f"{stem_of(file)}{ATTRIBUTES}"))
    with blamed_on(path):
        return assemble(
            name=stem_of(file),
            interactions=pd.DataFrame(
                {"user_id": _as_ids(user), "item_id": _as_ids(item), "time": position.astype(np.float64)}
            ),
            triples=triples,
            user_table=pd.DataFrame(index=heads.astype(str).astype(object)),
            item_table=pd.DataFrame(index=pd.Index(items, dtype=object)),
            dropped=unread_files(path, [file], ".txt") if path.is_dir() else None,
        )


def _stems(folder: Path) -> list[str]:
    """Return the names of the data sets in a folder."""
    files = (file.name.removesuffix(".gz") for file in folder.glob(f"*{ATTRIBUTES}*"))
    return sorted({name.removesuffix(ATTRIBUTES) for name in files if name.endswith(ATTRIBUTES)})


def _sequence_file(path: Path) -> Path:
    if not path.is_dir():
        return need_file(path.parent, path.name)
    stems = _stems(path)
    if len(stems) != 1:
        found = ", ".join(f"{stem}.txt" for stem in stems) or "none"
        raise FormatError(path, None, f"expected one data set with {ATTRIBUTES}, found {found}; name the .txt file")
    return need_file(path, f"{stems[0]}.txt")


def _as_ids(numbers: Any) -> pd.Categorical:
    codes, uniques = pd.factorize(numbers)
    return pd.Categorical.from_codes(codes, pd.Index(list(map(str, uniques.tolist())), dtype=object))


def _read_attributes(file: Path | None) -> tuple[list[str], pd.DataFrame | None]:
    """Return the items that the file names, and their triples."""
    if file is None:
        return [], None
    data = read_bytes(file)
    text = decode(file, data)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FormatError(file, None, f"item {twice!r} occurs twice")
        return table

    try:
        table = json.loads(text, object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        raise FormatError(file, error.lineno, f"malformed JSON at column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        if isinstance(error, FormatError):
            raise
        raise FormatError(file, None, f"malformed JSON: {error}") from None
    if not isinstance(table, dict):
        raise FormatError(file, None, f"expected an object of items, got {type(table).__name__}")
    heads: list[str] = []
    tails: list[str] = []
    for item, attributes in table.items():
        if not NUMBER.fullmatch(item):
            raise FormatError(file, _line_of(data, item), f"item {item!r} is not a whole number >= 0")
        numbers = attributes if isinstance(attributes, list) else [attributes]
        wrong = [a for a in numbers if type(a) is not int or not NUMBER.fullmatch(str(a))]
        if wrong or not isinstance(attributes, list):
            bad = repr(wrong[0] if wrong else attributes)[:40]
            reason = f"item {item!r} needs a list of whole numbers >= 0, got {bad}"
            raise FormatError(file, _line_of(data, item), reason)
        heads += [item] * len(attributes)
        tails += [f"{PREFIX}{attribute}" for attribute in attributes]
    triples = pd.DataFrame({"head_id": heads, "relation_id": RELATION, "tail_id": tails}, dtype=object)
    return list(table), triples if heads else None


def _line_of(data: bytes, key: str) -> int | None:
    """Return the line of a key as it would stand in the file."""
    position = data.find(json.dumps(key).encode())
    return line_at(data, position) if position >= 0 else None


def write(graph: RecGraph, path: Path) -> None:
    """Write the graph as ``path`` (``NAME.txt``) and ``NAME_item2attributes.json`` beside it.

    ``read(path)`` gives an equal graph, in natural order of the ids.

    Raises:
        GraphError: The graph is not one of sequences: ids other than numbers, times other than 0, 1, 2, ... for each
            user, a split, weights, features, or triples other than (item, ``attribute``, ``attribute:N``).
    """
    interactions = graph.interactions
    bounds = np.searchsorted(interactions.user, np.arange(graph.num_users + 1))
    places = np.arange(len(interactions)) - bounds[interactions.user]
    others = graph.entities.ids[graph.num_items :]
    head, tail = graph.triples[:, 0], graph.triples[:, 2]
    check_writable(
        "sequence text",
        [
            (path.suffix != ".txt", f"anything in {path.name!r}: the name must end in .txt"),
            (not len(interactions), "a graph without interactions"),
            (interactions.time is None or bool((interactions.time != places).any()), "times other than 0, 1, 2, ..."),
            (interactions.weight is not None, "weights"),
            (interactions.split is not None, "a split"),
            (bool(graph.user_features or graph.item_features or graph.entity_features), "features"),
            (not all(map(NUMBER.fullmatch, (*graph.users, *graph.items))), "ids other than whole numbers >= 0"),
            (graph.relations.ids not in ((), (RELATION,)), f"relations other than {RELATION!r}"),
            (bool(graph.num_relations) != bool(graph.num_triples), f"the relation {RELATION!r} without triples"),
            (
                bool(((head >= graph.num_items) | (tail < graph.num_items)).any()),
                "triples other than item to attribute",
            ),
            (len(np.unique(tail)) < len(others), "entities that are in no triple"),
            (
                not all(NUMBER.fullmatch(e.removeprefix(PREFIX)) and e.startswith(PREFIX) for e in others),
                f"entities other than {PREFIX}N",
            ),
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    item_ids = graph.items.ids_of(interactions.item)
    rows = (
        " ".join([user, *item_ids[bounds[index] : bounds[index + 1]]]) + "\n" for index, user in enumerate(graph.users)
    )
    write_text(path, "".join(rows))
    if graph.num_triples or len(np.unique(interactions.item)) < graph.num_items:
        table: dict[str, list[int]] = {item: [] for item in graph.items}
        for h, t in zip(head.tolist(), tail.tolist(), strict=True):
            table[graph.entities.id_of(h)].append(int(graph.entities.id_of(t).removeprefix(PREFIX)))
        write_text(path.with_name(f"{path.stem}{ATTRIBUTES}"), json.dumps(table))
