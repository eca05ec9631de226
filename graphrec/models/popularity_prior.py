"""PopularityPrior: what the charts say in the list of a user of whom few items are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories


class PopularityPrior(nn.Module):
    r"""A weight for each length of a history, and a popularity for each item; their product is added to scores.

    .. math:: w(n) \log \frac{1 + c_j}{1 + \bar c}, \qquad
        w(n) = \frac{a}{1 + n} \Bigl(1 - \frac{n}{b}\Bigr)_+

    where :math:`c_j` users took item j and :math:`\bar c` took one that was taken at all, on average. Nothing here is
    trained.

    Args:
        num_items: Number of items.
        weight: a, above 0.
        length: b, the length from which on the charts say nothing.

    Shape:
        - lengths: int ``[batch_size]``
        - output: :math:`w(n)`, float32 ``[batch_size]``

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> prior = PopularityPrior(num_items=3, weight=6.0, length=4)
        >>> prior.count(Histories.from_lists([[0, 1], [0]]))
        >>> prior(torch.tensor([0, 1, 4])).tolist()
        [6.0, 2.25, 0.0]
        >>> [round(value, 2) for value in prior.popularity().tolist()]
        [0.18, -0.22, -0.92]

    Source:
        A prior whose weight falls with the evidence, after the Dirichlet smoothing of Zhai and Lafferty, "A Study of
        Smoothing Methods for Language Models Applied to Ad Hoc Information Retrieval" (SIGIR 2001), here of logarithms.
    """

    num_takers: Tensor

    def __init__(self, num_items: int, weight: float, length: int) -> None:
        super().__init__()
        check_range("weight", weight, low=0.0)
        check_range("length", length, low=1)
        self.weight = weight
        self.length = length
        self.register_buffer("num_takers", torch.zeros(num_items))

    def count(self, histories: Histories) -> None:
        """Note how many users took each item."""
        self.num_takers.copy_(torch.bincount(histories.items, minlength=len(self.num_takers)))

    def forward(self, lengths: Tensor) -> Tensor:
        """Return the weight for histories of these lengths."""
        return self.weight / (1 + lengths) * (1 - lengths / self.length).clamp(min=0)

    def popularity(self) -> Tensor:
        r"""Return :math:`\log \frac{1 + c_j}{1 + \bar c}` of every item, ``[num_items]``."""
        taken = self.num_takers > 0
        return self.num_takers.log1p() - (self.num_takers.sum() / taken.sum().clamp(min=1)).log1p()
