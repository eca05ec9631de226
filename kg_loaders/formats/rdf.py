"""RDF: Turtle, N-Triples, N-Quads, RDF/XML and JSON-LD, linked to the items of an interactions table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.assemble import INTERACTION_COLUMNS, SECOND_LINKS, assemble, check_columns, natural_order
from kg_loaders.errors import FormatError, GraphError, KGLoaderError, blamed_on, did_you_mean
from kg_loaders.graph import RecGraph
from kg_loaders.rdfsource import MAX_BYTES
from kg_loaders.rdfstream import SYNTAXES
from kg_loaders.rdftriples import RdfTriples, make_frame, rdf_files, read_triples
from kg_loaders.textio import find_file, unread_files
from kg_loaders.texttable import read_links, read_table
from kg_loaders.vocabulary import OnUnknown

if TYPE_CHECKING:
    import rdflib

__all__ = ["SYNTAXES", "RdfTriples", "detect", "read", "read_triples"]

PathLike = str | os.PathLike[str]

VALUE_SEPARATOR = " | "  # between several values of one literal feature
INTERACTIONS, LINKS = ("interactions.csv", "interactions.tsv"), "map.csv"  # what may lie beside a folder's RDF files
LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
INVERSE_OF = "http://www.w3.org/2002/07/owl#inverseOf"

UNWANTED_LITERALS = "literals left out"
LOOSE_LITERALS = "literals of nodes without triples"
MERGED_TRIPLES = "triples merged with their inverse"
NO_LINKS = "items without a link in the map"
INVERSE_STATEMENTS = "statements of owl:inverseOf"


def detect(path: Path) -> bool:
    """Whether ``path`` is an RDF file, or a folder that holds one, judged by the names."""
    return bool(rdf_files(path))


def read(
    path: PathLike | rdflib.Graph,
    *,
    interactions: pd.DataFrame | PathLike | None = None,
    links: Mapping[str, str] | PathLike | None = None,
    link_predicate: str | None = None,
    literals: Sequence[str] | None = None,
    merge_inverses: bool | Mapping[str, str] = False,
    on_unknown: OnUnknown = "raise",
    max_bytes: int = MAX_BYTES,
) -> RecGraph:
    """Read a knowledge graph in RDF and the interactions with its items.

    Entities and relations keep their IRIs as ids; blank nodes get stable names (see
    :func:`~kg_loaders.rdftriples.read_triples`). A literal becomes a text feature of its item or entity, named by the
    last part of its predicate (``rdfs:label`` is ``"label"``; by the whole predicate where two end alike). Several
    values are sorted and joined by ``" | "``. Literals of what is neither an item nor in a triple are counted.

    Args:
        path: An RDF file, a folder of them, or a graph of rdflib's.
        interactions: Columns ``user_id``, ``item_id`` and optionally ``time``, ``weight``, ``split``, as a frame (see
            :func:`~kg_loaders.assemble.assemble`) or a CSV file with a header (``.tsv``: tabs), whose splits are
            ``train``, ``valid``, ``test``. ``None``: ``interactions.csv`` or ``.tsv`` in the folder, plain or gzipped.
        links: From item id to IRI, as a mapping or a CSV file with a header and two columns, the item first; an empty
            second cell is no link, and is counted. ``None``: ``map.csv`` in the folder, plain or gzipped, or else the
            items of the interactions are IRIs.
        link_predicate: Instead of links: the predicate that leads from a node to the id of its item, be that a literal
            or an IRI. Its statements are links and nothing else.
        literals: The predicates whose literals become features, others are counted and left; ``None`` for all.
        merge_inverses: Whether to turn round the triples of a relation that another one is the inverse of, so that
            each fact stands there once: ``True`` for the pairs that the data declare by ``owl:inverseOf``, or a mapping
            from the relation that goes to the one that stays. What coincides then is counted.
        on_unknown: What to do with links of items that nobody interacts with, and second links to one entity: raise, or
            leave them out and count them.
        max_bytes: How large an RDF file may be after decompression.

    Raises:
        FormatError: A file is missing, malformed or refused, the interactions have other columns, or the parts do not
            fit together.
        KGLoaderError: An option contradicts another or names a predicate that the data do not hold.
    """
    place = Path(path) if isinstance(path, str | os.PathLike) else Path("rdflib.Graph")
    if links is not None and link_predicate is not None:
        raise KGLoaderError("give either links or link_predicate, not both")
    pairs_file = None if isinstance(interactions, pd.DataFrame) else _beside(place, interactions, *INTERACTIONS)
    links_file = None if isinstance(links, Mapping) or link_predicate is not None else _beside(place, links, LINKS)
    pairs = interactions if isinstance(interactions, pd.DataFrame) else _read_interactions(place, pairs_file)
    data = read_triples(place if isinstance(path, str | os.PathLike) else path, max_bytes=max_bytes)
    parts = _Parts.of(data)
    if place.is_dir():
        parts.dropped.update(unread_files(place, [*rdf_files(place), pairs_file, links_file]))
    with blamed_on(place):
        items = natural_order(map(str, pairs["item_id"].unique())) if "item_id" in pairs else []
        if link_predicate is not None:
            links = parts.take_links(link_predicate, on_unknown)
        elif not isinstance(links, Mapping):
            links = _read_links(links_file, parts.dropped)
        parts.merge_inverses(merge_inverses)
        of_item: dict[str, str] = {}  # entity id -> item id; the first item has it, as in assemble
        for item in items:
            if links is None or item in links:
                of_item.setdefault(item if links is None else links[item], item)
        item_table, entity_table = parts.take_literals(literals, of_item)
        return assemble(
            name=place.name.removesuffix(".gz").removesuffix(place.suffix) or "rdf",
            interactions=pairs,
            triples=make_frame(parts.triples, parts.nodes, parts.relations),
            links=links,
            item_table=item_table,
            entity_table=entity_table,
            on_unknown=on_unknown,
            dropped=parts.dropped,
        )


@dataclass
class _Parts:
    """The triples and literals, while links, inverses and features are taken out of them."""

    triples: NDArray[np.int64]  # [num_triples, 3] of (node, relation, node)
    nodes: list[str]
    relations: list[str]
    literals: pd.DataFrame
    dropped: Counter[str]

    @classmethod
    def of(cls, data: RdfTriples) -> _Parts:
        nodes = data.triples["head_id"].cat.categories.tolist()
        relations = data.triples["relation_id"].cat.categories.tolist()
        return cls(data.codes(), nodes, relations, data.literals, Counter(data.dropped))

    def take(self, relation: str) -> list[tuple[str, str]]:
        """Take out the triples of a relation, as (head, tail)."""
        if relation not in self.relations:
            return []
        taken = self.triples[:, 1] == self.relations.index(relation)
        pairs = [(self.nodes[head], self.nodes[tail]) for head, _, tail in self.triples[taken].tolist()]
        self.triples = self.triples[~taken]
        return pairs

    def take_links(self, predicate: str, on_unknown: OnUnknown) -> dict[str, str]:
        """Take out the statements that say which item a node is, as item -> node."""
        taken = self.literals["relation_id"] == predicate
        found = self.take(predicate) + list(
            self.literals.loc[taken, ["node_id", "value"]].itertuples(index=False, name=None)
        )
        if not found:
            known = {*self.relations, *self.literals["relation_id"]}
            raise KGLoaderError(f"link_predicate {predicate!r} is not in the data{did_you_mean(predicate, known)}")
        self.literals = self.literals[~taken]
        links: dict[str, str] = {}
        for node, item in sorted(set(found)):
            if links.setdefault(item, node) != node:
                if on_unknown == "raise":
                    raise GraphError(f"{links[item]!r} and {node!r} are both linked to item {item!r}")
                self.dropped[SECOND_LINKS] += 1
        return links

    def merge_inverses(self, wanted: bool | Mapping[str, str]) -> None:
        """Turn the triples of inverse relations round and remove what stands there twice then."""
        if not wanted:
            return
        if isinstance(wanted, Mapping):
            stays = dict(wanted)
        else:
            declared = self.take(INVERSE_OF)
            self.dropped[INVERSE_STATEMENTS] += len(declared)
            stays = {max(pair): min(pair) for pair in declared if pair[0] != pair[1]}
        code = {relation: place for place, relation in enumerate(self.relations)}
        for inverse, relation in stays.items():
            if relation in stays:
                raise KGLoaderError(
                    f"{inverse!r} is the inverse of {relation!r}, and that of {stays[relation]!r}; merge them in pairs"
                )
            if inverse not in code:
                if isinstance(wanted, Mapping):
                    hint = did_you_mean(inverse, code)
                    raise KGLoaderError(f"merge_inverses names {inverse!r}, which is no relation of the data{hint}")
                continue
            if relation not in code:
                code[relation] = len(self.relations)
                self.relations.append(relation)
            turned = self.triples[:, 1] == code[inverse]
            self.triples[turned] = self.triples[turned][:, ::-1]
            self.triples[turned, 1] = code[relation]
        repeated = pd.DataFrame(self.triples).duplicated().to_numpy()
        self.dropped[MERGED_TRIPLES] += int(repeated.sum())
        self.triples = self.triples[~repeated]

    def take_literals(
        self, wanted: Sequence[str] | None, of_item: Mapping[str, str]
    ) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
        """Make tables of the literals of items, by item id, and of other entities, by entity id."""
        table = self.literals
        known = natural_order(table["relation_id"])
        if wanted is not None:
            wanted = [wanted] if isinstance(wanted, str) else list(wanted)
            for predicate in wanted:
                if predicate not in known:
                    hint = did_you_mean(predicate, known)
                    raise KGLoaderError(f"literals names {predicate!r}, which no literal has as its predicate{hint}")
            is_wanted = table["relation_id"].isin(wanted)
            self.dropped[UNWANTED_LITERALS] += int((~is_wanted).sum())
            table = table[is_wanted]
        entities = {self.nodes[code] for code in np.unique(self.triples[:, [0, 2]]).tolist()}
        is_of_item = table["node_id"].isin(of_item.keys())
        is_loose = ~is_of_item & ~table["node_id"].isin(entities)
        self.dropped[LOOSE_LITERALS] += int(is_loose.sum())
        names = _feature_names(natural_order(table["relation_id"]))
        of_items = table[is_of_item]
        return (
            _as_features(of_items.assign(node_id=of_items["node_id"].map(of_item)), names),
            _as_features(table[~is_of_item & ~is_loose], names),
        )


def _feature_names(predicates: Sequence[str]) -> dict[str, str]:
    """Return a distinct name for each predicate: its last part, or all of it where that names two."""
    last = {predicate: predicate.rstrip("/#").replace("#", "/").rsplit("/", 1)[-1] for predicate in predicates}
    count = Counter(last.values())
    return {
        predicate: name if count[name] == 1 or predicate == LABEL else predicate for predicate, name in last.items()
    }


def _as_features(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame | None:
    if not len(table):
        return None
    values: dict[tuple[str, str], set[str]] = {}
    for node, predicate, value in zip(table["node_id"], table["relation_id"], table["value"], strict=True):
        values.setdefault((names[predicate], node), set()).add(value)
    columns: dict[str, dict[str, str]] = {}
    for name, node in sorted(values):
        columns.setdefault(name, {})[node] = VALUE_SEPARATOR.join(sorted(values[name, node]))
    nodes = natural_order(table["node_id"])
    cells = {name: [column.get(node) for node in nodes] for name, column in columns.items()}
    return pd.DataFrame(cells, index=pd.Index(nodes, dtype=object), dtype=object)


def _beside(place: Path, given: PathLike | None, *names: str) -> Path | None:
    """Return the file that is given, or else the first of these names that lies in the folder, plain or gzipped."""
    if given is not None:
        return Path(given)
    return next((file for name in names if (file := find_file(place, name)) is not None), None)


def _separator(path: Path) -> str:
    return "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","


def _read_interactions(place: Path, path: Path | None) -> pd.DataFrame:
    if path is None:
        raise FormatError(
            place, None, f"RDF holds no interactions: give interactions=, or {INTERACTIONS[0]} in the folder"
        )
    table = read_table(path, _separator(path))
    columns: dict[str, Any] = {name: table.ids(name) for name in ("user_id", "item_id")}
    with blamed_on(path):
        check_columns("interactions", table.names, INTERACTION_COLUMNS)
    columns |= {name: table.numbers(name) for name in ("time", "weight") if name in table}
    if "split" in table:
        columns["split"] = table.split_codes("split")
    return pd.DataFrame(columns)


def _read_links(path: Path | None, dropped: Counter[str]) -> dict[str, str] | None:
    if path is None:
        return None
    links, num_empty = read_links(path, _separator(path))
    dropped[NO_LINKS] += num_empty
    return links
