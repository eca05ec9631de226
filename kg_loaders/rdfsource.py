"""An RDF file watched while a parser reads it: its size, its lines, and what a parser must not follow."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from xml.parsers import expat

from kg_loaders.errors import FormatError

LINES = ("nt", "nquads")  # the syntaxes of one statement a line

MAX_BYTES = 4 * 2**30  # of a file after decompression
MAX_LINE_BYTES = 64 * 2**20  # of N-Triples, N-Quads and Turtle; the others may well be one line

MAX_XML_DEPTH = 200
HEAD_BYTES = 1024

DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
XML_ENCODING = re.compile(rb"""\sencoding\s*=\s*["']([^"']*)""")


class RdfSource(io.RawIOBase):
    """A plain or gzipped file, watched while a parser reads it.

    ``failure`` keeps what was wrong with the file itself, for parsers report exceptions of their input as they please.
    """

    def __init__(self, path: Path, syntax: str, max_bytes: int) -> None:
        super().__init__()
        self.failure: FormatError | None = None
        self._path, self._syntax, self._bytes_left, self._max_bytes = path, syntax, max_bytes, max_bytes
        self._line, self._line_bytes, self._tail = 1, 0, b""
        self._well_formed = self._xml_checker() if syntax == "xml" else None
        try:
            opener: Any = gzip.open if path.suffix == ".gz" else open
            self._file: BinaryIO = opener(path, "rb")
        except OSError as error:
            raise FormatError(path, None, f"cannot be read: {error.strerror}") from None
        try:
            self._start = self._read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
            if syntax == "xml":
                self._check_encoding()
        except FormatError:
            self._file.close()
            raise

    def readable(self) -> bool:
        """Return ``True``, as a stream to read from must."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer and return with how many bytes, none at the end."""
        data = self._start or self._read(len(buffer))
        data, self._start = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _xml_checker(self) -> expat.XMLParserType:
        """Return a parser that checks what pyoxigraph's does not: that the file goes on to its end, and is not deep."""
        parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
        depth = 0

        def start(name: str, attributes: Any) -> None:
            nonlocal depth
            depth += 1
            if depth > MAX_XML_DEPTH:
                self._line = parser.CurrentLineNumber
                self._fail(f"malformed RDF: elements nested more than {MAX_XML_DEPTH} deep")

        def end(name: str) -> None:
            nonlocal depth
            depth -= 1

        parser.StartElementHandler, parser.EndElementHandler = start, end
        return parser

    def _check_encoding(self) -> None:
        """Refuse other encodings than UTF-8, in which :data:`DOCTYPE` would not be seen."""
        if not self._start.startswith(b"<?xml"):
            return
        end = self._start.find(b"?>")
        if end < 0:
            raise FormatError(self._path, 1, f"no end of the XML declaration in the first {HEAD_BYTES} bytes")
        declared = XML_ENCODING.search(self._start, 0, end)
        if declared and declared[1].lower() not in (b"utf-8", b"us-ascii"):
            name = declared[1].decode("latin-1")
            raise FormatError(self._path, 1, f"encoding must be UTF-8, the file declares {name!r}")

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self._fail(f"truncated or damaged gzip file: {error}")
        except OSError as error:
            self._fail(f"cannot be read: {error.strerror}")
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._fail(f"the file holds more than max_bytes = {self._max_bytes} bytes (after decompression)")
        if b"\0" in data:
            self._line += data.count(b"\n", 0, data.index(b"\0"))
            self._fail("NUL byte; the file must be UTF-8 text")
        if self._syntax == "xml":
            seen = self._tail + data
            if found := DOCTYPE.search(seen):
                self._line += seen.count(b"\n", len(self._tail), max(found.start(), len(self._tail)))
                self._fail("document type and entity declarations are refused; write the entities out")
            self._tail = seen[-len(b"<!DOCTYPE") :]
        if self._well_formed is not None:
            try:
                self._well_formed.Parse(data, not data)
                self._well_formed = self._well_formed if data else None  # the end may be asked for again
            except expat.ExpatError as error:
                self._line = error.lineno
                self._fail(f"malformed RDF: not well-formed XML: {expat.ErrorString(error.code)}")
        first, last = data.find(b"\n"), data.rfind(b"\n")
        longest = self._line_bytes + (len(data) if first < 0 else first)
        if longest > MAX_LINE_BYTES and self._syntax in (*LINES, "turtle"):
            self._fail(f"line is longer than the limit of {MAX_LINE_BYTES} bytes")
        self._line_bytes = self._line_bytes + len(data) if first < 0 else len(data) - last - 1
        self._line += data.count(b"\n")
        return data

    def _fail(self, reason: str) -> NoReturn:
        self.failure = FormatError(self._path, self._line, reason)
        raise self.failure


def checked_json(path: Path, data: bytes) -> bytes:
    """Return ``data`` after making sure that it is JSON and names no context outside the file."""
    try:
        tree = json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise FormatError(path, error.lineno, f"not JSON: {error.msg}") from None
    if not isinstance(tree, dict | list):
        raise FormatError(path, None, "a JSON-LD file must hold an object or a list")
    todo: list[Any] = [tree]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo.extend(value)
        if not isinstance(value, dict):
            continue
        todo.extend(value.values())
        contexts = value.get("@context", [])
        remote = [c for c in (contexts if isinstance(contexts, list) else [contexts]) if isinstance(c, str)]
        if "@import" in value:
            remote.append(str(value["@import"]))
        if remote:
            raise FormatError(path, None, f"the context {remote[0]!r} lies elsewhere and is not fetched; write it out")
    return data
