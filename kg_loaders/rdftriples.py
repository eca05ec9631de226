"""RDF as tables: triples and literals, with stable names for blank nodes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.assemble import REPEATED_TRIPLES
from kg_loaders.errors import FormatError
from kg_loaders.rdfsource import MAX_BYTES
from kg_loaders.rdfstream import BLANK, Rows, add_rdflib_triple, read_rows, syntax_of

if TYPE_CHECKING:
    import rdflib

REPEATED_LITERALS = "repeated literals"
MAX_ROUNDS = 32  # how many steps away two blank nodes may differ and still be told apart


@dataclass(frozen=True)
class RdfTriples:
    """What RDF files say.

    Args:
        triples: Categorical columns ``head_id``, ``relation_id``, ``tail_id``; ids are IRIs, or ``_:`` and the name of
            a blank node. ``head_id`` and ``tail_id`` share their categories.
        literals: Columns ``node_id``, ``relation_id``, ``value`` and ``language`` (``""`` without one), all text.
        dropped: What was left out, by reason.
    """

    triples: pd.DataFrame
    literals: pd.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)

    def codes(self) -> NDArray[np.int64]:
        """Return the triples as positions among the categories, int64 ``[num_triples, 3]``."""
        return np.column_stack([self.triples[name].cat.codes.to_numpy().astype(np.int64) for name in self.triples])


def read_triples(source: str | Path | rdflib.Graph, *, max_bytes: int = MAX_BYTES) -> RdfTriples:
    """Read RDF: a file, all RDF files of a folder, or a graph of rdflib's.

    Turtle (``.ttl``), N-Triples (``.nt``), N-Quads (``.nq``), RDF/XML (``.rdf``, ``.owl``, ``.xml``) and JSON-LD
    (``.jsonld``), each also gzipped (``.gz``). The graph names of quads are left out. Triples and literals come once;
    repetitions are counted. A blank node is named after what the statements say about it, so its name depends neither
    on labels nor on the order of rows; those that nothing within 32 steps tells apart are numbered as they appear.

    Args:
        source: What to read.
        max_bytes: How large a file may be after decompression.

    Raises:
        FormatError: A file is missing, malformed, refused (see :func:`kg_loaders.rdfstream.read_rows`) or says nothing.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "films.ttl")
        >>> _ = path.write_text('@prefix x: <http://x/> . x:Alien x:director x:Scott ; x:title "Alien"@en .')
        >>> read_triples(path).triples.iloc[0].tolist()
        ['http://x/Alien', 'http://x/director', 'http://x/Scott']
        >>> read_triples(path).literals.iloc[0].tolist()
        ['http://x/Alien', 'http://x/title', 'Alien', 'en']
    """
    if isinstance(source, str | Path):
        path = Path(source)
        rows = _read_files(path, max_bytes)
        if not rows.heads and not rows.literals:
            raise FormatError(path, None, "there is no statement in it")
    else:
        import rdflib

        rows = Rows()
        # Of a data set all graphs, as of a file of quads.
        statements = source.quads() if isinstance(source, rdflib.Dataset) else source
        for subject, predicate, object_, *_ in statements:
            add_rdflib_triple(rows, (subject, predicate, object_))
    return _as_tables(rows)


def rdf_files(path: Path) -> list[Path]:
    """Return the RDF files of a folder by name, or the file itself if it is one."""
    found = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in found if file.is_file() and syntax_of(file) is not None]


def make_frame(codes: NDArray[np.int64], nodes: Sequence[str], relations: Sequence[str]) -> pd.DataFrame:
    """Return triples of codes as a frame that knows only what occurs in it."""
    used_nodes, places = np.unique(codes[:, [0, 2]], return_inverse=True)
    used_relations, relation = np.unique(codes[:, 1], return_inverse=True)
    # Of one type whatever else is installed: pandas' own text columns change with pyarrow.
    node_ids = pd.Index(np.asarray(nodes, dtype=object)[used_nodes], dtype=object)
    relation_ids = pd.Index(np.asarray(relations, dtype=object)[used_relations], dtype=object)
    head, tail = places.reshape(-1, 2).T
    return pd.DataFrame(
        {
            "head_id": pd.Categorical.from_codes(head, node_ids),
            "relation_id": pd.Categorical.from_codes(relation.reshape(-1), relation_ids),
            "tail_id": pd.Categorical.from_codes(tail, node_ids),
        }
    )


def _read_files(path: Path, max_bytes: int) -> Rows:
    files = rdf_files(path) if path.is_dir() else [path]
    if not files:
        raise FormatError(path, None, "there is no RDF file in the folder")
    all_rows = Rows()
    for number, file in enumerate(files):
        rows = read_rows(file, max_bytes)
        if len(files) > 1:  # a label of a blank node means something within its file only
            rows.heads = [_within(number, node) for node in rows.heads]
            rows.tails = [_within(number, node) for node in rows.tails]
            rows.literals = [(_within(number, row[0]), *row[1:]) for row in rows.literals]
        all_rows.heads += rows.heads
        all_rows.relations += rows.relations
        all_rows.tails += rows.tails
        all_rows.literals += rows.literals
    return all_rows


def _within(number: int, node: str) -> str:
    return f"{BLANK}{number}:{node[len(BLANK) :]}" if node.startswith(BLANK) else node


def _as_tables(rows: Rows) -> RdfTriples:
    subjects = [literal[0] for literal in rows.literals]
    codes, uniques = pd.factorize(np.asarray(rows.heads + rows.tails + subjects, dtype=object))
    relation, relation_ids = pd.factorize(np.asarray(rows.relations, dtype=object))
    nodes, relations = list(uniques), list(relation_ids)
    head, tail, subject = np.split(codes.astype(np.int64), [len(rows.heads), 2 * len(rows.heads)])
    triples = np.column_stack([head, relation.astype(np.int64), tail])
    repeated = pd.DataFrame(triples).duplicated().to_numpy()
    triples = triples[~repeated]
    literals = list(dict.fromkeys(zip(subject.tolist(), *_columns(rows.literals), strict=True)))
    _name_blank_nodes(nodes, triples, relations, literals)
    dropped = {REPEATED_TRIPLES: int(repeated.sum()), REPEATED_LITERALS: len(rows.literals) - len(literals)}
    table = [(nodes[node], *rest) for node, *rest in literals]
    return RdfTriples(
        make_frame(triples, nodes, relations),
        pd.DataFrame(table, columns=["node_id", "relation_id", "value", "language"], dtype=object),
        {reason: count for reason, count in dropped.items() if count},
    )


def _columns(literals: list[tuple[str, str, str, str]]) -> tuple[list[str], list[str], list[str]]:
    return [row[1] for row in literals], [row[2] for row in literals], [row[3] for row in literals]


def _name_blank_nodes(
    nodes: list[str],
    triples: NDArray[np.int64],
    relations: list[str],
    literals: list[tuple[int, str, str, str]],
) -> None:
    """Replace the labels of blank nodes in ``nodes`` by names that follow from the statements.

    Colour refinement: a node's colour is a hash of its statements, in which other blank nodes stand for their colours
    of the round before, until a round tells no more nodes apart.
    """
    blank = [code for code, node in enumerate(nodes) if node.startswith(BLANK)]
    if not blank:
        return
    is_blank = np.zeros(len(nodes), dtype=np.bool_)
    is_blank[blank] = True
    said: dict[int, list[str]] = defaultdict(list)  # statements that stay as they are
    linked: dict[int, list[tuple[str, int]]] = defaultdict(list)  # statements with another blank node
    for head, relation, tail in triples[is_blank[triples[:, [0, 2]]].any(axis=1)].tolist():
        for node, mark, other in ((head, ">", tail), (tail, "<", head)):
            if is_blank[node] and is_blank[other]:
                linked[node].append((f"{mark}{relations[relation]}", other))
            elif is_blank[node]:
                said[node].append(f"{mark}{relations[relation]} {nodes[other]}")
    for node, relation_id, value, language in literals:
        if is_blank[node]:
            said[node].append(f'"{relation_id} {language} {value}')
    colours = {node: _hash(said[node]) for node in blank}
    num_colours = len(set(colours.values()))
    for _ in range(MAX_ROUNDS):
        if num_colours == len(blank):
            break
        fresh = {
            node: _hash([f"{edge} {colours[other]}" for edge, other in linked[node]], colours[node]) for node in blank
        }
        before, num_colours = num_colours, len(set(fresh.values()))
        if num_colours == before:
            break
        colours = fresh
    seen: Counter[str] = Counter()
    for node in blank:
        colour = colours[node]
        nodes[node] = f"{BLANK}{colour}" + (f"-{seen[colour]}" if seen[colour] else "")
        seen[colour] += 1


def _hash(statements: list[str], start: str = "") -> str:
    return hashlib.sha256("\0".join([start, *sorted(statements)]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
