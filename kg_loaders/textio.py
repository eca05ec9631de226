"""Reading text files whole: plain or gzipped, with limits, and with the line of whatever is wrong."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import FormatError, GraphError
from kg_loaders.graph import Features

MAX_LINE_BYTES = 64 * 2**20  # a user with seven million items still fits; a file without line ends does not
MAX_DIGITS = 18  # the longest number that always fits int64
CHUNK_BYTES = 2**20
NOT_READ = "file not read"
MAX_UNREAD = 10  # names of files that were not read, before the others are only counted
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
ATOMIC_SUFFIXES = (".inter", ".user", ".item", ".kg", ".link", ".net")
RDF_SUFFIXES = (".nt", ".nq", ".ttl", ".rdf", ".owl", ".xml", ".jsonld", ".n3", ".trig")  # the last two nobody reads
DATA_SUFFIXES = frozenset((*TABLE_SUFFIXES, *ATOMIC_SUFFIXES, *RDF_SUFFIXES))
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
PROSE = ("readme", "license", "licence")  # files for people, in whatever they are written
BLANKS = " \t\r\n"
BOM = b"\xef\xbb\xbf"
WORD = re.compile(rb"[^ \t\n]{1,80}")


def find_file(folder: Path, name: str) -> Path | None:
    """Return ``folder/name`` or its gzipped variant ``folder/name.gz``; ``None`` if neither is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def need_file(folder: Path, name: str) -> Path:
    """Return what :func:`find_file` finds.

    Raises:
        FormatError: Neither file is there.
    """
    found = find_file(folder, name)
    if found is None:
        what = "no such file (nor its .gz variant)" if folder.is_dir() else "no such folder"
        raise FormatError(folder / name if folder.is_dir() else folder, None, what)
    return found


def unread_files(folder: Path, read: Iterable[Path | None], *suffixes: str) -> dict[str, int]:
    """Return the data files of a folder that nobody has read, a reason each for ``RecGraph.dropped``.

    A misspelt name, or a syntax or packing that the reader does not take, would lose a knowledge graph without a word.

    Args:
        folder: The folder.
        read: What was read; ``None`` stands for a file that is not there.
        suffixes: What files of this format end in, beside :data:`DATA_SUFFIXES`; of either, upper case is the same.
    """
    known = {file.resolve() for file in read if file is not None}
    files = [file for file in folder.iterdir() if _looks_like_data(file.name.lower(), suffixes) and file.is_file()]
    names = sorted(file.name for file in files if file.resolve() not in known)
    counts = {f"{NOT_READ}: {name}": 1 for name in names[:MAX_UNREAD]}
    if len(names) > MAX_UNREAD:
        counts[f"{NOT_READ}: others"] = len(names) - MAX_UNREAD
    return counts


def _looks_like_data(name: str, suffixes: Collection[str]) -> bool:
    path = Path(name)
    suffix = Path(path.stem).suffix if path.suffix in PACKED_SUFFIXES else path.suffix
    return (suffix in DATA_SUFFIXES or suffix in suffixes) and name.partition(".")[0] not in PROSE


def stem_of(path: Path) -> str:
    """Return the file's name without its suffix and without ``.gz``."""
    return Path(path.name.removesuffix(".gz")).stem


def read_bytes(path: Path) -> bytes:
    """Return the content of a plain or gzipped (``*.gz``) file without its byte order mark.

    Reading stops as soon as a line exceeds :data:`MAX_LINE_BYTES`, so that a file without line ends costs no more
    memory than that.

    Raises:
        FormatError: The file is missing, empty, not a whole gzip file, or one of its lines is too long.
    """
    # No line inside a chunk can be too long when the chunk is not: only a line that runs on needs counting.
    size = min(CHUNK_BYTES, MAX_LINE_BYTES)
    chunks: list[bytes] = []
    line, open_bytes = 1, 0
    try:
        with _open(path) as file:
            while chunk := file.read(size):
                chunks.append(chunk)
                first_end = chunk.find(b"\n")
                if open_bytes + (len(chunk) if first_end < 0 else first_end) > MAX_LINE_BYTES:
                    raise FormatError(path, line, f"line is longer than the limit of {MAX_LINE_BYTES} bytes")
                open_bytes = open_bytes + len(chunk) if first_end < 0 else len(chunk) - 1 - chunk.rfind(b"\n")
                line += chunk.count(b"\n")
    except FileNotFoundError:
        raise FormatError(path, None, "no such file") from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise FormatError(path, None, f"cannot be read: {error.strerror}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(path, line, f"truncated or damaged gzip file: {error}") from None
    data = b"".join(chunks).removeprefix(BOM)
    if not data or data.isspace():
        raise FormatError(path, None, "the file is empty")
    return data


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def unix_line_ends(data: bytes) -> bytes:
    """Return ``data`` with CRLF turned into LF."""
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data


def line_at(data: bytes, position: int) -> int:
    """Return the line, counted from 1, of the byte at ``position``."""
    return data.count(b"\n", 0, position) + 1


def decode(path: Path, data: bytes, fallback: str | None = None) -> str:
    """Return ``data`` as text.

    Args:
        path: Where they are from.
        data: In UTF-8.
        fallback: The encoding of what is not UTF-8; without it, such data are refused.

    Raises:
        FormatError: It is not UTF-8, or holds a NUL character; the message names the line.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise FormatError(path, line_at(data, error.start), f"not UTF-8: {error.reason}") from None
        text = data.decode(fallback)
    if "\x00" in text:
        raise FormatError(path, line_at(data, data.index(b"\x00")), "NUL character in a text file")
    return text


@dataclass(frozen=True)
class IntegerRows:
    """The whole numbers of a text file, row by row; blank lines are no rows.

    Args:
        path: The file.
        numbers: All numbers, int64 ``[num_numbers]``.
        starts: Where each row begins in ``numbers``, int64 ``[num_rows + 1]``; the last entry is ``num_numbers``.
        lines: The line of each row, counted from 1, int64 ``[num_rows]``.
    """

    path: Path
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    lines: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many numbers stand in each row, int64 ``[num_rows]``."""
        return np.diff(self.starts)

    def as_table(self, num_columns: int) -> NDArray[np.int64]:
        """Return the numbers as an array ``[num_rows, num_columns]``.

        Raises:
            FormatError: A row has another length.
        """
        wrong = np.flatnonzero(self.lengths != num_columns)
        if len(wrong):
            found = int(self.lengths[wrong[0]])
            raise FormatError(self.path, int(self.lines[wrong[0]]), f"{found} columns, expected {num_columns}")
        return self.numbers.reshape(-1, num_columns)

    def head_and_rest(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Split rows ``head a b ...`` into pairs.

        Returns:
            head ``[num_pairs]``, rest ``[num_pairs]``, row ``[num_pairs]``; rows of one number give no pair.
        """
        is_rest = np.ones(len(self.numbers), dtype=np.bool_)
        is_rest[self.starts[:-1]] = False
        row = np.repeat(np.arange(len(self)), self.lengths - 1)
        return self.numbers[self.starts[:-1]][row], self.numbers[is_rest], row


def read_integer_rows(path: Path, separators: str = " \t") -> IntegerRows:
    r"""Read rows of whole numbers >= 0, in a few passes over the bytes instead of a loop over the lines.

    Accepts CRLF, a byte order mark, blanks at the end of a line and blank lines.

    Args:
        path: A plain or gzipped file.
        separators: The characters that may stand between two numbers, one or several of them.

    Raises:
        FormatError: A line holds anything but numbers of at most 18 digits, or what :func:`read_bytes` refuses.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "train.txt")
        >>> _ = path.write_text("0 7 8\n\n1\n")
        >>> rows = read_integer_rows(path)
        >>> rows.numbers.tolist(), rows.starts.tolist(), rows.lines.tolist()
        ([0, 7, 8, 1], [0, 3, 4], [1, 3])
    """
    data = unix_line_ends(read_bytes(path))
    if any(blank.encode() in data for blank in " \t" if blank not in separators):
        data = b"\n".join(line.rstrip(b" \t") for line in data.split(b"\n"))  # at the end of a line they mean nothing
    buffer = np.frombuffer(data, dtype=np.uint8)
    digits = buffer - np.uint8(ord("0"))  # wraps around below "0": every other byte becomes >= 10
    is_digit = digits < 10
    is_other = ~is_digit & (buffer != ord("\n"))
    for separator in separators:
        is_other &= buffer != ord(separator)
    if is_other.any():
        _refuse_byte(path, data, int(np.argmax(is_other)))

    padded = np.concatenate(([False], is_digit, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    begins, lengths = edges[0::2], edges[1::2] - edges[0::2]
    if not len(begins):
        raise FormatError(path, 1, "separators without any number")
    if lengths.max() > MAX_DIGITS:
        first = int(np.argmax(lengths > MAX_DIGITS))
        token = data[begins[first] : begins[first] + lengths[first]].decode()
        raise FormatError(path, line_at(data, int(begins[first])), f"{_short(token)} has more than {MAX_DIGITS} digits")
    values = np.zeros(len(begins), dtype=np.int64)
    padded_digits = np.append(digits, np.zeros(MAX_DIGITS, dtype=np.uint8))
    for place in range(int(lengths.max())):
        values = np.where(lengths > place, values * 10 + padded_digits[begins + place], values)

    line_ends = np.append(np.flatnonzero(buffer == ord("\n")), len(buffer))
    counts = np.diff(np.searchsorted(begins, line_ends), prepend=0)  # numbers in each line
    filled = np.flatnonzero(counts)
    starts = np.concatenate(([0], np.cumsum(counts[filled])))
    return IntegerRows(path, values, starts.astype(np.int64), (filled + 1).astype(np.int64))


def _refuse_byte(path: Path, data: bytes, position: int) -> NoReturn:
    """Raise for the first byte that is neither digit nor separator, naming the word that it stands in."""
    line = line_at(data, position)
    if data[position : position + 1] == b"\t":
        raise FormatError(
            path, line, "a tab between two numbers, expected a space; a table is read with format 'tables'"
        )
    start = max(data.rfind(blank, 0, position) for blank in (b" ", b"\t", b"\n")) + 1
    word = cast("re.Match[bytes]", WORD.match(data, start)).group().decode("utf-8", "replace")
    raise FormatError(path, line, f"{_short(word)} is not a whole number >= 0")


def _short(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")


def text_columns(features: Features) -> dict[str, list[str]]:
    """Return the text features as lists by name."""
    return {name: feature.values.tolist() for name, feature in features.items() if feature.is_text}


def check_writable(target: str, faults: Iterable[tuple[bool, str]]) -> None:
    """Raise for the first thing in a graph that a file format cannot hold.

    Args:
        target: The format's name.
        faults: Pairs of (is it so?, what the graph holds and what to do about it).

    Raises:
        GraphError: One of them is so.
    """
    for is_so, what in faults:
        if is_so:
            raise GraphError(f"{target} cannot hold {what}")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file with LF line ends.

    Raises:
        GraphError: The text holds half a surrogate pair, which UTF-8 cannot express.
    """
    try:
        path.write_bytes(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise GraphError(f"{path}: text holds {error.object[error.start]!r}, which UTF-8 cannot express") from None
