"""What training needs of an evaluator, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from graphrec.errors import ArgumentError
from graphrec.models.base import Recommender
from kg_loaders import RecGraph
from kg_loaders.graph import SPLITS, Split

Record = dict[str, Any]
"""An epoch (or a trial of a closed form): ``phase, epoch, loss, valid, seconds, lr``."""

OnRecord = Callable[[Record], None]


class Metrics(Protocol):
    """The part of an evaluation that training reads."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Values by metric name."""


class Evaluates(Protocol):
    """What training needs of :class:`~graphrec.evaluation.Evaluator`."""

    @property
    def metrics(self) -> Collection[str]:
        """Names of what it computes."""

    def evaluate(self, model: Recommender, graph: RecGraph, split: Split = ...) -> Metrics:
        """Return the model's metrics on one split."""


@dataclass(frozen=True)
class TrainResult:
    """What was chosen on validation, and how long it took.

    Args:
        best_epoch: The chosen number of epochs, or with ``select=False`` the one given, from 1; 0 for a closed form.
        best_value: ``select_by`` of the choice on the validation part; minus infinity where nothing was selected.
        valid: All metrics of the choice on the validation part; empty where nothing was selected.
        num_epochs: Epochs trained while selecting; for a closed form the values tried.
        seconds: ``select`` and ``refit`` (steps alone), ``evaluate``, and of a model trained by gradients ``prepare``
            (what is made of all histories at once, closed forms above all), over all sessions of a resumed run.
        history: All records in order.
        chosen: Hyper-parameters that the model chose itself.
    """

    best_epoch: int
    best_value: float
    valid: dict[str, float]
    num_epochs: int
    seconds: dict[str, float]
    history: list[Record]
    chosen: dict[str, float]


def check_select_by(select_by: str, evaluator: Evaluates) -> None:
    """Raise :class:`ArgumentError` unless the evaluator computes ``select_by``: before training, not after."""
    if select_by not in evaluator.metrics:
        raise ArgumentError(
            f"select_by must be one of the evaluator's metrics {', '.join(map(repr, evaluator.metrics))}, "
            f"got {select_by!r}"
        )


def few_valid_users(graph: RecGraph, num_users: int) -> RecGraph:
    """Return the graph with validation pairs of at most ``num_users`` users, always the same ones; 0 means all."""
    codes = graph.interactions.split
    if not num_users or codes is None:
        return graph
    is_valid = codes == SPLITS.index("valid")
    users = np.unique(graph.interactions.user[is_valid])
    if len(users) <= num_users:
        return graph
    kept = np.random.default_rng(0).choice(users, num_users, replace=False)
    left_out = is_valid & ~np.isin(graph.interactions.user, kept)
    # The test part is what nothing looks at while selecting.
    return graph.with_split(np.where(left_out, SPLITS.index("test"), codes).astype(np.int8))


def validate(evaluator: Evaluates, model: Recommender, graph: RecGraph) -> dict[str, float]:
    """Return the model's metrics on the validation part."""
    with torch.no_grad():
        evaluation = evaluator.evaluate(model, graph, split="valid")
    return {name: float(value) for name, value in evaluation.metrics.items()}
