"""Measure how well strangers are served after their first few items.

python scripts/measure_short_histories.py ml-1m --models EASE,InductiveKGAT

A tenth of the users become strangers: all they took leaves the training part. Each is asked about by the first 0, 1, 2,
5 items they took (in order of time, or in a random order with --order random and where none is known), and everything
they took after the longest of these is what is looked for: the same question with more and more known. Users who took
no more are left out and counted. Settings are the committed ones of the data set, and --model.OPTION is for the last
model. With --part valid the strangers are users who are none in a test draw: choose options by these. Where its head
reads attributes of users (--model.head mlp --model.side_features [age]), it has a second row: that of strangers of whom
these are known.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from graphrec.cli import guarded
from graphrec.evaluation.topk import top_k
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.config import resolve_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options, split_model_options
from graphrec.histories import Histories
from graphrec.models import MODELS, InductiveKGAT
from graphrec.models.base import Recommender
from graphrec.process import settle_process
from graphrec.training import Trainer
from kg_loaders import SPLITS, RecGraph


def draw_strangers(num_users: int, share: float, seed: int, spared: np.ndarray | None = None) -> np.ndarray:
    """Return that share of the users, drawn from those that are not ``spared``, ascending."""
    users = np.arange(num_users)
    left = users if spared is None else np.setdiff1d(users, spared)
    return np.sort(np.random.default_rng(seed).choice(left, min(len(left), round(share * num_users)), replace=False))


def make_strangers(
    graph: RecGraph, share: float, seed: int, spared: np.ndarray | None = None
) -> tuple[RecGraph, np.ndarray]:
    """Move all interactions of some users into the test part, and all others out of it; return those users too."""
    strangers = draw_strangers(graph.num_users, share, seed, spared)
    assert graph.interactions.split is not None  # `prepare` splits
    split = graph.interactions.split.copy()
    strange = np.isin(graph.interactions.user, strangers)
    split[~strange & (split == SPLITS.index("test"))] = SPLITS.index("train")
    split[strange] = SPLITS.index("test")
    return graph.with_split(split), strangers


def first_items(
    graph: RecGraph, strangers: np.ndarray, longest: int, seed: int, order: str = "time"
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Return what each stranger with more than ``longest`` items took first, what after that, and who they are."""
    rng = np.random.default_rng(seed)
    part = graph.part("test")
    bounds = np.searchsorted(part.user, np.arange(graph.num_users + 1))
    shown, wanted, users = [], [], []
    for user in strangers:
        items = part.item[bounds[user] : bounds[user + 1]]
        if len(items) > longest:
            items = items if order == "time" and part.time is not None else rng.permutation(items)
            shown.append(items[:longest].tolist())
            wanted.append(items[longest:].tolist())
            users.append(int(user))
    return shown, wanted, users


def ndcg(
    model: Recommender,
    shown: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    n: int,
    k: int,
    users: Sequence[int] | None = None,
) -> float:
    """Return the mean NDCG at ``k`` over strangers of whom the first ``n`` items are known; none shown is returned.

    With ``users`` it is also known who they are, so that their attributes count.
    """
    known = Histories.from_lists([row[:n] for row in shown], users)
    with torch.no_grad():
        found, _ = top_k(model.score(known), k, Histories.from_lists(shown))
    gain = 1 / torch.log2(torch.arange(2, k + 2).double())
    values = []
    for row, items in zip(found.tolist(), wanted, strict=True):
        hits = torch.tensor([item in set(items) for item in row]).double()
        values.append(float((hits * gain[: len(hits)]).sum() / gain[: min(k, len(items))].sum()))
    return statistics.mean(values)


def main() -> None:
    """Read the command line, measure, print."""
    epilog = "also --train.OPTION, and --model.OPTION of the last model, as in graphrec train"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=epilog)
    parser.add_argument("dataset", help="a known name, or a folder")
    parser.add_argument("--models", default="Popularity,EASE,InductiveKGAT", help="with commas (default: %(default)s)")
    parser.add_argument("--lengths", default="0,1,2,5", help="of the histories (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="each draws its own strangers (default: 3)")
    parser.add_argument("--share", type=float, default=0.1, help="of users that become strangers (default: 0.1)")
    parser.add_argument("--order", choices=("time", "random"), default="time", help="of items (default: %(default)s)")
    parser.add_argument("--part", choices=("valid", "test"), default="test", help="of users (default: %(default)s)")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print for machines")
    arguments, options = parser.parse_known_args()
    shared, own = split_model_options(options)
    models = [resolve_model(name) for name in arguments.models.split(",")]
    lengths = [int(length) for length in arguments.lengths.split(",")]

    values: dict[str, list[list[float]]] = {}
    for seed in range(arguments.seeds):
        for name in models:
            config = read_options(
                ["--model", name, *shared, *(own if name == models[-1] else ())], arguments.dataset
            ).config
            config = replace(config, seed=seed, train=config.train.without_refit())
            graph = load_graph(config.data)
            config = resolve(config, graph)
            spared = None
            if arguments.part == "valid":
                draws = [draw_strangers(graph.num_users, arguments.share, s) for s in range(arguments.seeds)]
                spared = np.concatenate(draws)
            graph, strangers = make_strangers(prepare(graph, config), arguments.share, seed, spared)
            torch.manual_seed(seed)
            model = MODELS[name].from_graph(graph, **config.model.options)
            Trainer(config.train, seed=seed).fit(model, graph, build_evaluator(config))
            shown, wanted, users = first_items(graph, strangers, max(lengths), seed, arguments.order)
            rows: list[tuple[str, list[int] | None]] = [(name, None)]
            if isinstance(model, InductiveKGAT) and model.head is not None and model.head.knows_users:
                rows.append((f"{name}, attributes known", users))
            for row, who in rows:
                found = [ndcg(model, shown, wanted, length, arguments.k, who) for length in lengths]
                values.setdefault(row, []).append(found)
    if arguments.json:
        about = {"dataset": arguments.dataset, "part": arguments.part, "order": arguments.order, "k": arguments.k}
        print(json.dumps({**about, "lengths": lengths, "num_strangers": len(shown), "ndcg": values}))
        return
    left_out = len(strangers) - len(shown)
    print(f"\n{arguments.dataset}: ndcg@{arguments.k} of {len(shown)} strangers by the number of items known of them")
    print(f"({left_out} who took no more than {max(lengths)} are left out; mean over {arguments.seeds} seeds)")
    print(" ".join([f"{'':<32}", *(f"{length:>7}" for length in lengths)]))
    for name, runs in values.items():
        means = [statistics.mean(run[at] for run in runs) for at in range(len(lengths))]
        print(" ".join([f"{name:<32}", *(f"{mean:7.4f}" for mean in means)]))


if __name__ == "__main__":
    settle_process()
    sys.exit(guarded(main))
