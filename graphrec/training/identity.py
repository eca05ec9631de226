"""What a run is, so that a checkpoint of another run is not taken for its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import graphrec
from graphrec.errors import RunError
from graphrec.models.base import GradientRecommender, Recommender
from graphrec.training.config import TrainConfig
from graphrec.training.result import Evaluates
from kg_loaders import RecGraph, Vocabulary

# Where and how often to save changes no result; the device is compared as resolved.
FREE_SETTINGS = ("checkpoint_minutes", "device", "mixed_precision")
FREE_ATTRIBUTES = ("training", "batch_size")  # a module's mode; how many users an evaluator ranks at once
MAX_DIFFERENCES_SHOWN = 5
MAX_SETTING_LENGTH = 200  # as JSON; longer ones are compared by their hash


def run_identity(
    config: TrainConfig, seed: int, model: Recommender, graph: RecGraph, evaluator: Evaluates, device: torch.device
) -> dict[str, Any]:
    """Return everything that decides a run's result, flat and ready for JSON.

    These are the versions, the device, the seed, the training settings, the graph's fingerprint and
    vocabularies, the model's class, its weights' names, types and shapes, which of them are frozen, the values that
    they start from where they are not drawn, the data that the model was made with (buffers outside its state, such as
    a KG's edges), and every plain setting (number, text, switch, or a list of them) that the model, one of its modules
    or the evaluator holds as a public attribute.
    """
    identity: dict[str, Any] = {
        "graphrec": graphrec.__version__,
        "torch": torch.__version__,
        "device": device.type,
        "seed": seed,
        "graph": graph.fingerprint[:16],
        "users": _digest(graph.users),
        "entities": _digest(graph.entities),
        "relations": _digest(graph.relations),
        "model": type(model).__name__,
        "evaluator.metrics": list(evaluator.metrics),
    }
    settings = asdict(config)
    identity |= {f"train.{name}": value for name, value in settings.items() if name not in FREE_SETTINGS}
    made_anew = model.prepared_names() if isinstance(model, GradientRecommender) else ()
    state = model.state_dict(keep_vars=True)
    for name, weight in state.items():
        if name not in made_anew:
            frozen = isinstance(weight, nn.Parameter) and not weight.requires_grad
            identity[f"weights.{name}"] = f"{weight.dtype} {list(weight.shape)}{' frozen' if frozen else ''}"
    identity |= {f"data.{name}": _of_values(data) for name, data in model.named_buffers() if name not in state}
    for prefix, module in model.named_modules():
        if isinstance(module, GradientRecommender):
            for name, value in module.starting_weights().items():
                identity[f"start.{prefix}.{name}"] = _of_values(value)
    holders: dict[str, object] = {f"model.{prefix}".rstrip("."): module for prefix, module in model.named_modules()}
    for prefix, holder in {**holders, "evaluator": evaluator}.items():
        for name, value in vars(holder).items():
            if not name.startswith("_") and name not in FREE_ATTRIBUTES and _is_plain(value):
                identity[f"{prefix}.{name}"] = _short(value)
    # As it will be read back: tuples are lists in JSON.
    read_back: dict[str, Any] = json.loads(json.dumps(identity))
    return read_back


def check_identity(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint belongs to this run.

    Raises:
        RunError: It does not; the message says what differs.
    """
    differences = [
        f"{name} was {saved.get(name, 'absent')!r}, is {current.get(name, 'absent')!r}"
        for name in sorted({*saved, *current})
        # As text, so that NaN equals NaN.
        if json.dumps(saved.get(name)) != json.dumps(current.get(name))
    ]
    if differences:
        more = len(differences) - MAX_DIFFERENCES_SHOWN
        rest = f" (and {more} more)" if more > 0 else ""
        raise RunError(
            f"{path} belongs to another run: {'; '.join(differences[:MAX_DIFFERENCES_SHOWN])}{rest}. "
            "Use another run folder, or delete the checkpoint to start anew"
        )


def _digest(vocabulary: Vocabulary) -> str:
    text = "\x00".join(vocabulary).encode("utf-8", "surrogatepass")
    return f"{len(vocabulary)} ids, sha256 {hashlib.sha256(text).hexdigest()[:16]}"


def _of_values(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)}, sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _short(value: object) -> object:
    text = json.dumps(value)
    return value if len(text) <= MAX_SETTING_LENGTH else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
