"""Ranking and catalogue metrics, one file each."""

from graphrec.errors import ArgumentError, check_choice
from graphrec.evaluation.metrics.auc import auc
from graphrec.evaluation.metrics.base import LabelledScores, Metric, Ranking, RelevantScores
from graphrec.evaluation.metrics.coverage import coverage
from graphrec.evaluation.metrics.ctr_auc import ctr_auc
from graphrec.evaluation.metrics.ctr_f1 import ctr_f1
from graphrec.evaluation.metrics.f1 import f1
from graphrec.evaluation.metrics.gini import gini
from graphrec.evaluation.metrics.hit_rate import hit_rate
from graphrec.evaluation.metrics.map import mean_average_precision
from graphrec.evaluation.metrics.mrr import mrr
from graphrec.evaluation.metrics.ndcg import ndcg
from graphrec.evaluation.metrics.ndcg_kgat import RETRIEVED, ndcg_kgat
from graphrec.evaluation.metrics.novelty import novelty
from graphrec.evaluation.metrics.personalization import personalization
from graphrec.evaluation.metrics.pr_curve import LEVELS, pr_auc, pr_curve
from graphrec.evaluation.metrics.precision import precision
from graphrec.evaluation.metrics.recall import recall

METRICS: dict[str, Metric] = {
    "auc": Metric(auc, parameter=None),
    "coverage": Metric(coverage, scope="catalogue"),
    "ctr_auc": Metric(ctr_auc, parameter=None, scope="catalogue", needs_labels=True),
    "ctr_f1": Metric(ctr_f1, parameter=None, scope="catalogue", needs_labels=True),
    "f1": Metric(f1),
    "gini": Metric(gini, scope="catalogue"),
    "hit_rate": Metric(hit_rate),
    "map": Metric(mean_average_precision),
    "mrr": Metric(mrr),
    "ndcg": Metric(ndcg),
    "ndcg_kgat": Metric(ndcg_kgat, least_depth=RETRIEVED),
    "novelty": Metric(novelty, scope="catalogue"),
    "personalization": Metric(personalization, scope="catalogue"),
    "pr_auc": Metric(pr_auc, parameter=None),
    "pr_curve": Metric(pr_curve, parameter="level"),
    "precision": Metric(precision),
    "recall": Metric(recall),
}
"""All metrics by the name that stands before the ``@``."""


def expand(name: str) -> list[str]:
    """Return the full names that ``name`` stands for: itself, or the eleven points of ``"pr_curve"``."""
    return [f"pr_curve@{level}" for level in LEVELS] if name == "pr_curve" else [name]


def parse(name: str) -> tuple[Metric, int | float | None]:
    """Return the metric and the parameter that a name like ``"recall@20"``, ``"pr_curve@0.5"`` or ``"auc"`` means.

    Raises:
        ArgumentError: No such metric, or a parameter that is missing, not wanted or out of range.

    Example:
        >>> parse("recall@20")[1], parse("pr_curve@0.5")[1], parse("auc")[1]
        (20, 0.5, None)
    """
    base, at, text = name.partition("@")
    check_choice("metric", base, METRICS)
    metric = METRICS[base]
    if metric.parameter is None:
        if at:
            raise ArgumentError(f"metric {base!r} takes no parameter, got {name!r}")
        return metric, None
    if metric.parameter == "k":
        if text.isascii() and text.isdecimal() and int(text) >= 1:
            return metric, int(text)
        raise ArgumentError(f"metric {base!r} needs a cut-off >= 1 such as '{base}@20', got {name!r}")
    try:
        level = float(text)
    except ValueError:
        level = -1.0
    if not 0 <= level <= 1:
        raise ArgumentError(f"metric {base!r} needs a recall level within 0..1 such as '{base}@0.5', got {name!r}")
    return metric, level


__all__ = [
    "LEVELS",
    "METRICS",
    "LabelledScores",
    "Metric",
    "Ranking",
    "RelevantScores",
    "auc",
    "coverage",
    "ctr_auc",
    "ctr_f1",
    "expand",
    "f1",
    "gini",
    "hit_rate",
    "mean_average_precision",
    "mrr",
    "ndcg",
    "ndcg_kgat",
    "novelty",
    "parse",
    "personalization",
    "pr_auc",
    "pr_curve",
    "precision",
    "recall",
]
