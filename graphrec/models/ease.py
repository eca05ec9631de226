"""EASE: a linear autoencoder in closed form, hard to beat."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.inversion import (
    BLOCK_ROWS,
    best_penalty,
    column_scales,
    item_penalties,
    negative_inverse_,
    square_matrix,
)
from graphrec.models.shallow_autoencoder import ShallowAutoencoder
from graphrec.sparse import cooccurrence_blocks


class EASE(ShallowAutoencoder):
    r"""Predicts each item from all others, by ridge regression with a zero diagonal.

    .. math::
        P = (X^\top X + \lambda I)^{-1}, \qquad
        B_{ij} = \begin{cases} 0 & i = j \\ -P_{ij} / P_{jj} & i \ne j \end{cases}, \qquad
        s(u, \cdot) = x_u B

    with the 0/1 history matrix :math:`X`. Ratings and times are not used. Fitting holds one float32 matrix of
    ``num_items`` squared, 3.6 GB for 30,000 items, and inverts it in place; that of an earlier fit is let go before.
    Each value of :math:`\lambda` is one inversion, and if the best is not the last one tried, there is one more.

    With ``input_dropout`` p it is EDLAE, which learns to predict from histories that have lost that share of their
    items, with ``relax`` ξ RLAE, which lets an item say up to that much of itself, and with both RDLAE:

    .. math::
        \Lambda_j = \lambda + \tfrac{p}{1 - p} (X^\top X)_{jj}, \qquad
        P = (X^\top X + \Lambda)^{-1}, \qquad
        B_{ij} = -P_{ij} \max\left(\Lambda_j, \frac{1 - \xi}{P_{jj}}\right) \quad i \ne j

    Items that were taken are not ranked, so what one says of itself, up to ξ, is left at 0; what ξ changes is that
    items that many took stand lower beside others. With weights W of the users and V of the items it is
    :math:`X^\top W X` that counts, and :math:`V^{-1} \Lambda` that is added to it: ridge regression in which user u
    stands for :math:`W_{uu}` users, and items of small :math:`V_{ii}` may say little. :meth:`from_graph` makes them for
    two linked domains.

    With ``kg_weight`` the KG counts, too: each entity stands for so many users who took the items that one relation
    links to it, if these are three or more. (:class:`~graphrec.models.ContentEASE` adds cosines of all that is known.)

    Args:
        num_items: Number of items.
        l2: The penalty λ, above 0; or several values, all tried on validation. Without a validation, the one in the
            middle is used.
        input_dropout: The share p, within 0..0.99.
        relax: The bound ξ, within 0..1.
        user_weights: The diagonal of W, above 0, ``[num_users]``; ``None`` counts each user once.
        item_weights: The diagonal of V, above 0, ``[num_items]``; ``None``: 1 for all.
        triples: The KG, int64 ``[num_triples, 3]`` of (head, relation, tail), the items first among its entities.
        kg_weight: How many users an entity stands for, at least 0.

    Raises:
        ArgumentError: ``l2`` is empty or holds a value that is not above 0; another value is outside its range, or
            weights are not positive numbers, one for each.

    Example:
        >>> model = EASE(num_items=3, l2=1.0)
        >>> model.fit(Histories.from_lists([[0, 1], [0, 1], [2]]))
        {}
        >>> model.score(Histories.from_lists([[0]]))[0].argmax().item()
        1

    Source:
        Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019), eq. 8; "Autoencoders that don't overfit
        towards the Identity" (NeurIPS 2020); Moon, Kim and Lee, "It's Enough: Relaxing Diagonal Constraints in Linear
        Autoencoders for Recommendation" (SIGIR 2023); entities as users: CEASE of Jeunen, Van Balen and Goethals,
        "Closed-Form Models for Collaborative Filtering with Side-Information" (RecSys 2020).
    """

    weight: Tensor

    def register_results(self) -> None:
        """Make room for :math:`B`; until it is fitted the penalty is the one in the middle."""
        self.chosen_l2 = self.l2[len(self.l2) // 2]
        self.register_result("weight", self.num_items, self.num_items)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        r"""Solve for :math:`B`, with validation for each value of ``l2``; see :meth:`ClosedFormRecommender.fit`.

        Raises:
            ArgumentError: A value of ``l2`` is too small for float32 and these data, or the users are others than those
            of ``user_weights``.
        """
        histories.check_items(self.num_items)
        self.check_users(histories)
        device = self.weight.device
        self.unfit()  # an earlier fit goes before the new matrix comes
        matrix = square_matrix(self.num_items, device)
        histories = self.with_entities(histories)
        taken, weights = histories.distinct(), self.row_weights(len(histories))
        by_user = None if weights is None else weights.to(taken.rows.device)[taken.rows]
        counts = torch.bincount(taken.items, by_user, minlength=self.num_items).to(device)

        def solve(l2: float) -> None:
            self.unfit()  # should this fail, the model holds no half-made matrix
            self.fill(matrix, histories)
            penalties = item_penalties(counts, l2, self.input_dropout, self.item_weights)
            matrix.diagonal().add_(penalties)
            negative_inverse_(matrix, l2)
            matrix.mul_(column_scales(matrix.diagonal().neg(), penalties, self.relax))
            matrix.fill_diagonal_(0.0)
            self.weight = matrix
            self.chosen_l2 = l2
            self.forget()

        return best_penalty(self.l2, self.chosen_l2, solve, validate)

    def fill(self, matrix: Tensor, histories: Histories) -> None:
        """Write what is to be inverted, but for the penalty, over ``matrix``: the co-occurrences."""
        weights = self.row_weights(len(histories))
        by_row = None if weights is None else weights.cpu().numpy()
        for rows, block in cooccurrence_blocks(histories, len(matrix), BLOCK_ROWS, user_weights=by_row):
            matrix[rows] = torch.from_numpy(block.toarray())

    def score(self, histories: Histories) -> Tensor:
        """Sum the rows of :math:`B` over each history, an item once; see :meth:`Recommender.score`."""
        self.check_ready(histories)
        taken = histories.distinct()
        return F.embedding_bag(
            taken.items, self.weight, taken.offsets, mode="sum", include_last_offset=True
        )  # [batch_size, num_items]

    def contributions(self, histories: Histories, item: int) -> Tensor:
        """Return :math:`B_{ij}` of each history entry; see :meth:`Recommender.contributions`.

        Entries that name one item share what it gives.
        """
        self.check_ready(histories)
        return self.weight[histories.items, item] / histories.repeats

    def scores_without_each(self, histories: Histories) -> Tensor:
        """Score all items without each history entry in turn; see :meth:`Recommender.scores_without_each`."""
        once = (histories.repeats == 1).unsqueeze(1)  # another entry still names the item
        return self.score(histories) - self.weight[histories.items] * once
