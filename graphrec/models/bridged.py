"""What EMCDR and PTUPCDR share: a factorisation of each domain, and a bridge from its users to the other's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models.base import GradientRecommender
from graphrec.models.ials import IALS
from kg_loaders import RecGraph
from kg_loaders.joining import DOMAIN


class BridgedRecommender(GradientRecommender):
    r"""Two factorisations, one a domain, and a bridge that carries a user's source vector to the target.

    Each domain is factorised by :class:`IALS` before the first step; only the bridge is trained, on users who took
    items in both. A user's vectors :math:`p^s_u`, :math:`p^t_u` are folded in from the history, so nobody is a
    stranger:

    .. math::
        s(u, j) = \begin{cases}
            p^s_u \cdot q^s_j & j \text{ is the source's} \\
            p^t_u \cdot q^t_j & j \text{ is the target's, and u took something there} \\
            f_u(p^s_u) \cdot q^t_j & \text{else}
        \end{cases}

    Only the last case tells one bridge from another: choose its epochs on users who are cold in validation, see
    :func:`graphrec.experiment.cold_split`.

    Args:
        num_items: Number of items of both domains.
        in_target: Which items are the target's (items of both among them), bool ``[num_items]``.
        dim: Width of the vectors of both factorisations.
        l2: Their penalty λ, at least 0.
        confidence: Their weight α of what was taken, at least 1.
        iterations: Their alternations.

    Raises:
        ArgumentError: A value outside its range, or all items are of one domain.
    """

    draw: Tensor
    in_target: Tensor

    def __init__(
        self, num_items: int, in_target: Tensor, dim: int, l2: float, confidence: float, iterations: int
    ) -> None:
        super().__init__(num_items)
        if in_target.dtype != torch.bool or in_target.shape != (num_items,):
            raise ArgumentError(f"in_target must be bool [{num_items}], got {in_target.dtype} {list(in_target.shape)}")
        if bool(in_target.all()) or not bool(in_target.any()):
            raise ArgumentError("in_target must leave items to both domains: a bridge has two ends")
        self.dim = dim
        self.source = IALS(num_items, dim, l2, confidence, iterations)
        self.target = IALS(num_items, dim, l2, confidence, iterations)
        # Of the graph, not of training, so no part of the saved weights.
        self.register_buffer("in_target", in_target, persistent=False)
        # Where the alternations start. Kept, so that preparing again gives the same factors.
        self.register_buffer("draw", torch.zeros((), dtype=torch.int64))

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a linked graph, whose items have the feature ``domain``.

        Args:
            graph: The union of a pair; see :func:`kg_loaders.link`.
            options: The constructor's keyword arguments.

        Raises:
            ArgumentError: The graph is not linked.
        """
        if DOMAIN not in graph.item_features:
            raise ArgumentError(
                f"{cls.__name__} needs a linked graph, whose items have the feature {DOMAIN!r}; {graph.name!r} has "
                "none: see kg_loaders.link"
            )
        in_target = torch.from_numpy(graph.item_features[DOMAIN].values != "source")
        return cls(graph.num_items, in_target, **options)

    @abstractmethod
    def bridge(self, vectors: Tensor, histories: Histories) -> Tensor:
        """Carry users over.

        Args:
            vectors: Their source vectors, ``[batch_size, dim]``.
            histories: What they took in the source.

        Returns:
            Vectors of the target's space, ``[batch_size, dim]``.
        """

    @abstractmethod
    def bridge_loss(self, carried: Tensor, histories: Histories) -> Tensor:
        """Return how far users are from where they should have been carried to, averaged over them.

        Args:
            carried: What :meth:`bridge` returned, ``[batch_size, dim]``.
            histories: What they took in the target.
        """

    def reset_parameters(self) -> None:
        """Draw the bridge anew, and where the factorisations start."""
        self.draw.copy_(torch.randint(2**31 - 1, ()))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def prepare(self, histories: Histories) -> None:
        """Factorise both domains; see :meth:`GradientRecommender.prepare`."""
        in_target = self.in_target[histories.items]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.draw))
            self.source.fit(histories.keep(~in_target))
            self.target.fit(histories.keep(in_target))
        self.forget()

    def prepared_names(self) -> frozenset[str]:
        """Return the names of both factorisations' results: checkpoints leave them out."""
        return frozenset(
            f"{side}.{name}" for side in ("source", "target") for name in self.get_submodule(side).state_dict()
        )

    def forget(self) -> None:
        """Drop what this model and the two in it remember."""
        super().forget()
        self.source.forget()
        self.target.forget()

    def user_vectors(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """Return each user's vector for the source's items and for the target's, both ``[batch_size, dim]``."""
        in_target = self.in_target[histories.items]
        there, here = histories.keep(~in_target), histories.keep(in_target)
        source = self.source.user_vectors(there)
        cold = (here.lengths == 0).unsqueeze(1)
        return source, torch.where(cold, self.bridge(source, there), self.target.user_vectors(here))

    def score(self, histories: Histories) -> Tensor:
        """Score the items of each domain by its own factorisation; see :meth:`Recommender.score`."""
        self.target.check_ready(histories)
        source, target = self.user_vectors(histories)
        # An item has zeros in the factorisation of the other domain.
        return torch.addmm(target @ self.target.factors.t(), source, self.source.factors.t())

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return :meth:`bridge_loss` of the batch's users who took items in both domains."""
        in_target = self.in_target[histories.items]
        there, here = histories.keep(~in_target), histories.keep(in_target)
        crossing = ((there.lengths > 0) & (here.lengths > 0)).nonzero().squeeze(1)
        if not crossing.numel():
            return sum((weight.sum() * 0.0 for weight in self.parameters()), torch.zeros((), device=self.draw.device))
        there, here = there.select(crossing), here.select(crossing)
        return self.bridge_loss(self.bridge(self.source.user_vectors(there), there), here)
