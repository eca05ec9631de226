"""HeteroAttentionConv: attention over nodes and edges of several types."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers._fused_conv import FusedConv, check_nodes
from graphrec.layers.ops import EdgeLayout, dot_scores, stacked_maps
from graphrec.layers.ops.linear import Map
from graphrec.layers.ops.standalone import uncompiled

EdgeType = tuple[str, str, str]


class HeteroAttentionConv(FusedConv):
    r"""Attend over all edges that enter a node, whatever their types, with maps for each node and edge type.

    For an edge :math:`e: s \to d` of type :math:`\phi`, between nodes of types :math:`\sigma` and :math:`\delta`, and
    each head,

    .. math::
        z_e &= \mu_\phi \, (Q_\delta x_d)^\top (K_\sigma x_s \, A_\phi) / \sqrt{\text{out} / \text{heads}}, \qquad
        \alpha_e = \operatorname{softmax}_{e \to d} z_e, \\
        y_d &= W_\delta \operatorname{GELU} \Big( \sum_{e \to d} \alpha_e \, V_\sigma x_s \, M_\phi \Big) + b_\delta,

    the softmax running over the edges of all types. Where input and output are equally wide,
    :math:`g \, y_d + (1 - g) \, x_d` is returned, with a gate :math:`g = \operatorname{sigmoid}(s_\delta)`. Keys and
    values are mapped once for each node that an edge type leaves, never for each edge.

    Args:
        in_channels: Width of the node vectors; a mapping if it differs between node types.
        out_channels: Width of the output, a multiple of ``heads``.
        metadata: ``(node_types, edge_types)``, as ``HeteroData.metadata()`` gives them.
        heads: Number of attention heads.

    Shape:
        - x_dict: node type -> ``[num_nodes, in_channels]``
        - edge_index_dict: (source type, name, destination type) -> int ``[2, num_edges]``
        - output: node type -> ``[num_nodes, out_channels]``, for the types that edges may enter

    Raises:
        ArgumentError: Sizes or types that do not fit, an unknown node or edge type, or an index out of range.

    Example:
        >>> metadata = (["item", "genre"], [("genre", "of", "item"), ("item", "like", "item")])
        >>> conv = HeteroAttentionConv({"item": 8, "genre": 4}, 6, metadata, heads=2)
        >>> x_dict = {"item": torch.randn(5, 8), "genre": torch.randn(3, 4)}
        >>> edges = {("genre", "of", "item"): torch.tensor([[0, 2], [1, 4]])}
        >>> {name: list(y.shape) for name, y in conv(x_dict, edges).items()}
        {'item': [5, 6]}

    Source:
        Hu et al., "Heterogeneous Graph Transformer" (WWW 2020), eq. 3-5, with the gate of the authors' code.
    """

    def __init__(
        self,
        in_channels: int | Mapping[str, int],
        out_channels: int,
        metadata: tuple[list[str], list[EdgeType]],
        heads: int = 1,
    ) -> None:
        super().__init__()
        node_types, edge_types = metadata
        widths = dict.fromkeys(node_types, in_channels) if isinstance(in_channels, int) else dict(in_channels)
        check_range("heads", heads, low=1)
        check_range("out_channels", out_channels, low=1)
        if out_channels % heads:
            raise ArgumentError(f"out_channels must be a multiple of heads, got {out_channels} and {heads}")
        if not edge_types:
            raise ArgumentError("metadata must have at least one edge type, got none")
        for edge_type in edge_types:
            for name in (edge_type[0], edge_type[2]):
                check_choice("node type of an edge", name, node_types)
        for name in node_types:
            check_range(f"in_channels of {name!r}", widths.get(name, 0), low=1)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.edge_types = [tuple(edge_type) for edge_type in edge_types]
        self.sources = [name for name in node_types if any(edge[0] == name for edge in edge_types)]
        self.destinations = [name for name in node_types if any(edge[2] == name for edge in edge_types)]
        self.widths = widths
        size = out_channels // heads
        # Lists rather than dictionaries by name: a name may hold any character.
        self.lin_key_value = nn.ModuleList(nn.Linear(widths[name], 2 * out_channels) for name in self.sources)
        self.lin_query = nn.ModuleList(nn.Linear(widths[name], out_channels) for name in self.destinations)
        self.lin_out = nn.ModuleList(nn.Linear(out_channels, out_channels) for _ in self.destinations)
        self.skip = nn.ParameterList(
            torch.empty(1 if widths[name] == out_channels else 0) for name in self.destinations
        )
        self.key_relation = nn.Parameter(torch.empty(len(edge_types), heads, size, size))
        self.value_relation = nn.Parameter(torch.empty(len(edge_types), heads, size, size))
        self.prior = nn.Parameter(torch.empty(len(edge_types), heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; priors and gates start at one."""
        for lin in (*self.lin_key_value, *self.lin_query, *self.lin_out):
            nn.init.xavier_uniform_(lin.weight)
            nn.init.zeros_(lin.bias)
        for weight in (*self.key_relation.flatten(0, 1), *self.value_relation.flatten(0, 1)):
            nn.init.xavier_uniform_(weight)
        nn.init.ones_(self.prior)
        for skip in self.skip:
            nn.init.ones_(skip)

    @overload
    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        *,
        return_attention_weights: Literal[False] = False,
    ) -> dict[str, Tensor]: ...
    @overload
    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[dict[str, Tensor], dict[EdgeType, Tensor]]: ...
    @uncompiled
    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        *,
        return_attention_weights: bool = False,
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], dict[EdgeType, Tensor]]:
        """Attend.

        Args:
            x_dict: Node vectors of each type.
            edge_index_dict: Edges of each type; sorted once for as long as the tensors live and are not written to.
            return_attention_weights: Also return ``alpha`` ``[num_edges, heads]`` for each edge type.
        """
        for edge_type in edge_index_dict:
            check_choice("edge type", str(edge_type), map(str, self.edge_types))
        for name in {*self.destinations, *(edge_type[0] for edge_type in edge_index_dict)}:
            if name not in x_dict:
                raise ArgumentError(f"x_dict must hold node type {name!r}, got {', '.join(map(repr, x_dict))}")
            check_nodes(f"x_dict[{name!r}]", x_dict[name], self.widths[name])
        layout, used = self._layout(x_dict, edge_index_dict)
        query, key, value = self._projections(x_dict, list(edge_index_dict), used)
        summed, alpha = self._attend(dot_scores(query, key, layout), value, layout)

        out = {}
        summed = self._as_given(summed, query)
        parts = summed.flatten(1).split_with_sizes([x_dict[name].size(0) for name in self.destinations])
        for name, part, lin, skip in zip(self.destinations, parts, self.lin_out, self.skip, strict=True):
            if skip.numel():
                # The gate joins the weights, which are few, instead of every row.
                gate = skip.sigmoid()
                y = F.linear(F.gelu(part), lin.weight * gate, lin.bias * gate)
                out[name] = y + x_dict[name].to(y.dtype) * (1 - gate).to(y.dtype)
            else:
                out[name] = lin(F.gelu(part))
        if not return_attention_weights:
            return out
        sizes = [edge_index.size(1) for edge_index in edge_index_dict.values()]
        return out, dict(zip(edge_index_dict, layout.restore(alpha).split_with_sizes(sizes), strict=True))

    def _projections(
        self, x_dict: Mapping[str, Tensor], edge_types: list[EdgeType], used: list[Tensor | None]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return all destinations' queries, and keys and values of the sources of one edge type after the other."""
        size = self.out_channels // self.heads
        xs = [x_dict[name] for name in self.destinations]
        queries: list[Map] = [
            (i, lin.weight, lin.bias) for i, lin in enumerate(cast(Iterable[nn.Linear], self.lin_query))
        ]
        keys: list[Map] = []
        values: list[Map] = []
        for edge_type, nodes in zip(edge_types, used, strict=True):
            number = self.edge_types.index(tuple(edge_type))
            lin = cast(nn.Linear, self.lin_key_value[self.sources.index(edge_type[0])])
            x = x_dict[edge_type[0]]
            place = next((i for i, other in enumerate(xs) if nodes is None and other is x), len(xs))
            if place == len(xs):
                xs.append(x if nodes is None else x.index_select(0, nodes))
            to_key = self.key_relation[number] * (self.prior[number] * size**-0.5).view(-1, 1, 1)
            weights, biases = lin.weight.chunk(2), lin.bias.chunk(2)
            for maps, weight, bias, relation in zip(
                (keys, values), weights, biases, (to_key, self.value_relation[number]), strict=True
            ):
                # (x K) A = x (K A): the two maps become one, which is small, before they meet the nodes.
                joined = torch.einsum("hdi,hde->hei", weight.view(self.heads, size, -1), relation)
                shift = torch.einsum("hd,hde->he", bias.view(self.heads, size), relation)
                maps.append((place, joined.flatten(0, 1), shift.flatten()))
        query, key, value = (self._by_head(part) for part in stacked_maps(xs, [queries, keys, values]))
        return query, key, value

    def _layout(
        self, x_dict: Mapping[str, Tensor], edge_index_dict: Mapping[EdgeType, Tensor]
    ) -> tuple[EdgeLayout, list[Tensor | None]]:
        """Return the layout of all edges, and the nodes of each type that are sources, ``None`` for all of them."""
        starts, total = {}, 0
        for name in self.destinations:
            starts[name] = total
            total += x_dict[name].size(0)
        parts, shapes = list(edge_index_dict.values()), []
        for edge_type, edge_index in edge_index_dict.items():
            version = None if edge_index.is_inference() else edge_index._version
            shapes.append((x_dict[edge_type[0]].size(0), x_dict[edge_type[2]].size(0), starts[edge_type[2]], version))
        key = (tuple(shapes), total)
        kept = _JOINED.get(parts[0]) if parts else None
        if kept is None or kept[0] != key or not all(a() is b for a, b in zip(kept[1], parts, strict=True)):
            kept = (key, [weakref.ref(part) for part in parts], *self._join(parts, shapes, total))
            if parts and all(shape[3] is not None for shape in shapes):
                _JOINED[parts[0]] = kept
        return kept[2], kept[3]

    @torch.inference_mode(False)
    def _join(
        self, parts: list[Tensor], shapes: list[tuple[int, int, int, int | None]], num_dst: int
    ) -> tuple[EdgeLayout, list[Tensor | None]]:
        joined = [torch.empty(2, 0, dtype=torch.int64, device=self.prior.device)]
        used: list[Tensor | None] = []
        num_src = 0
        for edge_index, (sources, destinations, start, _) in zip(parts, shapes, strict=True):
            EdgeLayout.from_edge_index(edge_index, sources, destinations)  # names what is out of range
            source, destination = edge_index.long()
            nodes, place = torch.unique(source, return_inverse=True)
            if 2 * nodes.numel() > sources:  # picking rows is worth its while only if it leaves most out
                used.append(None)
                joined.append(torch.stack([source + num_src, destination + start]))
                num_src += sources
            else:
                used.append(nodes)
                joined.append(torch.stack([place + num_src, destination + start]))
                num_src += nodes.numel()
        return EdgeLayout.from_edge_index(torch.cat(joined, dim=1), num_src, num_dst), used

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.heads, self.out_channels // self.heads)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"edge_types={len(self.edge_types)}, heads={self.heads})"
        )


_JOINED: Any = WeakTensorKeyDictionary()
