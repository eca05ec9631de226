"""HistoryMatch: how well the best of a ragged history fits each candidate."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops import EdgeLayout, dot_scores, segment_softmax
from graphrec.layers.ops.kernels import product, sampled_product, working_dtype
from graphrec.layers.ops.standalone import standalone, standalone_backward

LEAST_TEMPERATURE = 0.025  # below, exp(cos / temperature) times a small weight leaves single precision
# Where no gradient is wanted: vectors times candidates, and so many candidates as stay in a processor's cache.
MATCHES_AT_ONCE, CANDIDATES_AT_ONCE = 2**24, 512


class HistoryMatch(nn.Module):
    r"""Match candidates with each item of a history by a soft maximum, instead of with the pooled history.

    For unit vectors :math:`x_i` of a user's items, of weight :math:`A_{ui}`, and :math:`v_j` of a candidate,

    .. math::
        m_{uj} = \tau \log \sum_{i \in \mathcal{H}_u} A_{ui} \exp(x_i \cdot v_j / \tau), \qquad
        A_{ui} = \operatorname{softmax}_{i \in \mathcal{H}_u} a_i

    which lies between the weighted mean of the cosines (large :math:`\tau`) and the largest of them (small
    :math:`\tau`): each candidate attends to the items that are like it, with
    :math:`\alpha_{uij} \propto A_{ui} \exp(x_i \cdot v_j / \tau)`, so interests far apart are not averaged away. A user
    without items matches everything with 0. Forward keeps one number for each vector and candidate, whichever histories
    name it; backward is two products.

    Args:
        temperature: :math:`\tau`, at least 0.025.

    Shape:
        - x: unit vectors of the history entries, ``[total, channels]``, or with ``index`` of the items that they name,
          ``[num_vectors, channels]``; user ``b`` owns the entries ``offsets[b]`` to ``offsets[b + 1]``
        - offsets: int64 ``[batch_size + 1]``
        - scores: :math:`a_i` of each entry, ``[total]``
        - candidate: unit vectors, ``[num_candidates, channels]``
        - index: which row of ``x`` each entry is, int64 ``[total]``; the entry's own when not given
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

    def forward(
        self, x: Tensor, offsets: Tensor, scores: Tensor, candidate: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """Match all candidates with all histories."""
        layout = self._layout(x, offsets, scores, candidate, index)
        alpha = segment_softmax(scores.unsqueeze(1), layout).squeeze(1)
        if torch.is_grad_enabled():
            return _match(x, alpha, candidate, layout, self.temperature)
        # A few candidates at a time: there is a number for each vector and candidate.
        num_candidates = max(1, MATCHES_AT_ONCE // max(len(x), 1))
        if x.device.type == "cpu":
            num_candidates = min(num_candidates, CANDIDATES_AT_ONCE)
        out = x.new_empty(layout.num_dst, len(candidate), dtype=working_dtype(x, alpha, candidate))
        for start in range(0, len(candidate), num_candidates):
            part = slice(start, start + num_candidates)
            out[:, part] = _match(x, alpha, candidate[part], layout, self.temperature)
        return out

    def match_pairs(
        self,
        x: Tensor,
        offsets: Tensor,
        scores: Tensor,
        candidate: Tensor,
        user: Tensor,
        index: Tensor | None = None,
    ) -> Tensor:
        """Match single candidates with single histories, ``[num_pairs]``.

        Args:
            x: As in :meth:`forward`.
            offsets: As in :meth:`forward`.
            scores: As in :meth:`forward`.
            candidate: A candidate for each pair, ``[num_pairs, channels]``.
            user: The row of the history of each pair, int64 ``[num_pairs]``.
            index: As in :meth:`forward`.

        Raises:
            ArgumentError: Sizes that do not fit, or a row out of range.
        """
        layout = self._layout(x, offsets, scores, candidate, index)
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
        vector = entry if index is None else index.index_select(0, entry)
        edges = EdgeLayout.from_rowptr(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), vector, len(x))
        cosine = dot_scores(candidate.unsqueeze(1), x.unsqueeze(1), edges).squeeze(1)
        powers = alpha.index_select(0, entry) * ((cosine - 1) / self.temperature).exp()
        total = powers.new_zeros(len(user)).index_add(0, pair, powers)
        matched = 1 + self.temperature * total.clamp(min=torch.finfo(total.dtype).tiny).log()
        return torch.where(lengths > 0, matched, 0.0)

    def _layout(
        self, x: Tensor, offsets: Tensor, scores: Tensor, candidate: Tensor, index: Tensor | None
    ) -> EdgeLayout:
        """Return the history entries as edges from their vectors to their users."""
        if x.dim() != 2 or candidate.dim() != 2 or x.size(1) != candidate.size(1):
            raise ArgumentError(
                f"x and candidate must be matrices of one width, got {list(x.shape)} and {list(candidate.shape)}"
            )
        if index is None:
            index = torch.arange(len(x), device=x.device)
        if scores.shape != index.shape:
            raise ArgumentError(f"scores must have shape {list(index.shape)}, got {list(scores.shape)}")
        return EdgeLayout.from_rowptr(offsets, index, len(x), name="offsets")

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
        powers = ((x / temperature) @ candidate.t()).exp_()  # [num_vectors, num_candidates]
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
        layout: EdgeLayout = ctx.layout
        of_user = grad / total
        to_alpha = to_x = to_candidate = None
        if ctx.needs_input_grad[1]:
            to_alpha = sampled_product(layout.rowptr, layout.src, of_user, powers).mul_(ctx.temperature)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            # d m / d cos = α = A exp(...) / total; the temperature cancels.
            pulled = product(layout.colptr, layout.dst, alpha.index_select(0, layout.transpose), of_user).mul_(powers)
            to_x = pulled @ candidate if ctx.needs_input_grad[0] else None
            to_candidate = pulled.t() @ x if ctx.needs_input_grad[2] else None
        return to_x, to_alpha, to_candidate, None, None
