"""Learner: a model with its optimiser and weight average; one gradient step at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import GradientRecommender
from graphrec.training.config import TrainConfig


class Learner:
    """A model, AdamW over its trainable weights, and their moving average.

    Args:
        model: The model, on its device.
        config: ``learning_rate`` is given anew with every step.
        device: Where the model is.

    Raises:
        ArgumentError: The model has no trainable weights.
    """

    def __init__(self, model: GradientRecommender, config: TrainConfig, device: torch.device) -> None:
        self.model = model
        self.config = config
        self.device = device
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.weights:
            raise ArgumentError(f"{type(model).__name__} has no trainable weights")
        # One fused pass over memory: on 2 cores an eighth of the time of a loop over single operations.
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in self.weights.items()} if config.ema_decay else {}
        self._bfloat16 = config.mixed_precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()

    def step(self, batch: Histories, generator: torch.Generator, learning_rate: float, number: int) -> float:
        """Take one step and return the loss before it.

        Args:
            batch: Users with their whole training histories.
            generator: Given to the model's loss.
            learning_rate: Of this step.
            number: Steps taken before in this phase; the warm-up of the average.

        Raises:
            ArgumentError: The loss is no scalar.
            FloatingPointError: The loss or the gradient is not finite; no weight has changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.model.loss(batch, generator)
        if loss.dim() != 0:
            raise ArgumentError(f"{type(self.model).__name__}.loss must return a scalar, got shape {list(loss.shape)}")
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.weights.values() if p.grad is not None]
        norm = get_total_norm(gradients)
        length = norm.item()
        if not math.isfinite(length):
            raise FloatingPointError(f"the loss is {value:.6g} but the length of its gradient is {length}")
        if 0 < self.config.clip_norm < length:
            clip_grads_with_norm_(self.weights.values(), self.config.clip_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        if self.average:
            decay = min(self.config.ema_decay, (1 + number) / (10 + number))
            for name, average in self.average.items():
                average.lerp_(self.weights[name].detach(), 1 - decay)
        return value

    def _autocast(self) -> AbstractContextManager[object]:
        # bfloat16 has the range of float32, so losses need no scaling and the step no further state.
        return torch.autocast("cuda", dtype=torch.bfloat16) if self._bfloat16 else nullcontext()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the model in evaluation mode with the averaged weights inside, and back in training mode after."""
        trained = {name: p.detach().clone() for name, p in self.weights.items()} if self.average else {}
        self._assign(self.average)
        self.model.eval()
        try:
            yield
        finally:
            self._assign(trained)
            self.model.train()

    def release(self) -> None:
        """Let go of gradients and moments, and of the memory they take: no step follows."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()

    def use_average(self) -> None:
        """Replace the weights by their average, for good."""
        self._assign(self.average)
        self.model.forget()

    def _assign(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.weights[name].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a checkpoint must hold, by name."""
        tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in trained_state(self.model).items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state[weight].items():
                tensors[f"optimizer/{key}/{name}"] = value
        return tensors | {f"average/{name}": value for name, value in self.average.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`tensors`, bit by bit."""
        load_trained(self.model, tensors, "model/")
        moments: dict[int, dict[str, Tensor]] = {}
        for index, name in enumerate(self.weights):
            for key in ("step", "exp_avg", "exp_avg_sq"):
                # A weight that never had a gradient has no moments.
                if f"optimizer/{key}/{name}" in tensors:
                    moments.setdefault(index, {})[key] = tensors[f"optimizer/{key}/{name}"]
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for name, value in self.average.items():
            value.copy_(tensors[f"average/{name}"])


def trained_state(model: GradientRecommender) -> dict[str, Tensor]:
    """Return the model's state without what its ``prepare`` makes."""
    left_out = model.prepared_names()
    return {name: value for name, value in model.state_dict().items() if name not in left_out}


def load_trained(model: GradientRecommender, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy a :func:`trained_state`, whose names begin with ``prefix``, into a prepared model."""
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = model.state_dict()
    model.load_state_dict({name: own[name] for name in model.prepared_names()} | state)
