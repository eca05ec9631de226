"""ColumnTable: what the tables of all file formats can do, however they lie on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.errors import FormatError, did_you_mean
from kg_loaders.graph import SPLITS


@dataclass(frozen=True)
class ColumnTable(ABC):
    """The named columns of one file.

    Args:
        path: The file.
        names: The column names.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @abstractmethod
    def fail(self, row: int, reason: str) -> NoReturn:
        """Raise :class:`FormatError` for a row."""

    @abstractmethod
    def ids(self, name: str) -> pd.Categorical:
        """Return a column as ids, none of them empty.

        Raises:
            FormatError: There is no such column, or a cell holds no id.
        """

    def unique_ids(self, name: str) -> pd.Index[str]:
        """Return a column as ids that name one row each.

        Raises:
            FormatError: As for :meth:`ids`, or an id has a second row.
        """
        ids = self.ids(name)
        repeated = pd.Series(ids.codes).duplicated().to_numpy()
        if repeated.any():
            row = int(np.argmax(repeated))
            self.fail(row, f"{name} {ids[row]!r} has a second row")
        index: pd.Index[str] = pd.Index(np.asarray(ids, dtype=object))
        return index

    def split_codes(self, name: str) -> NDArray[np.int8]:
        """Return a column of ``train``, ``valid`` and ``test`` as codes into :data:`~kg_loaders.graph.SPLITS`.

        Raises:
            FormatError: As for :meth:`ids`, or a cell names no split.
        """
        names = self.ids(name)
        codes = np.asarray([SPLITS.index(s) if s in SPLITS else -1 for s in names.categories], dtype=np.int8)
        found: NDArray[np.int8] = codes[names.codes]
        wrong = np.flatnonzero(found < 0)
        if len(wrong):
            row = int(wrong[0])
            self.fail(row, f"split must be one of {', '.join(map(repr, SPLITS))}, got {names[row]!r}")
        return found

    def _check_name(self, name: str, line: int | None) -> None:
        if name not in self:
            found = ", ".join(map(repr, self.names))
            raise FormatError(self.path, line, f"no column {name!r} among {found}{did_you_mean(name, self.names)}")

    def _as_ids(self, name: str, codes: NDArray[np.int64], ids: Iterable[str]) -> pd.Categorical:
        """Return cells, as codes into distinct texts, as ids; an empty text is refused."""
        texts = list(ids)
        if "" in texts:
            self.fail(int(np.argmax(codes == texts.index(""))), f"column {name!r} is empty, expected an id")
        return pd.Categorical.from_codes(codes, pd.Index(texts, dtype=object))
