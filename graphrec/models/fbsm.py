"""FBSM: what goes with what, learned of content alone, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from graphrec.encoders.similarity import ContentSimilarity
from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.base import Product
from graphrec.models.choices import one_or_several
from graphrec.models.content import ContentRecommender
from graphrec.models.inversion import best_penalty
from graphrec.sparse import history_matrix
from kg_loaders.graph import Feature


class FBSM(ContentRecommender):
    r"""Scores an item by its content and that of each item of the history, with one matrix for all pairs.

    .. math::
        s(u, j) = \sum_{i \in \mathcal{H}_u} f_i^\top W f_j, \qquad
        \min_W \; \sum_u \frac{1}{|\mathcal{H}_u|} \Bigl( \lVert x_u F W F^\top \rVert^2
            - 2 \sum_{i \ne j \in \mathcal{H}_u} f_i^\top W f_j \Bigr) + \lambda \lVert W \rVert_F^2

    Each item of a history is asked for given the others, and all items count as what was not taken. Where
    :class:`ContentKNN` takes :math:`W = I`, here is learned which content goes together, and what is liked whatever the
    history says. No item has a weight of its own, so one that nobody took is scored as any other: the baseline for cold
    items, and for zero-shot transfer.

    :math:`f_i` holds by modality, and for the KG, what :class:`~graphrec.encoders.similarity.ContentSimilarity`
    compares, and a constant; the first ``dim`` principal directions where that is wider. With :math:`P = X F`,
    :math:`A = P^\top D P`, :math:`H = F^\top F` and :math:`S` what items say of themselves the solution is that of
    :math:`A W H + \lambda W = A - S`, by the eigenvectors of A and H; so all penalties cost one fit.

    Args:
        num_items: Number of items.
        content: Vectors by name of a modality, a row an item; missing rows are like nothing.
        triples: int64 ``[num_triples, 3]``; a KG is content like any other.
        dim: The most columns of F besides the constant.
        l2: The penalty λ, above 0; or several values to choose from on validation. Without one, that in the middle.

    Raises:
        ArgumentError: There is neither content nor a triple, or a value is outside its range.

    Example:
        >>> image = Feature.vectors([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [-0.9, 0.1]])
        >>> model = FBSM(4, {"image": image}, l2=1.0)
        >>> model.fit(Histories.from_lists([[0, 2], [0, 2]]))  # nobody took items 1 and 3
        {}
        >>> model.score(Histories.from_lists([[1]]))[0].argmax().item() in (2, 3)
        True

    Source:
        Sharma, Zhou, Hu and Karypis, "Feature-based factorized Bilinear Similarity Model for Cold-Start Top-n Item
        Recommendation" (SDM 2015), eq. 3, with a full matrix, and the squared loss over all items of Ning and Karypis,
        "SLIM" (ICDM 2011), which has a closed form.
    """

    features: Tensor
    weight: Tensor
    chosen: Tensor

    def __init__(
        self,
        num_items: int,
        content: Mapping[str, Feature] | None = None,
        triples: Tensor | None = None,
        dim: int = 512,
        l2: float | Sequence[float] = (10.0, 100.0, 1000.0, 10000.0, 100000.0),
    ) -> None:
        super().__init__(num_items)
        check_range("dim", dim, low=1)
        self.dim = dim
        self.l2 = one_or_several("l2", l2, 0.0, above=True)
        self.similarity = ContentSimilarity(num_items, content or {}, triples)
        self.register_result("features", num_items, None)
        self.register_result("weight", None, None)
        self.register_result("chosen", 1)

    @property
    def chosen_l2(self) -> float:
        """The penalty that is used: the one chosen on validation, or else the one in the middle."""
        return float(self.chosen) if self.chosen.numel() else self.l2[len(self.l2) // 2]

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Solve for :math:`W`, with validation for each value of ``l2``; see :meth:`ClosedFormRecommender.fit`."""
        histories.check_items(self.num_items)
        device = self.features.device
        table = self._table.astype(np.float64)
        matrix = history_matrix(histories, self.num_items)
        lengths = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1)
        read = (matrix @ table) / np.sqrt(lengths)[:, None]
        of_users, of_items = read.T @ read, table.T @ table
        own = table.T @ (table * (matrix.T @ (1 / lengths))[:, None])
        user_values, user_vectors = np.linalg.eigh(of_users)
        item_values, item_vectors = np.linalg.eigh(of_items)
        wanted = user_vectors.T @ (of_users - own) @ item_vectors
        curvature = np.outer(user_values.clip(min=0), item_values.clip(min=0))

        def solve(l2: float) -> None:
            weight = user_vectors @ (wanted / (curvature + l2)) @ item_vectors.T
            self.features = torch.from_numpy(self._table).to(device)
            self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
            self.chosen = torch.tensor([l2], device=device)
            self.forget()

        return best_penalty(self.l2, self.chosen_l2, solve, validate)

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        """F, which is the same for any histories; on the CPU the memory is that of ``features``."""
        table = self.similarity.table(self.dim)
        return np.hstack([table, np.ones((len(table), 1))]).astype(np.float32)

    def score(self, histories: Histories) -> Tensor:
        """Multiply what is read by :math:`W` and by all items; see :meth:`Recommender.score`."""
        return self.product(histories).scores()

    def product(self, histories: Histories) -> Product:
        """Return what :meth:`score` multiplies; see :meth:`Recommender.product`."""
        self.check_ready(histories)
        read = F.embedding_bag(histories.items, self.features, histories.offsets, mode="sum", include_last_offset=True)
        return Product(read @ self.weight, self.features)

    def contributions(self, histories: Histories, item: int) -> Tensor:
        r"""Return :math:`f_i^\top W f_j` of each history entry; see :meth:`Recommender.contributions`."""
        self.check_ready(histories)
        given: Tensor = self.features[histories.items] @ (self.weight @ self.features[item])
        return given
