"""SoftmaxMF: matrix factorisation with the loss that it deserves."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.losses import sampled_softmax
from graphrec.models.base import GradientRecommender, Product
from graphrec.sampling import UniformNegatives
from kg_loaders import RecGraph


class SoftmaxMF(GradientRecommender):
    r"""A vector for each user and item, trained by a softmax over sampled negatives.

    .. math:: s(u, j) = \cos(p_u, q_j) / \tau

    Every (user, item) pair of a batch is a target of equal weight. The model keeps a table of its users and refuses
    strangers; a history is used in training only.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        dim: Width of the vectors.
        temperature: τ, at least 0.001.
        num_negatives: Negatives a step, drawn uniformly and shared by the batch; all items where there are no more.

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> model = SoftmaxMF(num_users=2, num_items=3, dim=8)
        >>> model.score(Histories.from_lists([[0], [2]], user_index=[0, 1])).shape
        torch.Size([2, 3])

    Source:
        Cosine scores with a softmax after Wu et al., "BSL: Understanding and Improving Softmax Loss for
        Recommendation" (ICDE 2024); defaults within the ranges of its published runs.
    """

    inductive: bool = False

    def __init__(
        self, num_users: int, num_items: int, dim: int = 64, temperature: float = 0.2, num_negatives: int = 1024
    ) -> None:
        super().__init__(num_items)
        for name, value in (("num_users", num_users), ("dim", dim), ("num_negatives", num_negatives)):
            check_range(name, value, low=1)
        check_range("temperature", temperature, low=1e-3)
        self.num_users = num_users
        self.temperature = temperature
        self.num_negatives = num_negatives
        self.negatives = UniformNegatives(num_items)
        self.user = nn.Parameter(torch.empty(num_users, dim))
        self.item = nn.Parameter(torch.empty(num_items, dim))
        self.reset_parameters()

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's users and items; options are the constructor's keyword arguments."""
        return cls(graph.num_users, graph.num_items, **options)

    def reset_parameters(self) -> None:
        """Draw all vectors anew, with a length of about 1."""
        for table in (self.user, self.item):
            nn.init.normal_(table, std=table.size(1) ** -0.5)

    def score(self, histories: Histories) -> Tensor:
        """Score all items for each known user; see :meth:`Recommender.score`."""
        return self.product(histories).scores()

    def product(self, histories: Histories) -> Product:
        """Return what :meth:`score` multiplies; see :meth:`Recommender.product`."""
        users = self.check_known(histories, self.num_users)
        items = self.cached("items", lambda: F.normalize(self.item, dim=1) / self.temperature)
        return Product(F.normalize(self.user[users], dim=1), items)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the sampled softmax loss of all items of the batch; see :meth:`GradientRecommender.loss`."""
        users = self.check_known(histories, self.num_users)
        negatives, log_q = (part.to(users.device) for part in self.negatives(self.num_negatives, generator))
        return sampled_softmax(
            F.normalize(self.user.index_select(0, users), dim=1),
            F.normalize(self.item.index_select(0, histories.items), dim=1),
            F.normalize(self.item.index_select(0, negatives), dim=1),
            log_q,
            rows=histories.rows,
            positive_items=histories.items,
            negative_items=negatives,
            temperature=self.temperature,
        )
