"""Measure the index: milliseconds a query and recall@10 against exact search, on made-up items.

python scripts/benchmark_index.py --items 100000 1000000 --width 64 --json index.json

Items and users are Gaussian around shared centres, as those of a trained model are; queries come one at a time on one
thread. The filter leaves half of the items.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.process import settle_process
from graphrec.serving.index import ItemIndex

CENTRES, SPREAD = 200, 0.7
KINDS = ("exact", "hnsw")
K = 10


def vectors(count: int, centres: Tensor, generator: torch.Generator) -> Tensor:
    """Return unit vectors around the centres."""
    at = torch.randint(len(centres), (count,), generator=generator)
    noise = torch.randn(count, centres.size(1), generator=generator) * centres.size(1) ** -0.5
    return F.normalize(centres[at] + SPREAD * noise, dim=1)


def milliseconds(call: Callable[[Tensor], Any], users: Tensor) -> tuple[float, float]:
    """Return the median and the 99th percentile over single queries, after three to warm up."""
    for user in users[:3].split(1):
        call(user)
    taken = []
    for user in users.split(1):
        start = time.perf_counter()
        call(user)
        taken.append(1000 * (time.perf_counter() - start))
    return torch.tensor(taken).quantile(0.5).item(), torch.tensor(taken).quantile(0.99).item()


def measure(count: int, width: int, num_queries: int, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of index."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(CENTRES, width, generator=generator), dim=1)
    items, users = (vectors(size, centres, generator) for size in (count, num_queries))
    bias = 0.1 * torch.randn(count, generator=generator)
    allowed = torch.rand(count, generator=generator) < 0.5
    for kind in kinds:
        start = time.perf_counter()
        index = ItemIndex.build(items, bias, approximate=kind == "hnsw", queries=users)
        seconds = time.perf_counter() - start
        median, tail = milliseconds(lambda user, index=index: index.search(user, K), users)
        filtered, _ = milliseconds(lambda user, index=index: index.search(user, K, allowed), users)
        yield {
            "items": count,
            "width": width,
            "index": kind,
            "build_seconds": seconds,
            "ms": median,
            "ms_p99": tail,
            "ms_filtered": filtered,
            "recall@10": index.info.recall,
        }


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--index", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help="exact, hnsw")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    print(f"{'items':>9} {'index':<6} {'build s':>8} {'ms':>7} {'p99':>7} {'half':>7} {'recall@10':>9}")
    for count in arguments.items:
        for row in measure(count, arguments.width, arguments.queries, arguments.index):
            rows.append(row)
            print(
                f"{row['items']:>9} {row['index']:<6} {row['build_seconds']:>8.1f} {row['ms']:>7.2f} "
                f"{row['ms_p99']:>7.2f} {row['ms_filtered']:>7.2f} {row['recall@10']:>9.3f}",
                flush=True,
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    settle_process()
    main()
