"""Full-ranking evaluation: top-k, metrics, intervals and tests."""

from graphrec.evaluation.evaluator import DEFAULT_METRICS, Evaluation, Evaluator
from graphrec.evaluation.fidelity import Fidelity, agreement, fidelity
from graphrec.evaluation.metrics import METRICS, Metric
from graphrec.evaluation.ranking import rank_all
from graphrec.evaluation.significance import (
    Interval,
    PairedTest,
    combined_interval,
    holm,
    paired_bootstrap,
    paired_bootstrap_rows,
    seed_interval,
    user_interval,
)
from graphrec.evaluation.topk import top_k

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Evaluation",
    "Evaluator",
    "Fidelity",
    "Interval",
    "Metric",
    "PairedTest",
    "agreement",
    "combined_interval",
    "fidelity",
    "holm",
    "paired_bootstrap",
    "paired_bootstrap_rows",
    "rank_all",
    "seed_interval",
    "top_k",
    "user_interval",
]
