"""Measure graph layers against PyTorch Geometric's: seconds and extra memory of a forward and a backward pass.

python scripts/benchmark_layers.py --graph planted:20000:300000
python scripts/benchmark_layers.py --graph amazon-book alibaba-ifashion last-fm --json layers.json

A layer and its peer take turns in one process, and a ratio is the median over the turns. The bound is the time of two
products of a CSR matrix with a dense one and one sampled product per head, measured beside them with torch.sparse.
First-call cost, which is the sorting of edges (and, once a machine, building the compiled loops), stands apart;
``GRAPHREC_COMPILE=0`` measures torch's kernels instead of those loops. Memory is the peak above what was in use before
the pass, each in a child process, so that a peer that outgrows the machine takes only its child along; a peer whose
pass takes minutes is given up, and one that takes more than ``PATIENCE`` seconds is timed in its child alone, once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GATv2Conv, HGTConv, LGConv, RGATConv, TransformerConv

from graphrec.cli import guarded
from graphrec.errors import ArgumentError
from graphrec.layers import HeteroAttentionConv, LightGCNConv, RelationAttentionConv
from graphrec.layers.ops import EdgeLayout

PATIENCE = 10.0


@dataclass(frozen=True)
class Graph:
    """A graph joined of interactions and triples, both ways."""

    name: str
    edge_index: Tensor
    edge_type: Tensor
    num_nodes: int
    num_types: int


@dataclass(frozen=True)
class Row:
    """One line of the table; ``None`` where a peer failed, mostly for lack of memory."""

    graph: str
    width: int
    heads: int
    layer: str
    peer: str
    seconds: float
    peer_seconds: float | None
    ratio: float | None
    extra_bytes: int
    peer_extra_bytes: int | None
    bound_ratio: float
    first_seconds: float


def load_graph(name: str) -> Graph:
    """Read a known data set, or plant ``planted:NODES:EDGES``: random edges with long-tailed degrees."""
    if name.startswith("planted:"):
        size = re.fullmatch(r"planted:(\d+):(\d+)", name)
        if size is None:
            raise ArgumentError(f"graph must be a known name, or planted:NODES:EDGES, got {name!r}")
        num_nodes, num_edges = int(size[1]), int(size[2])
        generator = torch.Generator().manual_seed(0)
        ends = (torch.rand(2, num_edges // 2, generator=generator) ** 2 * num_nodes).long()
        types = torch.randint(3, (num_edges // 2,), generator=generator)
        return joined(name, ends[0], ends[1], types, num_nodes, 3)
    import kg_loaders

    graph = kg_loaders.load(name)
    user, item = (torch.from_numpy(part.copy()) for part in (graph.interactions.user, graph.interactions.item))
    head, relation, tail = torch.from_numpy(graph.triples.copy()).unbind(dim=1)
    num_relations = graph.num_relations
    return joined(
        name,
        torch.cat([user + graph.num_entities, head]),
        torch.cat([item, tail]),
        torch.cat([torch.full_like(user, num_relations), relation]),
        graph.num_entities + graph.num_users,
        num_relations + 1,
    )


def joined(name: str, source: Tensor, destination: Tensor, types: Tensor, num_nodes: int, num_types: int) -> Graph:
    """Add the inverse of each edge."""
    edge_index = torch.stack([torch.cat([source, destination]), torch.cat([destination, source])])
    return Graph(name, edge_index, torch.cat([types, types + num_types]), num_nodes, 2 * num_types)


# Layers and peers: each makes a module and a function of x


def relation_attention(score: str, relations: bool) -> Callable[[Graph, int, int], tuple[nn.Module, Any]]:
    """Our layer; without ``relations`` all edges are of one type, as the peer sees them."""

    def make(graph: Graph, width: int, heads: int) -> tuple[nn.Module, Any]:
        types = graph.edge_type if relations else torch.zeros_like(graph.edge_type)
        num_types = graph.num_types if relations else 1
        conv = RelationAttentionConv(width, width // heads, num_types, heads, score=score, relation_message=relations)
        return conv, lambda x: conv(x, graph.edge_index, types)

    return make


def plain(peer: Callable[..., nn.Module], **options: Any) -> Callable[[Graph, int, int], tuple[nn.Module, Any]]:
    """A layer of PyG that reads ``x`` and ``edge_index``."""

    def make(graph: Graph, width: int, heads: int) -> tuple[nn.Module, Any]:
        conv = peer(width, width // heads, heads=heads, **options)
        return conv, lambda x: conv(x, graph.edge_index)

    return make


def rgat(graph: Graph, width: int, heads: int) -> tuple[nn.Module, Any]:
    """PyG's attention with a weight matrix for each relation."""
    conv = RGATConv(width, width // heads, graph.num_types, heads=heads)
    return conv, lambda x: conv(x, graph.edge_index, graph.edge_type)


def typed(conv_class: Callable[..., nn.Module]) -> Callable[[Graph, int, int], tuple[nn.Module, Any]]:
    """A layer that reads dictionaries: one type of node, and the graph's types of edges."""

    def make(graph: Graph, width: int, heads: int) -> tuple[nn.Module, Any]:
        names = [("node", str(number), "node") for number in range(graph.num_types)]
        edges = {name: graph.edge_index[:, graph.edge_type == number] for number, name in enumerate(names)}
        conv = conv_class(width, width, (["node"], names), heads=heads)
        return conv, lambda x: conv({"node": x}, edges)["node"]

    return make


def linear(conv: Any) -> Callable[[Graph, int, int], tuple[nn.Module, Any]]:
    """Propagation without weights; heads mean nothing to it."""

    def make(graph: Graph, width: int, heads: int) -> tuple[nn.Module, Any]:
        module = conv(width)
        return module, lambda x: module(x, graph.edge_index)

    return make


LAYERS: dict[str, tuple[Callable[[Graph, int, int], tuple[nn.Module, Any]], dict[str, Any]]] = {
    "RelationAttentionConv(additive)": (
        relation_attention("additive", relations=False),
        {"GATConv": plain(GATConv, add_self_loops=False)},
    ),
    "RelationAttentionConv(additive, relations)": (
        relation_attention("additive", relations=True),
        {"RGATConv": rgat},
    ),
    "RelationAttentionConv(dot)": (
        relation_attention("dot", relations=False),
        {"TransformerConv": plain(TransformerConv, root_weight=False)},
    ),
    "RelationAttentionConv(gatv2)": (
        relation_attention("gatv2", relations=False),
        {"GATv2Conv": plain(GATv2Conv, add_self_loops=False)},
    ),
    "HeteroAttentionConv": (typed(HeteroAttentionConv), {"HGTConv": typed(HGTConv)}),
    "LightGCNConv": (linear(LightGCNConv), {"LGConv": linear(lambda width: LGConv())}),
}

PEERS = [peer for _, peers in LAYERS.values() for peer in peers]

# Measuring


def make_step(make: Callable[[Graph, int, int], tuple[nn.Module, Any]], graph: Graph, width: int, heads: int) -> Any:
    """Return a function that runs one forward and one backward pass."""
    torch.manual_seed(0)
    module, forward = make(graph, width, heads)
    x = torch.randn(graph.num_nodes, width, requires_grad=True)
    pull = torch.randn(graph.num_nodes, width)

    def step() -> None:
        x.grad = None
        module.zero_grad()
        forward(x).backward(pull)

    return step


def make_bound(graph: Graph, width: int, heads: int) -> Any:
    """Return two sparse products and one sampled product for each head."""
    layout = EdgeLayout.from_edge_index(graph.edge_index, graph.num_nodes, graph.num_nodes)
    size = (graph.num_nodes, graph.num_nodes)
    values = torch.rand(layout.num_edges)
    matrix = torch.sparse_csr_tensor(layout.rowptr, layout.src, values, size)
    transposed = torch.sparse_csr_tensor(layout.colptr, layout.dst, values, size)
    x, y = torch.randn(2, heads, graph.num_nodes, width // heads)

    def step() -> None:
        for head in range(heads):
            matrix @ x[head]
            transposed @ y[head]
            torch.sparse.sampled_addmm(matrix, y[head], x[head].t(), beta=0.0)

    return step


def seconds_of(step: Callable[[], None]) -> float:
    """Time one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """Return this process's highest resident memory since the mark was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status names no VmHWM: memory can be measured on Linux only")


def extra_bytes(step: Callable[[], None]) -> int:
    """Return the peak of resident memory during the first pass above what was in use before it."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the mark to what is in use now
    before = peak_bytes()
    step()
    return peak_bytes() - before


def in_child(graph: str, width: int, heads: int, layer: str, peer: str | None, threads: int) -> dict[str, float] | None:
    """Measure one module alone, time and memory; ``None`` if the child dies."""
    task = json.dumps([graph, width, heads, layer, peer, threads])
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--child", task], capture_output=True, text=True, check=False, timeout=300
        )
    except subprocess.TimeoutExpired:
        print(f"  {peer or layer} given up after five minutes", file=sys.stderr)
        return None
    if done.returncode != 0:
        print(f"  {peer or layer} failed: {(done.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def child(task: str) -> None:
    """Measure one module in this process, first the memory of its first pass, then time."""
    name, width, heads, layer, peer, threads = json.loads(task)
    torch.set_num_threads(threads)
    make = LAYERS[layer][0] if peer is None else LAYERS[layer][1][peer]
    torch.ones(64, 64).matmul(torch.ones(64, 64))  # the libraries' own buffers are not the layer's
    step = make_step(make, load_graph(name), width, heads)
    start = time.perf_counter()
    extra = extra_bytes(step)
    print(json.dumps({"extra_bytes": extra, "seconds": time.perf_counter() - start}))


def measure(graph: Graph, width: int, heads: int, layer: str, peer: str, repeats: int, threads: int) -> Row:
    """Let layer, peer and bound take turns."""
    ours, theirs = (in_child(graph.name, width, heads, layer, part, threads) for part in (None, peer))
    assert ours is not None, f"{layer} failed"
    step, bound = make_step(LAYERS[layer][0], graph, width, heads), make_bound(graph, width, heads)
    first = seconds_of(step)
    quick = theirs is not None and theirs["seconds"] < PATIENCE
    peer_step = make_step(LAYERS[layer][1][peer], graph, width, heads) if quick else None
    for warm in (bound, *([peer_step] if peer_step else [])):
        warm()
    turns: list[tuple[float, float, float | None]] = [
        (seconds_of(step), seconds_of(bound), seconds_of(peer_step) if peer_step else None) for _ in range(repeats)
    ]
    seconds = statistics.median(turn[0] for turn in turns)
    peer_seconds = statistics.median(turn[2] for turn in turns if turn[2] is not None) if quick else None
    ratio = statistics.median(turn[2] / turn[0] for turn in turns if turn[2] is not None) if quick else None
    if theirs is not None and not quick:
        peer_seconds, ratio = theirs["seconds"], theirs["seconds"] / seconds
    return Row(
        graph=graph.name,
        width=width,
        heads=heads,
        layer=layer,
        peer=peer,
        seconds=seconds,
        peer_seconds=peer_seconds,
        ratio=ratio,
        extra_bytes=int(ours["extra_bytes"]),
        peer_extra_bytes=None if theirs is None else int(theirs["extra_bytes"]),
        bound_ratio=statistics.median(turn[0] / turn[1] for turn in turns),
        first_seconds=first - seconds,
    )


def show(row: Row) -> None:
    """Print a row."""
    peer = "peer failed"
    if row.peer_seconds is not None and row.peer_extra_bytes is not None:
        memory = row.peer_extra_bytes / max(row.extra_bytes, 1)
        peer = f"{row.peer_seconds:7.3f} s  {row.ratio:5.1f}x   memory 1/{memory:.1f}"
    print(
        f"{row.graph:18s} {row.width:4d} wide {row.heads} heads  {row.layer:42s} {row.seconds:7.3f} s  "
        f"{row.bound_ratio:4.2f} of the bound  first {row.first_seconds:+.2f} s  {row.extra_bytes / 2**20:6.0f} MiB  "
        f"{row.peer:16s} {peer}",
        flush=True,
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--graph", nargs="+", default=["planted:20000:300000"], help="known names, or planted:NODES:EDGES"
    )
    parser.add_argument("--width", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--peer", nargs="+", choices=PEERS, metavar="PEER", help=f"only these of {', '.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    if arguments.child:
        child(arguments.child)
        return
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.graph:
        graph = load_graph(name)
        for width in arguments.width:
            for heads in arguments.heads:
                for layer, (_, peers) in LAYERS.items():
                    for peer in peers:
                        if arguments.peer is None or peer in arguments.peer:
                            row = measure(graph, width, heads, layer, peer, arguments.repeats, arguments.threads)
                            rows.append(row)
                            show(row)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    sys.exit(guarded(main))
