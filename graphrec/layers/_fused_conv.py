"""The part that all graph layers share: PyG's MessagePassing, whose messages are made only while somebody watches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing

from graphrec.errors import ArgumentError
from graphrec.layers.ops import EdgeLayout, attend, segment_softmax, weighted_sum

# How many slots an edge the table of weights by destination and relation may have.
DENSE_SHARES = 4


class FusedConv(MessagePassing):  # type: ignore[misc]
    """A message passing layer that sums ``alpha_e (x_s + m_r)`` without making the messages.

    PyG's explainers work by hooks on messages and by masks on them. Where such a hook or mask is present the layer
    takes PyG's own path, message by message in the caller's order of edges; the sums are the same.
    """

    def __init__(self) -> None:
        super().__init__(aggr="add", node_dim=0)

    @property
    def _watched(self) -> bool:
        hooks = (
            self._message_forward_hooks,
            self._message_forward_pre_hooks,
            self._propagate_forward_hooks,
            self._propagate_forward_pre_hooks,
            self._aggregate_forward_hooks,
            self._aggregate_forward_pre_hooks,
        )
        return bool(self.explain) or any(hooks)

    def message(self, x_j: Tensor, alpha: Tensor, term: Tensor | None) -> Tensor:
        """Return the messages, ``[num_edges, heads, channels]``."""
        return alpha.unsqueeze(-1) * (x_j if term is None else x_j + term)

    def _attend(
        self,
        scores: Tensor,
        x: Tensor,
        layout: EdgeLayout,
        types: EdgeLayout | None = None,
        vectors: Tensor | None = None,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Softmax ``scores`` and sum; return ``([num_dst, heads, channels], alpha)``, alpha before dropout.

        ``x`` is ``[num_src, heads, channels]``, or ``[num_src, channels]`` if all heads share it; ``vectors``
        ``[num_types, heads, channels]`` join the messages by ``types``.
        """
        dropped = dropout > 0.0 and self.training
        if dropped or self._watched:
            alpha = segment_softmax(scores, layout)
            weights = F.dropout(alpha, dropout, self.training)
            return self._aggregate_edges(weights, x, layout, types, vectors), alpha
        out, alpha = attend(scores, x, layout)
        if types is not None and vectors is not None:
            out = out + sum_by_type(alpha, vectors, types)
        return out, alpha

    def _as_given(self, out: Tensor, x: Tensor) -> Tensor:
        """Return a kernel's result, which is in single precision at least, in the type of the weights and of ``x``."""
        return out.to(torch.promote_types(x.dtype, next(self.parameters()).dtype))

    def _aggregate_edges(
        self,
        weights: Tensor,
        x: Tensor,
        layout: EdgeLayout,
        types: EdgeLayout | None = None,
        vectors: Tensor | None = None,
    ) -> Tensor:
        """Sum with weights as they are, ``[num_edges, heads]`` in layout order."""
        if not self._watched:
            out = weighted_sum(weights, x, layout)
            return out if types is None or vectors is None else out + sum_by_type(weights, vectors, types)
        term = None
        if types is not None and vectors is not None:
            term = layout.restore(vectors.index_select(0, types.src))
        edge_index = torch.stack([layout.restore(layout.src), layout.restore(layout.destination)]).long()
        summed: Tensor = self.propagate(
            edge_index,
            x=(x if x.dim() == 3 else x.unsqueeze(1), None),
            alpha=layout.restore(weights),
            term=term,
            size=(layout.num_src, layout.num_dst),
        )
        return summed


def sum_by_type(weights: Tensor, vectors: Tensor, types: EdgeLayout) -> Tensor:
    """Sum ``weights_e · vectors[type_e]`` into destinations, ``[num_dst, heads, channels]``."""
    if types.num_dst * types.num_src > DENSE_SHARES * types.num_edges:
        return weighted_sum(weights, vectors, types)
    # A type's vector is the same on all its edges: add up their weights first, multiply once.
    share = weights.new_zeros(types.num_dst * types.num_src, weights.size(1)).index_add(0, types.cell, weights)
    share = share.view(types.num_dst, types.num_src, weights.size(1))
    return torch.einsum("nrh,rhc->nhc", share, vectors.to(share.dtype))


def check_nodes(name: str, x: Tensor, channels: int) -> None:
    """Raise :class:`ArgumentError` unless ``x`` is float ``[num_nodes, channels]``."""
    if x.dim() != 2 or x.size(1) != channels or not x.is_floating_point():
        raise ArgumentError(f"{name} must be float [num_nodes, {channels}], got {x.dtype} {list(x.shape)}")


def opened(
    x: Tensor | tuple[Tensor, Tensor],
    channels: int | tuple[int, int],
    edge_index: Tensor | EdgeLayout,
    edge_type: Tensor,
    num_relations: int,
) -> tuple[Tensor, Tensor, EdgeLayout, EdgeLayout]:
    """Return ``(x_src, x_dst, layout, types)``, checked against each other."""
    x_src, x_dst = x if isinstance(x, tuple) else (x, x)
    of_src, of_dst = channels if isinstance(channels, tuple) else (channels, channels)
    check_nodes("x (source)", x_src, of_src)
    check_nodes("x (destination)", x_dst, of_dst)
    layout = layout_of(edge_index, x_src, x_dst)
    return x_src, x_dst, layout, layout.types(edge_type, num_relations)


def layout_of(edge_index: Tensor | EdgeLayout, x_src: Tensor, x_dst: Tensor) -> EdgeLayout:
    """Return the layout of ``edge_index``; raise :class:`ArgumentError` unless edges and nodes fit together."""
    device = edge_index.src.device if isinstance(edge_index, EdgeLayout) else edge_index.device
    if not device == x_src.device == x_dst.device:
        raise ArgumentError(f"edge_index and x must be on one device, got {device}, {x_src.device} and {x_dst.device}")
    return EdgeLayout.of(edge_index, x_src.size(0), x_dst.size(0))
