"""SequentialRecommender and CausalRecommender: models that read a history in order and predict the next item."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.histories import Histories
from graphrec.losses import gbce, gbce_power, sampled_softmax
from graphrec.models.base import GradientRecommender, Product
from graphrec.sampling import UniformNegatives, untaken_items
from kg_loaders import RecGraph

LossName = Literal["bce", "gbce", "softmax"]
LOSSES: tuple[LossName, ...] = get_args(LossName)


def check_times(graph: RecGraph, reader: str) -> None:
    """Make sure that ``reader`` can read histories in order of time.

    Raises:
        ArgumentError: The graph does not know when its interactions happened.
    """
    if graph.interactions.time is None:
        raise ArgumentError(
            f"{reader} reads histories in order of time, and graph {graph.name!r} has no times; "
            "InductiveKGAT and EASE read histories without order"
        )


class SequentialRecommender(GradientRecommender):
    r"""The common ground of models that read a history in order and predict the item that comes next.

    .. math:: s(u, j) = z_u \cdot e_j + b_j \quad \text{or} \quad \cos(z_u, e_j) / \tau + b_j

    with the state :math:`z_u` after the last item, made by :meth:`last_states`, the items' one table of vectors e,
    which also makes the input, and b only with ``bias``. Nothing is padded. Items of one time keep the order that the
    data have them in; histories longer than ``max_length`` are cut to their most recent items.

    Args:
        num_items: Number of items.
        dim: Width of the vectors.
        max_length: Most recent items of a history that are read.
        loss: ``"bce"``, one negative for each target that the user did not take; ``"gbce"``, the calibrated loss of
            :func:`~graphrec.losses.gbce`; or ``"softmax"``.
        num_negatives: Negatives a step of ``"gbce"`` and ``"softmax"``, drawn uniformly and shared by all targets of
            the batch; as many as there are items or more means all items.
        calibration: Of ``"gbce"``: 0 trusts the sampled probabilities, 1 corrects them fully.
        temperature: :math:`\tau` of cosine scores; 0 for plain products.
        bias: Whether items have a bias of their own.

    Raises:
        ArgumentError: A value outside its range.
    """

    def __init__(
        self,
        num_items: int,
        dim: int,
        max_length: int,
        loss: str,
        num_negatives: int,
        calibration: float,
        temperature: float,
        bias: bool = False,
    ) -> None:
        super().__init__(num_items)
        for name, value in (("dim", dim), ("max_length", max_length), ("num_negatives", num_negatives)):
            check_range(name, value, low=1)
        check_choice("loss", loss, LOSSES)
        check_range("calibration", calibration, low=0.0, high=1.0)
        if temperature:
            check_range("temperature", temperature, low=1e-3)
        self.dim = dim
        self.max_length = max_length
        self.loss_name = loss
        self.num_negatives = num_negatives
        self.calibration = calibration
        self.temperature = temperature
        self.negatives = UniformNegatives(num_items)
        self._told = False
        self.item = nn.Parameter(torch.empty(num_items, dim))
        self.item_bias = nn.Parameter(torch.empty(num_items)) if bias else None

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's items; options are the constructor's keyword arguments.

        Raises:
            ArgumentError: The graph does not know when its interactions happened.
        """
        check_times(graph, cls.__name__)
        return cls(graph.num_items, **options)

    def reset_parameters(self) -> None:
        """Draw the item vectors anew; subclasses also draw theirs."""
        nn.init.normal_(self.item, std=0.02)
        if self.item_bias is not None:
            nn.init.zeros_(self.item_bias)

    def prepare(self, histories: Histories) -> None:
        """Say, once, that longer histories are cut; see :meth:`GradientRecommender.prepare`."""
        if not self._told:
            histories.warn_longer(self.max_length, type(self).__name__)
        self._told = True

    @abstractmethod
    def last_states(self, histories: Histories) -> Tensor:
        """Return the state from which the item after each history is predicted, ``[batch_size, dim]``.

        Args:
            histories: In order, none longer than ``max_length``.
        """

    def score(self, histories: Histories) -> Tensor:
        """Score all items as the next one; see :meth:`Recommender.score`."""
        return self.product(histories).scores()

    def product(self, histories: Histories) -> Product:
        """Return what :meth:`score` multiplies; see :meth:`Recommender.product`."""
        histories.check_items(self.num_items)
        state = self.scaled(self.last_states(histories.in_order().recent(self.max_length)))
        return Product(state, self.cached("candidates", lambda: self.unit(self.item)), self.item_bias)

    def score_without_each(self, histories: Histories, item: int) -> Tensor:
        """Score one item without each history entry in turn; see :meth:`Recommender.score_without_each`."""
        state = self._states_without_each(histories)
        row = torch.tensor([item], device=state.device)
        return (state @ self.unit(self.item.index_select(0, row)).t())[:, 0] + self._bias(row)

    @property
    def reach(self) -> int:
        """Those that are read; see :attr:`Recommender.reach`."""
        return self.max_length

    def scores_without_each(self, histories: Histories) -> Tensor:
        """Score all items without each history entry in turn; see :meth:`Recommender.scores_without_each`."""
        items = self.cached("candidates", lambda: self.unit(self.item))
        return Product(self._states_without_each(histories), items, self.item_bias).scores()

    def _states_without_each(self, histories: Histories) -> Tensor:
        histories.check_items(self.num_items)
        read, place = histories.recent_without_each(self.max_length)
        state: Tensor = self.cached_of(
            "states without each", read, lambda: self.scaled(self.last_states_without_each(read))
        )  # the same for any item
        return state[place]

    def last_states_without_each(self, history: Histories) -> Tensor:
        """Return the state after a history without each of its entries in turn, ``[total, dim]``.

        Args:
            history: One row in order, at most one item longer than ``max_length``.
        """
        return self.last_states(history.without_each().recent(self.max_length))

    def loss_of(self, state: Tensor, histories: Histories, is_target: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of states, given which items they should predict.

        Args:
            state: ``[num_targets, dim]``.
            histories: Whole histories.
            is_target: Which of their items are targets, in the order of ``state``, bool ``[total]``.
            generator: Of the negatives.
        """
        targets = histories.items[is_target]
        state = self.scaled(state)
        positive = self.unit(self.item.index_select(0, targets))  # [num_targets, dim]
        if self.loss_name == "bce":
            other = untaken_items(histories.to("cpu"), self.num_items, generator).to(targets.device)[is_target]
            score = (state * positive).sum(dim=1) + self._bias(targets)
            rival = (state * self.unit(self.item.index_select(0, other.clamp(min=0)))).sum(dim=1)
            rival = rival + self._bias(other.clamp(min=0))
            # Who took every item has no negative, which -inf says.
            return gbce(score, rival.masked_fill(other < 0, -torch.inf).unsqueeze(1))
        drawn, log_q = (part.to(targets.device) for part in self.negatives(self.num_negatives, generator))
        rivals = self.unit(self.item.index_select(0, drawn) if len(drawn) < self.num_items else self.item)
        if self.loss_name == "softmax":
            return sampled_softmax(
                state,
                positive,
                rivals,
                log_q,
                positive_bias=None if self.item_bias is None else self._bias(targets),
                negative_bias=None if self.item_bias is None else self._bias(drawn),
                positive_items=targets,
                negative_items=drawn,
            )
        logits = state @ rivals.t() + self._bias(drawn)  # [num_targets, num_negatives]
        logits = logits.masked_fill(targets.unsqueeze(1) == drawn, -torch.inf)
        beta = gbce_power(len(drawn), self.num_items, self.calibration)
        return gbce((state * positive).sum(dim=1) + self._bias(targets), logits, beta)

    def _bias(self, items: Tensor) -> Tensor:
        return self.item.new_zeros(()) if self.item_bias is None else self.item_bias.index_select(0, items)

    def unit(self, vectors: Tensor) -> Tensor:
        """Return vectors as scores multiply them: of unit length where scores are cosines."""
        return F.normalize(vectors, dim=1) if self.temperature else vectors

    def scaled(self, state: Tensor) -> Tensor:
        """Return states as scores multiply them, the temperature included."""
        return F.normalize(state, dim=1) / self.temperature if self.temperature else state


class CausalRecommender(SequentialRecommender):
    """A sequential model whose state after an item knows only the items up to it.

    Training asks at every place of a history for the item that follows.
    """

    @abstractmethod
    def states(self, histories: Histories, last_only: bool = False) -> Tensor:
        """Return the state after each item, ``[total, dim]``, or after the last item of each history.

        Args:
            histories: In order, none longer than ``max_length``.
            last_only: Whether only the last states are wanted, ``[batch_size, dim]``; those of an empty history are 0.
        """

    def last_states(self, histories: Histories) -> Tensor:
        """Return the state after the last item of each history; see :meth:`SequentialRecommender.last_states`."""
        return self.states(histories, last_only=True)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the loss of the next item at every place; see :meth:`GradientRecommender.loss`."""
        histories = histories.in_order()
        read, follows = histories.next_items(self.max_length)
        return self.loss_of(self.states(read), histories, follows, generator)
