"""KGCNConv: attention that depends on the user and the relation."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers._fused_conv import FusedConv, opened
from graphrec.layers.ops import EdgeLayout, dot_scores
from graphrec.layers.ops.standalone import uncompiled

AGGREGATORS = ("sum", "concat", "neighbor")


class KGCNConv(FusedConv):
    r"""Attend to a node's neighbours by how much *this user* cares for the relation.

    For an edge :math:`e: s \xrightarrow{r} d`, where :math:`d` is looked at by user :math:`u_d`,

    .. math::
        \alpha_e = \operatorname{softmax}_{e \to d} u_d^\top r, \qquad n_d = \sum_{e \to d} \alpha_e \, x_s,

    and the aggregator makes :math:`y_d` of :math:`x_d` and :math:`n_d`:
    :math:`W (x_d + n_d) + b` (sum), :math:`W [x_d \| n_d] + b` (concat) or :math:`W n_d + b` (neighbor). The
    nonlinearity is left to the caller: the paper takes a ReLU, in the last layer a tanh.

    The receptive field comes as edges: for a batch of (user, item) pairs each pair's sampled neighbours are nodes of
    their own, and ``user`` holds the pair's user once for each destination.

    Args:
        in_channels: Width of the node vectors.
        out_channels: Width of the output.
        num_relations: Number of edge types.
        user_channels: Width of the users' and relations' vectors; ``None``: ``in_channels``.
        aggregator: One of ``"sum"``, ``"concat"``, ``"neighbor"``.

    Shape:
        - x: ``[num_nodes, in_channels]``, or a pair ``([num_src, in_channels], [num_dst, in_channels])``
        - edge_index: int ``[2, num_edges]``, row 0 source (the neighbour), row 1 destination
        - edge_type: int ``[num_edges]``
        - user: ``[num_dst, user_channels]``
        - output: ``[num_dst, out_channels]``

    Raises:
        ArgumentError: Sizes or types that do not fit, or an index or edge type out of range.

    Example:
        >>> conv = KGCNConv(8, 4, num_relations=3)
        >>> edge_index, edge_type = torch.tensor([[0, 1, 4], [1, 2, 1]]), torch.tensor([0, 2, 1])
        >>> conv(torch.randn(5, 8), edge_index, edge_type, user=torch.randn(5, 8)).shape
        torch.Size([5, 4])

    Source:
        Wang et al., "Knowledge Graph Convolutional Networks for Recommender Systems" (WWW 2019), eq. 1-6.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        user_channels: int | None = None,
        aggregator: str = "sum",
    ) -> None:
        super().__init__()
        user_channels = in_channels if user_channels is None else user_channels
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("num_relations", num_relations),
            ("user_channels", user_channels),
        ):
            check_range(name, value, low=1)
        check_choice("aggregator", aggregator, AGGREGATORS)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.user_channels = user_channels
        self.aggregator = aggregator
        self.relation = nn.Parameter(torch.empty(num_relations, user_channels))
        self.lin = nn.Linear(in_channels * (2 if aggregator == "concat" else 1), out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.xavier_uniform_(self.relation)
        nn.init.xavier_uniform_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        user: Tensor,
        *,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        user: Tensor,
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @uncompiled
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        user: Tensor,
        *,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; with ``return_attention_weights`` also return ``alpha`` ``[num_edges, 1]``, in the caller's order."""
        x_src, x_dst, layout, types = opened(x, self.in_channels, edge_index, edge_type, self.num_relations)
        if user.shape != (x_dst.size(0), self.user_channels):
            raise ArgumentError(f"user must have shape [{x_dst.size(0)}, {self.user_channels}], got {list(user.shape)}")
        scores = dot_scores(user.unsqueeze(1), self.relation.unsqueeze(1), types)  # [num_edges, 1]
        attended, alpha = self._attend(scores, x_src, layout)
        out = self._join(x_dst, self._as_given(attended.squeeze(1), x_dst))
        return (out, layout.restore(alpha)) if return_attention_weights else out

    def for_all_users(self, x: Tensor, nodes: Tensor, neighbor: Tensor, neighbor_type: Tensor, user: Tensor) -> Tensor:
        r"""Return what :meth:`forward` gives to every node in the eyes of every user, without an edge a user.

        With as many neighbours a node, the weights of all users are a table, and sums over neighbours a product of
        matrices a node: for a ranking, where every user looks at every item.

        Args:
            x: Node vectors, ``[num_nodes, in_channels]``, or ``[num_nodes, num_users, in_channels]`` as the users see
                them.
            nodes: The nodes that attend, int64 ``[num_dst]``.
            neighbor: Their neighbours, int64 ``[num_dst, num_neighbors]``.
            neighbor_type: The types of the edges from them, int64 ``[num_dst, num_neighbors]``.
            user: ``[num_users, user_channels]``.

        Returns:
            ``[num_dst, num_users, out_channels]``.

        Raises:
            ArgumentError: Sizes that do not fit.

        Example:
            >>> conv = KGCNConv(8, 4, num_relations=3)
            >>> nodes, neighbor = torch.tensor([0, 3]), torch.tensor([[1, 2], [4, 4]])
            >>> x, user = torch.randn(5, 8), torch.randn(6, 8)
            >>> conv.for_all_users(x, nodes, neighbor, torch.tensor([[0, 2], [1, 1]]), user).shape
            torch.Size([2, 6, 4])
        """
        if x.dim() not in (2, 3) or x.size(-1) != self.in_channels or (x.dim() == 3 and x.size(1) != len(user)):
            raise ArgumentError(
                f"x must have shape [num_nodes, {self.in_channels}] or [num_nodes, {len(user)}, {self.in_channels}], "
                f"got {list(x.shape)}"
            )
        if user.dim() != 2 or user.size(1) != self.user_channels:
            raise ArgumentError(f"user must have shape [num_users, {self.user_channels}], got {list(user.shape)}")
        if neighbor.dim() != 2 or neighbor.shape != neighbor_type.shape or len(neighbor) != len(nodes):
            raise ArgumentError(
                f"neighbor and neighbor_type must have shape [{len(nodes)}, num_neighbors], got {list(neighbor.shape)} "
                f"and {list(neighbor_type.shape)}"
            )
        scores = self.relation @ user.t()  # [num_relations, num_users]
        alpha = scores[neighbor_type].softmax(dim=1)  # [num_dst, num_neighbors, num_users]
        seen = x[neighbor]
        neighbours = alpha.transpose(1, 2) @ seen if x.dim() == 2 else (alpha.unsqueeze(3) * seen).sum(dim=1)
        own = x[nodes]
        return self._join(own.unsqueeze(1).expand_as(neighbours) if x.dim() == 2 else own, neighbours)

    def _join(self, own: Tensor, neighbours: Tensor) -> Tensor:
        if self.aggregator == "sum":
            neighbours = own + neighbours
        elif self.aggregator == "concat":
            neighbours = torch.cat([own, neighbours], dim=-1)
        out: Tensor = self.lin(neighbours)
        return out

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"num_relations={self.num_relations}, aggregator={self.aggregator!r})"
        )
