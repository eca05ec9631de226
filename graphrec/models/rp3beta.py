"""RP3beta: random walks from a history over the users who share it, with a penalty on what is popular."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.sparse import history_matrix
from kg_loaders import RecGraph


class RP3beta(ClosedFormRecommender):
    r"""Walks three steps, from a history's items to the users who took them and on to what these took.

    .. math::
        s(u, j) = n_j^{-\beta} \sum_{i \in \mathcal{H}_u} n_i^{-\alpha}
            \sum_{v : i, j \in \mathcal{H}_v} |\mathcal{H}_v|^{-\alpha}

    where :math:`n_i` users took item i. The first step, :math:`|\mathcal{H}_u|^{-\alpha}`, is the same for all items
    and left out. Two products with the sparse training histories: no matrix of items by items is made, and fitting
    costs nothing. With :math:`\beta = 0` it is P3alpha. Ratings and times are not used.

    Args:
        num_items: Number of items.
        alpha: Exponent of the probability of each step, above 0; or several values to choose from on validation.
        beta: Penalty on what is popular, at least 0; or several values. All combinations are tried on validation;
            without one, the values in the middle are used.

    Raises:
        ArgumentError: A value outside its range, or no value at all.

    Example:
        >>> model = RP3beta(num_items=3, alpha=1.0, beta=0.0)
        >>> model.fit(Histories.from_lists([[0, 1], [0, 1], [2, 0]]))
        {}
        >>> [round(score, 4) for score in model.score(Histories.from_lists([[1]]))[0].tolist()]
        [0.5, 0.5, 0.0]

    Source:
        Paudel, Christoffel, Newell and Bernstein, "Updatable, Accurate, Diverse, and Scalable Recommendations for
        Interactive Applications" (TiiS 2016), eq. 5; P3alpha after Cooper et al., "Random Walks in Recommender
        Systems" (WWW 2014 Companion).
    """

    pairs: Tensor
    popularity: Tensor
    chosen: Tensor

    def __init__(
        self,
        num_items: int,
        alpha: float | Sequence[float] = (0.3, 0.5, 0.7, 1.0),
        beta: float | Sequence[float] = (0.2, 0.35, 0.5, 0.7),
    ) -> None:
        super().__init__(num_items)
        self.alpha = one_or_several("alpha", alpha, 0.0, above=True)
        self.beta = one_or_several("beta", beta, 0.0)
        self.register_result("pairs", 2, None, dtype=torch.int64)  # of (user, item), by user
        self.register_result("popularity", num_items, dtype=torch.int64)  # users of each item; tells catalogues apart
        self.register_result("chosen", 2, dtype=torch.float64)  # alpha and beta

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items; options are the constructor's keyword arguments."""
        return cls(graph.num_items, **options)

    @property
    def chosen_values(self) -> tuple[float, float]:
        """Alpha and beta as they are used: those chosen on validation, or else those in the middle."""
        if self.chosen.numel():
            alpha, beta = self.chosen.tolist()
            return alpha, beta
        return self.alpha[len(self.alpha) // 2], self.beta[len(self.beta) // 2]

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Keep the histories; with validation, choose; see :meth:`ClosedFormRecommender.fit`."""
        histories.check_items(self.num_items)
        device = self.pairs.device
        held = self.chosen_values
        matrix = history_matrix(histories, self.num_items)
        self.pairs = torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64)).to(device)
        self.popularity = torch.bincount(self.pairs[1], minlength=self.num_items)
        if validate is None or len(self.alpha) == len(self.beta) == 1:
            self._use(held)
            return {}
        values = {}
        for tried in product(self.alpha, self.beta):
            self._use(tried)
            values[tried] = validate()
        best = max(values, key=values.__getitem__)
        self._use(best)
        return {"alpha": best[0], "beta": best[1]}

    def _use(self, values: tuple[float, float]) -> None:
        self.chosen = torch.tensor(values, dtype=torch.float64, device=self.pairs.device)
        self.forget()

    def score(self, histories: Histories) -> Tensor:
        """Walk from each history, on the CPU; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        to_users, to_items = self.cached("steps", self._steps)
        reached = history_matrix(histories, self.num_items) @ to_users  # [batch_size, num_users]
        return torch.from_numpy((reached @ to_items).toarray()).to(histories.items.device)

    def contributions(self, histories: Histories, item: int) -> Tensor:
        """Return what reaches an item from each history entry; their sum is the score.

        Entries that name one item share what it gives. See :meth:`Recommender.contributions`.
        """
        self.check_ready(histories)
        to_users, to_items = self.cached("steps", self._steps)
        rows = to_users[histories.items.cpu().numpy()]  # [total, num_users]
        given = torch.from_numpy((rows @ to_items[:, [item]]).toarray().ravel())
        shares: Tensor = given.to(histories.items.device) / histories.repeats
        return shares

    def _steps(self) -> tuple[Any, Any]:
        """Return the step from items to users and that from users to items, both scipy CSR float32."""
        alpha, beta = self.chosen_values
        users, items = self.pairs.cpu().numpy()
        num_users = int(users[-1]) + 1 if len(users) else 0
        of_item = self.popularity.cpu().numpy().astype(np.float64)[items]
        of_user = np.bincount(users, minlength=num_users).astype(np.float64)[users]
        to_users = (of_item**-alpha).astype(np.float32)
        to_items = (of_user**-alpha * of_item**-beta).astype(np.float32)
        return (
            sparse.csr_matrix((to_users, (items, users)), shape=(self.num_items, num_users)),
            sparse.csr_matrix((to_items, (users, items)), shape=(num_users, self.num_items)),
        )
