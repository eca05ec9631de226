"""Delimited text tables (CSV, TSV, any separator) as columns of text that know their lines."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.columntable import ColumnTable
from kg_loaders.errors import FormatError
from kg_loaders.textio import BLANKS, MAX_LINE_BYTES, decode, line_at, read_bytes, unix_line_ends

UNIT = "\x1f"  # ASCII's own unit separator stands in for separators of several bytes


@dataclass(frozen=True)
class TextTable(ColumnTable):
    """The cells of a delimited file.

    Args:
        path: The file.
        names: The column names; ``"0"``, ``"1"``, ... for a file without a header.
        columns: The cells, one array of text per column, each ``[num_rows]``.
        lines: The line of each row, counted from 1, int64 ``[num_rows]``.
    """

    columns: tuple[pd.Series[str], ...]
    lines: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lines)

    def fail(self, row: int, reason: str) -> NoReturn:
        """Raise :class:`FormatError` for a row."""
        raise FormatError(self.path, int(self.lines[row]), reason)

    def column(self, name: str) -> pd.Series[str]:
        """Return the cells of a column, exactly as in the file.

        Raises:
            FormatError: There is no such column.
        """
        self._check_name(name, line=1)
        return self.columns[self.names.index(name)]

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return a column as an object array of str."""
        return self.column(name).to_numpy(dtype=object)

    def ids(self, name: str) -> pd.Categorical:
        """Return a column as ids, without the blanks around them.

        Raises:
            FormatError: There is no such column, or a cell is empty.
        """
        codes, uniques = pd.factorize(self.column(name))
        raw = [str(cell) for cell in uniques]
        stripped = [cell.strip(BLANKS) for cell in raw]
        if raw != stripped:  # two cells may become one id
            inner, merged = pd.factorize(np.asarray(stripped, dtype=object))
            codes, stripped = inner[codes], list(merged)
        return self._as_ids(name, codes, stripped)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column as finite numbers.

        Raises:
            FormatError: A cell is anything else.
        """
        cells = self.texts(name)
        try:
            values = np.asarray(cells, dtype=np.float64)
        except ValueError:
            values = np.asarray([_number(cell) for cell in cells])
        if "_" in "".join(cells):  # Python takes 1_0 for 10
            values[["_" in cell for cell in cells]] = np.nan
        if not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values)))
            self.fail(row, f"column {name!r} holds {cells[row]!r}, expected a finite number")
        return values

    def feature(self, name: str) -> list[str]:
        """Return a column as a feature: text."""
        return [str(cell) for cell in self.column(name)]

    def vectors(self, name: str) -> list[NDArray[np.float32] | None]:
        """Return a column of blank-separated numbers as vectors; an empty cell is ``None``.

        Raises:
            FormatError: A cell holds anything but finite numbers, or another count of them than the first.
        """
        vectors: list[NDArray[np.float32] | None] = []
        size = 0
        for row, cell in enumerate(self.texts(name)):
            words = cell.split()
            if not words:
                vectors.append(None)
                continue
            size = size or len(words)
            if "_" in cell:
                self.fail(row, f"column {name!r} holds something other than numbers")
            if len(words) != size:
                self.fail(row, f"column {name!r} holds {len(words)} numbers, expected {size}")
            try:
                with np.errstate(over="ignore"):  # too large for float32 becomes infinite and is refused below
                    vector = np.asarray(words, dtype=np.float64).astype(np.float32)
            except ValueError:
                self.fail(row, f"column {name!r} holds something other than numbers")
            if not np.isfinite(vector).all():
                self.fail(row, f"column {name!r} holds NaN or infinity")
            vectors.append(vector)
        return vectors


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def read_table(
    path: Path, separator: str, *, header: bool = True, quoted: bool = True, fallback: str | None = None
) -> TextTable:
    r"""Read a delimited file, plain or gzipped.

    Accepts CRLF, a byte order mark and blank lines; every row must have as many cells as the first line.

    Args:
        path: The file.
        separator: One or several characters, such as ``","`` or ``"::"``.
        header: Whether the first line names the columns.
        quoted: Whether a cell that begins with ``"`` ends at the next single ``"`` (RFC 4180), so that it may hold
            separators and line ends.
        fallback: The encoding of a file that is not UTF-8; without it, such a file is refused.

    Raises:
        FormatError: See above, or what :func:`~kg_loaders.textio.read_bytes` refuses.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "ratings.dat")
        >>> _ = path.write_text("1::1193::5\n1::661::3\n")
        >>> table = read_table(path, "::", header=False)
        >>> table.names, table.ids("1").tolist(), table.numbers("2").tolist()
        (('0', '1', '2'), ['1193', '661'], [5.0, 3.0])
    """
    text = decode(path, read_bytes(path), fallback)
    mark = separator
    if len(separator.encode("utf-8")) > 1:
        if UNIT in text:
            raise FormatError(path, text[: text.index(UNIT)].count("\n") + 1, f"control character {UNIT!r}")
        mark = UNIT
        text = text.replace(separator, mark)
    is_quoted = quoted and (text.startswith('"') or f'{mark}"' in text or '\n"' in text)
    names, columns, lines = _read_quoted(path, text, mark) if is_quoted else _read_plain(path, text, mark)
    if is_quoted and mark != separator:  # a quoted cell may hold the separator
        columns = [pd.Series([c.replace(mark, separator) for c in column], dtype=object) for column in columns]
    if header:
        names = [str(column.iloc[0]).strip(BLANKS) for column in columns]
        columns = [column.iloc[1:].reset_index(drop=True) for column in columns]
        lines = lines[1:]
        if "" in names or len(set(names)) < len(names):
            raise FormatError(path, 1, f"column names must be distinct and not empty, got {names}")
    return TextTable(path, tuple(names), tuple(columns), lines)


def read_links(path: Path, separator: str) -> tuple[dict[str, str], int]:
    """Read a table of two columns, an item's id and its IRI, and return the links and how many IRIs are empty.

    Raises:
        FormatError: There are not two columns, an item has a second row, or what :func:`read_table` refuses.
    """
    table = read_table(path, separator)
    if len(table.names) != 2:
        raise FormatError(path, 1, f"{len(table.names)} columns, expected the item's id and its IRI")
    item, iri = table.names
    links = {id_: iri.strip() for id_, iri in zip(table.unique_ids(item), table.texts(iri), strict=True) if iri.strip()}
    return links, len(table) - len(links)


_Cells = tuple[list[str], list["pd.Series[str]"], NDArray[np.int64]]


def _read_plain(path: Path, text: str, separator: str) -> _Cells:
    """Split lines at every separator: checked in a few passes over the bytes, then read by pandas' C parser."""
    data = unix_line_ends(text.encode("utf-8"))
    if b"\r" in data:
        raise FormatError(path, line_at(data, data.index(b"\r")), "carriage return inside a line")
    if separator == " " and (b" \n" in data or b"\t\n" in data or data[-1:] in b" \t"):
        data = b"\n".join(line.rstrip(b" \t") for line in data.split(b"\n"))  # no cells, only trailing blanks
    data = data if data.endswith(b"\n") else data + b"\n"
    buffer = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(buffer == ord("\n"))
    is_blank = np.zeros(256, dtype=np.bool_)
    is_blank[[ord(blank) for blank in BLANKS if blank != separator]] = True
    filled = ~np.logical_and.reduceat(is_blank[buffer], np.append(0, ends[:-1] + 1))
    lines = np.flatnonzero(filled).astype(np.int64) + 1
    if not len(lines):
        raise FormatError(path, None, "the file is empty")
    if not filled.all():
        data = b"\n".join(itertools.compress(data.split(b"\n"), filled)) + b"\n"
        buffer = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(buffer == ord("\n"))
    separators = np.flatnonzero(buffer == ord(separator))
    counts = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    _check_widths(path, counts, lines)
    names = [str(position) for position in range(int(counts[0]))]
    frame = pd.read_csv(
        io.BytesIO(data),
        sep=separator,
        header=None,
        names=names,
        index_col=False,
        dtype=str,
        na_filter=False,
        skip_blank_lines=False,
        quoting=csv.QUOTE_NONE,
        engine="c",
        encoding="utf-8",
        low_memory=False,
    )
    return names, [frame[name] for name in names], lines


def _read_quoted(path: Path, text: str, separator: str) -> _Cells:
    """Read a file with quoted cells by the csv module, which knows where each record begins."""
    records: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True)
    line = 1
    usual_limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        for record in reader:
            if len(record) > 1 or (record and record[0].strip(BLANKS)):
                records.append(record)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise FormatError(path, line, f"malformed quoting: {error}") from None
    finally:
        csv.field_size_limit(usual_limit)
    if not records:
        raise FormatError(path, None, "the file is empty")
    numbers = np.asarray(lines, dtype=np.int64)
    _check_widths(path, np.asarray([len(record) for record in records]), numbers)
    columns = [pd.Series(cells, dtype=object) for cells in zip(*records, strict=True)]
    return [str(position) for position in range(len(columns))], columns, numbers


def _check_widths(path: Path, widths: NDArray[np.int64], lines: NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(widths != widths[0])
    if len(wrong):
        row = wrong[0]
        raise FormatError(path, int(lines[row]), f"{int(widths[row])} columns, expected {int(widths[0])}")
