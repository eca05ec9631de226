"""Measure the full-ranking evaluator: seconds and peak memory for a factor model on a set of iFashion's size.

python scripts/benchmark_evaluation.py --dim 128 --repeats 3
python scripts/benchmark_evaluation.py --model popularity --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any, Self

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from graphrec.evaluation import Evaluator
from graphrec.evaluation.ranking import default_batch_size, score_batches
from graphrec.experiment.runner import peak_memory_mb
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from kg_loaders import Interactions, RecGraph, Vocabulary

METRICS = ("recall@20", "ndcg@20", "mrr@20", "coverage@20")
TRAIN, TEST = 0, 2


class Factors(Recommender):
    """A user vector times all item vectors: what any model of inner products costs."""

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__(num_items)
        self.users = torch.nn.Parameter(torch.randn(num_users, dim))
        self.items = torch.nn.Parameter(torch.randn(num_items, dim))

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model of the graph's size."""
        return cls(graph.num_users, graph.num_items, **options)

    def score(self, histories: Histories) -> Tensor:
        """Return inner products."""
        assert histories.user_index is not None
        return self.users[histories.user_index] @ self.items.T


class Tied(Recommender):
    """The same scores for everybody: item counts, or one constant; the worst case of ties."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__(scores.numel())
        self.register_buffer("scores", scores)

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Count the training interactions of each item, or score all alike where ``constant``."""
        counts = torch.bincount(torch.from_numpy(graph.part("train").item), minlength=graph.num_items).float()
        return cls(torch.zeros_like(counts) if options["constant"] else counts)

    def score(self, histories: Histories) -> Tensor:
        """Return the scores once a user."""
        scores = self.get_buffer("scores")
        return scores.expand(len(histories), -1)


def synthetic(num_users: int, num_items: int, per_user: int, seed: int = 0) -> RecGraph:
    """Draw ``per_user`` distinct items a user, popular ones more often; about a fifth of them are test items."""
    rng = np.random.default_rng(seed)
    item = (num_items * rng.random((num_users, per_user)) ** 2).astype(np.int64)
    pairs = np.unique(np.arange(num_users)[:, None] * num_items + item)
    user, item = np.divmod(pairs, num_items)
    split = np.where(rng.random(len(pairs)) < 0.2, TEST, TRAIN).astype(np.int8)
    split[np.unique(user, return_index=True)[1]] = TEST  # so that everybody has one
    return RecGraph(
        users=Vocabulary.from_range(num_users, "user"),
        entities=Vocabulary.from_range(num_items, "entity"),
        num_items=num_items,
        interactions=Interactions(user, item, split=split),
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the evaluator and, apart, the scores alone; return medians and peak memory."""
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    graph = synthetic(arguments.users, arguments.items, arguments.per_user)
    model: Recommender = (
        Factors.from_graph(graph, dim=arguments.dim)
        if arguments.model == "factors"
        else Tied.from_graph(graph, constant=arguments.model == "constant")
    )
    histories = Histories.from_interactions(graph.part("train"), graph.num_users)
    evaluator = Evaluator(arguments.metrics, batch_size=arguments.batch_size)
    scoring, total = [], []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        for _ in score_batches(model, histories, None, arguments.batch_size):
            pass
        scoring.append(time.perf_counter() - start)
        evaluation = evaluator.evaluate(model, graph, split="test")
        total.append(evaluation.seconds)
    return {
        "model": arguments.model,
        "dim": arguments.dim,
        "num_users": len(evaluation.users),
        "num_items": graph.num_items,
        "threads": arguments.threads,
        "batch_size": arguments.batch_size or default_batch_size(graph.num_items, torch.device("cpu")),
        "seconds_scores_only": statistics.median(scoring),
        "seconds": statistics.median(total),
        "seconds_fastest": min(total),
        "seconds_slowest": max(total),
        "peak_memory_mb": peak_memory_mb(),
        "metrics": evaluation.metrics,
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("factors", "popularity", "constant"), default="factors")
    parser.add_argument("--users", type=int, default=114_737)
    parser.add_argument("--items", type=int, default=30_040)
    parser.add_argument("--per-user", type=int, default=15, help="interactions a user, train and test together")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:20s} {value:.2f}" if isinstance(value, float) else f"{name:20s} {value}")


if __name__ == "__main__":
    main()
