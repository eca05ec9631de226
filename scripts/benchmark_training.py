"""Train ours beside RecBole's KG models and KGIN's own code: seconds an epoch, and seconds to the same quality.

git clone https://github.com/RUCAIBox/RecBole ~/RecBole && pip install colorlog colorama texttable
git clone https://github.com/huangtinglin/Knowledge_Graph_based_Intent_Network ~/KGIN && pip install prettytable
python scripts/benchmark_training.py ml-100k --recbole ~/RecBole --kgin ~/KGIN --seconds 900
python scripts/benchmark_training.py alibaba-ifashion --recbole ~/RecBole --kgin ~/KGIN --steps 5

All see one split, one knowledge graph and one evaluator: ours, on the validation part, among all items. A peer trains
with its own trainer and its own defaults (KGIN's: those of its README) until its value has not risen for ``--patience``
evaluations or ``--seconds`` are spent; evaluation is not timed. Ours trains as its committed configuration says, and
the ratio compares the training seconds until it reaches the best value that the peer ever had. Where ranking is slow,
as by KGCN, which makes each item's vector anew for each user, ``--users`` and ``--every`` evaluate fewer users and less
often. Where an epoch of a peer takes hours, ``--steps`` times that many of its steps after one that is not counted, and
scales them to an epoch (of RecBole's KGAT only the steps over pairs are counted, those over triples are left out); its
quality is then unknown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from training_peers import KGINPeer, Peer, RecBolePeer

from graphrec.evaluation import Evaluator
from graphrec.experiment import RunConfig
from graphrec.experiment.build import build_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options
from graphrec.models.base import Recommender
from graphrec.training import Trainer
from graphrec.training.result import few_valid_users
from kg_loaders import RecGraph

RECBOLE_MODELS = ("KGCN", "CFKG")  # KGAT is there too, but needs DGL

Judge = Callable[[Recommender, RecGraph], float]


@dataclass
class Training:
    """What became of one training: ``points`` are (training seconds so far, value on validation).

    ``seconds_per_epoch`` is scaled from some steps where there are no points.
    """

    name: str
    seconds_per_epoch: float
    points: list[tuple[float, float]] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """The best value on validation; ``None`` where none was measured."""
        return max((value for _, value in self.points), default=None)

    def seconds_to(self, wanted: float) -> float | None:
        """Return the training seconds until ``wanted`` was reached, if it was."""
        return next((seconds for seconds, value in self.points if value >= wanted), None)


def train_peer(
    name: str, peer: Peer, graph: RecGraph, judge: Judge, seconds: float, patience: int, every: int = 1
) -> Training:
    """Train until the value, taken after each ``every`` epochs, stops rising or the time is up."""
    training, spent, since_best = Training(name, 0.0), 0.0, 0
    while spent < seconds and since_best < patience:
        start = time.perf_counter()
        for _ in range(every):
            peer.epoch()
        spent += time.perf_counter() - start
        value = judge(peer, graph)
        since_best = 0 if training.best is None or value > training.best else since_best + 1
        training.points.append((spent, value))
        epochs = every * len(training.points)
        training.seconds_per_epoch = spent / epochs
        print(f"  {name:12s} epoch {epochs:3d}  {spent:7.1f} s  {value:.4f}", file=sys.stderr, flush=True)
    return training


def time_steps(name: str, peer: Peer, steps: int) -> Training:
    """Time some steps and scale them to an epoch."""
    ends = peer.epoch(at_most=steps + 1)
    return Training(name, (ends[-1] - ends[0]) / steps * peer.num_steps)


def train_ours(config: RunConfig, graph: RecGraph) -> Training:
    """Train as the configuration says, with a validation after each epoch."""
    model = build_model(config, graph)
    trainer = Trainer(replace(config.train.without_refit(), eval_every=1), seed=config.seed, quiet=True)
    evaluator = Evaluator([config.train.select_by], seed=config.seed)
    result = trainer.fit(model, graph, evaluator)
    training, spent = Training(config.model.name, 0.0), 0.0
    for record in result.history:
        spent += record["seconds"]
        training.points.append((spent, record["valid"][config.train.select_by]))
    training.seconds_per_epoch = spent / len(training.points)
    return training


def as_row(training: Training, ours: Training) -> dict[str, Any]:
    """Return a training's figures, and how long ours took to the training's best value."""
    row: dict[str, Any] = {**asdict(training), "best": training.best, "ratio": None, "ours_to_its_best": None}
    if training.best is not None:
        row["seconds_to_best"] = training.seconds_to(training.best)
        row["ours_to_its_best"] = ours.seconds_to(training.best)
        if row["ours_to_its_best"] is not None:
            row["ratio"] = row["seconds_to_best"] / row["ours_to_its_best"]
    return row


def show(row: dict[str, Any], ours: Training, metric: str) -> str:
    """Return a line of the table."""
    times = row["seconds_per_epoch"] / ours.seconds_per_epoch
    line = f"{row['name']:14s} {row['seconds_per_epoch']:9.1f} s an epoch ({times:.1f}x ours)"
    if row["best"] is None:
        return line + ", scaled from some steps; its quality was not measured"
    line += f"  best {metric} {row['best']:.4f} after {row['seconds_to_best']:.0f} s of training"
    if row["name"] == ours.name:
        return line
    if row["ratio"] is None:
        return line + ", which ours did not reach"
    return line + f", ours after {row['ours_to_its_best']:.1f} s: {row['ratio']:.0f} times as fast"


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default="ml-100k", help="a data set with a committed configuration")
    parser.add_argument("--recbole", type=Path, metavar="FOLDER", help="a clone of RecBole")
    parser.add_argument("--models", nargs="+", default=RECBOLE_MODELS, help="RecBole's models")
    parser.add_argument("--kgin", type=Path, metavar="FOLDER", help="a clone of KGIN's authors' code")
    parser.add_argument("--ours", default="InductiveKGAT", help="our model")
    parser.add_argument("--seconds", type=float, default=900.0, help="the most that a peer may train")
    parser.add_argument("--patience", type=int, default=5, help="evaluations without a rise that end a peer's training")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="evaluate a peer after each N epochs")
    parser.add_argument("--users", type=int, default=0, metavar="N", help="evaluate N validation users, not all")
    parser.add_argument("--steps", type=int, metavar="N", help="only time N steps of each peer")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows here")
    options = parser.parse_args(arguments)
    if options.recbole is None and options.kgin is None:
        parser.error("give --recbole or --kgin, or both: the folders of the peers' code")
    if options.every < 1 or options.users < 0:
        parser.error("--every must be at least 1, and --users at least 0, which means all")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # the peers' code is older than the libraries here
    config = read_options(["--model", options.ours], options.data).config
    graph = load_graph(config.data)
    config = resolve(config, graph)
    graph = few_valid_users(prepare(graph, config), options.users)
    metric = config.train.select_by
    evaluator = Evaluator([metric])

    def judge(model: Recommender, graph: RecGraph) -> float:
        model.eval()
        with torch.no_grad():
            return evaluator.evaluate(model, graph, split="valid").metrics[metric]

    if options.steps is not None:  # what an epoch costs is seen after two
        config = replace(config, train=replace(config.train, epochs=2, valid_users=1000))
    ours = train_ours(config, graph)
    makers = {}
    if options.recbole is not None:
        makers |= {name: partial(RecBolePeer, graph, options.recbole, name) for name in options.models}
    if options.kgin is not None:
        makers["KGIN"] = partial(KGINPeer, graph, options.kgin)
    rows = [as_row(ours, ours)]
    print(show(rows[0], ours, metric), flush=True)
    for name, make in makers.items():
        peer = make()
        if options.steps is not None:
            training = time_steps(name, peer, options.steps)
        else:
            training = train_peer(name, peer, graph, judge, options.seconds, options.patience, options.every)
        rows.append(as_row(training, ours))
        print(show(rows[-1], ours, metric), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
