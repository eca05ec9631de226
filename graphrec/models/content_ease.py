"""ContentEASE: EASE that knows what items are like before anybody takes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from graphrec.encoders.similarity import ContentSimilarity
from graphrec.histories import Histories
from graphrec.models.choices import one_or_several
from graphrec.models.content import ContentRecommender
from graphrec.models.ease import EASE
from graphrec.models.inversion import BLOCK_ROWS
from graphrec.models.shallow_autoencoder import PENALTIES
from kg_loaders.graph import Feature


class ContentEASE(ContentRecommender, EASE):
    r"""Predicts each item from all others, by who took them and by what they are.

    .. math::
        P = (X^\top X + \alpha C + \lambda I)^{-1}, \qquad
        B_{ij} = \begin{cases} 0 & i = j \\ -P_{ij} / P_{jj} & i \ne j \end{cases}, \qquad
        s(u, \cdot) = x_u B

    with the 0/1 history matrix :math:`X` and the cosines :math:`C = F F^\top` of
    :class:`~graphrec.encoders.similarity.ContentSimilarity`: EASE on :math:`[X; \sqrt\alpha F^\top]`, as if each
    feature were :math:`\alpha` more users. Items that nobody took have weights too.

    Args:
        num_items: Number of items.
        content: Vectors by name of a modality, a row an item; missing rows are like nothing.
        triples: int64 ``[num_triples, 3]``; a KG is content like any other.
        l2: The penalty λ, above 0; or several values, as in :class:`EASE`.
        content_weight: α, at least 0; or several values. All combinations with ``l2`` are tried on validation; without
            one, the values in the middle are used.
        input_dropout: As in :class:`EASE`.
        relax: As in :class:`EASE`.

    Raises:
        ArgumentError: There is neither content nor a triple, or a value is outside its range.

    Example:
        >>> image = Feature.vectors([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [-0.9, 0.1]])
        >>> model = ContentEASE(4, {"image": image}, l2=1.0)
        >>> model.fit(Histories.from_lists([[0, 2], [0, 2]]))  # nobody took items 1 and 3
        {}
        >>> model.score(Histories.from_lists([[0]]))[0, [1, 3]].argmax().item()
        0

    Source:
        Jeunen, Van Balen and Goethals, "Closed-Form Models for Collaborative Filtering with Side-Information"
        (RecSys 2020), CEASE, with cosines for features.
    """

    def __init__(
        self,
        num_items: int,
        content: Mapping[str, Feature] | None = None,
        triples: Tensor | None = None,
        l2: float | Sequence[float] = PENALTIES,
        content_weight: float | Sequence[float] = (1.0, 10.0, 100.0),
        input_dropout: float = 0.0,
        relax: float = 0.0,
    ) -> None:
        super().__init__(num_items, l2, input_dropout, relax)
        self.content_weight = one_or_several("content_weight", content_weight, 0.0)
        self.chosen_content_weight = self.content_weight[len(self.content_weight) // 2]
        self.similarity = ContentSimilarity(num_items, content or {}, triples)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        """Solve for :math:`B`, with validation for each pair of values; see :meth:`ClosedFormRecommender.fit`."""
        if validate is None or len(self.content_weight) == 1:
            return super().fit(histories, validate)
        best = (-math.inf, self.chosen_content_weight, self.chosen_l2)

        def measured() -> float:
            nonlocal best
            value = validate()
            best = max(best, (value, self.chosen_content_weight, self.chosen_l2), key=lambda tried: tried[0])
            return value

        for weight in self.content_weight:
            self.chosen_content_weight = weight
            chosen = super().fit(histories, measured)
            if not chosen:  # a single value of l2 is not tried by itself
                measured()
        if best[1:] != (self.chosen_content_weight, self.chosen_l2):
            _, self.chosen_content_weight, self.chosen_l2 = best
            super().fit(histories)
        return {"content_weight": best[1], "l2": best[2]}

    def fill(self, matrix: Tensor, histories: Histories) -> None:
        """Add the weighted likeness of items; see :meth:`EASE.fill`."""
        super().fill(matrix, histories)
        if self.chosen_content_weight:
            for rows, block in self.similarity.blocks(BLOCK_ROWS):
                matrix[rows].add_(block.to(matrix.device), alpha=self.chosen_content_weight)
