"""Measure what a knowledge graph is worth, by the length of users' histories and relation by relation.

python scripts/measure_kg_worth.py ml-100k --seeds 3
python scripts/measure_kg_worth.py mcclk-music --model KGIN --relations 5 --groups 3

One model is trained with the whole KG, without it (where it can do without), with a shuffled one (same degrees, false
tails), and without each of the relations with most triples; the rest of the relations leave together. Rows are
compared with the first by a paired bootstrap over users, of all users and of groups by the number of items that the
model is told of them. The test part is measured where there is one, the validation part otherwise; epochs are selected
on the validation part. Settings are the committed ones of the data set.

What is trained goes to runs/NAME/kg-worth and is not trained again: an interrupted call goes on where it stopped. What
a KG gives to items that nobody has taken is measured by scripts/measure_cold_items.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.cli import guarded
from graphrec.errors import ArgumentError
from graphrec.evaluation import PairedTest, paired_bootstrap_rows, user_interval
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.config import KgName, RunConfig, reads_kg, resolve_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.files import read_json, to_json, write_text
from graphrec.experiment.reading import read_options
from graphrec.experiment.report import print_table
from graphrec.histories import Histories
from graphrec.models import MODELS
from graphrec.process import settle_process
from graphrec.training import Trainer
from kg_loaders import RecGraph
from kg_loaders.graph import Split

WITH_KG = "with KG"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Row:
    """What the model is trained with.

    Args:
        name: How the row is called.
        kg: As in a configuration.
        left_out: Relations without their triples.
    """

    name: str
    kg: KgName = "full"
    left_out: tuple[int, ...] = ()

    def graph(self, graph: RecGraph) -> RecGraph:
        """Return the graph without the triples of :attr:`left_out`; the names of all relations stay."""
        return replace(graph, triples=graph.triples[~np.isin(graph.triples[:, 1], self.left_out)])


@dataclass(frozen=True)
class Group:
    """Users whose histories have a length between two numbers, both included.

    Args:
        low: The shortest.
        high: The longest.
        members: Which of the users measured they are, bool.
    """

    low: int
    high: int
    members: Tensor

    def __str__(self) -> str:
        return f"{self.low}-{self.high} items"


def rows_of(graph: RecGraph, model: str, num_relations: int) -> list[Row]:
    """Return the rows: the whole KG first, then none, a shuffled one, and one without each of some relations.

    Args:
        graph: The data set.
        model: Name of the model.
        num_relations: Relations that leave alone, those with most triples; the others leave together.
    """
    counts = np.bincount(graph.triples[:, 1], minlength=graph.num_relations)
    by_size = [int(relation) for relation in np.argsort(-counts, kind="stable") if counts[relation]]
    alone, others = by_size[:num_relations], by_size[num_relations:]
    rows = [Row(WITH_KG), Row("no KG", kg="none"), Row("shuffled KG", kg="shuffled")]
    if len(by_size) > 1:  # else it would be the row without a KG
        rows += [Row(f"without {graph.relations.id_of(relation)}", left_out=(relation,)) for relation in alone]
    if others and alone:
        called = f"{len(others)} relations" if len(others) > 1 else "relation"
        rows.append(Row(f"without the other {called}", left_out=tuple(others)))
    return [row for row in rows if row.kg != "none" or not MODELS[model].needs_kg]


def groups_of(lengths: Tensor, num_groups: int) -> list[Group]:
    """Return groups of about equally many users by the length of their histories; equal lengths stay together.

    Raises:
        ArgumentError: A group would have less than two users, of whom nothing can be said.
    """
    bounds = np.quantile(lengths.numpy(), np.arange(1, num_groups) / num_groups, method="lower")
    place = torch.from_numpy(np.searchsorted(np.unique(bounds), lengths.numpy(), side="left"))
    members = [place == group for group in place.unique()]
    if not members or min(int(some.sum()) for some in members) < 2:
        raise ArgumentError(f"groups must leave two users in each, got {num_groups} for {len(lengths)} users")
    return [Group(int(lengths[some].min()), int(lengths[some].max()), some) for some in members]


def measure(row: Row, config: RunConfig, graph: RecGraph, metric: str, part: Split, out: Path) -> Tensor:
    """Return the metric of each user who has items in the part, trained now or read from an earlier call.

    Args:
        row: What the model is trained with.
        config: A resolved configuration with the row's ``data.kg`` and a seed.
        graph: The data set as its files hold it.
        metric: A metric with a value a user.
        part: What is measured.
        out: Where the values are kept.
    """
    graph = row.graph(prepare(graph, config))
    identity = f"{config.hash} {graph.fingerprint} {metric} {part}"
    path = out / f"{config.model.name.lower()}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        torch.manual_seed(config.seed)
        model = MODELS[config.model.name].from_graph(graph, **config.model.options)
        evaluator = build_evaluator(config)
        Trainer(config.train, seed=config.seed).fit(model, graph, evaluator)
        evaluation = evaluator.evaluate(model, graph, part)
        out.mkdir(parents=True, exist_ok=True)
        about = {"row": row.name, "seed": config.seed, "metric": metric, "part": part}
        write_text(path, to_json(about | {"values": evaluation.per_user[metric].tolist()}))
    return torch.tensor(read_json(path)["values"], dtype=torch.float64)


def compare(values: dict[str, Tensor], members: Tensor) -> dict[str, dict[str, Any]]:
    """Return each row's mean over some users with its interval, and its difference from the first row.

    Args:
        values: By row, one value a user.
        members: Which users, bool.
    """
    chosen = {name: value[members] for name, value in values.items()}
    first = next(iter(chosen))
    tests = paired_bootstrap_rows({name: v for name, v in chosen.items() if name != first}, chosen[first])
    return {name: {**_mean(value), **_difference(tests.get(name))} for name, value in chosen.items()}


def _mean(values: Tensor) -> dict[str, float]:
    mean, low, high = user_interval(values)
    return {"mean": mean, "low": low, "high": high}


def _difference(test: PairedTest | None) -> dict[str, Any]:
    return {} if test is None else {"test": test._asdict()}


def _cells(name: str, by_group: Sequence[dict[str, dict[str, Any]]]) -> list[str]:
    """Return a line of the table: the name, the mean of all users with its test, and the mean of each group."""
    whole = by_group[0][name]
    test = whole.get("test")
    difference = p_value = ""
    if test is not None:
        difference = f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
        p_value = f"{test['p_holm']:.3f}"
    cells = [name, f"{whole['mean']:.4f}", difference, p_value]
    for group in by_group[1:]:
        test = group[name].get("test")
        star = "*" if test is not None and test["p_holm"] < SIGNIFICANT else " "
        cells.append(f"{group[name]['mean']:.4f}" + ("" if test is None else f" ({test['difference']:+.4f}{star})"))
    return cells


def main(argv: Sequence[str]) -> None:
    """Read the command line, measure, print."""
    epilog = "also --train.OPTION, and --model.OPTION, as in graphrec train"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=epilog)
    parser.add_argument("dataset", help="a known name, or a folder")
    parser.add_argument("--model", default="InductiveKGAT", help="one that reads the KG (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of the model and of the shuffle (default: 3)")
    parser.add_argument("--relations", type=int, default=10, help="that leave alone, largest first (default: 10)")
    parser.add_argument("--groups", type=int, default=4, help="of users by length of history (default: 4)")
    parser.add_argument("--metric", help="with a value a user; train.select_by when not given")
    parser.add_argument("--out", type=Path, help="where values are kept (default: runs/NAME/kg-worth)")
    parser.add_argument("--json", action="store_true", help="print for machines")
    arguments, options = parser.parse_known_args(argv)
    for name, low in (("seeds", 1), ("relations", 0), ("groups", 1)):
        if getattr(arguments, name) < low:
            raise ArgumentError(f"{name} must be >= {low}, got {getattr(arguments, name)}")
    name = resolve_model(arguments.model)
    config = read_options(["--model", name, *options], arguments.dataset).config
    if not reads_kg(config.model):
        raise ArgumentError(f"model must be one that reads the knowledge graph, got {name!r}")
    graph = load_graph(config.data)
    config = resolve(replace(config, train=config.train.without_refit()), graph)
    evaluator = build_evaluator(config)
    metric = arguments.metric or config.train.select_by
    allowed = [known for known, (kind, _) in evaluator.metrics.items() if kind.scope == "user"]
    if metric not in allowed:
        raise ArgumentError(f"metric must be one with a value a user ({', '.join(allowed)}), got {metric!r}")
    if not graph.num_triples:
        raise ArgumentError(f"{arguments.dataset} has no triples: there is no knowledge graph to measure")
    split = prepare(graph, config)
    part: Split = "test" if split.has_split("test") else "valid"
    out = arguments.out or Path("runs") / Path(config.data.name).name / "kg-worth"

    told = Histories.from_interactions(split.part("train", *(["valid"] if part == "test" else [])), graph.num_users)
    users = torch.from_numpy(np.unique(split.part(part).user))
    groups = groups_of(told.lengths[users], arguments.groups)

    rows = rows_of(graph, name, arguments.relations)
    values: dict[str, Tensor] = {}
    for number, row in enumerate(rows, start=1):
        of_seeds = []
        for seed in range(arguments.seeds):
            print(f"row {number} of {len(rows)}: {row.name}, seed {seed}", file=sys.stderr, flush=True)
            own = replace(config, seed=seed, data=replace(config.data, kg=row.kg))
            of_seeds.append(measure(row, own, graph, metric, part, out))
        values[row.name] = torch.stack(of_seeds).mean(dim=0)

    by_group = [compare(values, torch.ones(len(users), dtype=torch.bool))]
    by_group += [compare(values, group.members) for group in groups]
    sizes = {row.name: row.graph(graph).num_triples if row.kg != "none" else 0 for row in rows}
    if arguments.json:
        about = {"dataset": arguments.dataset, "model": name, "metric": metric, "part": part, "seeds": arguments.seeds}
        of_groups = [
            {"shortest": group.low, "longest": group.high, "users": int(group.members.sum()), "rows": found}
            for group, found in zip(groups, by_group[1:], strict=True)
        ]
        content = {**about, "users": len(users), "triples": sizes, "rows": by_group[0], "groups": of_groups}
        print(json.dumps(content, indent=2))
        return
    header = ["row", "triples", f"{metric}, {len(users)} users", "difference", "p"]
    header += [f"{group} ({int(group.members.sum())} users)" for group in groups]
    lines = [_cells(row.name, by_group) for row in rows]
    caption = (
        f"{arguments.dataset}, {name}, {part} part, {arguments.seeds} seeds. Differences from the first row with 95 % "
        f"intervals; p and *: paired bootstrap over users, Holm over the rows, * where p < {SIGNIFICANT}."
    )
    print_table(header, [[line[0], str(sizes[line[0]]), *line[1:]] for line in lines], caption)


if __name__ == "__main__":
    settle_process()
    sys.exit(guarded(main, sys.argv[1:]))
