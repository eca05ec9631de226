"""explain: which past items, and which facts of the knowledge graph, a recommendation leans on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_choice
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.models.blend import Blend
from graphrec.models.cross_domain_kgat import CrossDomainKGAT
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.attribution import AttendedScore, kept_scores, leave_one_out
from graphrec.serving.held_prior import with_held_prior
from graphrec.serving.modality_effects import ModalityEffect, effects_on
from graphrec.serving.paths import Path, paths_to
from graphrec.serving.recommender import RunRecommender

NUM_REASONS = 5
NO_EFFECT = 1e-6  # of a score: less is rounding

# Each way to divide a score among past items, and how a person is told.
METHODS = {
    "contributions": "each past item's summand of the score",
    "leave-one-out": "how far the score falls without each past item",
    "attention": "the model's attention to each past item, not what it does to the score",
}
NOTHING = "nothing in the history speaks for it"
POPULAR = f"it is popular; {NOTHING}"
NO_HISTORY = "the model keeps a vector of its own for this user; which past items made it cannot be told"


@dataclass(frozen=True)
class PastItem:
    """A past item and what it does to the score.

    Args:
        item_id: Its original id.
        title: Its title, or its id.
        contribution: By method: its summand of the score, how far the score falls without it, or the attention to it;
            negative where it speaks against the item.
        share: Its part of all positive contributions, 0..1.
    """

    item_id: str
    title: str
    contribution: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended.

    Args:
        item_id: The recommended item.
        title: Its title, or its id.
        score: Its score.
        base: What it scores without any history (its popularity, where there is a prior as loud as with the history,
            and what a head makes of the user's attributes); the rest of the score comes from the past items.
        past: The past items that add most, largest first.
        paths: Paths through the knowledge graph, in the order of :func:`paths_to`; empty where the model reads none.
        method: A key of :data:`METHODS`, or "none" where the score does not depend on the history.
        modalities: What each modality of the item does to the score, the strongest first; empty where the model fuses
            none. A blend's are those of the first model in it, on that model's scale.
    """

    item_id: str
    title: str
    score: float
    base: float
    past: tuple[PastItem, ...]
    paths: tuple[Path, ...]
    method: str = "contributions"
    modalities: tuple[ModalityEffect, ...] = ()

    @property
    def how(self) -> str:
        """What the shares are, in words."""
        if self.method == "none":
            return "the score does not depend on the history"
        if not self.paths:
            return METHODS[self.method]
        by = "the model's attention" if self.paths[0].effect is None else "how far it falls without them"
        return f"{METHODS[self.method]}; paths by {by}"

    @property
    def sentences(self) -> list[str]:
        """The reasons in words, strongest first."""
        whole = "the attention" if self.method == "attention" else "what speaks for it"
        lines = [f"you took {p.title}: {percent(p.share)} of {whole}" for p in self.past if p.share > 0]
        lines += [str(path) for path in self.paths]
        lines += [str(effect) for effect in self.modalities]
        # Without any history a model that knows of no popularity scores all items 0.
        return lines or [NO_HISTORY if self.method == "none" else POPULAR if self.base > 0 else NOTHING]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, with what they say in words; each path has its ``sentence``."""
        paths = [{**asdict(path), "sentence": str(path)} for path in self.paths]
        return {**asdict(self), "paths": paths, "how": self.how, "sentences": self.sentences}


def methods_of(model: Recommender) -> tuple[str, ...]:
    """Return the methods that can explain a model, the default first.

    Leave-one-out works for every model. A score that is a sum over the history (InductiveKGAT without a head, EASE,
    SLIST, ItemKNN, RP3beta) also has contributions; InductiveKGAT has attention, whether it pools a history or reads it
    in order.
    """
    methods = ["leave-one-out"]
    has_head = isinstance(model, InductiveKGAT) and model.head is not None
    has_prior = isinstance(model, CrossDomainKGAT) and bool(model.user_prior.any())
    if type(model).contributions is not Recommender.contributions and not (has_head or has_prior):
        methods.append("contributions")
    if isinstance(model, InductiveKGAT):
        methods.append("attention")
    return tuple(methods)


def explain(
    recommender: RunRecommender, histories: Histories, item: int, k: int = NUM_REASONS, method: str | None = None
) -> Explanation:
    """Explain the score of one item for one user.

    - ``"leave-one-out"`` asks the model again without each past item, and without each path (the edge between past item
      and entity and that between entity and item): what it says of one reason is true, whatever happens inside.
      Two past items that stand in for each other both seem to matter little.
    - ``"contributions"`` splits a score that is a sum over the past items. For EASE and ItemKNN that is the same. For
      InductiveKGAT the sum is exact, but its terms share one attention, which another history would divide otherwise;
      paths are those of the attention.
    - ``"attention"`` shows what the model looks at, which is not what decides: docs/explanations.md says how far
      they differ. Of a model that reads in order it is that of the last block from the last entry, averaged over its
      heads. What the last block looks at are states, in which earlier blocks have mixed an item with those before it;
      the items that are not read have none.

    A blend's paths are those of the first model in it, by attention. (Integrated Gradients do not fit: scores of
    normalised attention and cosines do not change when all weights of a history grow together, so all gradients on the
    straight line from the empty history add up to zero.)

    Args:
        recommender: Model and graph.
        histories: One row: the user's past.
        item: Index of the item.
        k: At most so many past items and paths.
        method: One of :func:`methods_of` the model; the first of them when not given.

    Raises:
        ArgumentError: Not one row, an item outside the catalogue, or a method that does not fit the model.
    """
    graph, model = recommender.graph, recommender.model
    if len(histories) != 1:
        raise ArgumentError(f"histories must hold one row, got {len(histories)}")
    if not 0 <= item < graph.num_items:
        raise ArgumentError(f"item must be within 0..{graph.num_items - 1}, got {item}")
    allowed = methods_of(model)
    method = allowed[0] if method is None else method
    check_choice(f"method for {type(model).__name__}", method, allowed)
    with torch.no_grad():
        score = float(model.score_item(histories, item))
        score_parts = AttendedScore.of(model, histories, item) if method != "contributions" else None
        parts = _parts(model, histories, item, method, score_parts).numpy()
    size = histories.items.numel()
    nothing_known = torch.zeros(1, size, dtype=torch.bool)
    base = float(kept_scores(with_held_prior(model, size), histories, item, nothing_known))
    if not model.inductive and not parts.any() and abs(score - base) <= NO_EFFECT * abs(score):
        method, parts = "none", parts[:0]  # zeros for every past item would say that it is popular
    items = histories.items.numpy()
    positive = parts.clip(min=0).sum() or 1.0
    order = np.argsort(-parts, kind="stable")[:k]
    past = tuple(
        PastItem(
            graph.items.id_of(int(items[i])),
            graph.item_labels[int(items[i])],
            float(parts[i]),
            float(max(parts[i], 0) / positive),
        )
        for i in order
    )
    attended: Recommender = model
    while isinstance(attended, Blend):
        attended = attended.first
    paths: list[Path] = []
    if isinstance(attended, InductiveKGAT):
        paths = paths_to(attended, graph, histories, item, k, score_parts if method == "leave-one-out" else None)
    effects = effects_on(attended, histories, item)
    return Explanation(
        graph.items.id_of(item), graph.item_labels[item], score, base, past, tuple(paths), method, effects
    )


def percent(share: float) -> str:
    """Return a share in per cent, with a decimal where it is small.

    Example:
        >>> percent(0.256), percent(0.0123), percent(0.00004)
        ('26 %', '1.2 %', '<0.1 %')
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 or not share else f"{100 * share:.1f} %"


def _parts(model: Recommender, histories: Histories, item: int, method: str, attended: AttendedScore | None) -> Tensor:
    """Return what each history entry gives by a method, float64 ``[total]``."""
    if method == "leave-one-out":
        return leave_one_out(model, histories, item) if attended is None else attended.leave_one_out()
    if method == "attention":
        assert isinstance(model, InductiveKGAT)  # no other model has this method
        if model.match is not None:  # each candidate looks at the history in its own way, whatever a head makes of it
            return (AttendedScore(model, histories, item) if attended is None else attended).attention()
        return model.history_attention(histories).double()
    summands = model.contributions(histories, item)
    if summands is None:
        raise ArgumentError(f"the score of this {type(model).__name__} is no sum over the history")
    return summands.double()
