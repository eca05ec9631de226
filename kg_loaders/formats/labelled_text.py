"""Labelled click-through text: ``ratings_final.txt`` (user item label) with ``kg_final.txt`` (head relation tail).

The layout of RippleNet, KGCN, KGNN-LS, MCCLK and their descendants. Items are entities of the same number. Both files
may also be ``.npy`` tables of whole numbers, as some of those repositories ship them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import FormatError, blamed_on
from kg_loaders.graph import RecGraph
from kg_loaders.textio import find_file, read_integer_rows, unread_files

if TYPE_CHECKING:
    import pandas as pd

RATINGS, TRIPLES = "ratings_final", "kg_final"
LABEL_0 = "rows with label 0"


def detect(folder: Path) -> bool:
    """Whether the folder holds a ``ratings_final`` file."""
    return _find(folder, RATINGS) is not None


def read(path: Path) -> RecGraph:
    """Read the folder.

    Rows with label 1 are the interactions. Rows with label 0 are items that the makers of the data drew at random and
    that the user never met, as many as the user took: they are no interactions, and are counted in ``dropped``. The
    metrics ``ctr_auc`` and ``ctr_f1`` of graphrec draw such items anew. Users and items of which only such rows are
    known are kept.

    Raises:
        FormatError: A file is missing or malformed, or a label is neither 0 nor 1.
    """
    import pandas as pd

    from kg_loaders.assemble import assemble

    file = _find(path, RATINGS)
    if file is None:
        raise FormatError(path / f"{RATINGS}.txt", None, "no such file (nor its .gz or .npy variant)")
    rows, lines = _read_table(file)
    strange = np.flatnonzero(rows[:, 2] > 1)
    if len(strange):
        row = int(strange[0])
        raise FormatError(file, None if lines is None else int(lines[row]), f"label must be 0 or 1, got {rows[row, 2]}")
    positive = rows[:, 2] == 1
    pairs = pd.DataFrame({"user_id": _as_ids(rows[:, 0]), "item_id": _as_ids(rows[:, 1])})[positive]
    kg_file = _find(path, TRIPLES)
    triples = None
    if kg_file is not None:
        columns = zip(("head_id", "relation_id", "tail_id"), _read_table(kg_file)[0].T, strict=True)
        triples = pd.DataFrame({name: _as_ids(column) for name, column in columns})
    dropped = {LABEL_0: int((~positive).sum()), **unread_files(path, [file, kg_file], ".txt")}
    with blamed_on(path):
        return assemble(name=path.resolve().name, interactions=pairs, triples=triples, dropped=dropped)


def _as_ids(numbers: NDArray[np.int64]) -> pd.Categorical:
    """Return numbers as ids; a category without a row, as of an item with label 0 only, is kept."""
    import pandas as pd

    distinct, codes = np.unique(numbers, return_inverse=True)
    categories = pd.Index([str(number) for number in distinct], dtype=object)
    return pd.Categorical.from_codes(codes, categories)


def _find(folder: Path, stem: str) -> Path | None:
    table = folder / f"{stem}.npy"
    return find_file(folder, f"{stem}.txt") or (table if table.is_file() else None)


def _read_table(file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return a table of three columns of whole numbers >= 0 and, for text, the line of each row."""
    if file.suffix != ".npy":
        rows = read_integer_rows(file)
        return rows.as_table(3), rows.lines
    try:
        # Mapped, not read: a header that promises more rows than there are fails instead of asking for the memory.
        table = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python source, which fails in many ways
        raise FormatError(file, None, f"not a whole .npy table: {error}") from None
    if not isinstance(table, np.ndarray):
        raise FormatError(file, None, "an archive of tables, expected one .npy table")
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu":
        raise FormatError(file, None, f"expected whole numbers [num_rows, 3], got {table.dtype} {list(table.shape)}")
    if not len(table):
        raise FormatError(file, None, "the table has no rows")
    wrong = ((table < 0) | (table > np.iinfo(np.int64).max)).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FormatError(file, None, f"row {row} holds a number that is no id: {table[row].tolist()}")
    return np.array(table, dtype=np.int64), None
