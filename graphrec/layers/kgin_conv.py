"""KGINConv: users through intents, entities through relational paths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.layers._fused_conv import FusedConv, check_nodes, layout_of
from graphrec.layers.ops import EdgeLayout, relational_sum, weighted_sum
from graphrec.layers.ops.standalone import uncompiled


class KGINConv(FusedConv):
    r"""One hop of KGIN: entities take in their neighbours by relation, users their items by intent.

    .. math::
        x'_h = \frac{1}{|\mathcal{N}_h|} \sum_{t \xrightarrow{r} h} e_r \odot x_t, \qquad
        u' = \Big( \sum_p \beta_{up} \, e_p \Big) \odot \frac{1}{|\mathcal{N}_u|} \sum_{i \to u} x_i

    (with ``residual``, :math:`1 + \sum_p \beta_{up} \, e_p` in its place) and intents made of relations, weighted by
    how much a user means them:

    .. math::
        e_p = \sum_r \operatorname{softmax}_r (w_{pr}) \, e_r, \qquad
        \beta_{up} = \operatorname{softmax}_p \, u^\top e_p .

    Stacked hops multiply relations along a path: the relational paths of the paper. Give the hops one ``relation``
    parameter (``second.relation = first.relation``) to share the relations as the paper does. Relations are multiplied
    on sums, one relation at a time, never on edges.

    Args:
        in_channels: Width of all vectors, in and out.
        num_relations: Number of edge types of the knowledge graph.
        num_intents: Number of intents.
        residual: Whether users also take in the plain mean of their items, as in the authors' code.

    Shape:
        - x: a pair ``([num_entities, in_channels], [num_users, in_channels])``; items are entities
        - edge_index: int ``[2, num_edges]`` among entities, row 0 source, row 1 destination
        - edge_type: int ``[num_edges]``
        - interactions: int ``[2, num_interactions]``, row 0 item, row 1 user
        - output: a pair like ``x``

    Raises:
        ArgumentError: Sizes or types that do not fit, or an index or edge type out of range.

    Example:
        >>> conv = KGINConv(8, num_relations=3, num_intents=2)
        >>> edge_index, edge_type = torch.tensor([[0, 1, 4], [1, 2, 1]]), torch.tensor([0, 2, 1])
        >>> x, interactions = (torch.randn(5, 8), torch.randn(2, 8)), torch.tensor([[0, 1], [1, 0]])
        >>> entities, users = conv(x, edge_index, edge_type, interactions)
        >>> entities.shape, users.shape
        (torch.Size([5, 8]), torch.Size([2, 8]))

    Source:
        Wang et al., "Learning Intents behind Interactions with Knowledge Graph" (KGIN, WWW 2021), eq. 3-11;
        ``residual`` after its authors' code.
    """

    def __init__(self, in_channels: int, num_relations: int, num_intents: int = 4, residual: bool = False) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("num_relations", num_relations),
            ("num_intents", num_intents),
        ):
            check_range(name, value, low=1)
        self.in_channels = in_channels
        self.num_relations = num_relations
        self.num_intents = num_intents
        self.residual = residual
        self.relation = nn.Parameter(torch.empty(num_relations, in_channels))
        self.intent = nn.Parameter(torch.empty(num_intents, num_relations))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.xavier_uniform_(self.relation)
        nn.init.xavier_uniform_(self.intent)

    @uncompiled
    def forward(
        self,
        x: tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeLayout,
        edge_type: Tensor,
        interactions: Tensor | EdgeLayout,
    ) -> tuple[Tensor, Tensor]:
        """Take in the neighbours; return entities and users."""
        entity, user = x
        check_nodes("x (entities)", entity, self.in_channels)
        check_nodes("x (users)", user, self.in_channels)
        layout = layout_of(edge_index, entity, entity)
        types = layout.types(edge_type, self.num_relations)
        if self._watched:
            summed = self._watched_sum(entity, layout, types)
        else:
            summed = relational_sum(entity, self.relation, layout, types)
        taken = layout_of(interactions, entity, user)
        ones = entity.new_ones(taken.num_edges, 1)
        items = weighted_sum(ones, entity, taken).squeeze(1)
        summed, items = (self._as_given(part, entity) for part in (summed / _counts(layout), items / _counts(taken)))
        intents = self.intent.softmax(dim=1) @ self.relation  # [num_intents, in_channels]
        meant = (user @ intents.t()).softmax(dim=1) @ intents  # [num_users, in_channels]
        return summed, (meant + 1 if self.residual else meant) * items

    def _watched_sum(self, entity: Tensor, layout: EdgeLayout, types: EdgeLayout) -> Tensor:
        # Σ w (e_r ⊙ x_s) as messages of PyG: one weight a channel.
        weights = self.relation.index_select(0, types.src)  # [num_edges, in_channels]
        return self._aggregate_edges(weights, entity.unsqueeze(2), layout).squeeze(2)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, num_relations={self.num_relations}, "
            f"num_intents={self.num_intents})"
        )


def _counts(layout: EdgeLayout) -> Tensor:
    """Return each destination's number of edges, at least one, ``[num_dst, 1]``."""
    return (layout.rowptr[1:] - layout.rowptr[:-1]).clamp(min=1).unsqueeze(1)
