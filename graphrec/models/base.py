"""Recommender: the one door of every model, from popularity to the flagship."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, StrangerError
from graphrec.histories import Histories
from kg_loaders import RecGraph


class Recommender(nn.Module, ABC):
    """A model that scores every item for every history.

    Subclass :class:`ClosedFormRecommender` or :class:`GradientRecommender`, which say how it is fitted.
    In evaluation mode a model may keep what does not depend on the question (item vectors, say) in
    :meth:`cached`; a change of mode or weights forgets it.
    """

    inductive: ClassVar[bool] = True
    """Whether a history alone is enough; a model with a user table sets this to ``False``."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        if num_items < 1:
            raise ArgumentError(f"num_items must be >= 1, got {num_items}")
        self.num_items = num_items
        self._cache: dict[str, Any] = {}

    @classmethod
    @abstractmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model of the right sizes; ``options`` are the constructor's own keyword arguments."""

    @abstractmethod
    def score(self, histories: Histories) -> Tensor:
        """Score all items for each history, float32 ``[batch_size, num_items]``; higher is better.

        Seen items are scored like any other: leaving them out is the caller's choice.

        Raises:
            StrangerError: The model needs ``user_index`` and got none, or one beyond its table.
        """

    def cached(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return ``compute()``, remembered under ``key`` while the model stays in evaluation mode."""
        if self.training:
            return compute()
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def forget(self) -> None:
        """Drop all that :meth:`cached` remembers; call it after changing weights in evaluation mode."""
        self._cache.clear()

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in any module, and forget cached values."""
        self.forget()
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights as in any module, and forget cached values."""
        self.forget()
        return super().load_state_dict(*args, **kwargs)

    def check_known(self, histories: Histories, num_users: int) -> Tensor:
        """Return ``histories.user_index`` after making sure that all of them are known users."""
        name = type(self).__name__
        if histories.user_index is None:
            raise StrangerError(
                f"{name} keeps a table of its {num_users} users and cannot serve a stranger; "
                "use an inductive model for users it never saw"
            )
        if histories.user_index.numel() and int(histories.user_index.max()) >= num_users:
            raise StrangerError(f"{name} knows users 0..{num_users - 1}, got {int(histories.user_index.max())}")
        return histories.user_index


class ClosedFormRecommender(Recommender):
    """A model that is fitted in one call, without gradients."""

    @abstractmethod
    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Fit to all users' histories.

        Args:
            histories: One row a user.
            validate: Scores the model as it stands on validation data, higher is better. A model with
                hyper-parameters to choose tries them and keeps the best; without it, it uses the values it holds.

        Returns:
            The chosen hyper-parameters by name (empty if there are none to choose).
        """


class GradientRecommender(Recommender):
    """A model that is trained by gradient steps on batches of histories."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's global generator."""

    @abstractmethod
    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the scalar training loss of a batch of users with their whole training histories.

        Args:
            histories: The batch. What is input and what is target is the model's own affair.
            generator: The only source of randomness besides dropout, on the CPU.
        """
