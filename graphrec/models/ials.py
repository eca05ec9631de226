"""IALS: matrix factorisation of weighted zeros and ones, by implicit's alternating least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Self

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from graphrec.models.choices import one_or_several
from graphrec.sparse import history_matrix
from kg_loaders import RecGraph


class IALS(ClosedFormRecommender):
    r"""Fits users and items to all pairs, those taken with more weight, and folds any history in.

    .. math::
        \min \sum_{u, i} c_{ui} (x_{ui} - p_u^\top q_i)^2 + \lambda \Bigl( \sum_u |p_u|^2 + \sum_i |q_i|^2 \Bigr),
        \qquad c_{ui} = \begin{cases} \alpha & x_{ui} = 1 \\ 1 & x_{ui} = 0 \end{cases}

    The items come from the library implicit (extra ``baselines``); a history's vector is the minimum for these items,

    .. math:: p_u = \Bigl( Q^\top Q + \lambda I + (\alpha - 1) \sum_{i \in \mathcal{H}_u} q_i q_i^\top \Bigr)^{-1}
        \alpha \sum_{i \in \mathcal{H}_u} q_i ,

    so strangers are served like everybody else. Ratings and times are not used.

    Args:
        num_items: Number of items.
        dim: Width of the vectors.
        l2: λ, at least 0; or several values. All combinations with ``confidence`` are tried on validation; without
            one, the values in the middle are used.
        confidence: α, at least 1; or several values.
        iterations: Alternations.

    Raises:
        ArgumentError: A value outside its range, or no value at all.
        ArgumentError: implicit is not installed; raised by :meth:`fit`.

    Source:
        Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008), eq. 3-5.
    """

    random = True
    factors: Tensor
    chosen: Tensor

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        l2: float | Sequence[float] = (1.0, 10.0, 100.0),
        confidence: float | Sequence[float] = (2.0, 5.0, 20.0),
        iterations: int = 15,
    ) -> None:
        super().__init__(num_items)
        check_range("dim", dim, low=1)
        check_range("iterations", iterations, low=1)
        self.dim = dim
        self.iterations = iterations
        self.l2 = one_or_several("l2", l2, 0.0)
        self.confidence = one_or_several("confidence", confidence, 1.0)
        self.register_result("factors", num_items, None)
        self.register_result("chosen", 2)  # l2 and confidence: ranking needs them too

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make an unfitted model for a graph's items; options are the constructor's keyword arguments."""
        return cls(graph.num_items, **options)

    @property
    def middle(self) -> tuple[float, float]:
        """What is used without validation: ``l2`` and ``confidence``."""
        return self.l2[len(self.l2) // 2], self.confidence[len(self.confidence) // 2]

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Alternate; with validation, for each combination; see :meth:`ClosedFormRecommender.fit`."""
        histories.check_items(self.num_items)
        if validate is None or len(self.l2) == len(self.confidence) == 1:
            held = tuple(self.chosen.tolist()) if self.chosen.numel() else self.middle
            self._use(self._alternate(histories, *held), *held)
            return {}
        best: tuple[float, Tensor, float, float] | None = None
        for l2, confidence in product(self.l2, self.confidence):
            factors = self._alternate(histories, l2, confidence)
            self._use(factors, l2, confidence)
            value = validate()
            if best is None or value > best[0]:
                best = value, factors, l2, confidence
        assert best is not None
        _, factors, l2, confidence = best
        self._use(factors, l2, confidence)
        return {"l2": l2, "confidence": confidence}

    def _alternate(self, histories: Histories, l2: float, confidence: float) -> Tensor:
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise ArgumentError(
                f"IALS needs the extra 'baselines' (pip install 'graphrec[baselines]'): {error}"
            ) from None
        # implicit has threads of its own; BLAS's would stand in their way, and implicit warns of them.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                self.dim,
                regularization=l2,
                alpha=confidence,
                iterations=self.iterations,
                num_threads=torch.get_num_threads(),
                random_state=int(torch.randint(2**31 - 1, ())),  # from the seed of the run
            )
            model.fit(history_matrix(histories, self.num_items), show_progress=False)
        return torch.from_numpy(model.item_factors)

    def _use(self, factors: Tensor, l2: float, confidence: float) -> None:
        device = self.factors.device
        self.factors = factors.to(device)
        self.chosen = torch.tensor([l2, confidence], device=device)
        self.forget()

    def score(self, histories: Histories) -> Tensor:
        """Fold each history in and multiply; see :meth:`Recommender.score`. An empty history gets zeros."""
        self.check_ready(histories)
        return self.user_vectors(histories) @ self.factors.t()  # [batch_size, num_items]

    def user_vectors(self, histories: Histories) -> Tensor:
        """Return :math:`p_u` of each history, in which an item counts once, ``[batch_size, dim]``."""
        histories = histories.distinct()
        l2, confidence = self.chosen.tolist()
        factors = self.factors
        shared = factors.t() @ factors + l2 * torch.eye(factors.size(1), dtype=factors.dtype, device=factors.device)
        taken = torch.split(factors[histories.items], histories.lengths.tolist())
        own = torch.stack([rows.t() @ rows for rows in taken]) if taken else shared.new_empty(0, *shared.shape)
        wanted = factors.new_zeros(len(histories), factors.size(1))
        wanted.index_add_(0, histories.rows, factors[histories.items])
        system = shared + (confidence - 1) * own
        solved: Tensor = torch.linalg.solve(system, confidence * wanted)
        return solved
