"""Train SASRec here and by pmixer/SASRec.pytorch, epoch by epoch in turn, on one split of MovieLens-1M.

git clone https://github.com/pmixer/SASRec.pytorch ~/SASRec.pytorch
GRAPHREC_DATA=../shared/data python scripts/benchmark_sequence_training.py ~/SASRec.pytorch/python --rounds 8

Three trainings of one model (width 50, 2 blocks, 1 head, the 200 most recent items, dropout .2, 128 users a step) take
turns in this process: the peer's model, sampler and loss; ours with the same loss (a binary cross-entropy against one
negative); ours with a softmax over sampled items. Every epoch's steps are timed, evaluation is not. NDCG@10 is measured
for all by our evaluator: the validation items, ranked among all items. "To the same NDCG" compares the training seconds
until the value is reached that the peer has at its end. Memory is the most that one step holds at once beyond the
weights, on one and the same batch of users. Ctrl-C ends it after the rounds that are complete.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from benchmark_sequences import peak_bytes
from torch import Tensor

import kg_loaders
from graphrec.evaluation import Evaluator
from graphrec.histories import Histories
from graphrec.models import SASRec
from graphrec.models.base import Recommender
from kg_loaders import RecGraph
from kg_loaders.splits import leave_last

NUM_TRAININGS = 3
MAX_LENGTH, DIM, BLOCKS, HEADS, DROPOUT, RATE = 200, 50, 2, 1, 0.2, 1e-3


class Peer(Recommender):
    """The peer's model behind our evaluator's door; item i is its number i + 1, and 0 is its padding."""

    def __init__(self, model: Any, num_items: int) -> None:
        super().__init__(num_items)
        self.model = model

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Peer:
        """Make the peer's model as its main.py does."""
        settings = SimpleNamespace(
            device="cpu",
            norm_first=False,
            maxlen=options["max_length"],
            hidden_units=DIM,
            num_blocks=BLOCKS,
            num_heads=HEADS,
            dropout_rate=DROPOUT,
        )
        model = options["code"].SASRec(graph.num_users, graph.num_items, settings)
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.xavier_normal_(weight.data)
        model.pos_emb.weight.data[0] = 0
        model.item_emb.weight.data[0] = 0
        return cls(model, graph.num_items)

    def score(self, histories: Histories) -> Tensor:
        """Multiply the last state with all items."""
        length = self.model.pos_emb.num_embeddings - 1
        recent = histories.recent(length)
        padded = np.zeros((len(recent), length), dtype=np.int64)
        padded[recent.rows.numpy(), (length - 1 - recent.from_end).numpy()] = recent.items.numpy() + 1
        last = self.model.log2feats(padded)[:, -1]
        scores: Tensor = last @ self.model.item_emb.weight[1:].t()
        return scores


def peer_steps(peer: Peer, sampler: Any, num_steps: int) -> Callable[[], None]:
    """Return one epoch of the peer's main.py, with weight decay off as there."""
    loss_of = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(peer.model.parameters(), lr=RATE, betas=(0.9, 0.98))

    def epoch() -> None:
        peer.model.train()
        for _ in range(num_steps):
            step(*(np.array(part) for part in sampler.next_batch()))

    def step(user: Any, seq: Any, positive: Any, negative: Any) -> None:
        good, bad = peer.model(user, seq, positive, negative)
        optimizer.zero_grad()
        real = np.where(positive != 0)
        loss = loss_of(good[real], torch.ones_like(good[real])) + loss_of(bad[real], torch.zeros_like(bad[real]))
        loss.backward()
        optimizer.step()

    epoch.step = step  # type: ignore[attr-defined]
    return epoch


def our_steps(model: SASRec, histories: Histories, batch_size: int, seed: int) -> Callable[[], None]:
    """Return one epoch of ours."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(seed)

    def epoch() -> None:
        model.train()
        for rows in torch.randperm(len(histories), generator=generator).split(batch_size):
            step(histories.select(rows))

    def step(batch: Histories) -> None:
        optimizer.zero_grad()
        model.loss(batch, generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    epoch.step = step  # type: ignore[attr-defined]
    return epoch


def code_of(folder: Path, name: str) -> ModuleType:
    """Import one of the peer's files."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its sampler's processes look it up
    spec.loader.exec_module(module)
    return module


def measure(
    folder: Path, graph: RecGraph, rounds: int, batch_size: int, seed: int, max_length: int = MAX_LENGTH
) -> Iterator[dict[str, Any]]:
    """Yield a row for each epoch of each training, and last one for each training's memory."""
    histories = Histories.from_interactions(graph.part("train"), graph.num_users)
    model_code, sampler_code = code_of(folder, "model"), code_of(folder, "utils")
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what the peer's sampler draws from)
    bounds = histories.offsets.tolist()
    lists = {u + 1: (histories.items[bounds[u] : bounds[u + 1]] + 1).tolist() for u in range(graph.num_users)}
    sampler = sampler_code.WarpSampler(
        lists, graph.num_users, graph.num_items, batch_size=batch_size, maxlen=max_length, n_workers=1
    )
    sizes: dict[str, Any] = {"dim": DIM, "num_blocks": BLOCKS, "heads": HEADS, "dropout": DROPOUT}
    models: dict[str, Any] = {
        "SASRec.pytorch": Peer.from_graph(graph, code=model_code, max_length=max_length),
        "ours, same loss": SASRec.from_graph(graph, max_length=max_length, **sizes),
        "ours, softmax": SASRec.from_graph(graph, max_length=max_length, loss="softmax", num_negatives=512, **sizes),
    }
    num_steps = -(-graph.num_users // batch_size)
    epochs = {name: our_steps(model, histories, batch_size, seed) for name, model in list(models.items())[1:]}
    epochs["SASRec.pytorch"] = peer_steps(models["SASRec.pytorch"], sampler, num_steps)
    evaluator = Evaluator(["ndcg@10", "recall@10"], seed=seed)
    try:
        for number in range(1, rounds + 1):
            for name, model in models.items():
                begin = time.perf_counter()
                epochs[name]()
                seconds = time.perf_counter() - begin
                model.eval()
                with torch.no_grad():
                    found = evaluator.evaluate(model, graph, split="valid").metrics
                yield {"training": name, "epoch": number, "seconds": seconds, **found}
        batch = sampler.next_batch()
    finally:
        sampler.close()
    users, *columns = (np.array(part) for part in batch)
    ours = histories.select(torch.from_numpy(users).long() - 1)
    for name, epoch in epochs.items():
        models[name].train()
        arguments = (users, *columns) if name == "SASRec.pytorch" else (ours,)
        yield {"training": name, "bytes": peak_bytes(lambda e=epoch, a=arguments: e.step(*a))}  # type: ignore[misc,attr-defined]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, for each training, the median seconds of an epoch, ratios to the peer, and seconds to its last NDCG.

    The seconds are ``None`` where that was not reached.
    """
    names = list(dict.fromkeys(row["training"] for row in rows))
    timed = {name: [row for row in rows if row["training"] == name and "seconds" in row] for name in names}
    rounds = min(map(len, timed.values()))  # the last one may have been interrupted
    timed = {name: epochs[:rounds] for name, epochs in timed.items()}
    peer = names[0]
    wanted = timed[peer][-1]["ndcg@10"]
    out = {}
    for name in names:
        ratios = [theirs["seconds"] / mine["seconds"] for theirs, mine in zip(timed[peer], timed[name], strict=True)]
        reached = next((n for n, row in enumerate(timed[name], start=1) if row["ndcg@10"] >= wanted), None)
        out[name] = {
            "seconds_per_epoch": statistics.median(row["seconds"] for row in timed[name]),
            "times_as_fast": statistics.median(ratios),
            "ndcg@10": timed[name][-1]["ndcg@10"],
            "epochs_to_peer": reached,
            "seconds_to_peer": None if reached is None else sum(row["seconds"] for row in timed[name][:reached]),
            "bytes": next((row["bytes"] for row in rows if row["training"] == name and "bytes" in row), None),
        }
    return out


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", type=Path, help="the folder with the peer's model.py and utils.py")
    parser.add_argument("--data", default="ml-1m", help="a data set with times")
    parser.add_argument("--rounds", type=int, default=8, help="epochs of each training")
    parser.add_argument("--batch-size", type=int, default=128, help="users a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    graph = leave_last(kg_loaders.load(options.data))
    rows: list[dict[str, Any]] = []
    try:
        for row in measure(options.peer, graph, options.rounds, options.batch_size, options.seed):
            rows.append(row)
            if "seconds" in row:
                print(
                    f"{row['training']:16s} epoch {row['epoch']:3d}  {row['seconds']:7.1f} s  "
                    f"NDCG@10 {row['ndcg@10']:.4f}  HR@10 {row['recall@10']:.4f}",
                    flush=True,
                )
    except KeyboardInterrupt:
        if len({row["training"] for row in rows}) < NUM_TRAININGS:
            raise
    found = summary(rows)
    theirs = next(iter(found.values()))
    for name, value in found.items():
        print(
            f"{name:16s} {value['seconds_per_epoch']:7.1f} s an epoch ({value['times_as_fast']:.1f} times as fast), "
            + (
                ""
                if value["bytes"] is None
                else f"{value['bytes'] / 1e6:.0f} MB a step (1/{theirs['bytes'] / value['bytes']:.1f}), "
            )
            + (
                f"NDCG@10 {theirs['ndcg@10']:.4f} not reached"
                if value["seconds_to_peer"] is None
                else f"{value['seconds_to_peer']:.0f} s and {value['epochs_to_peer']} epochs to NDCG@10 "
                f"{theirs['ndcg@10']:.4f} ({theirs['seconds_to_peer'] / value['seconds_to_peer']:.1f} times as fast)"
            )
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": rows, "summary": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
