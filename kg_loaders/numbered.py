"""Files whose rows are numbered from 0: KGAT's ``*_list.txt`` and ``NAME_feat.npy``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import FormatError
from kg_loaders.textio import BLANKS, decode, read_bytes, unix_line_ends, write_text

FEATURE_SUFFIX = "_feat.npy"
YELP_HEADER = ["org_id", "remap_id", "freebase_id"]
NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class NumberedList:
    """A ``*_list.txt``: what the numbers 0..size-1 stand for."""

    path: Path
    size: int
    columns: Mapping[str, list[str]]


def read_numbered_list(file: Path | None) -> NumberedList | None:
    """Read a ``*_list.txt``: separated by tabs if its header is, else by single spaces.

    With spaces, the first column may hold spaces too: published lists have rows like ``categories::Adult Education 7``.

    Raises:
        FormatError: The header has no ``remap_id``, a row another number of columns, or the numbers are not 0..n-1.
    """
    if file is None:
        return None
    lines = decode(file, unix_line_ends(read_bytes(file))).split("\n")
    mark = "\t" if "\t" in lines[0].rstrip() else " "
    header = lines[0].strip().split(mark)
    if "remap_id" not in header or len(set(header)) < len(header) or "" in header:
        raise FormatError(file, 1, f"the header must name distinct columns and a 'remap_id', got {lines[0]!r}")
    key = header.index("remap_id")
    trailing = " " if mark == "\t" else BLANKS
    numbered = [(number, line) for number, text in enumerate(lines[1:], 2) if (line := text.rstrip(trailing))]
    rows = [line.rsplit(mark, len(header) - 1) if mark == " " else line.split(mark) for _, line in numbered]
    if not rows:
        raise FormatError(file, None, "the list has a header but no rows")
    # Published lists are in order: one comparison tells, and only the others are gone through row by row.
    if any(len(row) != len(header) for row in rows) or [row[key] for row in rows] != list(map(str, range(len(rows)))):
        rows = _in_order(file, header, key, [number for number, _ in numbered], rows)
    return NumberedList(file, len(rows), {n: [row[i] for row in rows] for i, n in enumerate(header) if i != key})


def _in_order(file: Path, header: list[str], key: int, lines: list[int], rows: list[list[str]]) -> list[list[str]]:
    """Return the rows by their number."""
    found: dict[int, list[str]] = {}
    for line, cells in zip(lines, rows, strict=True):
        if len(cells) == 2 and header == YELP_HEADER and cells[0] and cells[1].endswith(cells[0]):
            # The published yelp2018 glues the number to the third column, which repeats the first.
            cells = [cells[0], cells[1].removesuffix(cells[0]), cells[0]]
        if len(cells) != len(header):
            raise FormatError(file, line, f"{len(cells)} columns, expected {len(header)}")
        if not NUMBER.fullmatch(cells[key]):
            raise FormatError(file, line, f"remap_id {cells[key]!r} is not a whole number >= 0")
        if found.setdefault(int(cells[key]), cells) is not cells:
            raise FormatError(file, line, f"remap_id {cells[key]} occurs twice")
    if max(found) != len(found) - 1:
        missing = next(number for number in range(len(found)) if number not in found)
        raise FormatError(file, None, f"remap_id must count from 0 without gaps; {missing} is missing")
    return [found[number] for number in range(len(found))]


def read_vectors(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the name and values ``[num_rows, dim]`` of every vector feature in the folder.

    Raises:
        FormatError: A file is not a table of finite numbers.
    """
    for file in sorted(folder.glob(f"?*{FEATURE_SUFFIX}")):
        try:
            # Mapped, not read: a header that promises more numbers than the file has fails, and asks for no memory.
            values = np.lib.format.open_memmap(file, mode="r")
        except Exception as error:  # numpy parses the header as Python source, which fails in many ways
            raise FormatError(file, None, f"not a whole .npy file of numbers: {error}") from None
        if values.ndim != 2 or values.dtype.kind not in "fiu" or 0 in values.shape:
            raise FormatError(
                file, None, f"must hold numbers [num_items, dim], got {values.dtype} {list(values.shape)}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
            vectors = np.array(values, dtype=np.float32, order="C")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise FormatError(file, None, f"row {int(np.argmin(finite))} holds NaN or infinity")
        yield file.name.removesuffix(FEATURE_SUFFIX), vectors


def write_numbered_list(path: Path, kind: str, size: int, columns: Mapping[str, list[str]]) -> None:
    """Write a list with the published header ``org_id remap_id``; with tabs where the text needs them."""
    # The number comes last, where the reader takes off trailing blanks.
    header = [*sorted(columns, key=lambda name: name != "org_id"), "remap_id"]
    table = {**columns, "remap_id": [str(number) for number in range(size)]}
    rows = list(zip(*(table[name] for name in header), strict=True))
    plain = header == ["remap_id"] or (header == ["org_id", "remap_id"] and all(org for org, _ in rows))
    mark = " " if plain else "\t"
    write_text(path / f"{kind}_list.txt", "".join(f"{mark.join(row)}\n" for row in (header, *rows)))
