"""Recommendations of all users to a file, written in batches."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import ArgumentError
from graphrec.experiment.files import write

if TYPE_CHECKING:
    from graphrec.serving.recommender import RunRecommender

SUFFIXES = (".parquet", ".tsv")


def check_output(path: Path) -> None:
    """Make sure that a file of this name can be written, before any work is done.

    Raises:
        ArgumentError: The suffix is neither ``.parquet`` nor ``.tsv``, Parquet needs an extra, or there is no folder.
    """
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"output must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ArgumentError("a .parquet file needs pyarrow: pip install 'graphrec[parquet]', or give a .tsv file")
    if not path.parent.is_dir():
        raise ArgumentError(f"output: there is no folder {str(path.parent)!r}")


def write_all(recommender: RunRecommender, path: Path, k: int = 20) -> int:
    """Write the best ``k`` items of every user and return the number of rows.

    The columns are user_id, item_id, rank, score. The file appears when it is complete.

    Raises:
        ArgumentError: See :func:`check_output`.
    """
    check_output(path)
    rows = 0

    def save(partial: Path) -> None:
        nonlocal rows
        rows = (_write_parquet if path.suffix == ".parquet" else _write_tsv)(recommender, partial, k)

    write(path, save)
    return rows


def _write_tsv(recommender: RunRecommender, path: Path, k: int) -> int:
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(recommender.batches(k)):
            part.to_csv(file, sep="\t", index=False, header=number == 0, lineterminator="\n")
            rows += len(part)
    return rows


def _write_parquet(recommender: RunRecommender, path: Path, k: int) -> int:
    import pyarrow
    from pyarrow import parquet

    writer: Any = None
    rows = 0
    schema = None
    try:
        for part in recommender.batches(k):
            table = pyarrow.Table.from_pandas(part, schema=schema, preserve_index=False)
            if writer is None:
                schema = table.schema
                writer = parquet.ParquetWriter(path, schema)
            writer.write_table(table)
            rows += len(part)
    finally:
        if writer is not None:
            writer.close()
    return rows
