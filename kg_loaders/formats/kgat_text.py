"""KGAT/KGIN text: ``train.txt``, ``test.txt``, ``valid.txt``, ``kg_final.txt``, ``*_list.txt``, ``NAME_feat.npy``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.assemble import assemble
from kg_loaders.errors import FormatError, blamed_on
from kg_loaders.graph import SPLITS, RecGraph
from kg_loaders.numbered import (
    FEATURE_SUFFIX,
    NumberedList,
    read_numbered_list,
    read_vectors,
    write_numbered_list,
)
from kg_loaders.textio import (
    IntegerRows,
    check_writable,
    find_file,
    need_file,
    read_integer_rows,
    text_columns,
    unread_files,
    write_text,
)
from kg_loaders.vocabulary import OnUnknown, Vocabulary

UNKNOWN_USERS = "lines of users beyond the list"
UNKNOWN_PAIRS = "pairs with ids beyond the lists"
UNKNOWN_TRIPLES = "triples with ids beyond the lists"
FEATURE_NAME = re.compile(r"[\w.-]+")
UNWRITABLE = re.compile(r"[\t\n\r\x00]")
# Without a list the largest id gives the size, so that one wrong id could ask for any amount of memory.
FREE_IDS, IDS_PER_NUMBER = 100_000, 100


@dataclass(frozen=True)
class _Ids:
    """One column of numbers, and where each of them stands."""

    path: Path
    numbers: NDArray[np.int64]
    lines: NDArray[np.int64]


NOTHING = _Ids(Path(), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class _Pairs:
    """One file of interactions; ``users`` are all that have a line, ``user`` and ``item`` the pairs."""

    users: _Ids
    user: _Ids
    item: _Ids


def detect(folder: Path) -> bool:
    """Whether the folder holds a ``train.txt``."""
    return find_file(folder, "train.txt") is not None


def read(path: Path, *, on_unknown: OnUnknown = "raise") -> RecGraph:
    """Read the folder; every file may also be gzipped (``train.txt.gz``).

    - ``train.txt`` (needed), ``valid.txt``, ``test.txt``: a user and its items a line. A user without items is kept.
    - ``kg_final.txt``: head, relation, tail a line. Entity i is item i.
    - ``user_list.txt``, ``item_list.txt``, ``entity_list.txt``, ``relation_list.txt``: a header with ``remap_id``, then
      what each number stands for. Their other columns (``org_id``, ``freebase_id``) become text features; a relation's
      ``org_id`` becomes its id. Without a list, the largest number gives the size.
    - ``NAME_feat.npy``: an item vector a row, feature ``NAME``.

    The numbers are the ids (``"0"``, ``"1"``, ...).

    Args:
        path: The folder.
        on_unknown: What to do with pairs and triples whose numbers are beyond the lists: raise, or drop and count them.

    Raises:
        FormatError: A file is missing or malformed, or no item occurs in the triples.
    """
    need_file(path, "train.txt")
    pairs = {split: _read_pairs(file) for split in SPLITS if (file := find_file(path, f"{split}.txt"))}
    kg_file = find_file(path, "kg_final.txt")
    triples = [NOTHING] * 3 if kg_file is None else _columns(read_integer_rows(kg_file))
    lists = {
        kind: read_numbered_list(find_file(path, f"{kind}_list.txt")) for kind in ("user", "item", "entity", "relation")
    }
    vectors = dict(read_vectors(path))
    if not any(len(part.item.numbers) for part in pairs.values()):
        raise FormatError(need_file(path, "train.txt"), None, "no user has any item")

    rows_of_vectors = max((len(v) for v in vectors.values()), default=0)
    num_users = _size(lists["user"], [part.users for part in pairs.values()])
    num_items = max(_size(lists["item"], [part.item for part in pairs.values()]), rows_of_vectors)
    if lists["entity"] and not lists["item"]:
        num_items = min(num_items, lists["entity"].size)
    num_entities = max(_size(lists["entity"], triples[::2]), num_items)
    num_relations = _size(lists["relation"], triples[1:2])
    for name, values in vectors.items():
        if len(values) != num_items:
            reason = f"{len(values)} rows, expected one for each of {num_items} items"
            raise FormatError(path / f"{name}{FEATURE_SUFFIX}", None, reason)
    if lists["item"] and lists["entity"] and lists["entity"].size < lists["item"].size:
        reason = f"{lists['entity'].size} entities, expected at least the {lists['item'].size} items"
        raise FormatError(need_file(path, "entity_list.txt"), None, reason)

    lists_read = [listed.path for listed in lists.values() if listed is not None]
    dropped = unread_files(path, [*(part.users.path for part in pairs.values()), kg_file, *lists_read], ".txt")
    user_ids, item_ids, entity_ids = (_numbers(size) for size in (num_users, num_items, num_entities))
    frames = []
    for split, part in pairs.items():
        _known([(part.users, num_users, "user")], on_unknown, dropped, UNKNOWN_USERS)
        bounds = [(part.user, num_users, "user"), (part.item, num_items, "item")]
        known = _known(bounds, on_unknown, dropped, UNKNOWN_PAIRS)
        columns = {
            "user_id": pd.Categorical.from_codes(part.user.numbers[known], user_ids),
            "item_id": pd.Categorical.from_codes(part.item.numbers[known], item_ids),
            "split": np.full(int(known.sum()), SPLITS.index(split), dtype=np.int8),
        }
        frames.append(pd.DataFrame(columns))
    sizes = (num_entities, num_relations, num_entities)
    kinds = ("entity", "relation", "entity")
    known = _known(list(zip(triples, sizes, kinds, strict=True)), on_unknown, dropped, UNKNOWN_TRIPLES)
    names = (entity_ids, _relation_ids(lists["relation"], num_relations), entity_ids)
    codes = [pd.Categorical.from_codes(c.numbers[known], ids) for c, ids in zip(triples, names, strict=True)]
    item_table = _table(lists["item"], item_ids)
    for name, values in vectors.items():
        item_table[name] = list(values)
    with blamed_on(path):
        return assemble(
            name=path.resolve().name,
            interactions=pd.concat(frames, ignore_index=True),
            triples=pd.DataFrame(dict(zip(("head_id", "relation_id", "tail_id"), codes, strict=True))),
            user_table=_table(lists["user"], user_ids),
            item_table=item_table,
            entity_table=_table(lists["entity"], entity_ids),
            on_unknown=on_unknown,
            dropped=dropped,
        )


def _numbers(size: int) -> pd.Index[str]:
    ids: pd.Index[str] = pd.Index(list(map(str, range(size))), dtype=object)
    return ids


def _read_pairs(file: Path) -> _Pairs:
    rows = read_integer_rows(file, " ")
    user, item, row = rows.head_and_rest()
    lines = rows.lines[row]
    return _Pairs(
        _Ids(file, rows.numbers[rows.starts[:-1]], rows.lines), _Ids(file, user, lines), _Ids(file, item, lines)
    )


def _columns(rows: IntegerRows) -> list[_Ids]:
    return [_Ids(rows.path, column, rows.lines) for column in rows.as_table(3).T]


def _size(listed: NumberedList | None, columns: Iterable[_Ids]) -> int:
    """Return how many ids there are: as many as listed, else one more than the largest."""
    if listed is not None:
        return listed.size
    filled = [column for column in columns if len(column.numbers)]
    limit = FREE_IDS + IDS_PER_NUMBER * sum(len(column.numbers) for column in filled)
    for column in filled:
        row = int(np.argmax(column.numbers))
        if column.numbers[row] >= limit:
            reason = f"id {column.numbers[row]} without a list of ids; ids must count from 0 with few gaps"
            raise FormatError(column.path, int(column.lines[row]), reason)
    return max((int(column.numbers.max()) + 1 for column in filled), default=0)


def _known(
    bounds: Sequence[tuple[_Ids, int, str]], on_unknown: OnUnknown, dropped: dict[str, int], reason: str
) -> NDArray[np.bool_]:
    """Return which rows have all their ids within bounds; raise for, or count, the others."""
    known = np.ones(len(bounds[0][0].numbers), dtype=np.bool_)
    for column, size, kind in bounds:
        within = column.numbers < size
        if on_unknown == "raise" and not within.all():
            row = int(np.argmin(within))
            reason = f"unknown {kind} {column.numbers[row]}, the lists allow {size} (0..{size - 1})"
            raise FormatError(column.path, int(column.lines[row]), reason)
        known &= within
    if not known.all():
        dropped[reason] = dropped.get(reason, 0) + int((~known).sum())
    return known


def _relation_ids(listed: NumberedList | None, size: int) -> pd.Index[str]:
    """Return what to call the relations: by their ``org_id``, else by number."""
    if listed is None or "org_id" not in listed.columns:
        return _numbers(size)
    ids: pd.Index[str] = pd.Index(listed.columns["org_id"], dtype=object)
    if "" in ids or not ids.is_unique:
        bad = "" if "" in ids else ids[ids.duplicated()][0]
        raise FormatError(listed.path, None, f"relations need distinct names, got {bad!r} (empty or repeated)")
    return ids


def _table(listed: NumberedList | None, ids: pd.Index[str]) -> pd.DataFrame:
    """Return the features of a list by id; ids beyond the list have none."""
    columns = {} if listed is None else dict(listed.columns)
    return pd.DataFrame({n: pd.Series(c, index=ids[: len(c)], dtype=object) for n, c in columns.items()}, index=ids)


def write(graph: RecGraph, path: Path) -> None:
    """Write the graph into a folder, which is made.

    All ids must be the numbers 0..n-1 and the graph must be split; the format has no place for times, weights, or
    features of text with tabs or line ends. ``read(path)`` gives an equal graph.

    Raises:
        GraphError: The graph holds something that the format cannot.
    """
    interactions = graph.interactions
    text = {
        "user": text_columns(graph.user_features),
        "item": text_columns(graph.item_features),
        "entity": text_columns(graph.entity_features),
    }
    vectors = {name: feature for name, feature in graph.item_features.items() if not feature.is_text}
    cells = [cell for columns in text.values() for column in columns.values() for cell in column]
    names = [name for columns in text.values() for name in columns]
    check_writable(
        "KGAT text",
        [
            (interactions.split is None, "a graph that is not split; use kg_loaders.splits first"),
            (interactions.time is not None, "times"),
            (interactions.weight is not None, "weights"),
            (graph.users != Vocabulary.from_range(graph.num_users), "user ids other than 0..n-1 in order"),
            (graph.entities != Vocabulary.from_range(graph.num_entities), "entity ids other than 0..n-1 in order"),
            (not graph.has_split("train"), "a graph without training pairs"),
            (len(graph.user_features) > len(text["user"]), "vectors of users"),
            (len(graph.entity_features) > len(text["entity"]), "vectors of entities"),
            (not all(feature.present.all() for feature in vectors.values()), "missing vectors"),
            (any(not FEATURE_NAME.fullmatch(name) for name in (*names, *vectors)), "feature names with odd characters"),
            ("remap_id" in names, "a feature called 'remap_id'"),
            (any(UNWRITABLE.search(cell) for cell in (*cells, *graph.relations)), "tabs or line ends in text"),
        ],
    )
    path.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        if not graph.has_split(split):
            continue
        part = graph.part(split)
        bounds = np.searchsorted(part.user, np.arange(graph.num_users + 1))
        rows = (
            " ".join(map(str, [user, *part.item[bounds[user] : bounds[user + 1]]])) for user in np.unique(part.user)
        )
        write_text(path / f"{split}.txt", "".join(f"{row}\n" for row in rows))
    if graph.num_triples:
        write_text(path / "kg_final.txt", "".join(f"{h} {r} {t}\n" for h, r, t in graph.triples.tolist()))
    sizes = {"user": graph.num_users, "item": graph.num_items, "entity": graph.num_entities}
    for kind, size in sizes.items():
        write_numbered_list(path, kind, size, text[kind])
    if graph.num_relations:
        write_numbered_list(path, "relation", graph.num_relations, {"org_id": list(graph.relations)})
    for name, feature in vectors.items():
        np.save(path / f"{name}{FEATURE_SUFFIX}", feature.values, allow_pickle=False)
