"""Measure adaptive attention in history pooling: is another normaliser, or a learned temperature, worth having?

python scripts/benchmark_normalizers.py planted
GRAPHREC_DATA=../shared/data python scripts/benchmark_normalizers.py ml-100k --seeds 3 --json normalizers.json

``planted``: a user likes one genre and took a few items of it, among many distractors, which an item's vector gives
away, though not without doubt. The figure is the share of the top 20 that is of the genre, for histories as long as in
training, and for histories with ten times the distractors. A data set's name: InductiveKGAT with its committed
settings, the pooling exchanged; the figure is NDCG@20 on validation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.experiment.build import build_evaluator, build_model
from graphrec.experiment.catalogue import committed_files
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options
from graphrec.layers import HistoryAttentionPooling
from graphrec.models import InductiveKGAT
from graphrec.training import Trainer

VARIANTS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "softmax, temperature by head": {"temperature": "head"},
    "softmax, temperature by length": {"temperature": "length"},
    "entmax15": {"normalizer": "entmax15"},
    "entmax15, temperature by length": {"normalizer": "entmax15", "temperature": "length"},
    "sparsemax": {"normalizer": "sparsemax"},
    "topk, k=8": {"normalizer": "topk", "k": 8},
    "topk, k=64": {"normalizer": "topk", "k": 64},
}
CHANNELS, NUM_GENRES, NUM_ITEMS, STEPS = 32, 16, 2000, 400


@dataclass
class Planted:
    """Items with a genre; every second one is a distractor, and shows it in one direction of its vector."""

    generator: torch.Generator

    def __post_init__(self) -> None:
        self.genre = torch.randint(NUM_GENRES, (NUM_ITEMS,), generator=self.generator)
        self.distracts = torch.arange(NUM_ITEMS) % 2 == 1
        centres = F.normalize(self._normal(NUM_GENRES, CHANNELS - 1), dim=1)
        mark = (~self.distracts).float().unsqueeze(1) + 0.4 * self._normal(NUM_ITEMS, 1)
        self.x = torch.cat([centres[self.genre] + 0.1 * self._normal(NUM_ITEMS, CHANNELS - 1), mark], dim=1)
        self.noise = self.distracts.nonzero()[:, 0]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _draw(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def batch(self, num_users: int, distractors: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return items, offsets, and each user's genre and held-out item."""
        rows, targets, genres = [], [], []
        for _ in range(num_users):
            genre = self._draw(0, NUM_GENRES - 1)
            liked = ((self.genre == genre) & ~self.distracts).nonzero()[:, 0]
            liked = liked[torch.randperm(len(liked), generator=self.generator)]
            number = self._draw(*distractors)
            noise = self.noise[torch.randint(len(self.noise), (number,), generator=self.generator)]
            rows.append(torch.cat([liked[1 : self._draw(4, 9)], noise]))
            targets.append(liked[0])
            genres.append(genre)
        offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
        return torch.cat(rows), offsets, torch.tensor(genres), torch.stack(targets)


def planted(options: dict[str, Any], seed: int) -> dict[str, float]:
    """Train on the planted task and return the figures."""
    torch.manual_seed(seed)
    task = Planted(torch.Generator().manual_seed(seed))
    pool, lin = HistoryAttentionPooling(CHANNELS, **options), nn.Linear(CHANNELS, CHANNELS)
    optimizer = torch.optim.Adam([*pool.parameters(), *lin.parameters()], lr=0.02)

    def scores(items: Tensor, offsets: Tensor) -> Tensor:
        out: Tensor = 10 * F.normalize(lin(pool(task.x, items, offsets)), dim=1) @ F.normalize(task.x, dim=1).t()
        return out

    begin = time.perf_counter()
    for _ in range(STEPS):
        items, offsets, _, target = task.batch(64, (10, 40))
        loss = F.cross_entropy(scores(items, offsets), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    figures = {"seconds": time.perf_counter() - begin}
    with torch.no_grad():
        for name, distractors in (("as in training", (10, 40)), ("ten times longer", (100, 400))):
            items, offsets, genre, _ = task.batch(500, distractors)
            best = scores(items, offsets).masked_fill(task.distracts, -torch.inf).topk(20).indices
            figures[name] = float((task.genre[best] == genre.unsqueeze(1)).float().mean())
    return figures


def trained(data: str, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Train InductiveKGAT as committed for a data set, with this pooling, and return its validation figure."""
    (file,) = (f for f in committed_files() if f.parent.name == data and f.stem == "inductive_kgat")
    config = read_options(["--config", str(file)]).config
    graph = load_graph(config.data)
    config = resolve(replace(config, seed=seed, train=config.train.without_refit()), graph)
    graph = prepare(graph, config)
    model = build_model(config, graph)
    assert isinstance(model, InductiveKGAT)
    model.pool = HistoryAttentionPooling(model.dim, **options)
    begin = time.perf_counter()
    result = Trainer(config.train, seed=seed, quiet=True).fit(model, graph, build_evaluator(config))
    return {"seconds": time.perf_counter() - begin, "ndcg@20": result.valid["ndcg@20"]}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="planted, or a data set with committed settings for InductiveKGAT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for variant, pooling in VARIANTS.items():
        runs = [
            planted(pooling, seed) if options.data == "planted" else trained(options.data, pooling, seed)
            for seed in range(options.seeds)
        ]
        row: dict[str, Any] = {"data": options.data, "variant": variant}
        for name in runs[0]:
            values = [run[name] for run in runs]
            row[name] = {"mean": statistics.mean(values), "values": values}
        rows.append(row)
        shown = (
            f"{name} {row[name]['mean']:.4f} ({min(v):.4f}..{max(v):.4f})"
            for name, v in ((n, row[n]["values"]) for n in runs[0])
        )
        print(f"{variant:32s}", "  ".join(shown), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
