"""HistoryMatch: how well the best of a ragged history fits each candidate."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops import EdgeLayout, dot_scores, segment_softmax
from graphrec.layers.ops.kernels import product, working_dtype
from graphrec.layers.ops.standalone import standalone, standalone_backward

LEAST_TEMPERATURE = 0.025  # below, exp(cos / temperature) times a small weight leaves single precision
ENTRIES_AT_ONCE = 2**24  # history entries times candidates, where no gradient is wanted


class HistoryMatch(nn.Module):
    r"""Match candidates with each item of a history by a soft maximum, instead of with the pooled history.

    For unit vectors :math:`x_i` of a user's items, of weight :math:`A_{ui}`, and :math:`v_j` of a candidate,

    .. math::
        m_{uj} = \tau \log \sum_{i \in \mathcal{H}_u} A_{ui} \exp(x_i \cdot v_j / \tau), \qquad
        A_{ui} = \operatorname{softmax}_{i \in \mathcal{H}_u} a_i

    which lies between the weighted mean of the cosines (large :math:`\tau`) and the largest of them (small
    :math:`\tau`): each candidate attends to the items that are like it, with
    :math:`\alpha_{uij} \propto A_{ui} \exp(x_i \cdot v_j / \tau)`, so interests far apart are not averaged away. A user
    without items matches everything with 0. Forward keeps one number for each history entry and candidate; backward is
    two products.

    Args:
        temperature: :math:`\tau`, at least 0.025.

    Shape:
        - x: unit vectors of the history entries, ``[total, channels]``; user ``b`` owns
          ``x[offsets[b]:offsets[b + 1]]``
        - offsets: int64 ``[batch_size + 1]``
        - scores: :math:`a_i` of each entry, ``[total]``
        - candidate: unit vectors, ``[num_candidates, channels]``
        - output: ``[batch_size, num_candidates]``

    Raises:
        ArgumentError: Sizes that do not fit, or a temperature out of range.

    Example:
        >>> x, v = torch.eye(3)[:2], torch.eye(3)
        >>> match = HistoryMatch(temperature=0.05)
        >>> out = match(x, torch.tensor([0, 2, 2]), torch.zeros(2), v)  # a user of two items, and one of none
        >>> [[round(value, 3) for value in row] for row in out.tolist()]
        [[0.965, 0.965, 0.0], [0.0, 0.0, 0.0]]

    Source:
        Late interaction after Khattab and Zaharia, "ColBERT" (SIGIR 2020), eq. 3, with a soft maximum; attention that
        depends on the target after Zhou et al., "Deep Interest Network" (KDD 2018), eq. 3.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        check_range("temperature", temperature, low=LEAST_TEMPERATURE)
        self.temperature = temperature

    def forward(self, x: Tensor, offsets: Tensor, scores: Tensor, candidate: Tensor) -> Tensor:
        """Match all candidates with all histories."""
        layout = self._layout(x, offsets, scores, candidate)
        alpha = segment_softmax(scores.unsqueeze(1), layout).squeeze(1)
        if torch.is_grad_enabled():
            return _match(x, alpha, candidate, layout, self.temperature)
        # A few users at a time: there is a number for each history entry and candidate.
        longest = max(1, ENTRIES_AT_ONCE // max(len(candidate), 1))
        out = x.new_empty(layout.num_dst, len(candidate), dtype=working_dtype(x, alpha, candidate))
        start = 0
        while start < layout.num_dst:
            first = int(offsets[start])
            end = max(start + 1, int(torch.searchsorted(offsets, first + longest, right=True)) - 1)
            entries = slice(first, int(offsets[end]))
            own = offsets[start : end + 1] - first
            part = EdgeLayout.from_rowptr(
                own, torch.arange(entries.stop - first, device=x.device), entries.stop - first
            )
            out[start:end] = _match(x[entries], alpha[entries], candidate, part, self.temperature)
            start = end
        return out

    def match_pairs(self, x: Tensor, offsets: Tensor, scores: Tensor, candidate: Tensor, user: Tensor) -> Tensor:
        """Match single candidates with single histories, ``[num_pairs]``.

        Args:
            x: As in :meth:`forward`.
            offsets: As in :meth:`forward`.
            scores: As in :meth:`forward`.
            candidate: A candidate for each pair, ``[num_pairs, channels]``.
            user: The row of the history of each pair, int64 ``[num_pairs]``.

        Raises:
            ArgumentError: Sizes that do not fit, or a row out of range.
        """
        layout = self._layout(x, offsets, scores, candidate)
        if user.shape != (len(candidate),):
            raise ArgumentError(f"user must have shape [{len(candidate)}], one a candidate, got {list(user.shape)}")
        if user.numel() and not 0 <= int(user.min()) <= int(user.max()) < layout.num_dst:
            raise ArgumentError(
                f"user must be within 0..{layout.num_dst - 1}, got {int(user.min())}..{int(user.max())}"
            )
        alpha = segment_softmax(scores.unsqueeze(1), layout).squeeze(1)
        lengths = (offsets[1:] - offsets[:-1])[user]
        pair = torch.repeat_interleave(torch.arange(len(user), device=x.device), lengths)
        within = torch.arange(len(pair), device=x.device) - (lengths.cumsum(0) - lengths)[pair]
        entry = offsets[:-1][user][pair] + within
        # Each pair's history entries as edges into it: no vector is gathered, which long histories would make many.
        edges = EdgeLayout.from_rowptr(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), entry, len(x))
        cosine = dot_scores(candidate.unsqueeze(1), x.unsqueeze(1), edges).squeeze(1)
        powers = alpha.index_select(0, entry) * ((cosine - 1) / self.temperature).exp()
        total = powers.new_zeros(len(user)).index_add(0, pair, powers)
        matched = 1 + self.temperature * total.clamp(min=torch.finfo(total.dtype).tiny).log()
        return torch.where(lengths > 0, matched, 0.0)

    def _layout(self, x: Tensor, offsets: Tensor, scores: Tensor, candidate: Tensor) -> EdgeLayout:
        """Return the history entries as edges from themselves to their users."""
        if x.dim() != 2 or candidate.dim() != 2 or x.size(1) != candidate.size(1):
            raise ArgumentError(
                f"x and candidate must be matrices of one width, got {list(x.shape)} and {list(candidate.shape)}"
            )
        if scores.shape != (len(x),):
            raise ArgumentError(f"scores must have shape [{len(x)}], got {list(scores.shape)}")
        return EdgeLayout.from_rowptr(offsets, torch.arange(len(x), device=x.device), len(x), name="offsets")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(temperature={self.temperature:g})"


@standalone
def _match(x: Tensor, alpha: Tensor, candidate: Tensor, layout: EdgeLayout, temperature: float) -> Tensor:
    dtype = working_dtype(x, alpha, candidate)
    given = (x.to(dtype), alpha.to(dtype), candidate.to(dtype))
    return cast(Tensor, _Match.apply(*given, layout, temperature))  # type: ignore[no-untyped-call]


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, candidate: Tensor, layout: EdgeLayout, temperature: float
    ) -> Tensor:
        # exp(cos / τ) stays in range from the least temperature on: nothing need be taken off, which saves a pass.
        powers = ((x / temperature) @ candidate.t()).exp_()  # [total, num_candidates]
        total = product(layout.rowptr, layout.src, alpha, powers)
        total.clamp_(min=torch.finfo(total.dtype).tiny)
        ctx.save_for_backward(x, alpha, candidate, powers, total)
        ctx.layout, ctx.temperature = layout, temperature
        empty = layout.rowptr[1:] == layout.rowptr[:-1]
        return total.log().mul_(temperature).masked_fill_(empty.unsqueeze(1), 0.0)

    @staticmethod
    @standalone_backward
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, alpha, candidate, powers, total = ctx.saved_tensors
        # d m / d cos = α = A exp(...) / total; the temperature cancels.
        pulled = _times_own(powers, grad / total, ctx.layout)
        to_alpha = pulled.sum(dim=1).mul_(ctx.temperature) if ctx.needs_input_grad[1] else None
        # A weight of each entry scales vectors, not the matrix.
        weight = alpha.unsqueeze(1)
        to_x = (pulled @ candidate).mul_(weight) if ctx.needs_input_grad[0] else None
        to_candidate = pulled.t() @ (x * weight) if ctx.needs_input_grad[2] else None
        return to_x, to_alpha, to_candidate, None, None


def _times_own(powers: Tensor, of_user: Tensor, layout: EdgeLayout) -> Tensor:
    """Multiply each entry's row of ``powers`` by its user's row."""
    if powers.device.type != "cpu":
        return of_user.index_select(0, layout.destination).mul_(powers)
    out = torch.empty_like(powers)
    # User by user the rows stay in the cache; a copy of a user's row for each entry would go to memory and back.
    for user, (start, end) in enumerate(pairwise(layout.rowptr.tolist())):
        torch.mul(powers[start:end], of_user[user], out=out[start:end])
    return out
