"""Split pairs in text: ``train.txt``, ``test.txt`` and ``test_original.txt``, each with rows ``user item 1``.

The layout of DisenCDR and its descendants: one folder a domain; users of equal numbers in ``A_B`` and ``B_A`` are the
same. There is no knowledge graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kg_loaders.errors import FormatError, blamed_on
from kg_loaders.graph import SPLITS, RecGraph
from kg_loaders.textio import find_file, need_file, read_integer_rows, unread_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN, TEST, UNCUT = "train.txt", "test.txt", "test_original.txt"
LEFT_OUT = f"rows of {UNCUT} that {TEST} leaves out"


def detect(folder: Path) -> bool:
    """Whether the folder holds all three files."""
    return all(find_file(folder, name) is not None for name in (TRAIN, TEST, UNCUT))


def read(path: Path) -> RecGraph:
    """Read the folder.

    The makers of the data took test rows of items without train rows out of ``test_original.txt``; ``test.txt`` is what
    is left, and what is read. How many rows are missing is counted in ``dropped``.

    Raises:
        FormatError: A file is missing or malformed, or the third column holds anything but 1.
    """
    import pandas as pd

    from kg_loaders.assemble import assemble

    files, uncut = [need_file(path, name) for name in (TRAIN, TEST)], find_file(path, UNCUT)
    parts = [_read(file) for file in files]
    split = np.repeat([SPLITS.index("train"), SPLITS.index("test")], [len(part) for part in parts])
    rows = np.concatenate(parts)
    pairs = pd.DataFrame(
        {"user_id": rows[:, 0].astype(str), "item_id": rows[:, 1].astype(str), "split": split}, dtype=object
    )
    left_out = 0 if uncut is None else len(_read(uncut)) - len(parts[1])
    dropped = {LEFT_OUT: max(left_out, 0), **unread_files(path, [*files, uncut], ".txt")}
    with blamed_on(path):
        return assemble(name=path.resolve().name, interactions=pairs, dropped=dropped)


def _read(file: Path) -> NDArray[np.int64]:
    """Return the table (user, item, 1)."""
    rows = read_integer_rows(file)
    table = rows.as_table(3)
    strange = np.flatnonzero(table[:, 2] != 1)
    if len(strange):
        row = int(strange[0])
        raise FormatError(file, int(rows.lines[row]), f"the third column must be 1, got {table[row, 2]}")
    return table
