"""export: item vectors and ONNX files of both sides of a model, for use without graphrec or torch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import graphrec
from graphrec.errors import ArgumentError, check_choice
from graphrec.experiment.files import make_folder, to_json, write
from graphrec.histories import Histories
from graphrec.serving.towers import NUM_CHECKED, TOLERANCE, ItemSide, Towers, towers_of
from graphrec.serving.whole_model import WholeModel, is_whole, whole_of

if TYPE_CHECKING:
    from graphrec.serving.recommender import RunRecommender

VECTORS = ("safetensors", "parquet")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
PARTIAL, REPORT = ".partial", "export.json"
MAX_EMBEDDED_BYTES = 2**30  # a single ONNX file holds less than 2 GiB


def export(
    recommender: RunRecommender, output: Path, vectors: str = "safetensors", onnx: bool = True
) -> dict[str, Any]:
    r"""Write a model's two sides into a new folder.

    .. math:: s(u, j) = p_u \cdot q_j + b_j

    - ``user.onnx``: from ``items``, int64 ``[batch, length]``, item indices in order of time, padded with -1, to
      ``user_vector``, float32 ``[batch, dim]``; for a model with a table of users from ``user_index``, int64
      ``[batch]``. A model that reads times also takes ``times``, float64 ``[batch, length]``, when each item was
      taken, in seconds, padded with 0, and with ``request_time`` ``asked_at``, float64 ``[batch]``. One that reads
      order reads so many items as ``export.json`` says under ``max_length``; to give it more only takes longer.
    - ``items.onnx``: from ``user_vector`` to ``scores``, float32 ``[batch, num_items]``. Items already seen are scored
      like any other.
    - ``items.safetensors`` with ``vector`` ``[num_items, dim]`` and ``bias`` ``[num_items]``, or ``items.parquet`` with
      the columns item_id, title, vector, bias.
    - ``item_ids.json`` (and ``user_ids.json``): the original id of each index.
    - ``export.json``: the model, the sizes, and by how much onnxruntime differed from torch on known histories.

    Models without a vector for each user (a blend, one whose candidates attend to the history, EASE, SLIST, RP3beta,
    ItemKNN) have no item vectors, and instead of the two a single ``model.onnx``, from what ``user.onnx`` takes to
    ``scores``. The weights from each item to each are in it, so EASE and its like are exported up to 10,000 items.

    Args:
        recommender: Model and graph.
        output: A folder that does not exist yet, or is empty. What is in it appears when it is complete,
            ``export.json`` last.
        vectors: Format of the item vectors.
        onnx: Whether to write the ONNX files.

    Returns:
        What ``export.json`` holds.

    Raises:
        ArgumentError: The model has no such sides (the message says why), a package is missing, the folder is not
            empty, or ONNX and torch differ.
        RunError: The folder cannot be made.
    """
    check_export(output, vectors, onnx)
    graph, model = recommender.graph, recommender.model
    sides = whole_of(model) if is_whole(model) else towers_of(model)
    if isinstance(sides, WholeModel) and not onnx:
        raise ArgumentError(f"{type(model).__name__} has no item vectors to export, only an ONNX file")
    # Beside a new folder, to be renamed; inside an empty one, which may be the working folder, or a disk of its own.
    is_new = not output.exists()
    partial = output.with_name(f".{output.name}{PARTIAL}") if is_new else output / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial, f"the folder output {output}")
    try:
        report: dict[str, Any] = {
            "graphrec": graphrec.__version__,
            "model": type(model).__name__,
            "dataset": graph.name,
            "num_items": graph.num_items,
            "dim": None if isinstance(sides, WholeModel) else sides.item.size(1),
            "inputs": list(sides.takes),
            "max_length": sides.reach,
        }
        (partial / "item_ids.json").write_text(to_json(list(graph.items)), encoding="utf-8")
        if "user_index" in sides.takes:
            (partial / "user_ids.json").write_text(to_json(list(graph.users)), encoding="utf-8")
        if isinstance(sides, Towers):
            _write_vectors(recommender, sides, partial, vectors)
        if onnx:
            report["max_difference"] = _write_onnx(recommender, sides, partial)
        (partial / REPORT).write_text(to_json(report), encoding="utf-8")
        if is_new:
            partial.rename(output)
        else:
            for path in sorted(partial.iterdir(), key=lambda path: path.name == REPORT):
                path.rename(output / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def check_export(output: Path, vectors: str, onnx: bool) -> None:
    """Make sure that an export can be written, before any work is done.

    Raises:
        ArgumentError: See :func:`export`.
    """
    check_choice("vectors", vectors, VECTORS)
    if output.exists() and (not output.is_dir() or any(path.name != PARTIAL for path in output.iterdir())):
        raise ArgumentError(f"output must be a new or empty folder, got {str(output)!r}")
    if vectors == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ArgumentError("vectors='parquet' needs pyarrow: pip install 'graphrec[parquet]', or take safetensors")
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if onnx and missing:
        raise ArgumentError(f"ONNX needs {', '.join(missing)}: pip install 'graphrec[onnx]', or leave ONNX out")


def _write_vectors(recommender: RunRecommender, towers: Towers, folder: Path, vectors: str) -> None:
    if vectors == "safetensors":
        from safetensors.torch import save_file

        sides = {"vector": towers.item.contiguous(), "bias": towers.bias.contiguous()}
        write(folder / "items.safetensors", lambda partial: save_file(sides, partial))
        return
    import pyarrow
    from pyarrow import parquet

    graph = recommender.graph
    flat = pyarrow.array(towers.item.contiguous().view(-1).numpy())
    columns = {
        "item_id": pyarrow.array(list(graph.items)),
        "title": pyarrow.array(list(graph.item_labels)),
        "vector": pyarrow.FixedSizeListArray.from_arrays(flat, towers.item.size(1)),
        "bias": pyarrow.array(towers.bias.numpy()),
    }
    parquet.write_table(pyarrow.table(columns), folder / "items.parquet")


def _write_onnx(recommender: RunRecommender, sides: Towers | WholeModel, folder: Path) -> float:
    """Write the files, run them, and return the largest difference to the model's own scores."""
    num_users = recommender.graph.num_users
    asked = recommender.known.select(torch.linspace(0, num_users - 1, min(NUM_CHECKED, num_users)).long())
    if "items" in sides.takes:
        asked = _with_strangers(asked)
    inputs = sides.inputs(asked)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    # At export no size may be 1, or it would stand for good.
    examples = tuple(torch.zeros((2, 3)[: tensor.dim()], dtype=tensor.dtype) for tensor in inputs)
    shapes = tuple({0: batch} if tensor.dim() == 1 else {0: batch, 1: length} for tensor in inputs)
    if isinstance(sides, WholeModel):
        files = ["model.onnx"]
        _export(sides.scores, examples, folder / files[0], sides.takes, "scores", shapes)
    else:
        files = ["user.onnx", "items.onnx"]
        _export(sides.user, examples, folder / files[0], sides.takes, "user_vector", shapes)
        vector = torch.zeros(2, sides.item.size(1))
        _export(ItemSide(sides), (vector,), folder / files[1], ("user_vector",), "scores", ({0: batch},))

    import onnxruntime

    sessions = [onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"]) for name in files]
    worst = 0.0
    for part in (slice(None), slice(0, 1)):
        given = {name: tensor[part].numpy() for name, tensor in zip(sides.takes, inputs, strict=True)}
        (found,) = sessions[0].run(None, given)
        for session in sessions[1:]:
            (found,) = session.run(None, {"user_vector": found})
        with torch.no_grad():
            wanted = recommender.model.score(asked.select(torch.arange(len(asked))[part])).numpy()
        worst = max(worst, float(np.abs(found - wanted).max() / max(1.0, float(np.abs(wanted).max()))))
    if not worst <= TOLERANCE:
        raise ArgumentError(f"ONNX and torch differ by {worst:.2g} of the largest score, more than {TOLERANCE}")
    return worst


def _with_strangers(histories: Histories) -> Histories:
    """Return histories without their users, then one of a single item and an empty one."""
    more = torch.tensor([1, 0])
    offsets = torch.cat([histories.offsets, histories.offsets[-1] + more.cumsum(0)])
    items = torch.cat([histories.items, torch.zeros(1, dtype=histories.items.dtype)])
    times = None if histories.times is None else torch.cat([histories.times, histories.times[:1]])
    return Histories(items, offsets, times=times)


def _export(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    path: Path,
    takes: tuple[str, ...],
    gives: str,
    shapes: tuple[dict[int, Any], ...],
) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*module.buffers(), *module.parameters()))
    with _quiet():
        torch.onnx.export(
            module.eval(),
            examples,
            str(path),
            input_names=list(takes),
            output_names=[gives],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=size > MAX_EMBEDDED_BYTES,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on packages that are not needed, and warnings of its own parts, to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
