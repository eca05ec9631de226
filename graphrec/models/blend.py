"""Blend: models that err differently in one ranking, weighted on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender, GradientRecommender
from graphrec.models.content_ease import ContentEASE
from graphrec.models.dual_ease import smaller_ease
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.slist import SLIST
from kg_loaders import RecGraph

MOST_SCORES = 2**25  # 128 MB, a few times at once
NARROW = 1e-4  # of the mean; so small a deviation may be rounding
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Blend(GradientRecommender):
    r"""Two models that err differently in one ranking.

    .. math::
        s(u, j) = (1 - w) \, z\bigl(s_1(u, \cdot)\bigr)_j + w \, z\bigl(s_2(u, \cdot)\bigr)_j, \qquad
        z(s) = \frac{s - \operatorname{mean}_j s}{\operatorname{std}_j s}

    The scores of each model are brought to one scale for each user, so one :math:`w` fits all. A second model in closed
    form is fitted when the first is trained and its optimiser gone (:meth:`complete`), as its matrix may need the
    memory; one trained by gradients is trained beside it, and shares nothing with it but the batches. :math:`w` is
    chosen on validation by going up from the middle of ``weights`` to the best neighbour, and is kept for the refit. A
    blend may be the first model of another; its own weight is chosen first, if there is more than one.

    Args:
        first: A model trained by gradients.
        second: Another, or a model in closed form, fitted with the hyper-parameters it holds: choose them in a run of
            its own.
        weights: Increasing values of :math:`w`, each within 0..1: 0 is the first model alone, 1 the second.

    Raises:
        ArgumentError: The models differ in the number of items; ``weights`` is empty, not increasing or out of range.

    Source:
        Score fusion by z-scores: Fox and Shaw, "Combination of Multiple Searches" (TREC-2, 1993), with the
        normalisation of Renda and Straccia, "Web Metasearch: Rank vs. Score Based Rank Aggregation Methods" (SAC 2003).
    """

    weight: Tensor

    def __init__(
        self,
        first: GradientRecommender,
        second: GradientRecommender | ClosedFormRecommender,
        weights: Sequence[float] = WEIGHTS,
    ) -> None:
        super().__init__(first.num_items)
        if first.num_items != second.num_items:
            raise ArgumentError(f"both models must rank the same items, got {first.num_items} and {second.num_items}")
        self.weights = tuple(float(weight) for weight in weights)
        for weight in self.weights:
            check_range("weights", weight, low=0.0, high=1.0)
        if not self.weights or list(self.weights) != sorted(set(self.weights)):
            raise ArgumentError(f"weights must be one or more increasing numbers, got {weights!r}")
        self.inductive = first.inductive and second.inductive
        self.request_time = first.request_time or second.request_time
        self.shares_work = first.shares_work or second.shares_work
        self.first = first
        self.second = second
        self._fitted = False
        self.register_buffer("weight", torch.tensor(self._middle))

    @classmethod
    def from_graph(
        cls,
        graph: RecGraph,
        l2: float = 200.0,
        content_weight: float = 0.0,
        recency: float = 0.0,
        alpha: float = 0.3,
        input_dropout: float = 0.0,
        relax: float = 0.0,
        kg_weight: float = 0.0,
        kg_relations: Sequence[str] = (),
        weights: Sequence[float] = WEIGHTS,
        match_temperature: float = 0.0,
        match_weights: Sequence[float] = WEIGHTS,
        members: int = 1,
        match_members: int = 1,
        **options: Any,
    ) -> Self:
        """Make a blend of InductiveKGAT, that with ``match_temperature``, and a closed form: EASE, or SLIST.

        Where the data have fewer users than items EASE is :class:`DualEASE`, whose matrix is the smaller one.

        Args:
            graph: Its items and triples.
            l2: Penalty of the closed form; choose it in a run of that alone. 0 leaves the closed form out.
            content_weight: Above 0 it is :class:`ContentEASE` with this weight, and the modalities in ``options``.
            recency: Above 0 it is :class:`SLIST`, which reads order, with this recency.
            alpha: Share of what SLIST learns without order.
            input_dropout: Of EASE or ContentEASE, see :class:`EASE`.
            relax: Likewise.
            kg_weight: Of EASE: how many users an entity of the KG stands for.
            kg_relations: Ids of the relations that count so; all when empty.
            weights: Shares of the closed form to choose from, increasing, each within 0..1.
            match_temperature: That of a second InductiveKGAT, which matches each item of a history by itself; 0 leaves
                it out.
            match_weights: Its share beside the first, as ``weights``.
            members: How many times the first InductiveKGAT is trained, from other draws: their scores are averaged
                (deep ensembles: Lakshminarayanan et al., NeurIPS 2017). Each costs what one costs.
            match_members: Likewise of the second, that with ``match_temperature``.
            options: Keyword arguments of every InductiveKGAT; ``sequence`` is of the first alone, as matching knows no
                order.

        Raises:
            ArgumentError: There is but one model to blend, ``recency`` is given with what SLIST does not know,
                ``match_members`` without ``match_temperature``, or an argument is outside its range.
        """
        check_range("l2", l2, low=0.0)
        check_range("content_weight", content_weight, low=0.0)
        check_range("recency", recency, low=0.0)
        check_range("match_temperature", match_temperature, low=0.0)
        of_ease: dict[str, Any] = {"input_dropout": input_dropout, "relax": relax}
        for name, value in {"content_weight": content_weight, "kg_weight": kg_weight, **of_ease}.items():
            if value and recency:
                raise ArgumentError(f"{name} and recency must not both be above 0: no closed form knows both")
        if kg_relations and not kg_weight:
            raise ArgumentError(f"kg_relations must be empty without kg_weight, got {list(kg_relations)}")
        if kg_weight and content_weight:
            raise ArgumentError("kg_weight and content_weight must not both be above 0: the KG is content already")
        check_range("members", members, low=1)
        check_range("match_members", match_members, low=1)
        if match_members > 1 and not match_temperature:
            raise ArgumentError(f"match_members must be 1 without a match_temperature, got {match_members}")

        def averaged(count: int, **own: Any) -> GradientRecommender:
            model: GradientRecommender = InductiveKGAT.from_graph(graph, **options | own)
            for before in range(1, count):
                model = cls(model, InductiveKGAT.from_graph(graph, **options | own), [1 / (before + 1)])
            return model

        first = averaged(members)
        if match_temperature:
            matched = averaged(match_members, match_temperature=match_temperature, sequence=0)
            first = cls(first, matched, match_weights)
        if not l2:
            if not isinstance(first, cls):
                raise ArgumentError("l2 and match_temperature must not both be 0 with members=1: one model is no blend")
            return first
        if recency:
            return cls(first, SLIST.from_graph(graph, l2=l2, recency=recency, alpha=alpha), weights)
        if not content_weight:
            of_kg: dict[str, Any] = {"kg_weight": kg_weight, "kg_relations": kg_relations}
            ease = smaller_ease(graph).from_graph(graph, l2=l2, **of_ease, **of_kg)
            return cls(first, ease, weights)
        told = {name: value for name, value in options.items() if name in ("modalities", "text_encoder")}
        return cls(
            first, ContentEASE.from_graph(graph, **told, l2=l2, content_weight=content_weight, **of_ease), weights
        )

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return what :meth:`from_graph` takes besides the graph; see :meth:`Recommender.configured_by`."""
        return cls.from_graph, *InductiveKGAT.configured_by()

    @property
    def chooses(self) -> bool:
        """Whether this blend or one within it has more than one weight to choose from."""
        return any(len(model.weights) > 1 for model in self.modules() if isinstance(model, Blend))

    @property
    def _middle(self) -> float:
        return self.weights[len(self.weights) // 2]

    def forget(self) -> None:
        """Drop what this model and the two in it remember."""
        super().forget()
        for model in (self.first, self.second):
            model.forget()

    def reset_parameters(self) -> None:
        """Draw the weights of what is trained anew, and take the middle of ``weights``."""
        self.first.reset_parameters()
        if isinstance(self.second, GradientRecommender):
            self.second.reset_parameters()
        self.weight.fill_(self._middle)

    def prepare(self, histories: Histories) -> None:
        """Prepare what is trained, without an earlier closed form; see :meth:`GradientRecommender.prepare`."""
        self.first.prepare(histories)
        if isinstance(self.second, GradientRecommender):
            self.second.prepare(histories)
        else:
            self.second.unfit()
            self._fitted = False

    def complete(self, histories: Histories) -> None:
        """Fit a closed form, unless it is; see :meth:`GradientRecommender.complete`."""
        self.first.complete(histories)
        if isinstance(self.second, GradientRecommender):
            self.second.complete(histories)
        elif not self._fitted:
            self.second.fit(histories)
            self._fitted = True

    def prepared_names(self) -> frozenset[str]:
        """Return the names of what is made of histories: all of a closed form, and what the others name."""
        second = self.second
        made = second.prepared_names() if isinstance(second, GradientRecommender) else second.state_dict().keys()
        own = {f"first.{name}" for name in self.first.prepared_names()}
        return frozenset(own | {f"second.{name}" for name in made})

    def choose(self, validate: Callable[[], float]) -> dict[str, float]:
        """Choose the weights of blends within, then the second model's; see :meth:`GradientRecommender.choose`."""
        for model in self.modules():  # a run that was stopped while choosing goes on with the weights it tried last
            if isinstance(model, Blend):
                model.weight.fill_(model._middle)
        within = {}
        for name, model in (("first", self.first), ("second", self.second)):
            if isinstance(model, GradientRecommender) and model.chooses:
                within.update({f"{name}.{key}": value for key, value in model.choose(validate).items()})
        values: dict[int, float] = {}

        def value(index: int) -> float:
            if index not in values:
                self.weight.fill_(self.weights[index])
                values[index] = validate()
            return values[index]

        best, step = len(self.weights) // 2, True
        while step:
            near = [index for index in (best, best - 1, best + 1) if 0 <= index < len(self.weights)]
            best, before = max(near, key=value), best
            step = best != before
        self.weight.fill_(self.weights[best])
        return {**within, "weight": self.weights[best]}

    def set_chosen(self, chosen: Mapping[str, float]) -> None:
        """Take the weights that :meth:`choose` found; see :meth:`GradientRecommender.set_chosen`."""
        self.weight.fill_(chosen["weight"])
        for name, model in (("first", self.first), ("second", self.second)):
            if isinstance(model, GradientRecommender) and model.chooses:
                inner = {key.removeprefix(f"{name}."): v for key, v in chosen.items() if key.startswith(f"{name}.")}
                model.set_chosen(inner)

    def score(self, histories: Histories) -> Tensor:
        """Blend the scores of both models; see :meth:`Recommender.score`."""
        return self._blended(self.first.score(histories), self.second.score(histories))

    def _blended(self, first: Tensor, second: Tensor, items: slice = slice(None)) -> Tensor:
        """Return the blended scores of some items; both models' are of all."""
        first = _standardise(first, items)
        second, weight = _standardise(second, items).to(first.dtype), self.weight.to(first.dtype)
        # Scores of all items are large: without gradients they are not written twice.
        return first.lerp(second, weight) if torch.is_grad_enabled() else first.lerp_(second, weight)

    def score_without_each(self, histories: Histories, item: int) -> Tensor | None:
        """Score one item without each history entry in turn; see :meth:`Recommender.score_without_each`.

        ``None`` where all items' scores for it would be many: whoever asks for each history then does so in parts.
        """
        reach = histories.items.numel() if self.reach is None else self.reach
        read, place = histories.recent_without_each(reach)
        if read.items.numel() * self.num_items > MOST_SCORES:
            return None
        first = self.first.scores_without_each(read)
        second = None if first is None else self.second.scores_without_each(read)
        if first is None or second is None:
            return None
        return self._blended(first, second, slice(item, item + 1))[place, 0]

    @property
    def reach(self) -> int | None:
        """The further one of both; see :attr:`Recommender.reach`."""
        first, second = self.first.reach, self.second.reach
        return None if first is None or second is None else max(first, second)

    def scores_without_each(self, histories: Histories) -> Tensor | None:
        """Blend what both models say without each entry; see :meth:`Recommender.scores_without_each`.

        ``None`` where one of them knows no short way. A blend needs the scores of all items for one.
        """
        first = self.first.scores_without_each(histories)
        second = None if first is None else self.second.scores_without_each(histories)
        return None if first is None or second is None else self._blended(first, second)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the sum of the losses of what is trained."""
        loss = self.first.loss(histories, generator)
        if isinstance(self.second, GradientRecommender):
            loss = loss + self.second.loss(histories, generator)
        return loss


def _standardise(scores: Tensor, items: slice = slice(None)) -> Tensor:
    """Return some columns of rows with mean 0 and standard deviation 1; a row of equal scores becomes zeros."""
    mean = scores.mean(dim=1, keepdim=True)
    centred = scores - mean
    std = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / scores.shape[1] ** 0.5
    # The mean of equal scores is off by rounding, and so is their deviation, which would be brought to 1.
    narrow = (std <= NARROW * mean.abs()).squeeze(1)
    if bool(narrow.any()):
        low, high = torch.aminmax(scores[narrow], dim=1, keepdim=True)
        std = std.masked_scatter(narrow.unsqueeze(1), std[narrow].masked_fill(low == high, torch.inf))
    std = std.clamp(min=torch.finfo(scores.dtype).tiny)
    centred = centred[:, items]
    return centred / std if torch.is_grad_enabled() else centred.div_(std)
