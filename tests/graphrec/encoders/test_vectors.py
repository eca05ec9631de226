import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as torch_save_file

from graphrec.encoders import read_item_features
from graphrec.errors import ArgumentError
from kg_loaders import Vocabulary
from kg_loaders.errors import FormatError

ITEMS = Vocabulary(["10", "20", "30", "40"], "item")
IDS = ["30", "10", "40"]  # neither the order of the items, nor all of them
VECTORS = np.array([[3.0, 0.5], [1.0, 0.1], [4.0, 0.0]])


def npy(folder, values=VECTORS, ids=IDS):
    np.save(folder / "image.npy", values)
    (folder / "image.ids.txt").write_text("".join(f"{i}\n" for i in ids))
    return folder / "image.npy"


def tensors(folder, values=VECTORS, ids=IDS):
    save_file({"image": values.astype(np.float32), "item_id": np.array(ids, dtype=np.int64)}, folder / "v.safetensors")
    return folder / "v.safetensors"


def tensors_with_names(folder, values=VECTORS, ids=IDS):
    save_file({"image": values.astype(np.float32)}, folder / "v.safetensors", {"item_id": json.dumps(ids)})
    return folder / "v.safetensors"


def parquet(folder, values=VECTORS, ids=IDS):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pd.DataFrame({"item_id": ids, "image": values.tolist()}).to_parquet(folder / "v.parquet")
    return folder / "v.parquet"


every_kind = pytest.mark.parametrize("write", [npy, tensors, tensors_with_names, parquet])


@every_kind
def test_rows_are_found_by_item_id_and_other_items_are_missing(write, tmp_path):
    image = read_item_features(write(tmp_path), ITEMS)["image"]
    assert image.present.tolist() == [True, False, True, True]
    assert image.values.tolist() == pytest.approx(np.array([[1.0, 0.1], [0, 0], [3.0, 0.5], [4.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint8])
def test_tensors_of_any_precision_are_read(dtype, tmp_path):
    values = torch.tensor([[3.0, 0.0], [1.0, 2.0], [4.0, 0.0]]).to(dtype)
    torch_save_file({"image": values, "item_id": torch.tensor([30, 10, 40])}, tmp_path / "v.safetensors")
    image = read_item_features(tmp_path / "v.safetensors", ITEMS)["image"]
    assert image.values.tolist() == [[1, 2], [0, 0], [3, 0], [4, 0]]


@every_kind
def test_the_order_of_rows_decides_nothing(write, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = read_item_features(write(tmp_path / "a"), ITEMS)["image"]
    second = read_item_features(write(tmp_path / "b", VECTORS[::-1].copy(), IDS[::-1]), ITEMS)["image"]
    assert np.array_equal(first.values, second.values)


@every_kind
def test_nan_and_ids_that_do_not_fit_are_refused(write, tmp_path):
    broken = VECTORS.copy()
    broken[1, 0] = np.nan
    for name, values, ids, message in (
        ("nan", broken, IDS, "'image': row 1 holds NaN or infinity"),
        ("unknown", VECTORS, ["30", "10", "50"], "row 2: there is no item '50'; the ids must be those of the data"),
        ("twice", VECTORS, ["30", "10", "30"], "row 2: item '30' again, it also has row 0"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(FormatError, match=message):
            read_item_features(write(tmp_path / name, values, ids), ITEMS)


@pytest.mark.parametrize("write", [npy, tensors, tensors_with_names])
def test_another_number_of_rows_than_ids_is_refused(write, tmp_path):
    with pytest.raises(FormatError, match="'image' has 3 rows, there are 2 ids"):
        read_item_features(write(tmp_path, VECTORS, IDS[:2]), ITEMS)


def test_vectors_without_ids_are_refused(tmp_path):
    file = npy(tmp_path)
    (tmp_path / "image.ids.txt").unlink()
    with pytest.raises(FormatError, match="it must name the item of each row of image.npy"):
        read_item_features(file, ITEMS)
    save_file({"image": VECTORS}, tmp_path / "v.safetensors")
    with pytest.raises(FormatError, match="no item ids: it needs a 1-d tensor of integers 'item_id'"):
        read_item_features(tmp_path / "v.safetensors", ITEMS)
    save_file({"image": VECTORS}, tmp_path / "w.safetensors", {"item_id": "30, 10"})
    with pytest.raises(FormatError, match="the metadata entry 'item_id' must be a JSON list"):
        read_item_features(tmp_path / "w.safetensors", ITEMS)
    (tmp_path / "plots.tsv").write_text("plot\na\n")
    with pytest.raises(FormatError, match="item_id"):
        read_item_features(tmp_path / "plots.tsv", ITEMS)


def test_text_is_read_with_its_missing_cells(tmp_path):
    (tmp_path / "plots.tsv").write_text('item_id\tplot\tcountry\n30\t"in ""space"""\tUSA\n10\t\tFrance\n')
    found = read_item_features(tmp_path / "plots.tsv", ITEMS)
    assert found["plot"].values.tolist() == ["", "", 'in "space"', ""]
    assert found["plot"].present.tolist() == [False, False, True, False]
    assert found["country"].present.tolist() == [True, False, True, False]


def test_parquet_holds_text_and_missing_vectors(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pd.DataFrame({"item_id": IDS, "plot": ["x", None, "y"], "sound": [[1.0, 2.0], None, [3.0, 4.0]]})
    table.to_parquet(tmp_path / "v.parquet")
    found = read_item_features(tmp_path / "v.parquet", ITEMS)
    assert found["plot"].values.tolist() == ["", "", "x", "y"]
    assert found["sound"].present.tolist() == [False, False, True, True]
    table["sound"] = [[1.0, 2.0], [1.0], [3.0, 4.0]]
    table.to_parquet(tmp_path / "w.parquet")
    with pytest.raises(FormatError, match="'sound': row 1 holds 1 numbers, expected 2"):
        read_item_features(tmp_path / "w.parquet", ITEMS)


def test_files_that_are_no_features_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"a file of features must end in \.npy, .*, got 'image.pt'"):
        read_item_features(Path("image.pt"), ITEMS)
    with pytest.raises(FormatError, match="no such file"):
        read_item_features(tmp_path / "image.npy", ITEMS)
    file = npy(tmp_path, np.arange(3.0))
    with pytest.raises(FormatError, match=r"'image' must hold numbers \[num_rows, width\], got \[3\]"):
        read_item_features(file, ITEMS)
    file.write_bytes(b"\x93NUMPY")
    with pytest.raises(FormatError, match="not a whole .npy file"):
        read_item_features(file, ITEMS)
    npy(tmp_path, ids=["30", "", "10"])
    with pytest.raises(FormatError, match=r"image.ids.txt:2: empty line, expected an item id"):
        read_item_features(file, ITEMS)
    (tmp_path / "v.safetensors").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        read_item_features(tmp_path / "v.safetensors", ITEMS)
