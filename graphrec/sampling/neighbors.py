"""NeighborSampler: batches of nodes or edges with a sample of the graph around them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_choice, check_range

if TYPE_CHECKING:
    from torch_geometric.data import Data, HeteroData

NodeType = str
EdgeType = tuple[str, str, str]

ONLY_NODE, ONLY_EDGE = "node", ("node", "to", "node")  # what a homogeneous graph is made of


class NeighborSampler:
    """Samples the graph around seeds, hop by hop, and hands it out as PyG's loaders do.

    From each node reached in the hop before, ``num_neighbors`` distinct edges are followed against their direction, all
    if there are no more: a neighbour by parallel edges may be drawn by each of them. A node is expanded once, in the
    hop that first reached it. The batches have the fields of those of ``NeighborLoader`` and ``LinkNeighborLoader``, so
    models written for these take them; unlike these it needs no compiled package.

    Args:
        data: ``Data`` with ``edge_index``, or ``HeteroData``. It is sorted once, here, and must not change afterwards.
        num_neighbors: Neighbours of a node for each hop, at least 0, or -1 for all; for a ``HeteroData`` also such a
            list for each edge type, all of one length.

    Raises:
        ArgumentError: No hop, a number below -1 or no whole one, lists of several lengths, an unknown edge type, or
            edges whose nodes are not there.

    Example:
        >>> from torch_geometric.data import Data
        >>> path = Data(x=torch.eye(4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> batch = NeighborSampler(path, num_neighbors=[-1, -1]).sample(torch.tensor([3]))
        >>> batch.n_id.tolist(), batch.edge_index.tolist(), batch.batch_size
        ([3, 2, 1], [[1, 2], [0, 1]], 1)

    Source:
        Hamilton et al., "Inductive Representation Learning on Large Graphs" (NeurIPS 2017), algorithm 2; distinct
        neighbours by Floyd's method: Bentley and Floyd, "A Sample of Brilliance" (CACM 1987).
    """

    def __init__(
        self, data: Data | HeteroData, num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]]
    ) -> None:
        from torch_geometric.data import HeteroData

        self._data = data
        self._typed = isinstance(data, HeteroData)
        if isinstance(data, HeteroData):
            indices: dict[EdgeType, Tensor] = {kind: data[kind].edge_index for kind in data.edge_types}
            self._sizes: dict[NodeType, int] = {kind: int(data[kind].num_nodes or 0) for kind in data.node_types}
        else:
            if data.edge_index is None:
                raise ArgumentError("data has no edge_index")
            indices, self._sizes = {ONLY_EDGE: data.edge_index}, {ONLY_NODE: int(data.num_nodes or 0)}
        # Found now: a batch, half cut down, no longer says which of its attributes are a row a node or an edge.
        self._node_attributes = {kind: _attributes(self._store_of(data, kind), "node") for kind in self._sizes}
        self._edge_attributes = {kind: _attributes(self._store_of(data, kind), "edge") for kind in indices}
        self._into = {kind: _sort(index, kind, self._sizes) for kind, index in indices.items()}
        self.num_neighbors = _per_edge_type(num_neighbors, indices)

    @property
    def num_hops(self) -> int:
        """How many edges away from a seed a batch reaches."""
        return len(next(iter(self.num_neighbors.values()), []))

    def sample(
        self, seeds: Tensor, node_type: str | None = None, generator: torch.Generator | None = None
    ) -> Data | HeteroData:
        """Return the sampled graph around distinct nodes.

        Args:
            seeds: int64 ``[batch_size]``; they are the first nodes of the batch.
            node_type: Their type; needed, and only allowed, for a ``HeteroData``.
            generator: The source of randomness, on the CPU; torch's global one when not given.

        Returns:
            A graph of ``data``'s kind, with all of its node and edge attributes for what is in it and, for each type:
            ``n_id`` and ``e_id`` (indices into ``data``), ``num_sampled_nodes`` and ``num_sampled_edges`` (by hop; of
            nodes first the seeds). ``batch_size`` and ``input_id``, the place of each seed among the seeds given, stand
            with their type.

        Raises:
            ArgumentError: ``seeds`` are no row of distinct nodes, or the type is missing or unknown.
        """
        kind = self._checked_type(node_type)
        _check_nodes("seeds", seeds, self._sizes[kind])
        if len(torch.unique(seeds)) != len(seeds):
            raise ArgumentError("seeds must be distinct")
        batch, (store,) = self._around({kind: seeds}, [kind], generator)
        store.batch_size, store.input_id = len(seeds), torch.arange(len(seeds))
        return batch

    def sample_links(
        self,
        edge_label_index: Tensor,
        edge_label: Tensor | None = None,
        edge_type: EdgeType | None = None,
        generator: torch.Generator | None = None,
    ) -> Data | HeteroData:
        """Return the sampled graph around both ends of some pairs of nodes.

        Args:
            edge_label_index: int64 ``[2, batch_size]`` of (source, destination); pairs may repeat and need be no edges.
            edge_label: One row a pair, handed through.
            edge_type: Types of the ends, as ``(source, relation, destination)``; only, and always, for a
                ``HeteroData``.
            generator: The source of randomness, on the CPU; torch's global one when not given.

        Returns:
            As from :meth:`sample`, without ``batch_size``, and with ``edge_label_index`` in the numbers of the batch,
            ``edge_label``, and ``input_id``, the place of each pair, at the edge type's store.

        Raises:
            ArgumentError: Pairs of unknown nodes, or the type is missing or unknown.
        """
        if self._typed != (edge_type is not None):
            raise ArgumentError(f"edge_type must be {'given' if self._typed else 'None'} for this graph")
        ends = [ONLY_NODE, ONLY_NODE] if edge_type is None else [edge_type[0], edge_type[-1]]
        for end in ends:
            check_choice("edge_type's end", end, self._sizes, ArgumentError)
        if edge_label_index.dim() != 2 or len(edge_label_index) != 2:
            raise ArgumentError(f"edge_label_index must have shape [2, batch_size], got {list(edge_label_index.shape)}")
        if edge_label is not None and len(edge_label) != edge_label_index.shape[1]:
            raise ArgumentError(f"edge_label has {len(edge_label)} rows for {edge_label_index.shape[1]} pairs")
        for end, nodes in zip(ends, edge_label_index, strict=True):
            _check_nodes("edge_label_index", nodes, self._sizes[end])
        if ends[0] == ends[1]:
            unique, place = torch.unique(edge_label_index, return_inverse=True)
            seeds = {ends[0]: unique}
        else:
            parts = [torch.unique(nodes, return_inverse=True) for nodes in edge_label_index]
            seeds = {end: part[0] for end, part in zip(ends, parts, strict=True)}
            place = torch.stack([part[1] for part in parts])
        batch, _ = self._around(seeds, [], generator)
        store: Any = batch if edge_type is None else batch[edge_type]
        store.edge_label_index, store.input_id = place, torch.arange(edge_label_index.shape[1])
        if edge_label is not None:
            store.edge_label = edge_label
        return batch

    def batches(
        self,
        seeds: Tensor,
        batch_size: int,
        node_type: str | None = None,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
    ) -> Iterator[Data | HeteroData]:
        """Yield the graphs around all seeds, ``batch_size`` of them at a time; see :meth:`sample`.

        ``input_id`` is the place of a seed among all of them, so that ``labels[batch.input_id]`` is theirs.
        """
        check_range("batch_size", batch_size, low=1)
        order = torch.randperm(len(seeds), generator=generator) if shuffle else torch.arange(len(seeds))
        for rows in torch.split(order, batch_size):
            batch = self.sample(seeds[rows.to(seeds.device)], node_type, generator)
            self._store_of(batch, self._checked_type(node_type)).input_id = rows
            yield batch

    # How a batch is made

    def _checked_type(self, node_type: str | None) -> NodeType:
        if self._typed != (node_type is not None):
            raise ArgumentError(f"node_type must be {'given' if self._typed else 'None'} for this graph")
        kind = ONLY_NODE if node_type is None else node_type
        check_choice("node_type", kind, self._sizes, ArgumentError)
        return kind

    def _around(
        self, seeds: Mapping[NodeType, Tensor], wanted: Sequence[NodeType], generator: torch.Generator | None
    ) -> tuple[Any, list[Any]]:
        """Return the batch, and its stores of the wanted node types."""
        nodes = {kind: [seeds.get(kind, torch.empty(0, dtype=torch.int64))] for kind in self._sizes}
        place = {kind: torch.full((size,), -1) for kind, size in self._sizes.items()}
        for kind, found in nodes.items():
            place[kind][found[0]] = torch.arange(len(found[0]))
        edges: dict[EdgeType, list[_Edges]] = {kind: [] for kind in self._into}
        for hop in range(self.num_hops):
            for edge_type, into in self._into.items():
                *earlier, frontier = nodes[edge_type[-1]][: hop + 1]
                number = self.num_neighbors[edge_type][hop]
                edges[edge_type].append(_draw(into, frontier, sum(map(len, earlier)), number, generator))
            for kind, found in nodes.items():
                reached = [drawn[-1].source for (source, _, _), drawn in edges.items() if source == kind]
                both = torch.cat(reached) if reached else torch.empty(0, dtype=torch.int64)
                new = torch.unique(both[place[kind][both] < 0])
                place[kind][new] = sum(map(len, found)) + torch.arange(len(new))
                found.append(new)
        batch = copy.copy(self._data)
        for kind, found in nodes.items():
            self._keep_nodes(self._store_of(batch, kind), kind, found)
        for edge_type, drawn in edges.items():
            self._keep_edges(self._store_of(batch, edge_type), edge_type, drawn, place[edge_type[0]])
        return batch, [self._store_of(batch, kind) for kind in wanted]

    def _store_of(self, graph: Any, kind: NodeType | EdgeType) -> Any:
        return graph[kind] if self._typed else graph

    def _keep_nodes(self, store: Any, kind: NodeType, found: Sequence[Tensor]) -> None:
        """Cut a store of the batch down to the nodes found, hop by hop."""
        nodes = torch.cat(list(found))
        for name in self._node_attributes[kind]:
            store[name] = _rows(store[name], nodes, self._data.__cat_dim__(name, store[name]))
        store.num_nodes, store.n_id, store.num_sampled_nodes = len(nodes), nodes, [len(part) for part in found]

    def _keep_edges(self, store: Any, kind: EdgeType, drawn: Sequence[_Edges], place: Tensor) -> None:
        """Cut a store of the batch down to the edges drawn, hop by hop."""
        edges = torch.cat([part.edge for part in drawn])
        for name in self._edge_attributes[kind]:
            store[name] = _rows(store[name], edges, self._data.__cat_dim__(name, store[name]))
        source, destination = (torch.cat([getattr(part, end) for part in drawn]) for end in ("source", "destination"))
        store.edge_index = torch.stack([place[source], destination])
        store.e_id, store.num_sampled_edges = edges, [len(part.edge) for part in drawn]

    def __repr__(self) -> str:
        return f"NeighborSampler({sum(self._sizes.values())} nodes, num_neighbors={self.num_neighbors})"


@dataclass(frozen=True)
class _Into:
    """Edges sorted by destination: those into node i stand at ``bounds[i]`` to ``bounds[i + 1]``."""

    bounds: Tensor
    source: Tensor
    edge: Tensor


@dataclass(frozen=True)
class _Edges:
    """Edges drawn in one hop: the source by its number in the data, the destination by that in the batch."""

    source: Tensor
    destination: Tensor
    edge: Tensor


def _sort(edge_index: Tensor, kind: EdgeType, sizes: Mapping[NodeType, int]) -> _Into:
    if edge_index.dim() != 2 or len(edge_index) != 2:
        raise ArgumentError(f"edge_index must have shape [2, num_edges], got {list(edge_index.shape)}")
    source, destination = edge_index.as_subclass(Tensor)  # an EdgeIndex may be sorted by something else
    for what, nodes, end in (("sources", source, kind[0]), ("destinations", destination, kind[-1])):
        _check_nodes(f"edge_index's {what}", nodes, sizes[end])
    order = destination.argsort(stable=True)
    counts = torch.bincount(destination, minlength=sizes[kind[-1]])
    bounds = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _Into(bounds, source[order].to(torch.int64), order)


def _per_edge_type(
    numbers: Sequence[int] | Mapping[EdgeType, Sequence[int]], kinds: Mapping[EdgeType, Tensor]
) -> dict[EdgeType, list[int]]:
    if isinstance(numbers, Mapping):
        if set(numbers) != set(kinds):
            raise ArgumentError(f"num_neighbors must name the edge types {sorted(kinds)}, got {sorted(numbers)}")
        found = {kind: list(numbers[kind]) for kind in kinds}
    else:
        found = {kind: list(numbers) for kind in kinds}
    hops = {len(one) for one in found.values()}
    if len(hops) > 1 or 0 in hops:
        raise ArgumentError(f"num_neighbors must hold one number a hop, as many for every edge type, got {numbers!r}")
    for number in (number for one in found.values() for number in one):
        if not isinstance(number, int):
            raise ArgumentError(f"num_neighbors must be whole numbers, got {number!r}")
        check_range("num_neighbors", number, low=-1)
    return found


def _draw(into: _Into, nodes: Tensor, before: int, number: int, generator: torch.Generator | None) -> _Edges:
    """Draw edges into each of the nodes, of which ``before`` others come first in the batch."""
    start = into.bounds[nodes]
    degree = into.bounds[nodes + 1] - start
    many = degree > number if number >= 0 else torch.zeros_like(degree, dtype=torch.bool)
    taken = torch.where(many, 0, degree)
    rows = torch.arange(len(nodes)).repeat_interleave(taken)
    place = torch.arange(len(rows)) - (taken.cumsum(0) - taken)[rows]
    if bool(many.any()):
        rows_of_many = many.nonzero().squeeze(1)
        drawn = _distinct(degree[many], number, generator)
        rows = torch.cat([rows, rows_of_many.repeat_interleave(number)])
        order = rows.argsort(stable=True)
        rows, place = rows[order], torch.cat([place, drawn.flatten()])[order]
    position = start[rows] + place
    return _Edges(into.source[position], before + rows, into.edge[position])


def _distinct(sizes: Tensor, number: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``number`` distinct integers of ``0..sizes - 1`` for each row, every set equally likely; sorted.

    Floyd's method: its time depends on ``number`` alone, not on the degree of a popular node.
    """
    drawn = torch.empty(len(sizes), number, dtype=torch.int64)
    for column in range(number):
        last = sizes - number + column
        # In float64 the largest draw below 1 times a size below 2 ** 52 stays below the size.
        chosen = (torch.rand(len(sizes), generator=generator, dtype=torch.float64) * (last + 1)).long()
        repeated = (drawn[:, :column] == chosen[:, None]).any(1)
        drawn[:, column] = torch.where(repeated, last, chosen)
    return drawn.sort(dim=1).values


def _attributes(store: Any, level: str) -> list[str]:
    """Return the names of a store's attributes with a row a node, or an edge; the edges themselves are none."""
    is_one = store.is_node_attr if level == "node" else store.is_edge_attr
    return [name for name in store.keys() if name not in ("edge_index", "num_nodes") and is_one(name)]  # noqa: SIM118


def _rows(value: Any, rows: Tensor, dim: int) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(dim, rows.to(value.device))
    if isinstance(value, np.ndarray):
        return value.take(rows.numpy(), axis=dim)
    return [value[row] for row in rows.tolist()]


def _check_nodes(name: str, nodes: Tensor, size: int) -> None:
    if nodes.dim() != 1 or nodes.dtype not in (torch.int64, torch.int32) or nodes.device.type != "cpu":
        raise ArgumentError(
            f"{name} must be integers of shape [n] on the CPU, got {nodes.dtype} {list(nodes.shape)} on {nodes.device}"
        )
    if nodes.numel() and not 0 <= int(nodes.min()) <= int(nodes.max()) < size:
        raise ArgumentError(f"{name} must be within 0..{size - 1}, got {int(nodes.min())}..{int(nodes.max())}")
