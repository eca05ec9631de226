"""Side information in files: text and vectors of items, found by item id and never by position alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError
from kg_loaders import Vocabulary
from kg_loaders.errors import FormatError
from kg_loaders.graph import Feature
from kg_loaders.textio import BLANKS, decode, read_bytes, unix_line_ends

ITEM_ID = "item_id"  # the column, tensor or metadata key that says whose row it is
IDS_SUFFIX = ".ids.txt"


def read_item_features(path: Path, items: Vocabulary) -> dict[str, Feature]:
    r"""Read features of items; an item that the file does not name has none, and is masked.

    - ``NAME.npy`` with ``NAME.ids.txt`` beside it: numbers ``[num_rows, width]``, and the item id of each row, one a
      line. The feature is called ``NAME``.
    - ``.safetensors``: float tensors ``[num_rows, width]`` of any precision, a feature each by its name, and the ids as
      a tensor of integers ``item_id`` or as the metadata entry ``item_id``, a JSON list.
    - ``.parquet``: a column ``item_id``, and others of text or of lists of numbers, a feature each.
    - ``.tsv``, ``.csv``: a header with ``item_id``; every other column is text.

    Empty text, a null and an empty list are missing.

    Args:
        path: The file.
        items: The items of the graph, in its order. The rows of the file may come in any other.

    Raises:
        FormatError: The file is missing or damaged; it has another number of ids than rows; an id is repeated or is no
            item; vectors differ in width, or hold NaN or infinity; no item at all is named.
        ArgumentError: An unknown kind of file.
        ImportError: Parquet without pyarrow.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "image.npy")
        >>> np.save(file, np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> _ = file.with_name("image.ids.txt").write_text("heat\nalien\n")
        >>> image = read_item_features(file, Vocabulary(["alien", "brazil", "heat"], "item"))["image"]
        >>> image.values.tolist(), image.present.tolist()
        ([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]], [True, False, True])
    """
    readers: dict[str, Callable[[Path], tuple[Sequence[str], dict[str, Any]]]] = {
        ".npy": _read_npy,
        ".safetensors": _read_safetensors,
        ".parquet": _read_parquet,
        ".tsv": lambda file: _read_text(file, "\t"),
        ".csv": lambda file: _read_text(file, ","),
    }
    if path.suffix not in readers:
        raise ArgumentError(f"a file of features must end in {', '.join(readers)}, got {str(path)!r}")
    if not path.is_file():
        raise FormatError(path, None, "no such file")
    ids, columns = readers[path.suffix](path)
    rows = _rows_of(path, ids, items)
    if not columns:
        raise FormatError(path, None, f"no feature beside {ITEM_ID!r}")
    return {name: _feature(path, name, values, rows, len(items)) for name, values in columns.items()}


def _rows_of(path: Path, ids: Sequence[str], items: Vocabulary) -> NDArray[np.int64]:
    """Return the item index of each row."""
    if not len(ids):
        raise FormatError(path, None, "no rows")
    rows = np.empty(len(ids), dtype=np.int64)
    first: dict[str, int] = {}
    for row, item_id in enumerate(ids):
        if item_id not in items:
            raise FormatError(path, None, f"row {row}: there is no item {item_id!r}; the ids must be those of the data")
        if first.setdefault(item_id, row) != row:
            raise FormatError(path, None, f"row {row}: item {item_id!r} again, it also has row {first[item_id]}")
        rows[row] = items.index_of(item_id)
    return rows


def _feature(path: Path, name: str, values: Any, rows: NDArray[np.int64], num_items: int) -> Feature:
    """Return one feature in the order of the items."""
    if len(values) != len(rows):
        raise FormatError(path, None, f"{name!r} has {len(values)} rows, there are {len(rows)} ids")
    if not isinstance(values, np.ndarray) and all(cell is None or isinstance(cell, str) for cell in values):
        texts = np.full(num_items, "", dtype=object)
        texts[rows] = ["" if cell is None else str(cell).strip() for cell in values]
        return Feature.text(texts)
    if not isinstance(values, np.ndarray):
        values = _as_matrix(path, name, values)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.shape[1]:
        raise FormatError(path, None, f"{name!r} must hold numbers [num_rows, width], got {list(values.shape)}")
    empty: NDArray[np.bool_] = np.zeros(len(values), dtype=np.bool_)
    if isinstance(values, np.ma.MaskedArray):
        empty = np.asarray(np.ma.getmaskarray(values).all(axis=1), dtype=np.bool_)
        values = values.filled(0.0)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        given = values.astype(np.float32)
    broken = ~np.isfinite(given).all(axis=1)
    if broken.any():
        raise FormatError(path, None, f"{name!r}: row {int(np.argmax(broken))} holds NaN or infinity")
    vectors = np.zeros((num_items, given.shape[1]), dtype=np.float32)
    present = np.zeros(num_items, dtype=np.bool_)
    vectors[rows], present[rows] = given, ~empty
    return Feature.vectors(vectors, present)


def _as_matrix(path: Path, name: str, cells: Sequence[Any]) -> Any:
    """Return lists of numbers as one masked matrix; rows without a list are masked."""
    width = next((len(cell) for cell in cells if cell is not None and len(cell)), 0)
    if not width:
        raise FormatError(path, None, f"{name!r} holds no vector at all")
    matrix: Any = np.ma.array(np.zeros((len(cells), width)), mask=True)
    for row, cell in enumerate(cells):
        if cell is None or not len(cell):
            continue
        if isinstance(cell, str) or len(cell) != width:
            raise FormatError(path, None, f"{name!r}: row {row} holds {len(cell)} numbers, expected {width}")
        matrix[row] = [np.nan if number is None else number for number in cell]
    return matrix


def _read_npy(path: Path) -> tuple[list[str], dict[str, Any]]:
    beside = path.with_name(path.name.removesuffix(".npy") + IDS_SUFFIX)
    if not beside.is_file():
        raise FormatError(beside, None, f"no such file; it must name the item of each row of {path.name}, one a line")
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy parses the header as Python source, which fails in many ways
        raise FormatError(path, None, f"not a whole .npy file of numbers: {error}") from None
    text = decode(beside, unix_line_ends(read_bytes(beside)))
    lines = text.removesuffix("\n").split("\n") if text else []
    ids = [line.strip(BLANKS) for line in lines]
    if "" in ids:
        raise FormatError(beside, ids.index("") + 1, "empty line, expected an item id")
    return ids, {path.name.removesuffix(".npy"): np.asarray(values)}


def _read_safetensors(path: Path) -> tuple[list[str], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            tensors = {name: _as_array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            listed = (file.metadata() or {}).get(ITEM_ID)
    except (SafetensorError, OSError) as error:
        raise FormatError(path, None, f"not a whole safetensors file: {error}") from None
    if listed is not None:
        try:
            ids = json.loads(listed)
        except ValueError:
            ids = None
        if not isinstance(ids, list):
            raise FormatError(path, None, f"the metadata entry {ITEM_ID!r} must be a JSON list of ids")
        return [str(item_id) for item_id in ids], tensors
    numbers = tensors.pop(ITEM_ID, None)
    if numbers is None or numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise FormatError(
            path, None, f"no item ids: it needs a 1-d tensor of integers {ITEM_ID!r}, or a metadata entry of that name"
        )
    return [str(number) for number in numbers.tolist()], tensors


def _as_array(tensor: Tensor) -> NDArray[Any]:
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _read_parquet(path: Path) -> tuple[list[str], dict[str, Any]]:
    from kg_loaders.parquet import read_parquet

    table = read_parquet(path)
    ids = [str(item_id) for item_id in table.texts(ITEM_ID)]
    return ids, {name: table.feature(name) for name in table.names if name != ITEM_ID}


def _read_text(path: Path, separator: str) -> tuple[list[str], dict[str, Any]]:
    from kg_loaders.texttable import read_table

    table = read_table(path, separator)
    ids = [str(item_id) for item_id in table.ids(ITEM_ID)]
    return ids, {name: table.feature(name) for name in table.names if name != ITEM_ID}
