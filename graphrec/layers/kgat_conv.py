"""KGATConv: attention in the space of each relation, and three ways to join a node with its neighbourhood."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_choice, check_range
from graphrec.layers._fused_conv import FusedConv, opened
from graphrec.layers.ops import EdgeLayout, TypedPairs, dot_scores
from graphrec.layers.ops.standalone import uncompiled

AGGREGATORS = ("bi-interaction", "concat", "sum")


class KGATConv(FusedConv):
    r"""Attend to neighbours by how close they are in the space of the relation.

    For an edge :math:`e: t \xrightarrow{r} h` (source :math:`t`, destination :math:`h`),

    .. math::
        \alpha_e = \operatorname{softmax}_{e \to h} \, (W_r x_t)^\top \tanh(W_r x_h + e_r), \qquad
        n_h = \sum_{e \to h} \alpha_e \, x_t,

    and the aggregator makes :math:`y_h` of :math:`x_h` and :math:`n_h`:

    .. math::
        &\sigma(W (x_h + n_h)) && \text{sum} \\
        &\sigma(W [x_h \| n_h]) && \text{concat} \\
        &\sigma(W_1 (x_h + n_h)) + \sigma(W_2 (x_h \odot n_h)) && \text{bi-interaction}

    with :math:`\sigma` a LeakyReLU. The score is computed as :math:`x_t^\top W_r^\top \tanh(W_r x_h + e_r)`: a vector
    for each distinct (destination, relation) pair instead of two for each edge, and a product sampled at the edges.

    Args:
        in_channels: Width of the node vectors.
        out_channels: Width of the output.
        num_relations: Number of edge types.
        relation_channels: Width of the relations' spaces; ``None``: ``in_channels``.
        aggregator: One of ``"bi-interaction"``, ``"concat"``, ``"sum"``.
        negative_slope: Slope of the LeakyReLU.

    Shape:
        - x: ``[num_nodes, in_channels]``, or a pair ``([num_src, in_channels], [num_dst, in_channels])``
        - edge_index: int ``[2, num_edges]``, row 0 source, row 1 destination
        - edge_type: int ``[num_edges]``
        - output: ``[num_dst, out_channels]``

    Raises:
        ArgumentError: Sizes or types that do not fit, or an index or edge type out of range.

    Example:
        >>> conv = KGATConv(8, 4, num_relations=3)
        >>> edge_index, edge_type = torch.tensor([[0, 1, 4], [1, 2, 1]]), torch.tensor([0, 2, 1])
        >>> conv(torch.randn(5, 8), edge_index, edge_type).shape
        torch.Size([5, 4])

    Source:
        Wang et al., "KGAT" (KDD 2019), eq. 3-8.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        relation_channels: int | None = None,
        aggregator: str = "bi-interaction",
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        relation_channels = in_channels if relation_channels is None else relation_channels
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("num_relations", num_relations),
            ("relation_channels", relation_channels),
        ):
            check_range(name, value, low=1)
        check_choice("aggregator", aggregator, AGGREGATORS)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.aggregator = aggregator
        self.negative_slope = negative_slope
        self.relation = nn.Parameter(torch.empty(num_relations, relation_channels))
        self.relation_weight = nn.Parameter(torch.empty(num_relations, relation_channels, in_channels))
        self.lin = nn.Linear(in_channels * (2 if aggregator == "concat" else 1), out_channels)
        self.lin_product = nn.Linear(in_channels, out_channels) if aggregator == "bi-interaction" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.xavier_uniform_(self.relation)
        for weight in self.relation_weight:
            nn.init.xavier_uniform_(weight)
        for lin in (self.lin, self.lin_product):
            if lin is not None:
                nn.init.xavier_uniform_(lin.weight)
                nn.init.zeros_(lin.bias)

    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        *,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @uncompiled
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        *,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; with ``return_attention_weights`` also return ``alpha`` ``[num_edges, 1]``, in the caller's order."""
        x_src, x_dst, layout, types = opened(x, self.in_channels, edge_index, edge_type, self.num_relations)
        attended, alpha = self._attend(self._scores(x_src, x_dst, layout, types), x_src, layout)
        neighbours = self._as_given(attended.squeeze(1), x_dst)
        joined = torch.cat([x_dst, neighbours], dim=1) if self.aggregator == "concat" else x_dst + neighbours
        out = F.leaky_relu(self.lin(joined), self.negative_slope)
        if self.lin_product is not None:
            out = out + F.leaky_relu(self.lin_product(x_dst * neighbours), self.negative_slope)
        return (out, layout.restore(alpha)) if return_attention_weights else out

    def _scores(self, x_src: Tensor, x_dst: Tensor, layout: EdgeLayout, types: EdgeLayout) -> Tensor:
        pairs = TypedPairs.of(layout, types)
        # Gathered and taken apart at once: done a relation at a time, each would fill a gradient as large as them all.
        counts = [high - low for low, high in pairwise(pairs.bounds)]
        nodes = torch.split(x_dst.index_select(0, pairs.node), counts)
        queries = [
            torch.addmm(offset, of_relation, weight.t()).tanh() @ weight
            for of_relation, weight, offset in zip(
                nodes, self.relation_weight.unbind(), self.relation.unbind(), strict=True
            )
        ]
        scores = dot_scores(torch.cat(queries).unsqueeze(1), x_src.unsqueeze(1), pairs.edges)
        return pairs.edges.restore(scores)  # [num_edges, 1] in layout order

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"num_relations={self.num_relations}, aggregator={self.aggregator!r})"
        )
