"""Everything kg_loaders raises for a caller's mistake.

KGLoaderError (ValueError)
├── FormatError          a file is malformed, or files contradict each other: path, line and reason
├── GraphError           arrays that do not form a RecGraph
├── UnknownIdError       an id that a vocabulary does not hold
├── UnknownDatasetError  neither a known name nor a readable folder
└── DownloadError        a public data set could not be fetched or verified
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path


class KGLoaderError(ValueError):
    """Base of all errors that bad input to kg_loaders can cause."""


class FormatError(KGLoaderError):
    """A file does not follow its format.

    Args:
        path: The file.
        line: Its line, counted from 1, or ``None`` where no single line is at fault.
        reason: What is wrong and what would be right.
    """

    def __init__(self, path: str | Path, line: int | None, reason: str) -> None:
        self.path = Path(path)
        self.line = line
        self.reason = reason
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {reason}")


class GraphError(KGLoaderError):
    """Arrays handed to :class:`~kg_loaders.graph.RecGraph` contradict each other."""


class UnknownIdError(KGLoaderError):
    """An original id that is not in the vocabulary it was looked up in."""


class UnknownDatasetError(KGLoaderError):
    """A data set that is neither a known name nor a folder in a known format."""


class DownloadError(KGLoaderError):
    """A public data set could not be fetched, or is not what its checksum says."""


@contextlib.contextmanager
def blamed_on(path: str | Path) -> Iterator[None]:
    """Turn a :class:`GraphError` about what a file says into a :class:`FormatError` that names the file or folder.

    Example:
        >>> with blamed_on("films"):
        ...     raise GraphError("no item occurs in any of the 3 triples")
        Traceback (most recent call last):
        kg_loaders.errors.FormatError: films: no item occurs in any of the 3 triples
    """
    try:
        yield
    except GraphError as error:
        raise FormatError(path, None, str(error)) from None


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest allowed value, or nothing."""
    nearest = difflib.get_close_matches(value, list(allowed), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
