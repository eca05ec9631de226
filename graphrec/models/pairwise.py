"""PairwiseRecommender: a vector for each user and item, trained to rank a taken item above another."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from graphrec.errors import NotFittedError, check_range
from graphrec.histories import Histories
from graphrec.losses import bpr
from graphrec.models.base import GradientRecommender, Product
from graphrec.models.triples import KgSizes
from graphrec.sampling import untaken_items
from kg_loaders import RecGraph


class PairwiseRecommender(GradientRecommender):
    r"""The common ground of the published models that score by a product and train by BPR.

    .. math::
        s(u, j) = p_u \cdot q_j, \qquad
        \mathcal{L} = \operatorname{mean}_{(u, i, j)} \left[ -\log \sigma(s(u, i) - s(u, j)) \right]
            + \frac{\lambda}{2} \operatorname{mean}_{(u, i, j)} \left[ |e_u|^2 + |e_i|^2 + |e_j|^2 \right]

    Every pair (u, i) of a batch is a target, with one item j that the user did not take. Subclasses override
    :meth:`vectors`, which makes :math:`p` and :math:`q` of the tables :math:`e`. The model keeps a table of its users
    and refuses strangers; a history is used in training only.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        num_vectors: Rows of the second table: the items first, then whatever else the model gives a vector.
        dim: Width of the tables.
        l2: λ.

    Raises:
        ArgumentError: A value outside its range.
    """

    inductive: bool = False

    def __init__(self, num_users: int, num_items: int, num_vectors: int, dim: int, l2: float) -> None:
        super().__init__(num_items)
        for name, value in (("num_users", num_users), ("dim", dim)):
            check_range(name, value, low=1)
        check_range("l2", l2, low=0.0)
        self.num_users = num_users
        self.l2 = l2
        self.user = nn.Parameter(torch.empty(num_users, dim))
        self.item = nn.Parameter(torch.empty(num_vectors, dim))

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's sizes, and triples if it needs them; options are the constructor's arguments."""
        sizes = KgSizes.of(graph) if cls.needs_kg else (graph.num_users, graph.num_items)
        return cls(*sizes, **options)

    def reset_parameters(self) -> None:
        """Draw the tables anew."""
        for table in (self.user, self.item):
            nn.init.xavier_uniform_(table)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the vectors that are multiplied: ``[num_users, width]`` and ``[num_items, width]``."""
        return self.user, self.item[: self.num_items]

    def check_prepared(self, edges: Tensor) -> None:
        """Make sure that ``edges``, which :meth:`prepare` makes of the training histories, are there."""
        if edges.dim() < 2:
            raise NotFittedError(f"{type(self).__name__} needs the training histories first: call prepare()")

    def score(self, histories: Histories) -> Tensor:
        """Score all items for each known user; see :meth:`Recommender.score`."""
        return self.product(histories).scores()

    def product(self, histories: Histories) -> Product:
        """Return what :meth:`score` multiplies; see :meth:`Recommender.product`."""
        known = self.check_known(histories, self.num_users)
        users, items = self.cached("vectors", self.vectors)
        return Product(users[known], items)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the loss of all pairs of the batch; see :meth:`GradientRecommender.loss`."""
        known = self.check_known(histories, self.num_users)
        device = self.user.device
        negative = untaken_items(histories.to("cpu"), self.num_items, generator).to(device)
        chosen = negative >= 0  # a user who took everything teaches nothing
        user, positive = known[histories.rows[chosen]], histories.items[chosen]
        negative = negative[chosen]
        users, items = self.vectors()
        of_user = users.index_select(0, user)
        better, worse = ((of_user * items.index_select(0, taken)).sum(dim=1) for taken in (positive, negative))
        return bpr(better, worse) + self.l2 * self._mean_squares(user, positive, negative)

    def _mean_squares(self, user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        rows = (self.user.index_select(0, user), *(self.item.index_select(0, taken) for taken in (positive, negative)))
        return torch.stack([row.square().sum() for row in rows]).sum() / (2 * max(len(user), 1))
