"""Trainer: selects on validation, then refits on train + validation; never looks at the test part."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender, GradientRecommender, Recommender
from graphrec.training.checkpoint import Checkpointer
from graphrec.training.config import TrainConfig
from graphrec.training.early_stopping import EarlyStopping
from graphrec.training.gradient import GradientFit
from graphrec.training.identity import run_identity
from graphrec.training.progress import Progress, make_progress
from graphrec.training.result import (
    Evaluates,
    OnRecord,
    Record,
    TrainResult,
    check_select_by,
    few_valid_users,
    validate,
)
from graphrec.training.seed import deterministic, seed_global
from kg_loaders import RecGraph


class Trainer:
    """Fits any recommender to a graph that is split into train and valid (and test, which it never uses).

    A :class:`~graphrec.models.base.GradientRecommender` goes through two phases. *select*: its weights are drawn
    from the seed and trained on train; every ``eval_every`` epochs the validation part is evaluated, and training
    stops early. *refit*: the weights are drawn again from the same seed and trained on train + validation for the
    best number of epochs, on the same learning-rate schedule. With ``refit=False`` the weights of the best epoch
    are restored instead, and with ``select=False`` there is no first phase: all settings were chosen before. A
    :class:`~graphrec.models.base.ClosedFormRecommender` chooses its hyper-parameters on validation and is then fitted
    again to train + validation.

    One seed, one result: all randomness follows from (seed, phase, epoch, step), see
    :func:`~graphrec.training.seed.derive_seed`. On the CPU a run that was killed at any moment and is started
    again with the same ``run_dir`` ends with bit-equal weights and metrics (same machine and versions).

    Args:
        config: How to train.
        seed: Of the weights, the order of users, and all that a loss draws.
        quiet: Show no progress; otherwise a bar on a terminal, or lines when piped, on standard error.

    Example:
        >>> Trainer(TrainConfig(epochs=3), seed=1)
        Trainer(epochs=3, batch_size=1024, learning_rate=0.003, select_by='ndcg@20', seed=1)
    """

    def __init__(self, config: TrainConfig, seed: int = 0, quiet: bool = False) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ArgumentError(f"seed must be an integer >= 0, got {seed!r}")
        self.config = config
        self.seed = seed
        self.quiet = quiet

    def fit(
        self,
        model: Recommender,
        graph: RecGraph,
        evaluator: Evaluates,
        run_dir: Path | None = None,
        on_record: OnRecord | None = None,
    ) -> TrainResult:
        """Fit ``model`` in place; it ends on the training device in evaluation mode.

        Args:
            model: Any weights it has are drawn anew.
            graph: With interactions in train and, unless ``select=False``, in valid.
            evaluator: Asked for ``split="valid"`` only; its metrics must include ``select_by``.
            run_dir: Where ``checkpoint.safetensors`` is kept and resumed from; ``None`` keeps none. The last
                checkpoint holds the finished run, so that nothing is lost before the caller has saved the model;
                delete it then. A closed form is fitted in one go and keeps none.
            on_record: Called after every epoch with ``{"phase": "select"|"refit", "epoch": from 1, "loss": mean over
                users, "valid": {metric: value} | None, "seconds": of training alone, "lr": of the last step}``.
                A resumed run first hands out its earlier records, so a log opened anew is whole.

        Raises:
            ArgumentError: The graph lacks a part, the evaluator lacks ``select_by``, the device is not there,
                ``select=False`` and the model has something to choose, or the loss or a gradient is not finite (with
                epoch, step, model and learning rate).
            RunError: The checkpoint could not be written, is damaged, or belongs to another run.
            Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
        """
        _check_parts(graph, self.config.select)
        check_select_by(self.config.select_by, evaluator)
        device = resolve_device(self.config.device)
        call = on_record or (lambda record: None)
        with (
            deterministic(device, self.config.num_threads),
            make_progress(self.config.select_by, self.quiet) as progress,
        ):
            model.to(device)
            if isinstance(model, ClosedFormRecommender):
                return self._fit_closed_form(model, graph, evaluator, device, call, progress)
            if not isinstance(model, GradientRecommender):
                raise ArgumentError(
                    f"model must be a ClosedFormRecommender or a GradientRecommender, got {type(model).__name__}"
                )
            if model.chooses and not self.config.select:
                raise _nothing_to_choose_on(model)
            checkpointer = Checkpointer(run_dir, self.config.checkpoint_minutes)
            identity = {} if run_dir is None else run_identity(self.config, self.seed, model, graph, evaluator, device)
            fit = GradientFit(
                model, graph, evaluator, self.config, self.seed, device, checkpointer, identity, call, progress
            )
            return fit.run()

    def _fit_closed_form(
        self,
        model: ClosedFormRecommender,
        graph: RecGraph,
        evaluator: Evaluates,
        device: torch.device,
        on_record: OnRecord,
        progress: Progress,
    ) -> TrainResult:
        seconds = {"select": 0.0, "refit": 0.0, "evaluate": 0.0}
        history: list[Record] = []
        stopping = EarlyStopping(patience=0)
        measured = few_valid_users(graph, self.config.valid_users)
        clock = time.perf_counter()

        def keep(phase: str, epoch: int, valid: dict[str, float] | None, spent: float) -> None:
            seconds[phase] += spent
            record = {"phase": phase, "epoch": epoch, "loss": None, "valid": valid, "seconds": spent, "lr": None}
            history.append(record)
            progress.record(record)
            on_record(record)

        def try_out() -> float:
            nonlocal clock
            spent, start = time.perf_counter() - clock, time.perf_counter()
            model.eval()  # also forgets what an earlier trial cached
            valid = validate(evaluator, model, measured)
            seconds["evaluate"] += time.perf_counter() - start
            stopping.update(len(history) + 1, valid[self.config.select_by])
            keep("select", len(history) + 1, valid, spent)
            clock = time.perf_counter()
            return valid[self.config.select_by]

        def refuse() -> float:
            raise _nothing_to_choose_on(model)

        seed_global(self.seed, device)
        chosen, valid = {}, {}
        if self.config.select:
            train = Histories.from_interactions(graph.part("train"), graph.num_users)
            chosen = model.fit(train.to(device), validate=try_out)
            if not history:  # nothing to choose: evaluate the one model there is
                try_out()
            seconds["select"] += time.perf_counter() - clock
            valid = dict(history[stopping.best_epoch - 1]["valid"])
        num_tried = len(history)
        if self.config.refit:
            seed_global(self.seed, device)
            start = time.perf_counter()
            both = Histories.from_interactions(graph.part("train", "valid"), graph.num_users)
            model.fit(both.to(device), validate=None if self.config.select else refuse)
            keep("refit", 1, None, time.perf_counter() - start)
        model.eval()
        return TrainResult(0, stopping.best_value, valid, num_tried, seconds, history, chosen)

    def __repr__(self) -> str:
        c = self.config
        return (
            f"Trainer(epochs={c.epochs}, batch_size={c.batch_size}, learning_rate={c.learning_rate}, "
            f"select_by={c.select_by!r}, seed={self.seed})"
        )


def resolve_device(name: str) -> torch.device:
    """Return the device that ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"`` stands for here.

    Raises:
        ArgumentError: There is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArgumentError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _nothing_to_choose_on(model: Recommender) -> ArgumentError:
    return ArgumentError(
        f"select must be true where a model has something to choose on validation, as {type(model).__name__} has here: "
        "give the values chosen before, one for each option"
    )


def _check_parts(graph: RecGraph, select: bool) -> None:
    if graph.interactions.split is None:
        raise ArgumentError(
            f"graph {graph.name!r} has not been split; use kg_loaders.splits, "
            "such as random_split(graph) or leave_last(graph)"
        )
    if not graph.has_split("train"):
        raise ArgumentError(
            f"graph {graph.name!r} has no interactions in its train part; there is nothing to learn from"
        )
    if select and not graph.has_split("valid"):
        raise ArgumentError(
            f"graph {graph.name!r} has no validation part to select on; "
            "carve one out of train with kg_loaders.splits.carve_valid(graph)"
        )
