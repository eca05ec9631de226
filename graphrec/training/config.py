"""TrainConfig: how a model is trained. Imports no torch, so the command line can read it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from graphrec.errors import ArgumentError, check_choice, check_range

Schedule = Literal["constant", "cosine", "linear"]
MixedPrecision = Literal["auto", "off"]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    A model in closed form reads only ``valid_users``, ``select_by``, ``select``, ``refit``, ``device`` and
    ``num_threads``.

    Args:
        epochs: Most passes over the users while selecting, and the horizon of ``schedule`` in both phases; >= 1.
        batch_size: Users a step; >= 1.
        learning_rate: Peak step size of AdamW; > 0.
        weight_decay: Decoupled weight decay of AdamW, multiplied by the learning rate of the step; >= 0.
        clip_norm: Longest gradient (2-norm over all weights) that a step may use; longer ones are scaled; 0 = off.
        schedule: Learning rate after the warm-up: ``"constant"``, or falling to 0 at the horizon along a
            ``"cosine"`` or a ``"linear"`` line.
        warmup: Share of the horizon, 0..1, over which the learning rate rises from 0 to its peak.
        patience: Evaluations without a better ``select_by`` after which selecting stops; 0 = never.
        eval_every: Epochs between two evaluations on the validation part; the last epoch is always evaluated; >= 1.
        valid_users: Most users of the validation part, drawn at random once, that are measured while selecting; 0 means
            all. Where scoring the whole catalogue takes longer than an epoch, some thousand choose as well; >= 0.
        select_by: The metric that chooses the epoch (or the hyper-parameter of a closed form); higher is better.
        select: Whether to train on train and select on validation; otherwise the model is trained on train + validation
            at once, for all ``epochs``, and nothing is measured on validation. For settings that were chosen before,
            in runs that did select: it leaves the time of the first phase to a larger model.
        refit: Whether to train anew on train + validation for the chosen number of epochs; otherwise the
            weights of the best epoch on train alone are restored.
        checkpoint_minutes: Longest time between two checkpoints in a run folder; > 0. Epoch ends are also saved
            as long as saving stays a small share of the time.
        mixed_precision: ``"auto"`` computes in bfloat16 on a GPU that supports it; ``"off"``, and the CPU, in float32.
        device: ``"auto"`` (the GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        num_threads: Threads of torch on the CPU during training; 0 = leave as it is.
        ema_decay: Weights evaluated and returned are a moving average of the trained ones,
            ``average = d * average + (1 - d) * weight`` after each step ``t = 0, 1, ...`` with
            ``d = min(ema_decay, (1 + t) / (10 + t))``; within 0..1, below 1; 0 = off.

    Raises:
        ArgumentError: A value is outside its range or of the wrong type.

    Example:
        >>> TrainConfig(epochs=20, schedule="linear").learning_rate_at(10, 0, num_steps=7)
        0.0015
        >>> TrainConfig(schedule="cosin")
        Traceback (most recent call last):
            ...
        graphrec.errors.ArgumentError: schedule must be one of 'constant', 'cosine', 'linear', got 'cosin'; did you \
mean 'cosine'?
    """

    epochs: int = 50
    batch_size: int = 1024
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    schedule: Schedule = "constant"
    warmup: float = 0.0
    patience: int = 5
    eval_every: int = 1
    valid_users: int = 0
    select_by: str = "ndcg@20"
    select: bool = True
    refit: bool = True
    checkpoint_minutes: float = 5.0
    mixed_precision: MixedPrecision = "auto"
    device: str = "auto"
    num_threads: int = 0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (
            ("epochs", 1),
            ("batch_size", 1),
            ("patience", 0),
            ("eval_every", 1),
            ("valid_users", 0),
            ("num_threads", 0),
        ):
            _check_integer(name, getattr(self, name), low)
        for name in ("learning_rate", "checkpoint_minutes"):
            _check_number(name, getattr(self, name))
            if getattr(self, name) <= 0:
                raise ArgumentError(f"{name} must be > 0, got {getattr(self, name)!r}")
        for name, high in (("weight_decay", None), ("clip_norm", None), ("warmup", 1), ("ema_decay", 1)):
            _check_number(name, getattr(self, name))
            check_range(name, getattr(self, name), 0, high)
        if self.ema_decay == 1:
            raise ArgumentError(f"ema_decay must be < 1, got {self.ema_decay!r}: the average would never move")
        check_choice("schedule", self.schedule, ("constant", "cosine", "linear"))
        check_choice("mixed_precision", self.mixed_precision, ("auto", "off"))
        for name in ("select", "refit"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if not (self.select or self.refit):
            raise ArgumentError("select and refit must not both be false: nothing would be trained")
        if not isinstance(self.select_by, str) or not self.select_by:
            raise ArgumentError(f"select_by must be the name of a metric, such as 'ndcg@20', got {self.select_by!r}")
        if not isinstance(self.device, str) or not _is_device(self.device):
            raise ArgumentError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {self.device!r}")

    def without_refit(self) -> Self:
        """Return the same training, on train alone and selected on validation: so it can be measured there."""
        return replace(self, select=True, refit=False)

    def learning_rate_at(self, epoch: int, step: int, num_steps: int) -> float:
        """Return the learning rate of one step: a function of the position only, so resuming needs no state.

        With ``s = epoch * num_steps + step``, ``S = epochs * num_steps`` and ``W = warmup * S`` it is
        ``learning_rate`` times ``(s + 1) / W`` (at most 1) in the warm-up, and after it, with
        ``p = (s - W) / (S - W)``: 1, ``(1 + cos(pi * p)) / 2`` or ``1 - p``.

        Args:
            epoch: Epoch within the phase, from 0.
            step: Step within the epoch, from 0.
            num_steps: Steps an epoch.
        """
        position, horizon = epoch * num_steps + step, self.epochs * num_steps
        rise = self.warmup * horizon
        if position < rise:
            return self.learning_rate * min(1.0, (position + 1) / rise)
        progress = (position - rise) / (horizon - rise)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * (1 - progress) if self.schedule == "linear" else self.learning_rate


def _check_integer(name: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(f"{name} must be an integer >= {low}, got {value!r}")
    check_range(name, value, low)


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a finite number, got {value!r}")


def _is_device(name: str) -> bool:
    kind, _, index = name.partition(":")
    return name in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isascii() and index.isdigit())
