"""RecBole atomic files: ``.inter``, ``.user``, ``.item``, ``.kg``, ``.link`` with typed headers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kg_loaders.assemble import assemble
from kg_loaders.errors import FormatError, blamed_on, did_you_mean
from kg_loaders.graph import SPLITS, Features, RecGraph
from kg_loaders.textio import (
    check_writable,
    find_file,
    need_file,
    stem_of,
    text_columns,
    unread_files,
    write_text,
)
from kg_loaders.texttable import TextTable, read_links, read_table
from kg_loaders.vocabulary import OnUnknown

TYPES = ("token", "token_seq", "float", "float_seq")
NUMBERS = {"rating": "weight", "timestamp": "time"}  # columns of .inter that a graph has a place for
RENAMED = {"movie_title": "title"}
RENAMED_FEATURE = "a feature called 'movie_title', which it calls 'title'"
NO_PLACE = "values of interaction column {!r}"
REPEATED_LINKS = "repeated links"
UNNAMED_LINKS = "links of items that are not here"
NAME = re.compile(r"[^:\t\n\r\x00]*[^:\t\n\r\x00 ]")
UNWRITABLE = re.compile(r"[\t\n\r\x00]")


@dataclass(frozen=True)
class _Atomic:
    """One file: its cells, and the type that the header gives to each column."""

    table: TextTable
    types: Mapping[str, str]

    def need(self, name: str) -> str:
        """Return ``name``, which must be a column of type ``token``."""
        path = self.table.path
        if name not in self.types:
            found = ", ".join(self.types)
            raise FormatError(path, 1, f"no column '{name}:token' among {found}{did_you_mean(name, self.types)}")
        if self.types[name] != "token":
            raise FormatError(path, 1, f"column {name!r} must be of type 'token', got {self.types[name]!r}")
        return name


def detect(folder: Path) -> bool:
    """Whether the folder holds an ``.inter`` file."""
    return folder.is_dir() and any(True for pattern in ("*.inter", "*.inter.gz") for _ in folder.glob(pattern))


def read(path: Path, *, on_unknown: OnUnknown = "raise", link_ids: str | os.PathLike[str] | None = None) -> RecGraph:
    """Read the folder; every file may also be gzipped.

    - ``NAME.inter``: ``user_id:token``, ``item_id:token``, optionally ``rating:float`` (the weight) and
      ``timestamp:float`` (the time). Other columns have no place in a graph and are counted in ``dropped``. Instead of
      one file there may be ``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter``, which give the split.
    - ``NAME.user``, ``NAME.item``: features by id. ``float_seq`` columns become vectors, all others text, exactly as in
      the file; ``movie_title`` is called ``title``.
    - ``NAME.kg``: ``head_id:token``, ``relation_id:token``, ``tail_id:token``.
    - ``NAME.link``: ``item_id:token``, ``entity_id:token``, from items to the ids in ``.kg``. Without it, ``.kg`` is
      taken to use the item ids.

    Args:
        path: The folder.
        on_unknown: What to do with a link of an unknown item or to an entity that another item has: raise, or leave
            the link out and count it.
        link_ids: A CSV file with two columns, an item id as ``.link`` has it and as all other files have it, where
            ``.link`` numbers the items in its own way. Links of items that it does not name are left out and counted.

    Raises:
        FormatError: A file is missing or malformed, the links contradict each other, or no item occurs in the triples.
    """
    name, files = _interaction_files(path)
    dropped: dict[str, int] = {}
    interactions = pd.concat(
        [_read_interactions(file, split, dropped) for split, file in files.items()], ignore_index=True
    )
    if interactions["item_id"].empty:
        raise FormatError(next(iter(files.values())), None, "the file has a header but no rows")
    for column in ("weight", "time"):
        if column in interactions and interactions[column].isna().any():
            raise FormatError(path, None, f"only some of the .inter files have a {column}: all must, or none")
    kg_file, link_file, user_file, item_file = (
        find_file(path, f"{name}.{kind}") for kind in ("kg", "link", "user", "item")
    )
    triples = None
    if kg_file is not None:
        kg = _read_atomic(kg_file)
        triples = pd.DataFrame({c: kg.table.ids(kg.need(c)) for c in ("head_id", "relation_id", "tail_id")})
    links = None if link_file is None else _read_links(link_file, dropped)
    if links is not None and link_ids is not None:
        links = _renumbered(links, Path(link_ids), dropped)
    ids_file = None if link_ids is None else Path(link_ids)
    unread = unread_files(path, [*files.values(), kg_file, link_file, user_file, item_file, ids_file])
    with blamed_on(path):
        return assemble(
            name=path.resolve().name,
            interactions=interactions,
            triples=triples,
            links=links,
            user_table=_read_features(user_file, "user_id"),
            item_table=_read_features(item_file, "item_id"),
            on_unknown=on_unknown,
            dropped=dropped | unread,
        )


def _interaction_files(path: Path) -> tuple[str, dict[str, Path]]:
    """Return the data set's name and its ``.inter`` files by split (``""`` for the one that is not split)."""
    stems = sorted({stem_of(file) for pattern in ("*.inter", "*.inter.gz") for file in path.glob(pattern)})
    if not stems:
        need_file(path, f"{path.resolve().name}.inter")
    if len(stems) == 1 and not stems[0].endswith(".train"):
        return stems[0], {"": need_file(path, f"{stems[0]}.inter")}
    parts = {stem.rpartition(".")[2]: stem for stem in stems}
    names = {stem.rpartition(".")[0] for stem in stems}
    if len(names) > 1 or not set(parts) <= set(SPLITS) or "train" not in parts:
        found = ", ".join(f"{stem}.inter" for stem in stems)
        raise FormatError(path, None, f"expected one NAME.inter, or NAME.train.inter with its parts, got {found}")
    return names.pop(), {split: need_file(path, f"{parts[split]}.inter") for split in SPLITS if split in parts}


def _read_atomic(file: Path) -> _Atomic:
    """Read a file and take its header apart."""
    table = read_table(file, "\t", quoted=False)
    types: dict[str, str] = {}
    for field in table.names:
        name, colon, kind = field.rpartition(":")
        if not colon or not name or kind not in TYPES:
            allowed = ", ".join(TYPES)
            raise FormatError(file, 1, f"header field {field!r} must be NAME:TYPE with one of the types {allowed}")
        if name in types:
            raise FormatError(file, 1, f"column {name!r} occurs twice")
        types[name] = kind
    return _Atomic(TextTable(file, tuple(types), table.columns, table.lines), types)


def _read_interactions(file: Path, split: str, dropped: dict[str, int]) -> pd.DataFrame:
    atomic = _read_atomic(file)
    columns: dict[str, Any] = {name: atomic.table.ids(atomic.need(name)) for name in ("user_id", "item_id")}
    for name, kind in atomic.types.items():
        if name in NUMBERS and kind == "float":
            columns[NUMBERS[name]] = atomic.table.numbers(name)
        elif name not in columns:
            reason = NO_PLACE.format(name)
            dropped[reason] = dropped.get(reason, 0) + len(atomic.table)
    if split:
        columns["split"] = np.full(len(atomic.table), SPLITS.index(split), dtype=np.int8)
    return pd.DataFrame(columns)


def _read_links(file: Path, dropped: dict[str, int]) -> dict[str, str]:
    atomic = _read_atomic(file)
    items, entities = (atomic.table.ids(atomic.need(name)) for name in ("item_id", "entity_id"))
    links: dict[str, str] = {}
    for row, (item, entity) in enumerate(zip(items, entities, strict=True)):
        if item not in links:
            links[item] = entity
        elif links[item] != entity:
            atomic.table.fail(row, f"item {item!r} is linked to {links[item]!r} and to {entity!r}")
        else:
            dropped[REPEATED_LINKS] = dropped.get(REPEATED_LINKS, 0) + 1
    return links


def _renumbered(links: Mapping[str, str], file: Path, dropped: dict[str, int]) -> dict[str, str]:
    item_of, _ = read_links(file, ",")
    named = [id_ for id_ in links if id_ in item_of]
    renumbered = {item_of[id_]: links[id_] for id_ in named}
    if len(renumbered) < len(named):
        raise FormatError(file, None, "two items of the .link file are given one id")
    if len(named) < len(links):
        dropped[UNNAMED_LINKS] = len(links) - len(named)
    return renumbered


def _read_features(file: Path | None, key: str) -> pd.DataFrame | None:
    """Return the features of users or items by id."""
    if file is None:
        return None
    atomic = _read_atomic(file)
    ids = atomic.table.unique_ids(atomic.need(key))
    columns: dict[str, Any] = {}
    for name, kind in atomic.types.items():
        if name == key:
            continue
        read_column: Callable[[str], Any] = atomic.table.vectors if kind == "float_seq" else atomic.table.texts
        new = RENAMED.get(name, name)
        columns[name if new in atomic.types else new] = pd.Series(list(read_column(name)), index=ids, dtype=object)
    return pd.DataFrame(columns, index=ids)


def write(graph: RecGraph, path: Path) -> None:
    """Write the graph into a folder, which is made; the files are called after the folder.

    Every item is linked to itself, so that ``read(path)`` gives an equal graph, in natural order of the ids. Among
    equal times, the training pairs come first.

    Raises:
        GraphError: The graph holds something that the format cannot: features of entities, entities or relations
            without triples, tabs, line ends or blanks at the ends of ids.
    """
    interactions = graph.interactions
    ids = [*graph.users, *graph.entities, *graph.relations]
    used = np.unique(np.concatenate([graph.triples[:, 0], graph.triples[:, 2], np.arange(graph.num_items)]))
    features = (graph.user_features, graph.item_features)
    cells = [cell for part in features for column in text_columns(part).values() for cell in column]
    names = [name for part in features for name in part]
    vectors = [feature for part in features for feature in part.values() if not feature.is_text]
    check_writable(
        "RecBole's format",
        [
            (not len(interactions), "a graph without interactions"),
            (bool(graph.entity_features), "features of entities"),
            (len(used) < graph.num_entities, "entities that are in no triple"),
            (len(np.unique(graph.triples[:, 1])) < graph.num_relations, "relations that are in no triple"),
            (interactions.split is not None and not graph.has_split("train"), "a split without training pairs"),
            (any(UNWRITABLE.search(text) for text in (*ids, *cells)), "tabs or line ends in text"),
            (any(id_ != id_.strip() or not id_ for id_ in ids), "ids that are empty or have blanks around them"),
            (
                any(not NAME.fullmatch(name) for name in names),
                "feature names with ':', tabs, line ends or blanks at the end",
            ),
            (
                any(old in part and new not in part for old, new in RENAMED.items() for part in features),
                RENAMED_FEATURE,
            ),
            ("user_id" in graph.user_features or "item_id" in graph.item_features, "features called like the ids"),
            (any(not feature.present.any() for feature in vectors), "vectors none of which is known"),
        ],
    )
    path.mkdir(parents=True, exist_ok=True)
    name = path.resolve().name
    parts = {"": interactions} if interactions.split is None else {f".{split}": graph.part(split) for split in SPLITS}
    for suffix, part in parts.items():
        if len(part):
            columns = {"user_id:token": graph.users.ids_of(part.user), "item_id:token": graph.items.ids_of(part.item)}
            if part.weight is not None:
                columns["rating:float"] = list(map(str, part.weight))
            if part.time is not None:
                columns["timestamp:float"] = list(map(repr, part.time.tolist()))
            _write_table(path / f"{name}{suffix}.inter", columns)
    _write_table(path / f"{name}.user", {"user_id:token": list(graph.users), **_feature_columns(graph.user_features)})
    _write_table(path / f"{name}.item", {"item_id:token": list(graph.items), **_feature_columns(graph.item_features)})
    if graph.num_triples:
        head, relation, tail = graph.triples.T
        triples = (graph.entities.ids_of(head), graph.relations.ids_of(relation), graph.entities.ids_of(tail))
        header = ("head_id:token", "relation_id:token", "tail_id:token")
        _write_table(path / f"{name}.kg", dict(zip(header, triples, strict=True)))
        _write_table(path / f"{name}.link", {"item_id:token": list(graph.items), "entity_id:token": list(graph.items)})


def _feature_columns(features: Features) -> dict[str, list[str]]:
    columns = {f"{name}:token_seq": cells for name, cells in text_columns(features).items()}
    for name, feature in features.items():
        if not feature.is_text:
            rows = zip(feature.values, feature.present, strict=True)
            columns[f"{name}:float_seq"] = [" ".join(map(str, row)) if known else "" for row, known in rows]
    return columns


def _write_table(file: Path, columns: Mapping[str, list[str]]) -> None:
    rows = zip(*columns.values(), strict=True)
    write_text(file, "".join("\t".join(row) + "\n" for row in (tuple(columns), *rows)))
