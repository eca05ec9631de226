"""What all metrics are computed from: the users' ranked lists, ranked once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RelevantScores:
    """Where the relevant items stand in the whole ranking, one row for each (user, relevant item).

    Candidates are the items that may be recommended to the user: all items but those seen.

    Args:
        user: The row of the user in the ranking, int64 ``[num_pairs]``, ascending.
        above: Candidates with a higher score, int64 ``[num_pairs]``.
        tied: Candidates with the same score, the item itself included, int64 ``[num_pairs]``.
        num_candidates: Candidates of each user, int64 ``[num_users]``.
    """

    user: Tensor
    above: Tensor
    tied: Tensor
    num_candidates: Tensor


@dataclass(frozen=True, eq=False)
class LabelledScores:
    """Relevant items of all users, each with an item that its user did not take: what a click-through model is asked.

    Args:
        relevant: Scores of the relevant items, float ``[num_pairs]``.
        untaken: Scores of the items beside them, float ``[num_pairs]``.
        threshold: The score from which an item counts as taken; ``None`` where the model knows none.
    """

    relevant: Tensor
    untaken: Tensor
    threshold: float | None = None


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranked lists of all users who have relevant items.

    Args:
        items: Recommended items, best first, int64 ``[num_users, depth]``; -1 where no item is left.
        hits: Whether each of them is relevant, bool ``[num_users, depth]``.
        num_relevant: Relevant items of each user, int64 ``[num_users]``, all at least 1.
        popularity: Interactions of each item in the histories, int64 ``[num_items]``.
        relevant: Where the relevant items stand in the whole ranking; only where a metric asks for it.
        labelled: Scores of relevant items and of as many others; only where a metric asks for it.
    """

    items: Tensor
    hits: Tensor
    num_relevant: Tensor
    popularity: Tensor
    relevant: RelevantScores | None = None
    labelled: LabelledScores | None = None

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return self.popularity.numel()

    @cached_property
    def gains(self) -> Tensor:
        """The hits as numbers, float64 ``[num_users, depth]``."""
        return self.hits.double()

    def num_hits(self, k: int) -> Tensor:
        """Return the number of relevant items among the first ``k``, float64 ``[num_users]``."""
        return self.gains[:, :k].sum(dim=1)

    def list_counts(self, k: int) -> Tensor:
        """Return how many users' first ``k`` hold each item, int64 ``[num_items]``."""
        listed = self.items[:, :k]
        return torch.bincount(listed[listed >= 0], minlength=self.num_items)


@dataclass(frozen=True)
class Metric:
    """A function of a :class:`Ranking`, and what it needs.

    Args:
        compute: Takes the ranking, then the parameter if there is one. Returns float64 ``[num_users]``,
            or a scalar for a catalogue metric.
        parameter: ``"k"`` for a cut-off (``recall@20``), ``"level"`` for a number within 0..1
            (``pr_curve@0.5``), ``None`` for neither (``auc``).
        scope: ``"user"`` for a value a user, which is averaged over users and can be tested in pairs;
            ``"catalogue"`` for one value of all users together.
        least_depth: How long the lists must be at least, whatever ``k`` is.
        needs_labels: Whether it looks at :class:`LabelledScores` and at no list.
    """

    compute: Callable[..., Tensor]
    parameter: Literal["k", "level"] | None = "k"
    scope: Literal["user", "catalogue"] = "user"
    least_depth: int = 0
    needs_labels: bool = False

    @property
    def needs_scores(self) -> bool:
        """Whether it looks at the whole ranking, not only at its head."""
        return self.parameter != "k" and not self.needs_labels

    def depth(self, parameter: float | None) -> int:
        """Return how long the lists must be."""
        return max(1, self.least_depth, int(parameter or 0) if self.parameter == "k" else 0)


def discounts(depth: int, device: torch.device) -> Tensor:
    """Return ``1 / log2(rank + 1)`` for the ranks ``1..depth``, float64 ``[depth]``."""
    return 1.0 / torch.arange(2, depth + 2, dtype=torch.float64, device=device).log2()
