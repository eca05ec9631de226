"""Parquet files as columns of ids, numbers, text and vectors; pyarrow is imported when one is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.columntable import ColumnTable
from kg_loaders.errors import FormatError, GraphError

TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class ParquetTable(ColumnTable):
    """The columns of a Parquet file, with the same methods as :class:`~kg_loaders.texttable.TextTable`.

    Args:
        path: The file.
        names: The column names.
        table: What pyarrow read from it.
    """

    table: Any

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def fail(self, row: int, reason: str) -> NoReturn:
        """Raise :class:`FormatError` for a row; Parquet has no lines."""
        raise FormatError(self.path, None, f"row {row}: {reason}")

    def column(self, name: str) -> Any:
        """Return a column as pyarrow holds it.

        Raises:
            FormatError: There is no such column.
        """
        self._check_name(name, line=None)
        return self.table.column(name)

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return a column of text or integers as an object array of str.

        Raises:
            FormatError: The column holds anything else, or a cell is null.
        """
        import pyarrow as pa

        column = self.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
            raise FormatError(self.path, None, f"column {name!r} holds {column.type}, expected text or integers")
        if column.null_count:
            self.fail(int(np.argmax(column.is_null().to_numpy())), f"column {name!r} is null")
        return np.asarray(column.cast(pa.string()).to_pylist(), dtype=object)

    def ids(self, name: str) -> pd.Categorical:
        """Return a column as ids.

        Raises:
            FormatError: The column holds neither text nor integers, or a cell is null or empty.
        """
        codes, uniques = pd.factorize(self.texts(name))
        return self._as_ids(name, codes, map(str, uniques))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column as finite numbers; points in time become seconds since 1970.

        Raises:
            FormatError: The column holds anything else.
        """
        import pyarrow as pa

        column = self.column(name)
        ticks = 1
        if pa.types.is_timestamp(column.type):
            ticks = TICKS_PER_SECOND[column.type.unit]
            column = column.cast(pa.int64())
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise FormatError(self.path, None, f"column {name!r} holds {column.type}, expected numbers")
        values = np.asarray(column.to_numpy(), dtype=np.float64) / ticks
        if not np.isfinite(values).all():
            self.fail(int(np.argmax(~np.isfinite(values))), f"column {name!r} holds no finite number")
        return values

    def feature(self, name: str) -> list[Any]:
        """Return a column as a feature: lists of numbers as they are, all else as text, ``None`` for null.

        Raises:
            FormatError: The column holds something that has no text.
        """
        import pyarrow as pa

        column = self.column(name)
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        if is_list or pa.types.is_fixed_size_list(column.type):
            cells: list[Any] = column.to_pylist()
            return cells
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise FormatError(
                self.path, None, f"column {name!r} holds {column.type}, expected text or lists of numbers"
            )
        try:
            texts: list[Any] = column.cast(pa.string()).to_pylist()
        except pa.ArrowException:
            reason = f"column {name!r} holds {column.type}, expected text or lists of numbers"
            raise FormatError(self.path, None, reason) from None
        return texts


def read_parquet(path: Path) -> ParquetTable:
    """Read a Parquet file.

    Raises:
        FormatError: It is missing or damaged, or two columns have one name.
        ImportError: pyarrow is not installed.
    """
    if not path.is_file():
        raise FormatError(path, None, "no such file")
    pa, pq = _pyarrow()
    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)  # text that is not UTF-8 is found here, not later
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(path, None, f"not a whole Parquet file: {error}") from None
    if len(set(table.column_names)) < len(table.column_names):
        raise FormatError(path, None, f"column names must be distinct, got {table.column_names}")
    return ParquetTable(path, tuple(table.column_names), table)


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns (lists or arrays of equal length) as a Parquet file.

    Raises:
        GraphError: Text holds half a surrogate pair, which UTF-8 cannot express.
        ImportError: pyarrow is not installed.
    """
    pa, pq = _pyarrow()
    try:
        table = pa.table({name: _to_arrow(values) for name, values in columns.items()})
    except UnicodeEncodeError as error:
        raise GraphError(f"{path}: text holds {error.object[error.start]!r}, which UTF-8 cannot express") from None
    pq.write_table(table, path)


def _to_arrow(values: Any) -> Any:
    """Vectors keep their width of 32 bits, and an empty column of text is one of text all the same."""
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        return pa.array(values)
    is_text = all(value is None or isinstance(value, str) for value in values)
    return pa.array(values, type=pa.string() if is_text else pa.list_(pa.float32()))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'graphrec[parquet]'") from None
    return pa, parquet
