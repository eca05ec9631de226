"""Tables with named or mapped columns: CSV, TSV, Parquet, and text with any separator such as ``::``."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from kg_loaders.assemble import INTERACTION_COLUMNS, assemble, check_columns
from kg_loaders.errors import FormatError, blamed_on, did_you_mean
from kg_loaders.graph import SPLITS, Feature, RecGraph
from kg_loaders.parquet import ParquetTable, read_parquet, write_parquet
from kg_loaders.rdftriples import rdf_files
from kg_loaders.textio import check_writable, find_file, text_columns, unread_files, write_text
from kg_loaders.texttable import TextTable, read_table
from kg_loaders.vocabulary import OnUnknown

Suffix = Literal[".csv", ".tsv", ".parquet"]
SEPARATORS = {".csv": ",", ".tsv": "\t"}
FOREIGN_SEPARATORS = (";", "\t", "|", ",")  # in a header that is one column
NEEDS_QUOTES = re.compile(r'^["\s]|[,\t\r\n]|\s$')

# What each table must and may hold; tables without a second list take any other column as a feature.
NEEDED = {
    "interactions": ("user_id", "item_id"),
    "triples": ("head_id", "relation_id", "tail_id"),
    "links": ("item_id", "entity_id"),
    "users": ("user_id",),
    "items": ("item_id",),
    "entities": ("entity_id",),
}
OPTIONAL: dict[str, tuple[str, ...] | None] = {
    "interactions": INTERACTION_COLUMNS[2:],
    "triples": (),
    "links": (),
    "users": None,
    "items": None,
    "entities": None,
}


@dataclass(frozen=True)
class Table:
    """Where a table lies and how to read it.

    Args:
        file: Its name, relative to the folder.
        columns: From our name of a column to the file's, or to its position (0, 1, ...) in a file without a header;
            only these are read. ``None``: all columns, by the names in the header.
        separator: What stands between two cells; by default a comma, or a tab in ``*.tsv``. Parquet has none.
        header: Whether the first line names the columns.
        quoted: Whether ``"`` at the beginning of a cell opens a quoted cell, as in CSV.

    Example:
        >>> ratings = Table("ratings.dat", {"user_id": 0, "item_id": 1, "weight": 2, "time": 3}, "::", header=False)
    """

    file: str
    columns: Mapping[str, str | int] | None = None
    separator: str | None = None
    header: bool = True
    quoted: bool = True


def detect(folder: Path) -> bool:
    """Whether the folder holds ``interactions.csv``, ``.tsv`` or ``.parquet``, and no RDF, which has its own reader.

    Raises:
        FormatError: There are triples in a table and RDF files, and only the caller knows which are meant.
    """
    if _default(folder, "interactions") is None:
        return False
    rdf, triples = rdf_files(folder), _default(folder, "triples")
    if rdf and triples is not None:
        both = f"both {triples.file} and {rdf[0].name}"
        raise FormatError(
            folder, None, f"holds {both}: keep one knowledge graph, or choose by the format, 'tables' or 'rdf'"
        )
    return not rdf


def read(
    path: Path,
    *,
    interactions: Table | None = None,
    triples: Table | None = None,
    links: Table | None = None,
    users: Table | None = None,
    items: Table | None = None,
    entities: Table | None = None,
    on_unknown: OnUnknown = "raise",
) -> RecGraph:
    r"""Read the tables of a folder; text tables may also be gzipped.

    A table that is not given is looked for under its own name (``interactions.csv``, ``items.parquet``, ...).

    Args:
        path: The folder.
        interactions: Columns ``user_id``, ``item_id``, optionally ``time``, ``weight`` (numbers) and ``split``
            (``train``, ``valid`` or ``test``).
        triples: Columns ``head_id``, ``relation_id``, ``tail_id``.
        links: Columns ``item_id``, ``entity_id``: the id that an item has in the triples. Without this table the
            triples use item ids.
        users: Column ``user_id``; all others are features: text, or lists of numbers in Parquet.
        items: Column ``item_id``; likewise.
        entities: Column ``entity_id``; likewise.
        on_unknown: What to do with a link of an unknown item or to an entity that another item has: raise, or leave
            the link out and count it.

    Raises:
        FormatError: A table is missing or malformed, or has columns that no one asked for, or the tables contradict
            each other.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
        >>> read(folder, interactions=Table(
        ...     "ratings.dat", {"user_id": 0, "item_id": 1, "weight": 2, "time": 3}, "::", header=False))
        RecGraph(num_users=1, num_items=2, num_interactions=2, num_entities=2, num_relations=0, num_triples=0)
    """
    given = {
        "interactions": interactions,
        "triples": triples,
        "links": links,
        "users": users,
        "items": items,
        "entities": entities,
    }
    if interactions is None and _default(path, "interactions") is None:
        what = "no such file (nor .tsv, .parquet, .csv.gz, .tsv.gz)" if path.is_dir() else "no such folder"
        raise FormatError(path / "interactions.csv" if path.is_dir() else path, None, what)
    tables = {}
    for role, asked in given.items():
        table = asked or _default(path, role)
        if table is not None:
            tables[role] = _open(path, table, role)
    unread = unread_files(path, [cells.path for cells, _ in tables.values()])
    pairs = _interactions(*tables["interactions"])
    with blamed_on(path):
        return assemble(
            name=path.resolve().name,
            interactions=pairs,
            triples=_id_columns(tables["triples"]) if "triples" in tables else None,
            links=_links(*tables["links"]) if "links" in tables else None,
            user_table=_features(tables.get("users"), "user_id"),
            item_table=_features(tables.get("items"), "item_id"),
            entity_table=_features(tables.get("entities"), "entity_id"),
            on_unknown=on_unknown,
            dropped=unread,
        )


_Opened = tuple["TextTable | ParquetTable", dict[str, str]]  # the cells, and from our column names to the file's


def _default(folder: Path, role: str) -> Table | None:
    names = (f"{role}{suffix}" for suffix in get_args(Suffix))
    return next((Table(name) for name in names if find_file(folder, name) is not None), None)


def _open(folder: Path, table: Table, role: str) -> _Opened:
    """Read a table and find its columns."""
    file = find_file(folder, table.file) or folder / table.file
    suffix = Path(table.file.removesuffix(".gz")).suffix
    cells: TextTable | ParquetTable
    if suffix == ".parquet":
        cells = read_parquet(file)
    else:
        separator = SEPARATORS.get(suffix, ",") if table.separator is None else table.separator
        if not separator or set(separator) & set('"\r\n'):
            raise FormatError(file, None, f"separator must be text without quotes and line ends, got {separator!r}")
        if not table.header and table.columns is None:
            raise FormatError(
                file, None, "a file without a header needs `columns`, such as {'user_id': 0, 'item_id': 1}"
            )
        cells = read_table(file, separator, header=table.header, quoted=table.quoted)
    wanted: Mapping[str, str | int] = table.columns or {name: name for name in cells.names}
    optional = OPTIONAL[role]
    for name in NEEDED[role]:
        if name not in wanted:
            raise FormatError(file, None, _lacks_column(name, role, table, list(wanted)))
    if optional is not None:
        with blamed_on(file):
            check_columns(role, wanted, (*NEEDED[role], *optional), f"; take it out, or {_in_python(role, table)}")
    for name, source in wanted.items():
        if str(source) not in cells or (isinstance(source, int) and table.header):
            place = "position" if not table.header else "column"
            found = ", ".join(cells.names)
            raise FormatError(file, None, f"no {place} {source!r} for {name!r} among {found}")
    return cells, {name: str(source) for name, source in wanted.items()}


def _lacks_column(name: str, role: str, table: Table, found: list[str]) -> str:
    """Say what is missing, and whether it is rather the separator that is wrong."""
    if len(found) == 1 and (other := next((mark for mark in FOREIGN_SEPARATORS if mark in found[0]), None)):
        return (
            f"the header is one column, {found[0]!r}, so the separator looks wrong: a comma in .csv, a tab in .tsv, "
            f"or in Python give {role}=Table({table.file!r}, separator={other!r})"
        )
    among = ", ".join(map(repr, found))
    hint = did_you_mean(name, found)
    return f"no column {name!r} for {role} among {among}{hint}; rename it, or {_in_python(role, table)}"


def _in_python(role: str, table: Table) -> str:
    return f"in Python give {role}=Table({table.file!r}, columns=...)"


def _id_columns(opened: _Opened) -> pd.DataFrame:
    cells, columns = opened
    return pd.DataFrame({name: cells.ids(source) for name, source in columns.items()})


def _interactions(cells: TextTable | ParquetTable, columns: Mapping[str, str]) -> pd.DataFrame:
    if not len(cells):
        raise FormatError(cells.path, None, "the table has no rows")
    read: dict[str, Any] = {name: cells.ids(columns[name]) for name in NEEDED["interactions"]}
    for name in ("time", "weight"):
        if name in columns:
            read[name] = cells.numbers(columns[name])
    if "split" in columns:
        read["split"] = cells.split_codes(columns["split"])
    return pd.DataFrame(read)


def _links(cells: TextTable | ParquetTable, columns: Mapping[str, str]) -> dict[str, str]:
    return dict(zip(cells.unique_ids(columns["item_id"]), cells.ids(columns["entity_id"]), strict=True))


def _features(opened: _Opened | None, key: str) -> pd.DataFrame | None:
    if opened is None:
        return None
    cells, columns = opened
    index = cells.unique_ids(columns[key])
    features = {n: pd.Series(cells.feature(s), index=index, dtype=object) for n, s in columns.items() if n != key}
    return pd.DataFrame(features, index=index)


def write(graph: RecGraph, path: Path, suffix: Suffix = ".csv") -> None:
    """Write the graph as tables into a folder, which is made: ``interactions``, ``users``, ``items``, ``triples``.

    Items stand in the triples by their own ids. ``read(path)`` gives an equal graph, in natural order of the ids.

    Args:
        graph: The graph.
        path: The folder.
        suffix: The kind of table; only ``".parquet"`` holds vectors.

    Raises:
        GraphError: The graph holds something that the tables cannot, such as relations without triples.
    """
    interactions = graph.interactions
    kinds = {
        "users": (graph.users, graph.user_features),
        "items": (graph.items, graph.item_features),
        "entities": (graph.entities, graph.entity_features),
    }
    ids = [*graph.users, *graph.entities, *graph.relations]
    features = [feature for _, part in kinds.values() for feature in part.items()]
    texts = [cell for _, part in kinds.values() for column in text_columns(part).values() for cell in column]
    vectors = [feature for _, feature in features if not feature.is_text]
    used = np.unique(np.concatenate([graph.triples[:, 0], graph.triples[:, 2], np.arange(graph.num_items)]))
    check_writable(
        f"{suffix} tables",
        [
            (suffix not in get_args(Suffix), f"anything: suffix must be one of {', '.join(get_args(Suffix))}"),
            (not len(interactions), "a graph without interactions"),
            (len(np.unique(graph.triples[:, 1])) < graph.num_relations, "relations that are in no triple"),
            (bool(vectors) and suffix != ".parquet", "vectors; Parquet does"),
            (any(not feature.present.any() for feature in vectors), "vectors none of which is known"),
            (any("\x00" in text for text in (*ids, *texts)), "NUL characters"),
            (any(id_ != id_.strip() or not id_ for id_ in ids), "ids that are empty or have blanks around them"),
            (
                any(not name.strip() == name != "" for name, _ in features),
                "features without a name, or with blanks in it",
            ),
            (any(NEEDED[kind][0] in part for kind, (_, part) in kinds.items()), "features called like the ids"),
        ],
    )
    path.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "user_id": graph.users.ids_of(interactions.user),
        "item_id": graph.items.ids_of(interactions.item),
        **{n: c for n, c in interactions.columns() if n in ("time", "weight") and c is not None},
    }
    if interactions.split is not None:
        columns["split"] = [SPLITS[code] for code in interactions.split]
    _write_table(path, "interactions", suffix, columns)
    if graph.num_triples:
        head, relation, tail = graph.triples.T
        triples = (graph.entities.ids_of(head), graph.relations.ids_of(relation), graph.entities.ids_of(tail))
        _write_table(path, "triples", suffix, dict(zip(NEEDED["triples"], triples, strict=True)))
    for kind, (vocabulary, part) in kinds.items():
        if kind != "entities" or part or len(used) < graph.num_entities:
            cells = {name: _cells(feature) for name, feature in part.items()}
            _write_table(path, kind, suffix, {NEEDED[kind][0]: list(vocabulary), **cells})


def _cells(feature: Feature) -> list[Any]:
    rows = zip(feature.values, feature.present, strict=True)
    return [value if feature.is_text or known else None for value, known in rows]


def _write_table(folder: Path, name: str, suffix: str, columns: Mapping[str, Any]) -> None:
    file = folder / f"{name}{suffix}"
    if suffix == ".parquet":
        write_parquet(file, columns)
        return
    rows = [list(columns), *zip(*(map(str, column) for column in columns.values()), strict=True)]
    separator = SEPARATORS[suffix]
    if any(NEEDS_QUOTES.search(cell) for row in rows for cell in row):
        text = io.StringIO()
        csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        write_text(file, text.getvalue())
    else:
        write_text(file, "".join(separator.join(row) + "\n" for row in rows))
