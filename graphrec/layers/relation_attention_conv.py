"""RelationAttentionConv: attention over typed edges."""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers._fused_conv import FusedConv, opened, sum_by_type
from graphrec.layers.ops import (
    EdgeLayout,
    additive_scores,
    dot_scores,
    gatv2_scores,
    linear_maps,
    segment_softmax,
    weighted_sum,
)
from graphrec.layers.ops.standalone import uncompiled

SCORES = ("additive", "dot", "gatv2")


class RelationAttentionConv(FusedConv):
    r"""Attend to source nodes over typed edges, without storing a vector per edge.

    For an edge :math:`e: s \xrightarrow{r} d` and each head,

    .. math::
        \alpha_e = \operatorname{softmax}_{e \to d} z_e, \qquad y_d = \sum_{e \to d} \alpha_e \, (W x_s + m_r),

    with one of the scores

    .. math::
        z_e &= \operatorname{LeakyReLU}(a_s^\top W x_s + a_d^\top W' x_d + b_r + c^\top e) && \text{additive} \\
        z_e &= (W_Q x_d)^\top (W_K x_s) / \sqrt{\text{out}} + b_r + c^\top e && \text{dot} \\
        z_e &= a^\top \operatorname{LeakyReLU}(W x_s + W' x_d + w_r) + b_r + c^\top e && \text{gatv2}

    (:math:`c^\top e` only with ``edge_dim``). The additive score is a sum of scalars, the dot product is sampled at the
    edges and the sum is a sparse product, so the extra memory is a few scalars per edge and head. The vector inside
    ``gatv2`` exists for a block of edges at a time: bounded memory too, at about the cost of the products it replaces.
    Parallel edges of different relations stay apart. A destination without edges receives zeros.

    Args:
        in_channels: Width of the node vectors; a pair (source, destination) on a bipartite graph.
        out_channels: Width of each head's output.
        num_relations: Number of edge types.
        heads: Number of attention heads.
        concat: Concatenate the heads (width ``heads * out_channels``) rather than average them.
        score: The form of the score, one of ``"additive"``, ``"dot"``, ``"gatv2"``.
        relation_message: Whether the relation's own vector :math:`m_r` joins the message.
        transform: Whether :math:`W` is learned; ``False`` keeps the source vectors as they are (then
            ``out_channels`` must equal ``in_channels`` and every head attends to the same vectors); not with
            ``"gatv2"``.
        edge_dim: Width of the edges' features; ``None`` for edges without.
        dropout: Share of the attention weights dropped in training.
        negative_slope: Slope of the LeakyReLU, above 0.

    Shape:
        - x: ``[num_nodes, in_channels]``, or a pair ``([num_src, in], [num_dst, in'])``
        - edge_index: int ``[2, num_edges]``, row 0 source, row 1 destination
        - edge_type: int ``[num_edges]``
        - edge_attr: ``[num_edges, edge_dim]``
        - output: ``[num_dst, heads * out_channels]`` (``[num_dst, out_channels]`` with ``concat=False``)

    Raises:
        ArgumentError: Sizes or types that do not fit, or an index or edge type out of range.

    Example:
        >>> conv = RelationAttentionConv(8, 4, num_relations=3, heads=2)
        >>> x = torch.randn(5, 8)
        >>> edge_index = torch.tensor([[0, 1, 4], [1, 2, 1]])
        >>> conv(x, edge_index, edge_type=torch.tensor([0, 2, 1])).shape
        torch.Size([5, 8])

    Source:
        Veličković et al., "Graph Attention Networks" (ICLR 2018), eq. 3-6; Vaswani et al., "Attention Is All You Need"
        (NeurIPS 2017), eq. 1, on edges as in Shi et al., "Masked Label Prediction" (IJCAI 2021), eq. 3-4; Brody et al.,
        "How Attentive Are Graph Attention Networks?" (ICLR 2022), eq. 7; with relation terms as in Wang et al., "KGAT"
        (KDD 2019), eq. 3-5, made additive.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        num_relations: int,
        heads: int = 1,
        concat: bool = True,
        relation_message: bool = True,
        transform: bool = True,
        negative_slope: float = 0.2,
        score: str = "additive",
        edge_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        pair = in_channels if isinstance(in_channels, tuple) else (in_channels, in_channels)
        for name, value in (("in_channels", min(pair)), ("out_channels", out_channels), ("heads", heads)):
            check_range(name, value, low=1)
        check_range("num_relations", num_relations, low=1)
        check_range("negative_slope", negative_slope, low=1e-6)
        check_range("dropout", dropout, low=0.0, high=1.0)
        check_choice("score", score, SCORES)
        if edge_dim is not None:
            check_range("edge_dim", edge_dim, low=1)
        if not transform and pair[0] != out_channels:
            raise ArgumentError(f"transform=False needs out_channels == in_channels, got {out_channels} and {pair[0]}")
        if not transform and score == "gatv2":
            raise ArgumentError("score='gatv2' needs transform=True: the score reads the transformed vectors")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.score = score
        self.edge_dim = edge_dim
        self.dropout = dropout
        width = heads * out_channels
        self.lin = nn.Linear(pair[0], width, bias=False) if transform else None
        if score == "additive":
            self.att_src = nn.Parameter(torch.empty(heads, out_channels))
            # a_d^T W' is one vector per head: W' need never be multiplied out.
            self.att_dst = nn.Parameter(torch.empty(heads, pair[1]))
        elif score == "dot":
            self.lin_key = nn.Linear(pair[0], width, bias=False)
            self.lin_query = nn.Linear(pair[1], width, bias=False)
        else:
            self.att = nn.Parameter(torch.empty(heads, out_channels))
            self.lin_dst = nn.Linear(pair[1], width, bias=False)
            self.relation_hidden = nn.Parameter(torch.empty(num_relations, width))
        self.relation_score = nn.Parameter(torch.empty(num_relations, heads))
        self.relation_vector = nn.Parameter(torch.empty(num_relations, width)) if relation_message else None
        self.lin_edge = nn.Linear(edge_dim, heads, bias=False) if edge_dim is not None else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; relations start without effect."""
        for name, weight in self.named_parameters():
            if name.startswith("relation_"):
                nn.init.zeros_(weight)
            else:
                nn.init.xavier_uniform_(weight)

    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        edge_attr: Tensor | None = None,
        *,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        edge_attr: Tensor | None = None,
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @uncompiled
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        edge_attr: Tensor | None = None,
        *,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: Node vectors, or a (source, destination) pair.
            edge_index: The edges; sorted once for as long as the tensor lives and is not written to.
            edge_type: Their relations, in the order of ``edge_index`` (also when a layout is given).
            edge_attr: Their features, with ``edge_dim``.
            return_attention_weights: Also return ``alpha`` ``[num_edges, heads]``, in the order of ``edge_index``.
        """
        x_src, x_dst, layout, types = opened(x, self.in_channels, edge_index, edge_type, self.num_relations)
        edge = self._edge_scores(edge_attr, layout)

        # Transform before or after the sum, whichever meets fewer rows; the result is the same.
        summed_first = (
            self.score != "gatv2"
            and self.relation_vector is None
            and not self._watched
            and layout.num_src > layout.num_dst * self.heads
        )
        values, key, query = self._projections(x_src, x_dst, transformed=self.lin is not None and not summed_first)
        scores = self._scores(values, key, query, layout, types, edge)  # [num_edges, heads]
        out, alpha = self._messages(scores, values, layout, types)  # [num_dst, heads or 1, out_channels]
        out = self._as_given(out, x_src)
        if self.lin is not None and summed_first:
            weight = self.lin.weight.view(self.heads, self.out_channels, -1)
            out = torch.einsum("nhi,hci->nhc", out, weight)
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        return (out, layout.restore(alpha)) if return_attention_weights else out

    def _projections(self, x_src: Tensor, x_dst: Tensor, transformed: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """Map the vectors to messages and to the two sides of the score, with one gradient for each of ``x``."""
        to_values = self.lin.weight if transformed and self.lin is not None else None
        to_key: Tensor | None = None
        to_query: Tensor
        if self.score == "additive":
            to_key, to_query = self._source_weight(), self.att_dst
        elif self.score == "dot":
            # The score's scale joins the weights, which are few, instead of every query.
            to_key, to_query = self.lin_key.weight, self.lin_query.weight * self.out_channels**-0.5
        else:
            to_query = self.lin_dst.weight
        from_source = [weight for weight in (to_values, to_key) if weight is not None]
        if x_src is not x_dst:
            mapped = list(linear_maps(x_src, *from_source))
            (query,) = linear_maps(x_dst, to_query)
        elif self.score == "additive" and to_key is not None:  # thin maps: one is quicker than two
            *mapped, both = linear_maps(x_src, *from_source[:-1], torch.cat([to_key, to_query]))
            key, query = both[:, : self.heads], both[:, self.heads :]
            mapped.append(key)
        else:
            *mapped, query = linear_maps(x_src, *from_source, to_query)
        values = x_src if to_values is None else self._by_head(mapped[0])
        return values, None if to_key is None else mapped[-1], query

    def _source_weight(self) -> Tensor:
        # a^T (W x) = (W^T a)^T x: W joins the one vector a instead of every node.
        if self.lin is None:
            return self.att_src
        weight = self.lin.weight.view(self.heads, self.out_channels, -1)
        return torch.einsum("hci,hc->hi", weight, self.att_src)

    def _scores(
        self,
        values: Tensor,
        key: Tensor | None,
        query: Tensor,
        layout: EdgeLayout,
        types: EdgeLayout,
        edge: Tensor | None,
    ) -> Tensor:
        bias = self.relation_score
        if self.score == "additive":
            return additive_scores(layout, key, query, bias, types, edge, self.negative_slope)
        if key is not None:
            scores = dot_scores(self._by_head(query), self._by_head(key), layout)
        else:
            hidden = self._by_head(self.relation_hidden)
            scores = gatv2_scores(self.att, values, self._by_head(query), layout, hidden, types, self.negative_slope)
        return additive_scores(layout, by_type=bias, types=types, edge=scores if edge is None else scores + edge)

    def _edge_scores(self, edge_attr: Tensor | None, layout: EdgeLayout) -> Tensor | None:
        if (edge_attr is None) != (self.lin_edge is None):
            given = "None" if edge_attr is None else str(list(edge_attr.shape))
            raise ArgumentError(f"edge_attr and edge_dim go together, got {given} and {self.edge_dim}")
        if edge_attr is None or self.lin_edge is None:
            return None
        if edge_attr.shape != (layout.num_edges, self.edge_dim):
            raise ArgumentError(
                f"edge_attr must have shape [{layout.num_edges}, {self.edge_dim}], got {list(edge_attr.shape)}"
            )
        return layout.arrange(self.lin_edge(edge_attr))

    def _messages(self, scores: Tensor, values: Tensor, layout: EdgeLayout, types: EdgeLayout) -> tuple[Tensor, Tensor]:
        vectors = None if self.relation_vector is None else self._by_head(self.relation_vector)
        if self.lin is not None or self.concat or self.heads == 1 or self._watched:
            return self._attend(scores, values, layout, types, vectors, self.dropout)
        # All heads read the same vectors, so an average over heads is one sum with averaged attention.
        alpha = segment_softmax(scores, layout)
        weights = F.dropout(alpha, self.dropout, self.training)
        out = weighted_sum(weights.mean(dim=1, keepdim=True), values, layout)
        return (out if vectors is None else out + sum_by_type(weights, vectors, types)), alpha

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.heads, self.out_channels)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"num_relations={self.num_relations}, heads={self.heads}, score={self.score!r})"
        )
