"""PTUPCDR: a mapping of their own for each user, from a source domain to a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.layers.ops.attention import attend
from graphrec.layers.ops.edges import EdgeLayout
from graphrec.models.bridged import BridgedRecommender


class PTUPCDR(BridgedRecommender):
    r"""Writes a linear bridge for each user from what they took in the source.

    .. math::
        c_u &= \textstyle\sum_{i \in \mathcal{H}^s_u} a_{ui} \, q^s_i, \qquad
            a_{ui} = \operatorname{softmax}_i h(q^s_i)
            &&\text{characteristic encoder} \\
        W_u &= g(c_u) \in \mathbb{R}^{d \times d}, \qquad f_u(p^s_u) = W_u \, p^s_u
            &&\text{meta network and bridge}

    with two layers in :math:`h` and in :math:`g`. Task-oriented: the bridge is judged by what users took in the
    target, not by the distance to their vectors there. Ratings are not read, so the task is the one that the
    factorisation itself solves, over all items,

    .. math:: \min \sum_u \sum_j c_{uj} \, (x_{uj} - f_u(p^s_u) \cdot q^t_j)^2

    with :math:`c` of :class:`IALS`. The rest: see :class:`~graphrec.models.bridged.BridgedRecommender`. Needs the extra
    ``baselines``.

    Args:
        num_items: Number of items of both domains.
        in_target: Which items are the target's (items of both among them), bool ``[num_items]``.
        meta_dim: Width of the hidden layer of the meta network.
        dim: Width of the vectors of both factorisations.
        l2: Their penalty λ, at least 0.
        confidence: Their weight α of what was taken, at least 1.
        iterations: Their alternations.

    Raises:
        ArgumentError: A value outside its range, or all items are of one domain.

    Example:
        >>> model = PTUPCDR(num_items=5, in_target=torch.tensor([True, True, True, False, False]), dim=4)
        >>> model.prepare(Histories.from_lists([[0, 1, 3], [2, 4], [0, 3]]))
        >>> model.score(Histories.from_lists([[3], [0, 4]])).shape
        torch.Size([2, 5])

    Source:
        Zhu, Tang, Liu, Zhuang, Xie, Zhang, Lin and He, "Personalized Transfer of User Preferences for Cross-domain
        Recommendation" (WSDM 2022): characteristic encoder, meta network and task-oriented optimisation, with the loss
        of Hu et al., "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008), eq. 3, for that of ratings.
    """

    def __init__(
        self,
        num_items: int,
        in_target: Tensor,
        meta_dim: int = 50,
        dim: int = 64,
        l2: float = 10.0,
        confidence: float = 5.0,
        iterations: int = 15,
    ) -> None:
        super().__init__(num_items, in_target, dim, l2, confidence, iterations)
        check_range("meta_dim", meta_dim, low=1)
        self.importance = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1, bias=False))
        self.meta = nn.Sequential(nn.Linear(dim, meta_dim), nn.ReLU(), nn.Linear(meta_dim, dim * dim))
        self.reset_parameters()

    def characteristics(self, histories: Histories) -> Tensor:
        """Return :math:`c_u` of what users took in the source, ``[batch_size, dim]``; zeros where they took nothing."""
        entries = self.source.factors[histories.items]
        places = torch.arange(len(entries), device=entries.device)
        layout = EdgeLayout.from_rowptr(histories.offsets, places, len(entries))
        mean: Tensor = attend(self.importance(entries), entries, layout)[0].flatten(1)
        return mean

    def bridge(self, vectors: Tensor, histories: Histories) -> Tensor:
        """Give each user a mapping, and map by it; see :meth:`BridgedRecommender.bridge`."""
        own: Tensor = self.meta(self.characteristics(histories)).view(-1, self.dim, self.dim)
        return torch.bmm(own, vectors.unsqueeze(2)).squeeze(2)

    def bridge_loss(self, carried: Tensor, histories: Histories) -> Tensor:
        """Return the factorisation's weighted squared error over all items, averaged over users."""
        factors = self.target.factors
        _, confidence = self.target.chosen.tolist()
        taken = (carried[histories.rows] * factors[histories.items]).sum(dim=1)
        # All items as if not taken, by their Gram matrix; then the difference for those that were.
        everything = ((carried @ (factors.t() @ factors)) * carried).sum()
        total: Tensor = everything + (confidence * (1 - taken).square() - taken.square()).sum()
        return total / len(histories)
