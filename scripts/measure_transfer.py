"""What a source domain is worth to users whom the target does not know, and under a published sampled protocol.

python scripts/measure_transfer.py disencdr-sport-phone disencdr-phone-sport --on user --cold 0.2 --seeds 5

A share of the target's users loses the target history; as many others are cold in validation alone, and the rest train
as ever. Cold and warm users are measured by each setting on the target's test items, all target items ranked, and by
HR@10 among 999 sampled items. ``graphrec transfer --cold-share`` compares settings on one draw of cold users.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch

from graphrec.cli import guarded
from graphrec.evaluation import combined_interval, evaluate_sampled
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options
from graphrec.experiment.transfer import COMPARATORS, SETTINGS, TransferStudy, cold_split
from kg_loaders import link, load

METRIC = "ndcg@10"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row a setting: NDCG@10 of cold and warm users, and the figures among sampled items."""
    epilog = "also --train.OPTION, and --model.OPTION, as in graphrec train"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=epilog)
    parser.add_argument("source", help="known data set or folder")
    parser.add_argument("target", help="known data set or folder")
    parser.add_argument("--on", default="user", help="what the two share (default: user)")
    parser.add_argument("--settings", default="popularity,ease-union,target-only,joint", help="separated by commas")
    parser.add_argument("--cold", type=float, default=0.2, help="share of the test users without a target history")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of models and of who is cold")
    chosen, options = parser.parse_known_args(arguments)
    names = chosen.settings.split(",")
    if unknown := set(names) - {*SETTINGS, *COMPARATORS}:
        parser.error(
            f"--settings must be out of {', '.join((*SETTINGS, *COMPARATORS))}, got {', '.join(sorted(unknown))}"
        )
    if not 0 <= chosen.cold < 1:
        parser.error(f"--cold must be at least 0 and below 1, got {chosen.cold}")

    config = read_options(["--model", "CrossDomainKGAT", *options], chosen.target).config
    given = dict(config.model.options)
    graph = load_graph(config.data)
    config = resolve(config, graph)
    pair = link(load(chosen.source), prepare(graph, config), on=chosen.on)
    print(pair.summary(), file=sys.stderr)
    found: dict[str, list[torch.Tensor]] = {f"{name} {part}": [] for name in names for part in ("cold", "warm")}
    sampled: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(chosen.seeds):
        chilled, cold = cold_split(pair, chosen.cold, seed) if chosen.cold else (pair, np.empty(0, dtype=np.int64))
        study = TransferStudy(chilled, config.train, given)
        for name in names:
            fitted = study.fit(name, seed)
            measured = study.evaluator([METRIC], seed).evaluate(fitted.model, fitted.graph, split="test")
            is_cold = torch.from_numpy(np.isin(measured.users.numpy(), cold))
            for part, mask in (("cold", is_cold), ("warm", ~is_cold)):
                found[f"{name} {part}"].append(measured.per_user[METRIC][mask])
            candidates = pair.target.num_items
            sampled[name].append(evaluate_sampled(fitted.model, fitted.graph, candidates=candidates, seed=seed))
            print(f"seed {seed}, {name}: done", file=sys.stderr, flush=True)
    print(f"{METRIC}, {chosen.seeds} seeds; mean and, over the users of all seeds, 95 % interval")
    for key, values in found.items():
        users = torch.cat(values)
        if len(users) > 1:
            mean, low, high = combined_interval([users], 2_000)
            print(f"{key:24s} {mean:.4f} [{low:.4f}, {high:.4f}]  {len(users)} users")
    for name, figures in sampled.items():
        means = {key: np.mean([figure[key] for figure in figures]) for key in figures[0]}
        print(f"{name:24s} " + "  ".join(f"{key} {value:.4f}" for key, value in means.items()))


if __name__ == "__main__":
    sys.exit(guarded(main))
