"""RDF files as a stream of rows: two parsers under one roof, with limits, and never a network.

pyoxigraph's parser where the ``rdf`` extra is installed, else rdflib's with a store that keeps nothing. Both give the
same rows; what one of them would let pass is checked here for both.
"""

from __future__ import annotations

import io
import logging
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.sax import SAXParseException

from kg_loaders.errors import FormatError
from kg_loaders.rdfsource import LINES, MAX_BYTES, RdfSource, checked_json

SYNTAXES = {
    ".nt": "nt",
    ".nq": "nquads",
    ".ttl": "turtle",
    ".rdf": "xml",
    ".owl": "xml",
    ".xml": "xml",
    ".jsonld": "json-ld",
}
BUFFER_BYTES = 2**20

XSD = "http://www.w3.org/2001/XMLSchema#"
BLANK = "_:"
IRI = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>"{}|^`\\\ud800-\udfff]*""")
SURROGATE = re.compile("[\ud800-\udfff]")
FAST_MESSAGE = re.compile(r"Parser error .*?: (.*?)(?: \(line \d+\))?")  # the place of the fault is told apart
LINE_IN_MESSAGE = re.compile(r":(\d+):\d+: ")  # rdflib's RDF/XML parser says PATH:LINE:COLUMN

_rdflib_lock = threading.Lock()


@dataclass
class Rows:
    """The statements of a file in the parser's order.

    A node is its IRI, or ``_:`` and a label that means nothing outside the file.
    """

    heads: list[str] = field(default_factory=list)
    relations: list[str] = field(default_factory=list)
    tails: list[str] = field(default_factory=list)
    literals: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(node, predicate, value, language in lower case or ``""``)."""


def syntax_of(path: Path) -> str | None:
    """Return rdflib's name of the syntax that a file's name tells, gzipped or not; ``None`` if it tells none."""
    return SYNTAXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())


def read_rows(path: Path, max_bytes: int = MAX_BYTES) -> Rows:
    """Read a file in the syntax that its name tells.

    Relative IRIs are resolved against ``file:///NAME``, so that they do not depend on the folder. The graph names of
    quads are left out.

    Raises:
        FormatError: The file is missing or malformed, larger than ``max_bytes`` after decompression, or asks for what
            is refused: a document type declaration (the home of entity bombs), a JSON-LD context somewhere else.
    """
    syntax = syntax_of(path)
    if syntax is None:
        raise FormatError(path, None, f"unknown RDF syntax; a name ends with {', '.join(SYNTAXES)}, or that and .gz")
    if not has_fast_parser():
        return _parse(path, syntax, max_bytes, _read_rdflib)
    try:
        return _parse(path, syntax, max_bytes, _read_fast)
    except FormatError as error:
        if syntax == "xml" and error.line is None:
            _parse(path, syntax, max_bytes, _read_rdflib)  # which says where, unlike pyoxigraph
        raise


def _parse(path: Path, syntax: str, max_bytes: int, read: Callable[[Path, BinaryIO, str, str], Rows]) -> Rows:
    base = "file:///" + re.sub(r"[^\w.~-]", "_", path.name, flags=re.ASCII)
    raw = RdfSource(path, syntax, max_bytes)
    with raw, io.BufferedReader(raw, BUFFER_BYTES) as source:
        try:
            stream = io.BytesIO(checked_json(path, source.read())) if syntax == "json-ld" else source
            rows = read(path, cast("BinaryIO", stream), syntax, base)
        except MemoryError:
            raise
        except Exception as error:
            # Parsers of foreign make, fed with anything: whatever they raise means that they cannot read it.
            raise _as_format_error(path, raw.failure or error) from None
    _check_terms(path, syntax, max_bytes, rows)
    return rows


def _check_terms(path: Path, syntax: str, max_bytes: int, rows: Rows) -> None:
    """Check each IRI once, and that text can be written as UTF-8, for the parsers are lenient or lax here."""
    nodes = {*rows.heads, *rows.tails, *(literal[0] for literal in rows.literals)}
    relations = {*rows.relations, *(literal[1] for literal in rows.literals)}
    for term in (*(node for node in nodes if not node.startswith(BLANK)), *relations):
        if not IRI.fullmatch(term):
            shown = term if len(term) <= 80 else f"{term[:77]}..."
            line = None
            if syntax in (*LINES, "turtle"):
                needle = f"<{term}>".encode("utf-8", "surrogatepass")
                with io.BufferedReader(RdfSource(path, syntax, max_bytes)) as source:
                    line = next((number for number, text in enumerate(source, 1) if needle in text), None)
            raise FormatError(path, line, f"malformed RDF: {shown!r} is not an absolute IRI")
    text = "\n".join(literal[2] for literal in rows.literals)
    if "\0" in text or SURROGATE.search(text):
        raise FormatError(path, None, "a literal holds a character that is no text: NUL or half a surrogate pair")


def has_fast_parser() -> bool:
    """Whether pyoxigraph, the ``rdf`` extra, is installed."""
    try:
        import pyoxigraph  # noqa: F401
    except ImportError:
        return False
    return True


def _as_format_error(path: Path, error: Exception) -> FormatError:
    if isinstance(error, FormatError):
        return error
    line: int | None = None
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        line, reason = error.object.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}"
    elif isinstance(error, SyntaxError):
        # rdflib counts the lines before the fault, Python's own attribute is pyoxigraph's.
        line = getattr(error, "lines", -1) + 1 or error.lineno
        reason = str(getattr(error, "_why", reason))
        reason = found[1] if (found := FAST_MESSAGE.fullmatch(reason)) else reason
    elif isinstance(error, SAXParseException):
        line, reason = error.getLineNumber(), error.getMessage()
    elif found := LINE_IN_MESSAGE.search(reason):
        line, reason = int(found[1]), reason[found.end() :]
    elif isinstance(error, RecursionError):
        reason = "nested too deeply"
    return FormatError(path, line, f"malformed RDF: {reason[:300]}")


def _read_fast(path: Path, source: BinaryIO, syntax: str, base: str) -> Rows:
    import pyoxigraph

    literal, blank, node = pyoxigraph.Literal, pyoxigraph.BlankNode, pyoxigraph.NamedNode
    names = {"nt": "N_TRIPLES", "nquads": "N_QUADS", "turtle": "TURTLE", "xml": "RDF_XML", "json-ld": "JSON_LD"}
    rows = Rows()
    add_head, add_relation, add_tail = rows.heads.append, rows.relations.append, rows.tails.append
    # N-Triples and N-Quads know no relative IRIs. Lenient halves their time: IRIs are checked later, each one once.
    quads = pyoxigraph.parse(
        source,
        format=getattr(pyoxigraph.RdfFormat, names[syntax]),
        base_iri=None if syntax in LINES else base,
        lenient=syntax in LINES,
    )
    for subject, predicate, object_, _ in quads:
        head = BLANK + subject.value if type(subject) is blank else subject.value
        kind = type(object_)
        if kind is node:
            add_tail(object_.value)
        elif kind is blank:
            add_tail(BLANK + object_.value)
        elif kind is literal:
            value = _lexical(object_.value, object_.datatype.value)
            rows.literals.append((head, predicate.value, value, (object_.language or "").lower()))
            continue
        else:
            raise ValueError("triples about triples (RDF-star) are not supported")
        add_head(head)
        add_relation(predicate.value)
    return rows


def _read_rdflib(path: Path, source: BinaryIO, syntax: str, base: str) -> Rows:
    import rdflib
    from rdflib.parser import InputSource
    from rdflib.store import Store

    rows = Rows()

    class Stream(Store):
        """Hands every statement on and keeps none."""

        context_aware = True
        graph_aware = True

        def add(self, triple: Any, context: Any, quoted: bool = False) -> None:
            add_rdflib_triple(rows, triple)

    with _quiet_rdflib():
        if syntax in LINES:
            _read_lines(path, source, syntax, rows)
            return rows
        given = InputSource()
        given.setByteStream(source)
        given.setPublicId(base)
        sink = rdflib.Dataset(Stream()) if syntax == "json-ld" else rdflib.Graph(Stream(), bind_namespaces="none")
        sink.parse(given, format=syntax)
    return rows


def _read_lines(path: Path, source: BinaryIO, syntax: str, rows: Rows) -> None:
    from rdflib.plugins.parsers.nquads import NQuadsParser

    class Sink:
        """What the parser of quads calls."""

        def __init__(self) -> None:
            self.default_context = self

        def add(self, triple: Any) -> None:
            add_rdflib_triple(rows, triple)

        def get_context(self, name: Any) -> Sink:
            if syntax == "nt":
                raise ValueError("N-Triples have three terms, found a fourth")
            return self

    parser: Any = NQuadsParser(cast("Any", Sink()))
    line_number = 0
    try:
        for line in source:
            line_number += 1
            for part in line.decode("utf-8").rstrip("\r\n").split("\r"):
                parser.line = part
                parser.parseline()
    except FormatError:
        raise
    except Exception as error:
        reason = f"not UTF-8: {error.reason}" if isinstance(error, UnicodeDecodeError) else str(error)
        raise FormatError(path, line_number, f"malformed RDF: {reason[:300]}") from None


def add_rdflib_triple(rows: Rows, triple: tuple[Any, Any, Any]) -> None:
    """Add a triple of rdflib's terms to ``rows``."""
    from rdflib.term import Literal

    subject, predicate, object_ = triple
    head = _rdflib_node(subject)
    if isinstance(object_, Literal):
        value = _lexical(str(object_), str(object_.datatype or ""))
        rows.literals.append((head, str(predicate), value, (object_.language or "").lower()))
        return
    rows.heads.append(head)
    rows.relations.append(str(predicate))
    rows.tails.append(_rdflib_node(object_))


def _rdflib_node(term: Any) -> str:
    from rdflib.term import BNode

    return f"{BLANK}{term}" if isinstance(term, BNode) else str(term)


@contextmanager
def _quiet_rdflib() -> Iterator[None]:
    """Make rdflib keep literals as they are written, and keep its logs and warnings to itself.

    All three are settings of the process, so one reader at a time: the lock.
    """
    import rdflib

    logger = logging.getLogger("rdflib")
    with _rdflib_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        normalize, level = rdflib.NORMALIZE_LITERALS, logger.level
        try:
            rdflib.NORMALIZE_LITERALS = False
            logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            rdflib.NORMALIZE_LITERALS = normalize
            logger.setLevel(level)


def _lexical(value: str, datatype: str) -> str:
    """Return a literal's text; numbers in one form, for rdflib's parsers do not always keep what was written."""
    if datatype == f"{XSD}integer" and (found := re.fullmatch(r"\+?(-?)0*(\d+)", value)):
        return found[1] * (found[2] != "0") + found[2]
    if datatype == f"{XSD}decimal":
        try:
            number = Decimal(value)
        except InvalidOperation:
            return value
        # Written out, 1E999999999 would fill the memory.
        if number.is_finite() and abs(number.adjusted()) < 1000:
            return format(abs(number) if number == 0 else number, "f")
    if datatype == f"{XSD}double":
        try:
            double = float(value)
        except ValueError:
            return value
        if math.isfinite(double):
            return str(int(double)) if double.is_integer() and abs(double) < 2**53 else repr(double)
    return value
