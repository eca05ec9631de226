"""LightGCNConv: linear propagation with symmetric normalisation."""

from __future__ import annotations

from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.layers._fused_conv import FusedConv, check_nodes, layout_of
from graphrec.layers.ops import EdgeLayout
from graphrec.layers.ops.standalone import uncompiled


class LightGCNConv(FusedConv):
    r"""Propagate without weights: the comparison that attention has to beat.

    .. math:: y_d = \sum_{s \to d} \frac{w_{sd}}{\sqrt{|\mathcal{N}_s| \, |\mathcal{N}_d|}} \, x_s

    :math:`|\mathcal{N}_s|` counts the edges that leave :math:`s` and :math:`|\mathcal{N}_d|` those that enter
    :math:`d`; with edges both ways, as LightGCN has them, both are the degree. A destination without edges receives
    zeros.

    Args:
        in_channels: Width of the node vectors, in and out.

    Shape:
        - x: ``[num_nodes, in_channels]``, or a pair ``([num_src, in_channels], [num_dst, in_channels])``
        - edge_index: int ``[2, num_edges]``, row 0 source, row 1 destination
        - edge_weight: ``[num_edges]``, or ``None`` for ones
        - output: ``[num_dst, in_channels]``

    Raises:
        ArgumentError: Sizes or types that do not fit, or an index out of range.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2
        >>> LightGCNConv(1)(torch.tensor([[1.0], [2.0], [4.0]]), edge_index).flatten()
        tensor([1.4142, 3.5355, 1.4142])

    Source:
        He et al., "LightGCN" (SIGIR 2020), eq. 3.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    @uncompiled
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        """Propagate."""
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        check_nodes("x (source)", x_src, self.in_channels)
        check_nodes("x (destination)", x_dst, self.in_channels)
        layout = layout_of(edge_index, x_src, x_dst)
        weights = _degrees(layout.colptr, x_src).index_select(0, layout.src)
        weights = weights * _degrees(layout.rowptr, x_src).index_select(0, layout.destination)
        if edge_weight is not None:
            if edge_weight.shape != (layout.num_edges,):
                raise ArgumentError(f"edge_weight must have shape [{layout.num_edges}], got {list(edge_weight.shape)}")
            weights = weights * layout.arrange(edge_weight)
        return self._aggregate_edges(weights.unsqueeze(1), x_src, layout).squeeze(1).to(x_src.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels})"


def _degrees(pointers: Tensor, like: Tensor) -> Tensor:
    """Return one over the square root of each node's number of edges; nodes without edges weigh nothing anywhere."""
    return (pointers[1:] - pointers[:-1]).clamp(min=1).to(like.dtype).rsqrt()
