"""Recommender: the one door of every model, from popularity to the flagship."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, NotFittedError, StrangerError
from graphrec.histories import Histories
from graphrec.models.recent import Recent
from kg_loaders import RecGraph

RECENT_BYTES = 8 * 2**20  # what a model remembers of the histories that it was asked about last


class Product(NamedTuple):
    r"""Scores as products, :math:`s(u, j) = p_u \cdot q_j + b_j`.

    Args:
        users: :math:`p_u`, ``[batch_size, dim]``.
        items: :math:`q_j`, ``[num_items, dim]``.
        bias: :math:`b_j`, ``[num_items]``; ``None`` for zeros.
    """

    users: Tensor
    items: Tensor
    bias: Tensor | None = None

    def scores(self) -> Tensor:
        """Return all scores, ``[batch_size, num_items]``."""
        items = self.items.t()
        return self.users @ items if self.bias is None else torch.addmm(self.bias, self.users, items)


class Recommender(nn.Module, ABC):
    """A model that scores every item for every history.

    Subclass :class:`ClosedFormRecommender` or :class:`GradientRecommender`, which say how it is fitted.
    In evaluation mode a model may keep what does not depend on the question (item vectors, say) in
    :meth:`cached`; a change of mode or weights forgets it, and a copy starts without it.
    """

    inductive: bool = True
    """Whether a history alone is enough; a model with a user table sets this to ``False``."""

    random: ClassVar[bool] = True
    """Whether fitting draws at random, so that another seed gives another model."""

    needs_kg: ClassVar[bool] = False
    """Whether the model cannot be made without triples."""

    logits: ClassVar[bool] = False
    """Whether the sigmoid of a score is the probability that the user takes the item, not one drawn beside it."""

    request_time: bool = False
    """Whether the model reads when it is asked: evaluation tells it when each user took the first item asked for."""

    shares_work: bool = False
    """Whether histories that have items in common cost less together: evaluation then scores more of them at once."""

    needs_content: ClassVar[bool] = False
    """Whether the model cannot be made without modalities or triples."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        if num_items < 1:
            raise ArgumentError(f"num_items must be >= 1, got {num_items}")
        self.num_items = num_items
        self._cache: dict[str, Any] = {}
        self._recent_bytes = RECENT_BYTES
        self._result_shapes: dict[str, tuple[int | None, ...]] = {}

    @classmethod
    @abstractmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model of the right sizes; ``options`` are the constructor's own keyword arguments."""

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return whose keyword arguments :meth:`from_graph` takes as options: the constructor's.

        A model that is made of others also names theirs.
        """
        return (cls,)

    @abstractmethod
    def score(self, histories: Histories) -> Tensor:
        """Score all items for each history, float32 ``[batch_size, num_items]``; higher is better.

        Seen items are scored like any other: leaving them out is the caller's choice.

        Raises:
            StrangerError: The model needs ``user_index`` and got none, or one beyond its table.
        """

    def product(self, histories: Histories) -> Product | None:
        """Return what :meth:`score` multiplies; ``None`` where it is no product of user and item vectors.

        Items and bias are the same for all histories, and may be the model's own memory.
        """
        return None

    def score_item(self, histories: Histories, item: int) -> Tensor:
        """Score one item for each history, float32 ``[batch_size]``, as it is where the item is recommended.

        That is its column of :meth:`score`, also where a second stage of ranking scores the best candidates alone: then
        it is what that stage makes of the item, candidate or not.
        """
        return self.score(histories)[:, item]

    def score_without_each(self, histories: Histories, item: int) -> Tensor | None:
        """Score one item as :meth:`score_item` does without each history entry in turn, float32 ``[total]``.

        Args:
            histories: One row.
            item: Index of the item.

        Returns:
            ``None`` where there is no faster way than to ask for each of the histories. A subclass that scores in
            another way than the class that has one must say so too.
        """
        return None

    @property
    def reach(self) -> int | None:
        """How many entries, the most recent ones, decide a score to within rounding; ``None`` where all may."""
        return None

    def scores_without_each(self, histories: Histories) -> Tensor | None:
        """Score all items as :meth:`score` does without each history entry in turn, float32 ``[total, num_items]``.

        What a model made of others asks them for. See :meth:`score_without_each`, of one item.
        """
        return None

    def contributions(self, histories: Histories, item: int) -> Tensor | None:
        """Split the score of one item over the history entries, exactly.

        Returns:
            One summand for each history entry, ``[total]``; what is left of the score does not depend on the entries.
            ``None`` where the score is no such sum.
        """
        return None

    def cached(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return ``compute()``, remembered under ``key`` while the model stays in evaluation mode.

        Where gradients may be wanted, nothing is remembered: ask under :class:`torch.no_grad` for speed.
        """
        if self.training or (torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters())):
            return compute()
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def cached_of(self, key: str, histories: Histories, compute: Callable[[], Any]) -> Any:
        """Do as :meth:`cached`, of what belongs to one history: a tensor, or a tuple of tensors.

        It is remembered of those that were asked about last, as far as there is room (see :meth:`remember`), and of a
        known user (``user_index``) as the history is now.
        """
        recent: Recent = self.cached("recent", lambda: Recent(self._recent_bytes))
        version = histories.fingerprint()
        whose = key, version if histories.user_index is None else histories.user_index.numpy(force=True).tobytes()
        value = recent.get(whose, version)
        if value is None:
            value = compute()
            recent.put(whose, version, value)
        return value

    def remember(self, num_bytes: int) -> None:
        """Let this model, and each that it is made of, remember so much of the histories asked about last.

        Without it that is 8 MiB. What is remembered of histories now is forgotten.
        """
        for model in self._all_models():
            model._recent_bytes = num_bytes
            model._cache.pop("recent", None)

    @property
    def remembered_bytes(self) -> int:
        """How much this model, and those it is made of, remember of histories."""
        remembered = (model._cache.get("recent") for model in self._all_models())
        return sum(recent.used_bytes for recent in remembered if recent is not None)

    def _all_models(self) -> Iterator[Recommender]:
        return (model for model in self.modules() if isinstance(model, Recommender))

    def forget(self) -> None:
        """Drop all that :meth:`cached` remembers; call it after changing weights in evaluation mode."""
        self._cache.clear()

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in any module, and forget cached values."""
        self.forget()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.forget()  # another type or device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}}

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights as in any module, and forget cached values."""
        self.forget()
        return super().load_state_dict(*args, **kwargs)

    def register_result(self, name: str, *shape: int | None, dtype: torch.dtype = torch.float32) -> None:
        """Register the buffer of a tensor that fitting finds, empty for now; ``None`` is a size that it also finds.

        Loading a state fills it, so a state can be loaded into an unfitted model of the same ``num_items``.
        """
        self.register_buffer(name, torch.empty(0, dtype=dtype))
        self._result_shapes[name] = shape

    def check_known(self, histories: Histories, num_users: int) -> Tensor:
        """Return ``histories.user_index`` after making sure that all of them are known users."""
        name = type(self).__name__
        if histories.user_index is None:
            raise StrangerError(
                f"{name} keeps a table of its {num_users} users and cannot serve a stranger; "
                "use an inductive model for users it never saw"
            )
        if histories.user_index.numel():
            low, high = (int(bound) for bound in torch.aminmax(histories.user_index))
            if low < 0 or high >= num_users:
                raise StrangerError(f"{name} knows users 0..{num_users - 1}, got {low if low < 0 else high}")
        return histories.user_index

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        self.forget()
        errors = lists[-1]
        for name, shape in self._result_shapes.items():
            value = state_dict.get(prefix + name)
            if not isinstance(value, Tensor):
                continue
            buffer = self.get_buffer(name)
            sizes = zip(shape, value.shape, strict=False)
            if value.numel() and (value.dim() != len(shape) or any(want not in (None, got) for want, got in sizes)):
                wanted = ", ".join("any" if size is None else str(size) for size in shape)
                errors.append(f"{prefix}{name} must have shape [{wanted}], got {list(value.shape)}")
                value = buffer
            # Taken over, not copied: the largest results fill half of the memory.
            self._buffers[name] = state_dict[prefix + name] = value.to(buffer.device, buffer.dtype)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)


class ClosedFormRecommender(Recommender):
    """A model that is fitted in one call, without gradients.

    What fitting finds lives in buffers made by :meth:`register_result`.
    """

    random = False

    def check_ready(self, histories: Histories) -> None:
        """Make sure that the model has been fitted and knows all items of the histories.

        Raises:
            NotFittedError: The model was neither fitted nor loaded.
            ArgumentError: An item is outside the catalogue.
        """
        if not any(self.get_buffer(name).numel() for name in self._result_shapes):
            raise NotFittedError(
                f"{type(self).__name__} has not been fitted; call fit(), or complete() of a Blend, or load its state"
            )
        histories.check_items(self.num_items)

    def unfit(self) -> None:
        """Let go of what fitting found, and of the memory it takes."""
        for name in self._result_shapes:
            self._buffers[name] = self.get_buffer(name).new_empty(0)
        self.forget()

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

    @property
    def chooses(self) -> bool:
        """Whether :meth:`choose` has anything to choose."""
        return False

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's global generator."""

    def starting_weights(self) -> Mapping[str, Tensor]:
        """Return the weights, by name, that :meth:`reset_parameters` does not draw but takes from elsewhere."""
        return {}

    def prepare(self, histories: Histories) -> None:
        """Take note of all training histories at once, before the first step on weights just drawn or restored.

        Doing it twice changes nothing. A model that needs no such notes leaves this as it is.
        """

    def complete(self, histories: Histories) -> None:
        """Make, of the histories that :meth:`prepare` was given, what ranking needs and training does not.

        Called before the model is asked for scores, and again after it trained on; what is there stays. A model whose
        weights are all it ranks by leaves this as it is.
        """

    def prepared_names(self) -> frozenset[str]:
        """Return the names of the state that :meth:`prepare` and :meth:`complete` make: checkpoints leave it out."""
        return frozenset()

    def choose(self, validate: Callable[[], float]) -> dict[str, float]:
        """Choose, once the weights are trained, what is best chosen on validation.

        Args:
            validate: Scores the model as it stands on validation data, higher is better.

        Returns:
            The chosen values by name; the model holds them, and they are the best of those it asked about.
        """
        return {}

    def set_chosen(self, chosen: Mapping[str, float]) -> None:
        """Take what :meth:`choose` returned, after the weights have been drawn anew."""

    @abstractmethod
    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the scalar training loss of a batch of users with their whole training histories.

        Args:
            histories: The batch. What is input and what is target is the model's own affair.
            generator: The only source of randomness besides dropout, on the CPU.
        """
