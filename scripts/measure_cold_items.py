"""Measure what KG, text and pictures give to items nobody has taken yet: a tenth of all items loses its interactions.

python scripts/measure_cold_items.py ml-100k --seeds 3
python scripts/measure_cold_items.py tiktok --sources image,audio --model.drop_id 0.3

The lost interactions are what is asked for: each user's cold items are ranked among all cold items. Every model is
measured with all sources, with each alone and, where it can, with none; with a KG also with a shuffled one. Settings
are the committed ones of the data set, and --model.OPTION is for the first model; epochs are selected on the validation
part, where cold items have none. A ranking at random is a row too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from graphrec.cli import guarded
from graphrec.evaluation.topk import top_k
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.config import KgName, resolve_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options, split_model_options
from graphrec.histories import Histories
from graphrec.models import MODELS
from graphrec.models.base import Recommender
from graphrec.process import settle_process
from graphrec.training import Trainer
from kg_loaders import SPLITS, RecGraph

KG = "kg"


def make_cold(graph: RecGraph, share: float, seed: int) -> tuple[RecGraph, np.ndarray]:
    """Move all interactions of some items into the test part, and all others out of it; return those items too."""
    rng = np.random.default_rng(seed)
    taken = np.unique(graph.interactions.item)
    cold = np.sort(rng.choice(taken, round(share * len(taken)), replace=False))
    assert graph.interactions.split is not None  # `prepare` splits
    split = graph.interactions.split.copy()
    is_cold = np.isin(graph.interactions.item, cold)
    split[~is_cold & (split == SPLITS.index("test"))] = SPLITS.index("train")
    split[is_cold] = SPLITS.index("test")
    return graph.with_split(split), cold


def recall(model: Recommender | None, graph: RecGraph, cold: np.ndarray, k: int, seed: int) -> float:
    """Return the mean over users of the share of their cold items among the first ``k`` of all cold items.

    Args:
        model: Ranks them; ``None`` ranks at random.
        graph: The cold items' interactions are its test part.
        cold: Item indices.
        k: Length of the list; recall divides by the smaller of ``k`` and the user's number of cold items.
        seed: Of the order of ties.
    """
    asked = Histories.from_interactions(graph.part("test"), graph.num_users)
    known = Histories.from_interactions(graph.part("train", "valid"), graph.num_users)
    place = torch.full((graph.num_items,), -1)
    place[torch.from_numpy(cold)] = torch.arange(len(cold))
    found = []
    for start in range(0, graph.num_users, 1024):
        rows = torch.arange(start, min(start + 1024, graph.num_users))
        wanted = asked.select(rows)
        with torch.no_grad():
            scores = torch.zeros(len(rows), len(cold)) if model is None else model.score(known.select(rows))[:, cold]
        items, _ = top_k(scores, k, None, seed=seed)
        target = torch.zeros(len(rows), len(cold), dtype=torch.bool)
        target[wanted.rows, place[wanted.items]] = True
        hits = target.gather(1, items).sum(dim=1)
        found.append(hits[wanted.lengths > 0] / wanted.lengths[wanted.lengths > 0].clamp(max=k))
    return float(torch.cat(found).mean())


def settings(model: str, sources: Sequence[str]) -> Iterator[tuple[str, KgName, tuple[str, ...]]]:
    """Yield what a row is called, its knowledge graph and its modalities.

    Example:
        >>> [name for name, _, _ in settings("InductiveKGAT", ["kg", "text"])]
        ['kg + text', 'kg', 'text', 'nothing', 'shuffled kg']
    """
    modalities = tuple(source for source in sources if source != KG)
    full: KgName = "full" if KG in sources else "none"
    if len(sources) > 1:
        yield " + ".join(sources), full, modalities
    for source in sources:
        yield (source, "full", ()) if source == KG else (source, "none", (source,))
    if not MODELS[model].needs_content and not MODELS[model].needs_kg:
        yield "nothing", "none", ()
    if KG in sources:
        yield "shuffled kg", "shuffled", ()


def main() -> None:
    """Read the command line, measure, print."""
    epilog = "also --train.OPTION, and --model.OPTION of the first model, as in graphrec train"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=epilog)
    parser.add_argument("dataset", help="a known name, or a folder")
    parser.add_argument("--models", default="InductiveKGAT,ContentKNN", help="with commas (default: %(default)s)")
    parser.add_argument("--sources", default=KG, help="kg and item features, with commas (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="each draws its own cold items (default: 3)")
    parser.add_argument("--share", type=float, default=0.1, help="of items that become cold (default: 0.1)")
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print for machines")
    arguments, options = parser.parse_known_args()
    shared, own = split_model_options(options)
    models = [resolve_model(name) for name in arguments.models.split(",")]

    values: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        for name in models:
            for row, kg, modalities in settings(name, arguments.sources.split(",")):
                config = read_options(
                    ["--model", name, *shared, *(own if name == models[0] else ())], arguments.dataset
                ).config
                # Fitting again with the validation part would cost as much again and tell the same.
                train = config.train.without_refit()
                config = replace(config, seed=seed, data=replace(config.data, kg=kg), train=train)
                graph = load_graph(config.data)
                config = resolve(config, graph)
                model_options = dict(config.model.options)
                if modalities or "modalities" in model_options:
                    model_options["modalities"] = modalities
                    if not modalities and "like_neighbors" in model_options:
                        model_options["like_neighbors"] = 0  # there is nothing to be like
                if kg == "none" and not modalities:
                    model_options.pop("content_popularity", None)  # nor anything to tell popularity from
                graph, cold = make_cold(prepare(graph, config), arguments.share, seed)
                torch.manual_seed(seed)
                model = MODELS[name].from_graph(graph, **model_options)
                Trainer(config.train, seed=seed).fit(model, graph, build_evaluator(config))
                found = recall(model, graph, cold, arguments.k, seed)
                values.setdefault(f"{name}, {row}", []).append(found)
        values.setdefault("at random", []).append(recall(None, graph, cold, arguments.k, seed))
    if arguments.json:
        print(json.dumps({"dataset": arguments.dataset, "k": arguments.k, "num_cold": len(cold), "recall": values}))
        return
    print(f"\n{arguments.dataset}: recall@{arguments.k} among {len(cold)} cold items, one draw of them a seed")
    width = max(map(len, values))
    for name, found in sorted(values.items(), key=lambda row: -statistics.mean(row[1])):
        print(f"{name:<{width}}  {statistics.mean(found):.4f}   {' '.join(f'{value:.4f}' for value in found)}")


if __name__ == "__main__":
    settle_process()
    sys.exit(guarded(main))
