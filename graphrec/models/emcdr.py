"""EMCDR: one mapping from the users of a source domain to those of a target."""

from __future__ import annotations

from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.bridged import BridgedRecommender


class EMCDR(BridgedRecommender):
    r"""Maps every user's source vector by the same function to where the target's factorisation has them.

    .. math:: f_u(p^s_u) = f(p^s_u; \theta), \qquad
        \min_\theta \sum_{u \in \mathcal{U}^s \cap \mathcal{U}^t} | f(p^s_u; \theta) - p^t_u |^2

    with a hidden layer, :math:`f(p) = W_2 \tanh(W_1 p + b_1) + b_2`, or linear. The rest: see
    :class:`~graphrec.models.bridged.BridgedRecommender`. Needs the extra ``baselines``.

    Args:
        num_items: Number of items of both domains.
        in_target: Which items are the target's (items of both among them), bool ``[num_items]``.
        hidden: Width of the hidden layer, twice ``dim`` in the paper; 0 maps linearly.
        dim: Width of the vectors of both factorisations.
        l2: Their penalty λ, at least 0.
        confidence: Their weight α of what was taken, at least 1.
        iterations: Their alternations.

    Raises:
        ArgumentError: A value outside its range, or all items are of one domain.

    Example:
        >>> import torch
        >>> model = EMCDR(num_items=5, in_target=torch.tensor([True, True, True, False, False]), dim=4)
        >>> model.prepare(Histories.from_lists([[0, 1, 3], [2, 4], [0, 3]]))
        >>> model.score(Histories.from_lists([[3], [0, 4]])).shape
        torch.Size([2, 5])

    Source:
        Man, Shen, Jin and Cheng, "Cross-Domain Recommendation: An Embedding and Mapping Approach" (IJCAI 2017): latent
        space mapping, linear and by a multi-layer perceptron; its latent factor models are :class:`IALS` here, since
        ratings are not read.
    """

    def __init__(
        self,
        num_items: int,
        in_target: Tensor,
        hidden: int = 128,
        dim: int = 64,
        l2: float = 10.0,
        confidence: float = 5.0,
        iterations: int = 15,
    ) -> None:
        super().__init__(num_items, in_target, dim, l2, confidence, iterations)
        check_range("hidden", hidden, low=0)
        self.mapping: nn.Module = nn.Linear(dim, dim)
        if hidden:
            self.mapping = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, dim))
        self.reset_parameters()

    def bridge(self, vectors: Tensor, histories: Histories) -> Tensor:
        """Map all users alike; see :meth:`BridgedRecommender.bridge`."""
        mapped: Tensor = self.mapping(vectors)
        return mapped

    def bridge_loss(self, carried: Tensor, histories: Histories) -> Tensor:
        """Return the squared distance to the users' target vectors, averaged over users."""
        return (carried - self.target.user_vectors(histories)).square().sum(dim=1).mean()
