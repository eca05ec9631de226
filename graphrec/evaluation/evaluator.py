"""Evaluator: how good a model's ranking of the whole catalogue is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.evaluation.click_through import with_untaken
from graphrec.evaluation.metrics import LabelledScores, Metric, Ranking, RelevantScores, expand, parse
from graphrec.evaluation.ranking import best, score_batches, told_and_asked
from graphrec.evaluation.topk import without_seen
from graphrec.histories import Histories

if TYPE_CHECKING:
    from graphrec.models.base import Recommender
    from kg_loaders import RecGraph
    from kg_loaders.graph import Split

DEFAULT_METRICS = (
    "recall@20",
    "ndcg@20",
    "recall@10",
    "ndcg@10",
    "mrr@10",
    "coverage@20",
    "novelty@20",
)

# Scores compared in one go when relevant items are placed in the whole ranking.
PLACING_CHUNK = 2**21


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one model did on one split.

    Args:
        metrics: By name; user metrics are averaged over ``users``.
        per_user: User metrics by name, float64 ``[num_evaluated]``, in the order of ``users``.
        users: Indices of the users that have items in the split, int64 ``[num_evaluated]``, ascending.
        num_skipped: Users without items in the split; they count for nothing.
        seconds: Wall-clock time.
    """

    metrics: dict[str, float]
    per_user: dict[str, Tensor] = field(repr=False)
    users: Tensor = field(repr=False)
    num_skipped: int
    seconds: float

    def to_dict(self) -> dict[str, float]:
        """Return the metrics, ``num_users``, ``num_skipped`` and ``seconds`` as plain floats."""
        rest = {"num_users": len(self.users), "num_skipped": self.num_skipped, "seconds": self.seconds}
        return {**self.metrics, **{name: float(value) for name, value in rest.items()}}

    def __str__(self) -> str:
        values = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"{values}  ({len(self.users)} users, {self.num_skipped} without items left out, {self.seconds:.1f} s)"


class Evaluator:
    """Ranks the whole catalogue for every user of a split, and measures the rankings.

    The protocol: a model is told the training items, on the test split the validation items too, and exactly these
    are left out of the ranking. A model with ``request_time`` is also told when each user took the first of the items
    asked for. All other items are ranked, none sampled. Ties are broken at random by the seed, also
    at the cut-off. Users without items in the split are left out and counted.

    All metrics are computed from one ranking. Those that look beyond the head of the list (``auc``, ``pr_auc``,
    ``pr_curve``) cost a pass over the scores for each relevant item, and only where they are asked for. ``ctr_auc`` and
    ``ctr_f1`` look at no ranking but at the pairs of a click-through protocol; see
    :func:`~graphrec.evaluation.click_through.with_untaken`.

    Args:
        metrics: Names out of :data:`~graphrec.evaluation.METRICS`, most with a cut-off: ``"recall@20"``, ``"auc"``,
            ``"pr_curve"`` (eleven points) or ``"pr_curve@0.5"`` (one).
        seed: Decides the order of ties.
        batch_size: Users scored at once; when not given, chosen by
            :func:`~graphrec.evaluation.ranking.default_batch_size`.
        candidates: Only these items are ranked, or only the first so many, such as those of a linked pair's target; all
            when not given. Metrics of the whole catalogue or of the whole ranking do not go with it.

    Raises:
        ArgumentError: No metric, an unknown one, a bad cut-off or batch size, no or impossible candidates, or a metric
            that does not go with candidates.

    Example:
        >>> from graphrec.models import Popularity
        >>> from kg_loaders.synthetic import planted
        >>> graph = planted()
        >>> model = Popularity.from_graph(graph)
        >>> _ = model.fit(Histories.from_interactions(graph.part("train"), graph.num_users))
        >>> evaluation = Evaluator(["recall@10", "coverage@10"]).evaluate(model, graph, split="valid")
        >>> sorted(evaluation.metrics), len(evaluation.users), evaluation.num_skipped
        (['coverage@10', 'recall@10'], 120, 0)
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        seed: int = 0,
        batch_size: int | None = None,
        candidates: int | Sequence[int] | None = None,
    ) -> None:
        if isinstance(metrics, str) or not metrics:
            raise ArgumentError(f"metrics must be a list of names such as ['recall@20'], got {metrics!r}")
        if batch_size is not None:
            check_range("batch_size", batch_size, low=1)
        self.metrics: dict[str, tuple[Metric, int | float | None]] = {
            full: parse(full) for name in metrics for full in expand(name)
        }
        if candidates is not None:
            if isinstance(candidates, int):
                check_range("candidates", candidates, low=1)
            else:
                candidates = tuple(candidates)
                check_range("number of candidates", len(candidates), low=1)
                check_range("candidates", min(candidates), low=0)
            for name, (metric, _) in self.metrics.items():
                if metric.scope != "user" or metric.needs_scores:
                    raise ArgumentError(f"metrics must look at the head of a list alone with candidates, got {name!r}")
        self.seed = seed
        self.batch_size = batch_size
        self.candidates = candidates

    def evaluate(self, model: Recommender, graph: RecGraph, split: Split = "test") -> Evaluation:
        """Rank all items for all users of ``split`` and measure the rankings.

        Args:
            model: A fitted model, on any device; it is in its former mode afterwards.
            graph: The graph it was fitted on, split.
            split: ``"valid"`` (the model is told train) or ``"test"`` (train and valid).

        Raises:
            ArgumentError: Another split or one without items, a model of another catalogue, or NaN scores.
            GraphError: The graph has not been split.
        """
        start = time.perf_counter()
        history, relevant, users = told_and_asked(model, graph, split)
        ranking = self._rank(model, history, relevant, users)
        per_user: dict[str, Tensor] = {}
        metrics: dict[str, float] = {}
        for name, (metric, parameter) in self.metrics.items():
            value = metric.compute(ranking) if parameter is None else metric.compute(ranking, parameter)
            if metric.scope == "user":
                per_user[name] = value
            metrics[name] = float(value.mean())
        return Evaluation(
            metrics, per_user, users, graph.num_users - users.numel(), seconds=time.perf_counter() - start
        )

    def _rank(self, model: Recommender, history: Histories, relevant: Histories, users: Tensor) -> Ranking:
        """Score all users once, and keep what the metrics need of it, on the CPU."""
        chosen = self.metrics.values()
        # A list has no more places than there are items, however long it may be.
        depth = min(max(metric.depth(parameter) for metric, parameter in chosen), model.num_items)
        needs_scores = any(metric.needs_scores for metric, _ in chosen)
        needs_labels = any(metric.needs_labels for metric, _ in chosen)
        num_relevant = relevant.lengths[users]
        # Results go to memory taken beforehand: small pieces kept between the blocks of scores would split the heap,
        # so that the next block no longer fits where the last one was.
        items = torch.empty(len(users), depth, dtype=torch.int64)
        places = torch.empty(2, int(num_relevant.sum()) if needs_scores else 0, dtype=torch.int64)
        asked = with_untaken(history, relevant, model.num_items) if needs_labels else None
        left_out = self._left_out(model.num_items)
        labelled = torch.empty(2, 0 if asked is None else asked[0].items.numel(), dtype=torch.float64)
        row = pair = label = 0
        for part, batch, scores in score_batches(model, history, users, self.batch_size):
            if left_out is not None:
                # A copy, since a model may hand out its own memory.
                scores = scores.masked_fill(left_out.to(scores.device), -math.inf)
            items[row : row + len(part)] = best(model, scores, depth, batch, self.seed)[0]
            row += len(part)
            if needs_scores:
                wanted = relevant.select(part).to(scores.device)
                places[:, pair : pair + wanted.items.numel()] = _place(scores, batch, wanted)
                pair += wanted.items.numel()
            if asked is not None:
                sides = [side.select(part).to(scores.device) for side in asked]
                size = sides[0].items.numel()
                for into, side in zip(labelled, sides, strict=True):
                    into[label : label + size] = scores[side.rows, side.items]
                label += size
        placed = None
        if needs_scores:
            rows = torch.repeat_interleave(torch.arange(len(users)), num_relevant)
            placed = RelevantScores(rows, places[0], places[1], model.num_items - history.lengths[users])
        popularity = torch.bincount(history.items, minlength=model.num_items)
        hits = _hits(items, users, relevant, model.num_items)
        labels = None
        if needs_labels:
            half = 0.0 if model.logits else None  # the score of a probability of 1/2
            labels = LabelledScores(labelled[0], labelled[1], half)
        return Ranking(items, hits, num_relevant, popularity, placed, labels)

    def _left_out(self, num_items: int) -> Tensor | None:
        if self.candidates is None:
            return None
        left_out = torch.ones(num_items, dtype=torch.bool)
        if isinstance(self.candidates, int):
            check_range("candidates", self.candidates, high=num_items)
            left_out[: self.candidates] = False
        else:
            check_range("candidates", max(self.candidates), high=num_items - 1)
            left_out[list(self.candidates)] = False
        return left_out


def _hits(items: Tensor, users: Tensor, relevant: Histories, num_items: int) -> Tensor:
    """Return which of the listed items are relevant to the user of their row."""
    # A (user, item) pair is one number; looking up all of them in the sorted relevant ones finds the hits.
    pairs = (relevant.rows * num_items + relevant.items).sort().values
    wanted = users[:, None] * num_items + items
    found = torch.searchsorted(pairs, wanted).clamp_(max=pairs.numel() - 1)
    return (pairs[found] == wanted) & (items >= 0)


def _place(scores: Tensor, seen: Histories, relevant: Histories) -> Tensor:
    """Count the candidates above each relevant item and those tied with it, int64 ``[2, num_pairs]``."""
    candidates = without_seen(scores, seen)
    rows, own = relevant.rows, scores[relevant.rows, relevant.items]
    num_pairs, num_items = len(rows), scores.size(1)
    above, from_here = (torch.empty(num_pairs, dtype=torch.int64, device=scores.device) for _ in range(2))
    chunk = max(1, PLACING_CHUNK // num_items)
    # Counts as sums of floats, exact up to 2^24: several times faster on a CPU than sums of bools.
    dtype = torch.float32 if num_items < 2**24 and scores.dtype != torch.float64 else torch.float64
    compared = torch.empty(min(chunk, num_pairs), num_items, dtype=dtype, device=scores.device)
    for start in range(0, num_pairs, chunk):
        part = slice(start, start + chunk)
        others, value = candidates.index_select(0, rows[part]), own[part, None]
        into = compared[: len(others)]
        above[part] = torch.gt(others, value, out=into).sum(dim=1).long()
        from_here[part] = torch.ge(others, value, out=into).sum(dim=1).long()
    # An item that the model scores -inf ties with the others it scores so, not with the seen ones.
    from_here -= torch.where(own == -math.inf, seen.lengths[rows], 0)
    return torch.stack([above, from_here - above])
