"""Measure what a head over the match of user and item is worth, and what it costs.

python scripts/measure_head.py ml-100k --side age,gender,occupation,hour --seeds 2

Trains InductiveKGAT with the committed settings of the data set on the training part: the plain product, and with each
head, without and with side features. All are ranked on the validation part, never on test. Differences are paired over
users (mean over seeds). Seconds to rank all users are the least of a few rounds in which the models take turns;
on a busy machine only their ratios count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from graphrec.cli import guarded
from graphrec.evaluation import paired_bootstrap_rows, rank_all
from graphrec.experiment.build import build_evaluator, build_model
from graphrec.experiment.config import ModelConfig
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.process import settle_process
from graphrec.training import Trainer
from kg_loaders import RecGraph

PLAIN = "plain product"


def settings(heads: Sequence[str], side: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the options of each row.

    Example:
        >>> [name for name, _ in settings(["mlp"], ["age", "hour"])]
        ['plain product', 'mlp', 'mlp, age, hour']
    """
    yield PLAIN, {"head": None, "side_features": ()}
    for head in heads:
        yield head, {"head": head, "side_features": ()}
        if side:
            yield ", ".join([head, *side]), {"head": head, "side_features": tuple(side)}


def ranking_seconds(models: dict[str, Recommender], graph: RecGraph, rounds: int) -> dict[str, float]:
    """Return the least seconds in which each model ranks for all users, 20 items each."""
    known = Histories.from_interactions(graph.part("train"), graph.num_users)
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            for _ in rank_all(model, known, 20, known):
                pass
            taken[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in taken.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    epilog = "also --train.OPTION, and --model.OPTION, as in graphrec train"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=epilog)
    parser.add_argument("dataset", help="a known name, or a folder")
    parser.add_argument("--heads", default="mlp", help="with commas: mlp, gru (default: %(default)s)")
    parser.add_argument("--side", default="", help="side features, with commas (default: none)")
    parser.add_argument("--seeds", type=int, default=2, help="(default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="of ranking for all users (default: 5)")
    parser.add_argument("--metrics", default="ndcg@10,ndcg@20", help="with commas (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print for machines")
    arguments, options = parser.parse_known_args(argv)
    metrics = arguments.metrics.split(",")
    side = [name for name in arguments.side.split(",") if name]

    config = read_options(["--model", "InductiveKGAT", *options], arguments.dataset).config
    measured = dict.fromkeys([config.train.select_by, *metrics])
    config = replace(config, train=config.train.without_refit(), eval=replace(config.eval, metrics=tuple(measured)))
    graph = load_graph(config.data)
    config = resolve(config, graph)
    graph = prepare(graph, config)

    values: dict[str, list[dict[str, Tensor]]] = {}
    epochs: dict[str, list[float]] = {}
    models: dict[str, Recommender] = {}
    for seed in range(arguments.seeds):
        for name, own in settings(arguments.heads.split(","), side):
            run = replace(config, seed=seed, model=ModelConfig("InductiveKGAT", {**config.model.options, **own}))
            models[name] = model = build_model(run, graph)
            result = Trainer(run.train, seed=seed).fit(model, graph, build_evaluator(run))
            epochs.setdefault(name, []).extend(record["seconds"] for record in result.history)
            found = build_evaluator(run).evaluate(model, graph, split="valid")
            values.setdefault(name, []).append(found.per_user)
    seconds = ranking_seconds(models, graph, arguments.rounds)
    means = {
        name: {metric: torch.stack([own[metric] for own in runs]).double().mean(dim=0) for metric in metrics}
        for name, runs in values.items()
    }
    tests = {}
    for metric in metrics:
        others = {name: found[metric] for name, found in means.items() if name != PLAIN}
        tests[metric] = paired_bootstrap_rows(others, means[PLAIN][metric])
    rows = [
        {
            "row": name,
            **{metric: float(found[metric].mean()) for metric in metrics},
            "by_seed": {metric: [float(run[metric].double().mean()) for run in values[name]] for metric in metrics},
            "tests": {metric: tests[metric][name]._asdict() for metric in metrics if name != PLAIN},
            "seconds_an_epoch": statistics.median(epochs[name]),
            "seconds_to_rank": seconds[name],
        }
        for name, found in means.items()
    ]
    if arguments.json:
        print(json.dumps({"dataset": arguments.dataset, "config": asdict(config.train), "rows": rows}))
        return
    print(f"\n{arguments.dataset}, validation part, {len(means[PLAIN][metrics[0]])} users, {arguments.seeds} seeds\n")
    print(" ".join([f"{'':<34}", *(f"{metric:>9}" for metric in metrics), "s/epoch", "s to rank all"]))
    for row in rows:
        figures = [*(f"{row[metric]:9.4f}" for metric in metrics), f"{row['seconds_an_epoch']:7.2f}"]
        print(" ".join([f"{row['row']:<34}", *figures, f"{row['seconds_to_rank']:13.3f}"]))
    for metric in metrics:
        for name, test in tests[metric].items():
            print(
                f"{metric}: {name} - {PLAIN}: {test.difference:+.4f} [{test.low:.4f}, {test.high:.4f}], "
                f"p = {test.p_value:.3f} (Holm {test.p_holm:.3f})"
            )


if __name__ == "__main__":
    settle_process()
    sys.exit(guarded(main))
