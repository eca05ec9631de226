"""BPRMF: matrix factorisation with pairwise ranking."""

from __future__ import annotations

from graphrec.models.pairwise import PairwiseRecommender


class BPRMF(PairwiseRecommender):
    r"""A vector for each user and item, trained to rank what a user took above what they did not.

    .. math:: s(u, j) = p_u \cdot q_j

    Args:
        num_users: Number of users.
        num_items: Number of items.
        dim: Width of the vectors.
        l2: Penalty on the vectors that a pair uses.

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> from graphrec.histories import Histories
        >>> model = BPRMF(num_users=2, num_items=3, dim=8)
        >>> model.score(Histories.from_lists([[0], [2]], user_index=[0, 1])).shape
        torch.Size([2, 3])

    Source:
        Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback" (UAI 2009), section 4.3.1, without
        item biases, as the libraries that publish its figures have it.
    """

    def __init__(self, num_users: int, num_items: int, dim: int = 64, l2: float = 0.0) -> None:
        super().__init__(num_users, num_items, num_items, dim, l2)
        self.reset_parameters()
