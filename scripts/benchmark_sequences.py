"""Measure history pooling and sequence attention against padding, on the real lengths of people's histories.

GRAPHREC_DATA=../shared/data python scripts/benchmark_sequences.py --json sequences.json
python scripts/benchmark_sequences.py --data synthetic

One step is forward and backward of one layer, on batches of users drawn at random. The peers get their padded input
and their masks for nothing; our steps include grouping the rows. Bytes are the most that a step holds at once beyond
what was there before it. Every ratio is the peer's median time by ours, both measured in turn in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import kg_loaders
from graphrec.layers import HistoryAttentionPooling, RaggedSelfAttention

Step = Callable[[], object]
CHANNELS = 64
# Data, longest history (the most recent are kept), users a batch.
SETTINGS = {
    "ml-1m": [(None, 32), (200, 128)],
    "beauty": [(None, 512), (50, 512)],
    "synthetic": [(None, 32), (200, 128)],
}


def history_lengths(data: str) -> tuple[Tensor, int]:
    """Return the length of each user's history, and the number of items."""
    if data == "synthetic":  # the median and the mean of MovieLens-1M, from a log-normal
        generator = torch.Generator().manual_seed(0)
        drawn = torch.empty(6040).log_normal_(mean=4.56, std=1.04, generator=generator)
        return drawn.clamp_(20, 2314).long(), 3706
    graph = kg_loaders.load(data)
    lengths = torch.bincount(torch.from_numpy(graph.interactions.user), minlength=graph.num_users)
    return lengths[lengths > 0], graph.num_items


class Batch:
    """One batch of users: ragged for us, padded for the peers."""

    def __init__(self, lengths: Tensor, num_items: int, heads: int) -> None:
        self.batch_size, self.length, self.heads = len(lengths), int(lengths.max()), heads
        self.offsets = F.pad(lengths.cumsum(0), (1, 0))
        self.items = torch.randint(num_items, (int(self.offsets[-1]),))
        self.valid = torch.arange(self.length) < lengths.unsqueeze(1)
        self.padded_items = torch.zeros(self.valid.shape, dtype=torch.int64).masked_scatter_(self.valid, self.items)
        self.table = torch.randn(num_items, CHANNELS, requires_grad=True)
        self.x = torch.randn(len(self.items), CHANNELS, requires_grad=True)
        padded = torch.zeros(*self.valid.shape, CHANNELS)
        padded[self.valid] = self.x.detach()
        self.padded_x = padded.requires_grad_()
        self.future = torch.ones(self.length, self.length, dtype=torch.bool).triu_(1)
        self.grad = torch.randn(self.x.shape)
        padded = torch.zeros(*self.valid.shape, CHANNELS)
        padded[self.valid] = self.grad
        self.padded_grad = padded
        self.last_grad = torch.randn(self.batch_size, CHANNELS)
        self.last = (lengths - 1, torch.arange(self.batch_size))
        # One set of weights for all.
        self.peer = nn.MultiheadAttention(CHANNELS, heads, batch_first=True)
        self.queries = nn.Parameter(torch.randn(heads, CHANNELS))

    def pooling(self) -> dict[str, Step]:
        """Pool item vectors into one vector a head."""
        pool = HistoryAttentionPooling(CHANNELS, self.heads)
        grad = torch.randn(self.batch_size, self.heads * CHANNELS)

        def ours() -> None:
            pool(self.table, self.items, self.offsets).backward(grad)

        def attention() -> None:
            x = F.embedding(self.padded_items, self.table)
            queries = self.queries.expand(self.batch_size, -1, -1)
            out = self.peer(queries, x, x, key_padding_mask=~self.valid, need_weights=False)[0]
            out.flatten(1).backward(grad)

        def product() -> None:
            x = F.embedding(self.padded_items, self.table).unsqueeze(1)
            queries = self.queries.expand(self.batch_size, 1, -1, -1)
            out = F.scaled_dot_product_attention(queries, x, x, attn_mask=self.valid[:, None, None])
            out.flatten(1).backward(grad)  # type: ignore[no-untyped-call]

        return {"HistoryAttentionPooling": ours, "MultiheadAttention": attention, "scaled_dot_product": product}

    def sequence(self, dropout: float = 0.0) -> dict[str, Step]:
        """Causal self-attention with all projections."""
        layer, peer = RaggedSelfAttention(CHANNELS, self.heads, dropout=dropout), self.peer
        peer.dropout = dropout

        def ours() -> None:
            layer(self.x, self.offsets).backward(self.grad)

        def attention() -> None:
            self.peer_forward().backward(self.padded_grad)  # type: ignore[no-untyped-call]

        def product() -> None:
            qkv = F.linear(self.padded_x, peer.in_proj_weight, peer.in_proj_bias)
            query, key, value = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            # Behind the end of a row lies nothing that causal attention sees, so no mask is needed.
            out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
            peer.out_proj(out.transpose(1, 2).flatten(2)).backward(self.padded_grad)

        name = f"RaggedSelfAttention(dropout={dropout})" if dropout else "RaggedSelfAttention"
        return {name: ours, "MultiheadAttention": attention, "scaled_dot_product": product}

    def biased(self) -> dict[str, Step]:
        """Causal self-attention with a learned bias for the distance in places and one for the time between."""
        layer, peer = RaggedSelfAttention(CHANNELS, self.heads, num_distances=200, num_time_buckets=64), self.peer
        places, buckets = nn.Embedding(200, self.heads), nn.Embedding(64, self.heads)
        times = torch.rand(len(self.items), dtype=torch.float64).mul_(1e5).cumsum(0)
        padded_times = torch.zeros(self.valid.shape, dtype=torch.float64).masked_scatter_(self.valid, times)
        place = torch.arange(self.length)
        away = (place.unsqueeze(1) - place).clamp(0, 199)

        def ours() -> None:
            layer(self.x, self.offsets, times).backward(self.grad)

        def product() -> None:
            qkv = F.linear(self.padded_x, peer.in_proj_weight, peer.in_proj_bias)
            query, key, value = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            between = (padded_times.unsqueeze(2) - padded_times.unsqueeze(1)).abs_()
            index = between.float().clamp_(min=1).log_().div_(0.301).clamp_(max=63).int()
            bias = (buckets(index) + places(away)).permute(0, 3, 1, 2).masked_fill(self.future, -torch.inf)
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
            peer.out_proj(out.transpose(1, 2).flatten(2)).backward(self.padded_grad)

        return {"RaggedSelfAttention(biases)": ours, "scaled_dot_product, biases": product}

    def last_place(self) -> dict[str, Step]:
        """Causal self-attention of which only each user's last place is wanted."""
        layer = RaggedSelfAttention(CHANNELS, self.heads)
        place, row = self.last

        def ours() -> None:
            layer(self.x, self.offsets, last_only=True).backward(self.last_grad)

        def attention() -> None:
            query = self.padded_x[row, place].unsqueeze(1)
            x = self.padded_x
            out = self.peer(query, x, x, key_padding_mask=~self.valid, need_weights=False)[0]
            out.squeeze(1).backward(self.last_grad)

        def everything() -> None:
            self.peer_forward()[row, place].backward(self.last_grad)  # type: ignore[no-untyped-call]

        return {
            "RaggedSelfAttention(last_only)": ours,
            "MultiheadAttention, last query": attention,
            "MultiheadAttention, all queries": everything,
        }

    def peer_forward(self) -> Tensor:
        """MultiheadAttention as SASRec's public codes call it, without asking for the weights."""
        x = self.padded_x
        out: Tensor = self.peer(
            x, x, x, attn_mask=self.future, key_padding_mask=~self.valid, need_weights=False, is_causal=False
        )[0]
        return out


def peak_bytes(step: Step) -> int:
    """Return the most bytes that a step holds at once, its kernels' own buffers included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = most = 0
    results = recorded.profiler.kineto_results
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def seconds(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Time all steps in turn, so that all meet the same neighbours on the machine."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if turn:  # the first warms up
                taken[name].append(time.perf_counter() - begin)
    return taken


def measure(data: str, repeats: int, num_batches: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield one row for each setting, number of heads, layer and peer."""
    try:
        lengths, num_items = history_lengths(data)
    except kg_loaders.KGLoaderError as error:
        print(f"{data}: {error}\nSynthetic lengths instead.")
        data = "synthetic"
        lengths, num_items = history_lengths(data)
    for longest, batch_size in SETTINGS[data]:
        for heads in (1, 2):
            torch.manual_seed(seed)
            batches = []
            for _ in range(num_batches):
                chosen = lengths[torch.randperm(len(lengths))[:batch_size]]
                batches.append(Batch(chosen if longest is None else chosen.clamp(max=longest), num_items, heads))
            cases: list[Callable[[Batch], dict[str, Step]]] = [
                Batch.pooling,
                Batch.sequence,
                lambda batch: batch.sequence(dropout=0.2),
                Batch.last_place,
            ]
            if longest is not None:  # padded, the biases of whole histories would fill gigabytes
                cases.append(Batch.biased)
            for case in cases:
                taken: dict[str, list[float]] = {}
                held: dict[str, list[int]] = {}
                for batch in batches:
                    steps = case(batch)
                    for name, values in seconds(steps, repeats).items():
                        taken.setdefault(name, []).extend(values)
                    for name, step in steps.items():
                        held.setdefault(name, []).append(peak_bytes(step))
                layer, *peers = taken
                for peer in peers:
                    mine, theirs = statistics.median(taken[layer]), statistics.median(taken[peer])
                    yield {
                        "data": data,
                        "longest": longest,
                        "batch_size": batch_size,
                        "padded_by_real": statistics.mean(b.valid.numel() / b.items.numel() for b in batches),
                        "channels": CHANNELS,
                        "heads": heads,
                        "layer": layer,
                        "peer": peer,
                        "seconds": mine,
                        "peer_seconds": theirs,
                        "ratio": theirs / mine,
                        "extra_bytes": int(statistics.median(held[layer])),
                        "peer_extra_bytes": int(statistics.median(held[peer])),
                    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=list(SETTINGS), default=["ml-1m", "beauty"])
    parser.add_argument("--repeats", type=int, default=4, help="timed steps a batch")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    heading = "data       longest  padded heads layer                             peer                             ms"
    print(heading + "  ratio  memory")
    for data in options.data:
        for row in measure(data, options.repeats, options.batches, options.seed):
            rows.append(row)
            print(
                f"{row['data']:10s} {row['longest'] or 'all':>7}  {row['padded_by_real']:5.1f}x {row['heads']:5d} "
                f"{row['layer']:33s} {row['peer']:31s} {1e3 * row['seconds']:6.1f} {row['ratio']:6.1f} "
                f"1/{row['peer_extra_bytes'] / row['extra_bytes']:.1f}"
            )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
