"""Measure whether explanations are true: what they name is taken away, and the model is asked again.

python scripts/measure_explanations.py runs/A [runs/B ...] --users 200

For each run and a sample of its users, the best new item is explained by every method that fits the model, over the
past items and, where the model reads a knowledge graph, over its edges into past items and candidate. Beside them is
an order at random. The unit is what the whole history adds to the score. Runs that differ in nothing but the seed also
say how stable explanations are under training again: all of them explain the best item of the first. Users are those
with at least ten past items; the test part is not looked at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphrec.cli import guarded
from graphrec.evaluation.fidelity import agreement, fidelity
from graphrec.evaluation.significance import user_interval
from graphrec.experiment.folder import RunFolder
from graphrec.histories import Histories
from graphrec.models import InductiveKGAT
from graphrec.process import settle_process
from graphrec.serving.attribution import AttendedScore, kept_scores, leave_one_out
from graphrec.serving.explain import methods_of
from graphrec.serving.held_prior import with_held_prior
from graphrec.serving.recommender import RunRecommender

FEWEST_ITEMS = 10
TOP = 5  # reasons compared between seeds


class Explained(NamedTuple):
    """What can be taken away, the score of what is left, and the importance of each part by method."""

    kind: str
    score: Callable[[Tensor], Tensor]
    importances: dict[str, Tensor]
    added: float  # by the whole history to the score

    @property
    def size(self) -> int:
        """Number of parts."""
        return len(next(iter(self.importances.values())))


def explained(recommender: RunRecommender, histories: Histories, item: int) -> Iterator[Explained]:
    """Yield the past items and the KG edges."""
    # As in serving: that fewer items are known makes the charts louder, which is no item's doing.
    model = with_held_prior(recommender.model, histories.items.numel())
    importances: dict[str, Tensor] = {}
    parts = AttendedScore.of(model, histories, item) if isinstance(model, InductiveKGAT) else None
    for method in methods_of(model):
        if method == "leave-one-out":
            importances[method] = leave_one_out(model, histories, item)
        elif method == "contributions":
            with torch.no_grad():
                importances[method] = model.contributions(histories, item).double()
        else:
            importances[method] = parts.attention()
    score = partial(kept_scores, model, histories, item) if parts is None else parts.kept
    nothing, everything = score(torch.tensor([[False], [True]]).expand(2, histories.items.numel())).tolist()
    yield Explained("past items", score, importances, everything - nothing)
    if parts is None or not parts.num_past_edges + parts.num_candidate_edges:
        return
    near, far = torch.arange(parts.num_past_edges), torch.arange(parts.num_candidate_edges)
    none_near, none_far = torch.full_like(near, -1), torch.full_like(far, -1)
    left_out = parts.full - parts.without(torch.cat([near, none_far]), torch.cat([none_near, far]))
    attention = []
    if parts.past is not None:
        attention.append(parts.past.alpha.mean(dim=1) * parts.attention()[parts.past.row.long()])
    if parts.candidate is not None:
        attention.append(parts.candidate.alpha.mean(dim=1))
    by_edge = {"leave-one-out": left_out, "attention": torch.cat(attention).double()}
    yield Explained("KG edges", parts.kept_edges, by_edge, everything - nothing)


def measure(recommender: RunRecommender, users: Tensor, items: list[int], seed: int) -> dict[str, Any]:
    """Return by kind of part and method: each measure's mean and interval over users, and the users left out."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    left_out: dict[str, int] = defaultdict(int)
    sizes: dict[str, list[int]] = defaultdict(list)
    for user, item in zip(users.tolist(), items, strict=True):
        histories = recommender.known.select(torch.tensor([user]))
        for parts in explained(recommender, histories, item):
            if parts.added <= 0:  # the history speaks against the item, so there is no unit
                left_out[parts.kind] += 1
                continue
            sizes[parts.kind].append(parts.size)
            random = torch.rand(parts.size, generator=generator)
            for method, importance in {**parts.importances, "random": random}.items():
                found = fidelity(parts.score, importance, unit=parts.added)
                values[parts.kind][method].append(asdict(found))
    return {
        kind: {
            "num_users": len(sizes[kind]),
            "left_out": left_out[kind],
            "parts_per_user": sum(sizes[kind]) / len(sizes[kind]),
            "methods": {method: _summary(rows) for method, rows in methods.items()},
        }
        for kind, methods in values.items()
    }


def stability(recommenders: list[RunRecommender], users: Tensor, items: list[int]) -> dict[str, Any]:
    """Return by kind of part and method: mean rank correlation and overlap of the top over users and pairs of runs."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for user, item in zip(users.tolist(), items, strict=True):
        histories = recommenders[0].known.select(torch.tensor([user]))
        for same in zip(*(explained(recommender, histories, item) for recommender in recommenders), strict=True):
            for method in same[0].importances:
                each = [parts.importances[method] for parts in same]
                found[same[0].kind][method] += [agreement(*pair, k=TOP) for pair in itertools.combinations(each, 2)]
            # As expected, not drawn.
            found[same[0].kind]["random"].append((0.0, min(TOP, same[0].size) / same[0].size))
    return {
        kind: {
            method: dict(zip(("rank_correlation", f"top_{TOP}"), torch.tensor(rows).mean(dim=0).tolist(), strict=True))
            for method, rows in methods.items()
        }
        for kind, methods in found.items()
    }


def _summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    columns = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    intervals = {name: user_interval(column) for name, column in columns.items()}
    return {name: [interval.mean, interval.low, interval.high] for name, interval in intervals.items()}


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--users", type=int, default=200, help="a sample of each run's users (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the order at random")
    parser.add_argument("--json", action="store_true", help="print for machines")
    arguments = parser.parse_args(argv)

    groups: dict[str, list[Path]] = defaultdict(list)
    for path in arguments.runs:
        config = RunFolder.open(path).config.to_dict()
        groups[json.dumps({**config, "seed": 0}, sort_keys=True)].append(path)
    report = []
    for paths in groups.values():
        recommenders = [RunRecommender.load(path) for path in paths]
        first = recommenders[0]
        able = (first.known.lengths >= FEWEST_ITEMS).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(arguments.seed)
        users = able[torch.randperm(len(able), generator=generator)[: arguments.users]].sort().values
        items = [first.recommend_to(first.known.select(user.reshape(1)), k=1)[0].item_index for user in users]
        row: dict[str, Any] = {"runs": [str(path) for path in paths], "model": type(first.model).__name__}
        row["fidelity"] = measure(first, users, items, arguments.seed)
        if len(paths) > 1:
            row["stability"] = stability(recommenders, users, items)
        report.append(row)
        if not arguments.json:
            show(row)
    if arguments.json:
        print(json.dumps(report, indent=1))


def show(row: dict[str, Any]) -> None:
    """Print one model's tables."""
    if not row["fidelity"]:
        print(f"\n{row['runs'][0]} ({row['model']}): no history adds to the score of its best new item")
    for kind, found in row["fidelity"].items():
        print(
            f"\n{row['runs'][0]} ({row['model']}): {kind}, {found['num_users']} users, {found['left_out']} left out, "
            f"{found['parts_per_user']:.0f} parts each"
        )
        print(f"{'':<14} {'deletion':>20} {'insertion':>20} {'comprehensiveness':>20} {'sufficiency':>20}")
        for method, values in found["methods"].items():
            cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in values.values()]
            print(f"{method:<14} {' '.join(f'{cell:>20}' for cell in cells)}")
        for method, values in row.get("stability", {}).get(kind, {}).items():
            cells = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            print(f"{len(row['runs'])} seeds, {method:<14} {cells}")


if __name__ == "__main__":
    settle_process()
    sys.exit(guarded(main))
