"""Attribution: what each past item, and each fact of the knowledge graph, does to the score of one item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.layers.ops import EdgeLayout, weighted_sum
from graphrec.models.base import Recommender
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.held_prior import with_held_prior

if TYPE_CHECKING:
    from graphrec.encoders import AttendedEdges

BLOCK_BYTES = 64 * 2**20  # scores, or histories, that are held at once
ENTRY_BYTES = 1024  # a history entry and what a model makes of it on the way
AGREE = 1e-3  # of a score and the same score put together from its parts


def kept_scores(model: Recommender, histories: Histories, item: int, keep: Tensor) -> Tensor:
    """Score one item for many parts of one history: works for every model.

    Args:
        model: Any fitted recommender, in evaluation mode.
        histories: One row.
        item: Index of the item.
        keep: Which entries are left in each part, bool ``[num_parts, total]``.

    Returns:
        float64 ``[num_parts]``.

    Raises:
        ArgumentError: Not one row, or ``keep`` of another width.

    Example:
        >>> from graphrec.models import EASE
        >>> model = EASE(num_items=3, l2=1.0)
        >>> _ = model.fit(Histories.from_lists([[0, 1], [0, 1], [1, 2]]))
        >>> keep = torch.tensor([[True, True], [True, False], [False, False]])
        >>> [round(score, 2) for score in kept_scores(model, Histories.from_lists([[0, 2]]), 1, keep).tolist()]
        [1.17, 0.67, 0.0]
    """
    if len(histories) != 1:
        raise ArgumentError(f"histories must hold one row, got {len(histories)}")
    if keep.dim() != 2 or keep.size(1) != histories.items.numel():
        raise ArgumentError(f"keep must have shape [num_parts, {histories.items.numel()}], got {list(keep.shape)}")
    found = [torch.empty(0, dtype=torch.float64)]
    with torch.no_grad():
        for part in torch.split(keep, max(1, BLOCK_BYTES // max(4 * model.num_items, ENTRY_BYTES * keep.size(1)))):
            copies = histories.select(torch.zeros(len(part), dtype=torch.int64))
            found.append(model.score_item(copies.keep(part.flatten()), item).double())
    return torch.cat(found)


def leave_one_out(model: Recommender, histories: Histories, item: int) -> Tensor:
    r"""Return how far the score of one item falls without each history entry, float64 ``[total]``.

    .. math:: \phi_i = s(\mathcal{H}_u, j) - s(\mathcal{H}_u \setminus \{i\}, j)

    Exact for every model. InductiveKGAT, EASE, SLIST, RP3beta and ItemKNN give it at the cost of one score. Models that
    read histories in order are asked about the entries that they read (and one more), and share what these histories
    have in common (:meth:`Recommender.score_without_each`), as a blend of such does; any other model scores as many
    histories as there are entries.

    A ``popularity_prior``, also of a model in a blend, keeps the weight that the whole history gives it: that one item
    fewer is known makes the charts louder, whichever item it is, and is no item's doing.

    Args:
        model: Any fitted recommender, in evaluation mode.
        histories: One row.
        item: Index of the item.

    Source:
        Li, Monroe and Jurafsky, "Understanding Neural Networks through Representation Erasure" (2016), eq. 1, with the
        difference instead of the relative one.
    """
    if isinstance(model, InductiveKGAT):
        parts = AttendedScore.of(model, histories, item)
        if parts is not None:
            return parts.leave_one_out()
    size = histories.items.numel()
    held = with_held_prior(model, size)
    with torch.no_grad():
        left = held.score_without_each(histories, item)
        if left is not None:
            return model.score_item(histories, item).double() - left.double()
        summands = None if isinstance(model, InductiveKGAT) else model.contributions(histories, item)
        if summands is not None:
            return summands.double()  # a sum of one term for each entry, whatever the others, loses this term
    everything, without = torch.ones(1, size, dtype=torch.bool), ~torch.eye(size, dtype=torch.bool)
    scores = kept_scores(held, histories, item, torch.cat([everything, without]))
    return scores[0] - scores[1:]


class AttendedScore:
    r"""The score of one item for one user by InductiveKGAT, as a function of what is left of the history and the KG.

    Attention over what is left is renormalised, as the model itself would. Nothing but the rows concerned is computed
    again: an entry left out changes two sums, an edge into a past item changes that item's vector, and an edge into
    the candidate changes the candidate's. All in double precision.

    What is left out of the KG is an edge into one of these items on the last hop; what entities say of each other, and
    what other items say of themselves, stays.

    Args:
        model: In evaluation mode.
        histories: One row.
        item: Index of the candidate.

    Attributes:
        past: Edges into the past items, whose ``row`` is a history entry; ``None`` where these read no KG.
        candidate: Edges into the candidate; ``None`` where it reads no KG.
        full: The score with all of it.

    Example:
        >>> model = InductiveKGAT(4, 1, torch.tensor([[0, 0, 4], [1, 0, 4]]), dim=8).eval()
        >>> score = AttendedScore(model, Histories.from_lists([[0, 2]]), item=1)
        >>> score.past.entity.tolist(), score.candidate.entity.tolist()
        ([4], [4])
        >>> first = torch.tensor([0])
        >>> score.without(past=first, candidate=first).shape  # as if neither item were linked to entity 4
        torch.Size([1])
    """

    def __init__(self, model: InductiveKGAT, histories: Histories, item: int) -> None:
        items, at = histories.items, torch.tensor([item], device=histories.items.device)
        self.past: AttendedEdges | None = None
        self.candidate: AttendedEdges | None = None
        with torch.no_grad():
            h, g = model.cached("vectors", model.item_vectors)
            self._h, self._g = h[items].double(), g[item].double()  # [total, dim], [dim]
            if model.kg is not None:
                self.past = model.kg.attended(model.item[items], items)
                if model.candidate is None:
                    self.candidate = model.kg.attended(model.item[at], at)
                elif model.attend_candidates:
                    self.candidate = model.kg.attended(model.candidate[at], at, side=1)
            self._bias = float(model.cached("bias", model.bias)[item])
            self._prior = torch.zeros(len(items) + 1, dtype=torch.float64)  # by the length of what is left
            if model.prior is not None:
                self._prior += float(model.prior.popularity()[item]) * model.prior(torch.arange(len(items) + 1))
            self._bias += float(self._prior[-1])  # its weight with the whole history
            self._att = model.pool.att[0].double()
            own = model.attention_bias
            # How ready each entry is to be attended, whatever its vector.
            self._ready = self._h.new_zeros(len(items)) if own is None else own[items].double()
        self._temperature = model.temperature
        self._match = None if model.match is None else model.match.temperature
        scores = self._h @ self._att + self._ready
        self._highest = scores.max() if len(scores) else scores.new_zeros(())
        self._weight = (scores - self._highest).exp()  # [total]; attention before it is normalised
        self.full = float(self.kept(torch.ones(1, len(items), dtype=torch.bool)))

    @classmethod
    def of(cls, model: Recommender, histories: Histories, item: int) -> AttendedScore | None:
        """Return this for an InductiveKGAT whose score is put together as here; ``None`` for any other model.

        A model that reads a history in its order or has a head is another function of it, and so may a subclass be.
        """
        if not isinstance(model, InductiveKGAT) or model.head is not None or model.sequence is not None:
            return None
        score = cls(model, histories, item)
        with torch.no_grad():
            whole = float(model.score(histories)[0, item])
        return score if abs(score.full - whole) <= AGREE * (1 + abs(whole)) else None

    @property
    def num_past_edges(self) -> int:
        """Edges into the past items."""
        return 0 if self.past is None else len(self.past.entity)

    @property
    def num_candidate_edges(self) -> int:
        """Edges into the candidate."""
        return 0 if self.candidate is None else len(self.candidate.entity)

    def attention(self) -> Tensor:
        """Return the attention to each entry, float64 ``[total]``, summing to one.

        Where candidates attend to the history it is this candidate's, else it is the same for all.
        """
        weight = self._weight
        if self._match is not None:
            weight = weight * self._powers(self._h, self._g)
        alpha: Tensor = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        return alpha

    def leave_one_out(self) -> Tensor:
        """Return how far the score falls without each entry, float64 ``[total]``; see :func:`leave_one_out`."""
        return self.full - self._kept_at_one_prior(~torch.eye(len(self._h), dtype=torch.bool))

    def kept(self, entries: Tensor) -> Tensor:
        """Score with a part of the history, float64 ``[num_parts]``.

        Args:
            entries: Which entries are left in each part, bool ``[num_parts, total]``.
        """
        return self._kept_at_one_prior(entries) + self._prior[entries.sum(dim=1)] - self._prior[-1]

    def _kept_at_one_prior(self, entries: Tensor) -> Tensor:
        """Do as :meth:`kept`, with the prior's weight of the whole history."""
        weight = entries * self._weight
        if self._match is None:
            return self._cosine_score(weight @ self._h, self._g)
        return self._match_score(weight @ self._powers(self._h, self._g), weight.sum(dim=1))

    def kept_edges(self, edges: Tensor) -> Tensor:
        """Score with a part of the KG, float64 ``[num_parts]``.

        Args:
            edges: Which edges are left in each part, bool ``[num_parts, num_past_edges + num_candidate_edges]``: those
                into past items in the order of :attr:`past`, then those into the candidate.
        """
        found = [torch.empty(0, dtype=torch.float64)]
        for past, candidate in zip(*edges.tensor_split([self.num_past_edges], dim=1), strict=True):
            h, g = self._h, self._g
            if self.past is not None:
                h = h + _received(self.past, past, len(h)) - _received(self.past, torch.ones_like(past), len(h))
            if self.candidate is not None:
                g = g + (
                    _received(self.candidate, candidate, 1) - _received(self.candidate, torch.ones_like(candidate), 1)
                ).squeeze(0)
            weight = self._weight_of(h, self._ready)
            if self._match is None:
                found.append(self._cosine_score(weight @ h, g).reshape(1))
            else:
                found.append(self._match_score(weight @ self._powers(h, g), weight.sum()).reshape(1))
        return torch.cat(found)

    def without(self, past: Tensor, candidate: Tensor, group: Tensor | None = None) -> Tensor:
        """Score without an edge into the candidate, one into each of some past items, or both, float64 ``[num_parts]``.

        Args:
            past: Edge numbers in :attr:`past`, int64 ``[num_left_out]``, of different past items within one part; -1
                leaves all of them.
            candidate: Edge numbers in :attr:`candidate`, int64 ``[num_parts]``, likewise.
            group: The part that each of ``past`` belongs to; when not given, the one in its place.
        """
        num_parts = len(candidate)
        if not len(self._h):
            return torch.full((num_parts,), self._bias, dtype=torch.float64)
        group = torch.arange(num_parts) if group is None else group
        # Few edges reach the candidate, and many parts share one.
        far, place = torch.unique(candidate, return_inverse=True)
        g = self._g.repeat(len(far), 1)
        if self.candidate is not None:
            g[far >= 0] += _changes(self.candidate, 1, far[far >= 0])
        group, past = group[past >= 0], past[past >= 0]
        entry, change = past, self._h.new_zeros(len(past), self._h.size(1))
        if self.past is not None:
            entry, change = self.past.row[past].long(), _changes(self.past, len(self._h), past)
        before, after = self._h[entry], self._h[entry] + change  # [num_left_out, dim]
        old, new = self._weight[entry], self._weight_of(after, self._ready[entry])
        if self._match is None:
            moved = new.unsqueeze(1) * after - old.unsqueeze(1) * before
            user = (self._weight @ self._h).repeat(num_parts, 1).index_add(0, group, moved)
            return self._cosine_score(user, g[place])
        powers = self._powers(self._h, g)  # [total, num far edges]
        at = place[group]
        moved = new * self._powers_of(after, g[at]) - old * powers[entry, at]
        total = (self._weight @ powers)[place].index_add(0, group, moved)
        weight = self._weight.sum().repeat(num_parts).index_add(0, group, new - old)
        return self._match_score(total, weight)

    def _weight_of(self, h: Tensor, ready: Tensor) -> Tensor:
        weight: Tensor = (h @ self._att + ready - self._highest).exp()
        return weight

    def _cosine_score(self, user: Tensor, g: Tensor) -> Tensor:
        """Return the score of pooled histories, up to their length; zeros are a history without items."""
        cosine: Tensor = (F.normalize(user, dim=-1) * F.normalize(g, dim=-1)).sum(dim=-1)
        return cosine / self._temperature + self._bias

    def _match_score(self, total: Tensor, weight: Tensor) -> Tensor:
        assert self._match is not None
        mean = total / weight
        matched: Tensor = torch.where(weight > 0, 1 + self._match * mean.log(), 0.0)
        return matched / self._temperature + self._bias

    def _powers(self, h: Tensor, g: Tensor) -> Tensor:
        """Return how well each entry fits one candidate ``[total]``, or each of several ``[total, num_candidates]``."""
        return self._soft(F.normalize(h, dim=1) @ F.normalize(g, dim=-1).t())

    def _powers_of(self, h: Tensor, g: Tensor) -> Tensor:
        return self._soft((F.normalize(h, dim=1) * F.normalize(g, dim=1)).sum(dim=1))

    def _soft(self, cosine: Tensor) -> Tensor:
        assert self._match is not None
        powers: Tensor = ((cosine - 1) / self._match).exp()
        return powers


def _received(edges: AttendedEdges, keep: Tensor, num_rows: int) -> Tensor:
    """Return what each item receives over the edges that are left, float64 ``[num_rows, dim]``."""
    row = edges.row.long()
    alpha = edges.alpha.double() * keep.unsqueeze(1)  # [num_edges, heads]
    total = alpha.new_zeros(num_rows, alpha.size(1)).index_add(0, row, alpha)
    share = (alpha / total.clamp(min=torch.finfo(total.dtype).tiny)[row]).mean(dim=1, keepdim=True)
    message = edges.message.double()
    return message.new_zeros(num_rows, message.size(1)).index_add(0, row, share * message)


def _changes(edges: AttendedEdges, num_rows: int, chosen: Tensor) -> Tensor:
    """Return how its item changes without each of the chosen edges, float64 ``[num_chosen, dim]``."""
    row, alphas, message = edges.row.long(), edges.alpha.double(), edges.message.double()
    at = row[chosen]
    own = message[chosen]
    weights = alphas.new_zeros(num_rows, alphas.size(1)).index_add(0, row, alphas)
    sums = _sums(row, alphas, message, num_rows)  # [num_rows, heads, dim]
    change = own.new_zeros(own.shape)
    for head, alpha in enumerate(alphas.unbind(dim=1)):
        attention = alpha[chosen]
        received, weight = sums[at, head], weights[at, head]
        left = received - attention.unsqueeze(1) * own
        weight_left = weight - attention
        # Nearly all of the attention may be on one edge, which must not be subtracted from nearly itself.
        most = (attention > 0.5).nonzero().squeeze(1)
        if len(most):
            near = torch.isin(row, at[most])
            rest = alpha[near].masked_fill(alpha[near] > 0.5, 0.0)
            left[most] = _sums(row[near], rest.unsqueeze(1), message[near], num_rows)[at[most], 0]
            weight_left[most] = rest.new_zeros(num_rows).index_add(0, row[near], rest)[at[most]]
        tiny = torch.finfo(weight.dtype).tiny
        change += left / weight_left.clamp(min=tiny).unsqueeze(1) - received / weight.unsqueeze(1)
    return change / alphas.size(1)


def _sums(row: Tensor, alpha: Tensor, message: Tensor, num_rows: int) -> Tensor:
    """Return what each row receives, head by head, ``[num_rows, heads, dim]``; rows ascend."""
    rowptr = F.pad(torch.bincount(row, minlength=num_rows).cumsum(0), (1, 0))
    layout = EdgeLayout.from_rowptr(rowptr, torch.arange(len(row), device=row.device), len(row))
    return weighted_sum(alpha, message, layout)
