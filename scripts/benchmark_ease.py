"""Measure EASE: seconds to fit, peak memory, and the validation figures of each λ.

nice -n 10 python scripts/benchmark_ease.py alibaba-ifashion --l2 200
python scripts/benchmark_ease.py ml-100k --l2 10 100 1000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from graphrec.cli import guarded
from graphrec.evaluation import Evaluator
from graphrec.experiment.runner import peak_memory_mb
from graphrec.histories import Histories
from graphrec.models import EASE
from kg_loaders import RecGraph, load
from kg_loaders.splits import carve_valid, random_split

METRICS = ("recall@20", "ndcg@20")


def split(graph: RecGraph, seed: int) -> RecGraph:
    """Carve a tenth of each user's train items out for validation; split at random what has no split."""
    if graph.interactions.split is None:
        return random_split(graph, seed=seed)
    return graph if graph.has_split("valid") else carve_valid(graph, 0.1, seed)


def measure(graph: RecGraph, l2: list[float]) -> dict[str, Any]:
    """Fit once for each λ and evaluate on validation."""
    histories = Histories.from_interactions(graph.part("train"), graph.num_users)
    evaluator = Evaluator(METRICS)
    model = EASE.from_graph(graph, l2=l2)
    trials: list[dict[str, float]] = []
    clock = time.perf_counter()

    def validate() -> float:
        nonlocal clock
        fitted = time.perf_counter() - clock
        valid = evaluator.evaluate(model.eval(), graph, split="valid")
        trials.append(
            {"l2": model.chosen_l2, **valid.metrics, "seconds_fit": fitted, "seconds_evaluate": valid.seconds}
        )
        clock = time.perf_counter()
        return valid.metrics["ndcg@20"]

    model.fit(histories, validate)
    if not trials:  # a single λ is nothing to choose
        validate()
    return {
        "num_users": graph.num_users,
        "num_items": graph.num_items,
        "num_pairs": len(graph.part("train")),
        "trials": trials,
        "chosen_l2": model.chosen_l2,
        "peak_memory_mb": peak_memory_mb(),
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a known name, or a folder")
    parser.add_argument("--l2", type=float, nargs="+", default=[200.0])
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(split(load(arguments.dataset), arguments.seed), arguments.l2)
    if arguments.json:
        print(json.dumps(result))
        return
    for trial in result.pop("trials"):
        print("  ".join(f"{name} {value:.4f}" if value < 1 else f"{name} {value:.1f}" for name, value in trial.items()))
    for name, value in result.items():
        print(f"{name:16s} {value:.0f}")


if __name__ == "__main__":
    sys.exit(guarded(main))
