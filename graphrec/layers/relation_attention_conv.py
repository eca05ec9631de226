"""RelationAttentionConv: attention over typed edges."""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops import EdgeLayout, segment_softmax, weighted_sum


class RelationAttentionConv(nn.Module):
    r"""Attend to source nodes over typed edges, without storing a vector per edge.

    For an edge :math:`e: s \xrightarrow{r} d` and each head,

    .. math::
        \alpha_e = \operatorname{softmax}_{e \to d} \operatorname{LeakyReLU}(a_s^\top W x_s + a_d^\top W' x_d + b_r),
        \qquad y_d = \sum_{e \to d} \alpha_e \, (W x_s + m_r).

    Every term of the score is a scalar per node or relation, and the sum is a sparse product, so the extra memory is
    one scalar per edge and head (and one per destination, relation and head for :math:`m_r`). Parallel edges of
    different relations stay apart. A destination without edges receives zeros.

    Args:
        in_channels: Width of the node vectors; a pair (source, destination) on a bipartite graph.
        out_channels: Width of each head's output.
        num_relations: Number of edge types.
        heads: Number of attention heads.
        concat: Concatenate the heads (width ``heads * out_channels``) rather than average them.
        relation_message: Whether the relation's own vector :math:`m_r` joins the message.
        transform: Whether :math:`W` is learned; ``False`` keeps the source vectors as they are (then
            ``out_channels`` must equal ``in_channels`` and every head attends to the same vectors).
        negative_slope: Slope of the LeakyReLU.

    Shape:
        - x: ``[num_nodes, in_channels]``, or a pair ``([num_src, in], [num_dst, in'])``
        - edge_index: int ``[2, num_edges]``, row 0 source, row 1 destination
        - edge_type: int ``[num_edges]``
        - output: ``[num_dst, heads * out_channels]`` (``[num_dst, out_channels]`` with ``concat=False``)

    Raises:
        ArgumentError: Sizes that do not fit, or an index or edge type out of range.

    Example:
        >>> conv = RelationAttentionConv(8, 4, num_relations=3, heads=2)
        >>> x = torch.randn(5, 8)
        >>> edge_index = torch.tensor([[0, 1, 4], [1, 2, 1]])
        >>> conv(x, edge_index, edge_type=torch.tensor([0, 2, 1])).shape
        torch.Size([5, 8])

    Source:
        Veličković et al., "Graph Attention Networks" (ICLR 2018), eq. 3-6, with relation terms as in Wang et al.,
        "KGAT" (KDD 2019), eq. 3-5, made additive so that they factorise over nodes and relations.
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
    ) -> None:
        super().__init__()
        pair = in_channels if isinstance(in_channels, tuple) else (in_channels, in_channels)
        for name, value in (("in_channels", min(pair)), ("out_channels", out_channels), ("heads", heads)):
            check_range(name, value, low=1)
        check_range("num_relations", num_relations, low=1)
        if not transform and pair[0] != out_channels:
            raise ArgumentError(f"transform=False needs out_channels == in_channels, got {out_channels} and {pair[0]}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.lin = nn.Linear(pair[0], heads * out_channels, bias=False) if transform else None
        self.att_src = nn.Parameter(torch.empty(heads, out_channels))
        # a_d^T W' is one vector per head: W' need never be multiplied out.
        self.att_dst = nn.Parameter(torch.empty(heads, pair[1]))
        self.relation_score = nn.Parameter(torch.empty(num_relations, heads))
        self.relation_vector = (
            nn.Parameter(torch.empty(num_relations, heads * out_channels)) if relation_message else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        if self.lin is not None:
            nn.init.xavier_uniform_(self.lin.weight)
        nn.init.xavier_uniform_(self.att_src)
        nn.init.xavier_uniform_(self.att_dst)
        nn.init.zeros_(self.relation_score)
        if self.relation_vector is not None:
            nn.init.zeros_(self.relation_vector)

    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: Node vectors, or a (source, destination) pair.
            edge_index: The edges; an :class:`EdgeLayout` of them saves the sort when the graph stays the same.
            edge_type: Their relations, in the order of ``edge_index`` (also when a layout is given).
            return_attention_weights: Also return ``alpha`` ``[num_edges, heads]``, in the order of ``edge_index``.
        """
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        layout = self._layout(edge_index, x_src.size(0), x_dst.size(0))
        types = self._types(edge_type, layout)[layout.order]

        scores = (
            self._source_scores(x_src).index_select(0, layout.src)
            + (x_dst @ self.att_dst.t()).index_select(0, layout.destination)
            + self.relation_score.index_select(0, types)
        )
        alpha = segment_softmax(F.leaky_relu(scores, self.negative_slope), layout.rowptr)  # [num_edges, heads]
        out = self._aggregate(alpha, x_src, layout)  # [num_dst, heads, out_channels]
        if self.relation_vector is not None:
            # A relation's vector is the same on all its edges: add up its attention first, multiply once.
            slot = layout.destination.long() * self.num_relations + types
            share = alpha.new_zeros(layout.num_dst * self.num_relations, self.heads).index_add(0, slot, alpha)
            vectors = self.relation_vector.view(self.num_relations, self.heads, self.out_channels)
            out = out + torch.einsum("nrh,rhc->nhc", share.view(layout.num_dst, self.num_relations, -1), vectors)
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if not return_attention_weights:
            return out
        ordered = torch.empty_like(alpha)
        ordered[layout.order] = alpha
        return out, ordered

    def _source_scores(self, x_src: Tensor) -> Tensor:
        # a^T (W x) = (W^T a)^T x: W joins the one vector a instead of every node.
        if self.lin is None:
            return x_src @ self.att_src.t()
        weight = self.lin.weight.view(self.heads, self.out_channels, -1)
        return x_src @ torch.einsum("hci,hc->ih", weight, self.att_src)  # [num_src, heads]

    def _aggregate(self, alpha: Tensor, x_src: Tensor, layout: EdgeLayout) -> Tensor:
        if self.lin is None:
            # All heads read the same vectors, so an average over heads is one sum with averaged attention.
            if not self.concat:
                return weighted_sum(alpha.mean(dim=1), x_src, layout).unsqueeze(1)
            return weighted_sum(alpha, x_src.unsqueeze(1).expand(-1, self.heads, -1), layout)
        # Transform before or after the sum, whichever meets fewer rows; the result is the same.
        if layout.num_src <= layout.num_dst * self.heads:
            message: Tensor = self.lin(x_src).view(-1, self.heads, self.out_channels)
            return weighted_sum(alpha, message, layout)
        summed = weighted_sum(alpha, x_src.unsqueeze(1).expand(-1, self.heads, -1), layout)
        weight = self.lin.weight.view(self.heads, self.out_channels, -1)
        return torch.einsum("nhi,hci->nhc", summed, weight)

    def _layout(self, edge_index: Tensor | EdgeLayout, num_src: int, num_dst: int) -> EdgeLayout:
        if isinstance(edge_index, Tensor):
            return EdgeLayout.from_edge_index(edge_index, num_src, num_dst)
        if (edge_index.num_src, edge_index.num_dst) != (num_src, num_dst):
            raise ArgumentError(
                f"the edge layout is for {edge_index.num_src} source and {edge_index.num_dst} destination nodes, "
                f"x has {num_src} and {num_dst}"
            )
        return edge_index

    def _types(self, edge_type: Tensor, layout: EdgeLayout) -> Tensor:
        if edge_type.shape != (layout.num_edges,):
            raise ArgumentError(f"edge_type must have shape [{layout.num_edges}], got {list(edge_type.shape)}")
        if edge_type.numel() and not (0 <= int(edge_type.min()) and int(edge_type.max()) < self.num_relations):
            raise ArgumentError(
                f"edge_type must be within 0..{self.num_relations - 1}, "
                f"got {int(edge_type.min())}..{int(edge_type.max())}"
            )
        return edge_type.long()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"num_relations={self.num_relations}, heads={self.heads})"
        )
