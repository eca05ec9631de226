"""RankingHead: the second stage of ranking, a network over the best candidates of a product."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from graphrec.encoders.side_features import SideFeatureEncoder
from graphrec.errors import check_choice, check_range
from graphrec.histories import Histories
from graphrec.layers.match_head import MatchHead
from graphrec.losses import accidental_hits, softmax_over_samples

Head = Literal["mlp", "gru"]
NEW_USERS = 0.1  # share of the users of a step of whom the head is told nothing but their attributes
PAIRS_AT_ONCE = 2**15  # a block of their products stays in the cache


class Step(NamedTuple):
    """What a head learns from in a step of training.

    Args:
        user: User vectors of length 1, ``[num_rows, dim]``.
        past: What these users are known by.
        h: Item vectors, and in ``places`` the row of each entry of ``past``.
        places: int64 ``[total]``.
        item: Vectors of candidates of length 1, ``[num_step_items, dim]``; the last are those of the negatives.
        bias: :math:`b_j` of these candidates.
        negatives: Which items the negatives are, int64 ``[num_negatives]``.
        took: What each row's user took, which is no negative.
        rows: The row of each target, int64 ``[num_targets]``.
        targets: The place of each target among the candidates.
        weights: Of the targets.
        matched: Where scores are no products of the vectors: those of the targets, ``[num_targets]``, and of each row
            and negative, ``[num_rows, num_negatives]``, all without bias.
    """

    user: Tensor
    past: Histories
    h: Tensor
    places: Tensor
    item: Tensor
    bias: Tensor
    negatives: Tensor
    took: Histories
    rows: Tensor
    targets: Tensor
    weights: Tensor
    matched: tuple[Tensor, Tensor] | None = None

    def as_new(self, new: Tensor) -> Step:
        """Return the step as if nothing but their attributes were known of some users (bool ``[num_rows]``)."""
        entries, matched = ~new[self.past.rows], self.matched
        if matched is not None:
            of_targets, of_negatives = matched
            matched = of_targets.masked_fill(new[self.rows], 0.0), of_negatives.masked_fill(new.unsqueeze(1), 0.0)
        return self._replace(
            user=self.user.masked_fill(new.unsqueeze(1), 0.0),
            past=self.past.keep(entries),
            places=self.places[entries],
            matched=matched,
        )


class RankingHead(nn.Module):
    r"""Ranks the best candidates of a product anew, by a network that is trained with the rest.

    .. math:: \hat{s}(u, j) = s(u, j) + y_{uj}, \qquad j \in \text{the best } N \text{ of } s(u, \cdot)

    where y is that of a :class:`~graphrec.layers.MatchHead`, told of the side features and, with a GRU, of its last
    state over the most recent items. All other items keep their order, below the candidates.

    Training asks for what is hidden of a history and would be a candidate, against the N negatives that the product
    finds hardest: what the head meets at ranking time. Its loss is added to that of the product and ends at the
    vectors, so they are those of a model without a head. Where users have attributes, a tenth of the users of a step
    are new to the head: their attributes are all that it is told.

    Args:
        dim: Width of user and item vectors.
        kind: ``"mlp"``, or ``"gru"``, which also reads the most recent items in order.
        hidden_channels: Width of the network's hidden layers, and of the GRU's state.
        num_candidates: N.
        max_length: Most recent items that the GRU reads.
        dropout: Probability that a hidden channel is dropped in training.
        side: Encoder of side features.

    Raises:
        ArgumentError: A value outside its range.

    Source:
        Two stages: Covington et al., "Deep Neural Networks for YouTube Recommendations" (RecSys 2016), section 2; the
        GRU after Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016).
    """

    def __init__(
        self,
        dim: int,
        kind: Head,
        hidden_channels: int,
        num_candidates: int,
        max_length: int,
        dropout: float,
        side: SideFeatureEncoder | None,
    ) -> None:
        super().__init__()
        check_choice("head", kind, get_args(Head))
        check_range("head_channels", hidden_channels, low=1)
        check_range("rerank", num_candidates, low=1)
        self.kind = kind
        self.num_candidates = num_candidates
        self.max_length = max_length
        self.side = side
        self.recent = nn.GRU(dim, hidden_channels, batch_first=True) if kind == "gru" else None
        context = (0 if side is None else side.out_channels) + (0 if self.recent is None else hidden_channels)
        self.match = MatchHead(dim, hidden_channels, context, dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        if self.side is not None:
            self.side.reset_parameters()
        if self.recent is not None:
            self.recent.reset_parameters()
        self.match.reset_parameters()

    @property
    def knows_users(self) -> bool:
        """Whether there are attributes of users, so that something is known of a user without a history."""
        return self.side is not None and bool(self.side.values)

    def has_told(self, histories: Histories) -> Tensor:
        """Return of which users anything is known: past items or attributes, bool ``[batch_size]``."""
        told = histories.lengths > 0
        return told if self.side is None else told | self.side.knows(histories)

    def context(
        self, histories: Histories, h: Tensor, places: Tensor, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Return what the head is told of each user beside the vector, ``[batch_size, context_channels]``.

        Args:
            histories: What is known of the users.
            h: Item vectors.
            places: The row of ``h`` of each history entry, int64 ``[total]``.
            generator: Draws which side features count as unknown in training.
        """
        told = []
        if self.side is not None:
            told.append(self.side(histories, generator))
        if self.recent is not None:
            told.append(self._last_state(self.recent, histories, h, places))
        return torch.cat(told, dim=1) if told else None

    def forward(
        self, user: Tensor, item: Tensor, rows: Tensor, columns: Tensor, score: Tensor, context: Tensor | None
    ) -> Tensor:
        r"""Return :math:`\hat{s}` of pairs, ``[num_pairs]``; see :class:`~graphrec.layers.MatchHead`."""
        added: Tensor = self.match(user, item, rows, columns, score, context)
        return score + added

    def loss(self, step: Step, temperature: float, generator: torch.Generator) -> Tensor:
        """Return the softmax loss of the targets against the negatives that score best by the product.

        Args:
            step: The step.
            temperature: By which the product is divided.
            generator: Draws which side features count as unknown, and of which users nothing else is known.
        """
        # The best of few candidates is another aim than the best of all items. Let through to the vectors, it worsened
        # both stages (docs/head.md).
        user, h, item, bias = (vectors.detach() for vectors in (step.user, step.h, step.item, step.bias))
        matched = None if step.matched is None else (step.matched[0].detach(), step.matched[1].detach())
        step = step._replace(user=user, h=h, item=item, bias=bias, matched=matched)
        if self.knows_users:
            new = torch.rand(len(step.user), generator=generator) < NEW_USERS
            step = step.as_new(new.to(step.user.device))
        first = len(step.item) - len(step.negatives)
        rivals, there, least = self._hardest(step, temperature)
        each = torch.arange(len(rivals), device=rivals.device).repeat_interleave(rivals.size(1))
        rows, columns = torch.cat([step.rows, each]), torch.cat([step.targets, first + rivals.flatten()])
        if step.matched is None:
            match = (step.user.index_select(0, rows) * step.item.index_select(0, columns)).sum(dim=1) / temperature
        else:
            of_targets, of_negatives = step.matched
            match = torch.cat([of_targets, of_negatives.gather(1, rivals).flatten()])
        score = match + step.bias.index_select(0, columns)
        # A target that is no candidate will not be ranked by the head. To ask for it against candidates alone would
        # teach that a low score by the product is a good sign.
        weights = step.weights * (score[: len(step.targets)] >= least.index_select(0, step.rows))
        context = self.context(step.past, step.h, step.places, generator)
        positive, negative = self(step.user, step.item, rows, columns, score, context).tensor_split([len(step.targets)])
        negative = negative.view(there.shape).masked_fill(~there, torch.finfo(negative.dtype).min / 2)
        # The rivals stand for themselves alone, so nothing is corrected.
        log_q = -math.log(rivals.size(1))
        return softmax_over_samples(positive, negative, log_q, rows=step.rows, weights=weights)

    def _hardest(self, step: Step, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the places of the best negatives of each row, which are any, and the least of their scores.

        Those that are none are what the user took.
        """
        rival, bias = (part[len(step.item) - len(step.negatives) :] for part in (step.item, step.bias))
        scores = bias + (step.user / temperature @ rival.t() if step.matched is None else step.matched[1])
        taken = accidental_hits(step.took.rows, step.took.items, step.negatives)
        scores = scores.index_put_(taken, scores.new_tensor(-torch.inf))
        best, rivals = scores.topk(min(self.num_candidates, scores.size(1)), dim=1)
        return rivals, best > -torch.inf, best[:, -1]

    def rerank(
        self, scores: Tensor, histories: Histories, user: Tensor, item: Tensor, context: Tensor | None
    ) -> Tensor:
        """Return scores by which the best candidates are in the head's order, and all others below in their own.

        The N best items that are not in the history are candidates, and so is what scores as well as these. Where the
        head puts a candidate below the others, these fall as a whole; so no score of a candidate depends on another.
        A user without a history and without a known attribute stays as is: there is nothing for the head to go by.

        Args:
            scores: By the product, ``[batch_size, num_items]``.
            histories: What the users took.
            user: ``[batch_size, dim]``, of length 1.
            item: ``[num_items, dim]``, of length 1.
            context: What :meth:`context` returned.
        """
        new = scores.index_put((histories.rows, histories.items), scores.new_tensor(-torch.inf))
        least = new.topk(min(self.num_candidates, scores.size(1)), dim=1).values[:, -1:]  # [batch_size, 1]
        asked = (scores >= least) & self.has_told(histories).unsqueeze(1)
        rows, columns = asked.nonzero(as_tuple=True)
        found = scores[rows, columns]
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            found[part] = self(user, item, rows[part], columns[part], found[part], context)
        worst = scores.new_full((len(scores),), torch.inf).scatter_reduce(0, rows, found, "amin").unsqueeze(1)
        fallen = scores - (least - worst).clamp(min=0.0)
        return fallen.index_put((rows, columns), found)

    def _last_state(self, gru: nn.GRU, histories: Histories, h: Tensor, places: Tensor) -> Tensor:
        """Return the GRU's state after the latest item of each history, zeros for an empty one."""
        order, recent = histories.order(), histories.from_end < self.max_length
        lengths = histories.lengths.clamp(max=self.max_length)
        rows = histories.rows[recent]
        place = lengths[rows] - 1 - histories.from_end[recent]
        longest = max(1, int(lengths.max())) if len(lengths) else 1
        # At the scale of the hidden state; the channels of item vectors are small.
        entries = h.index_select(0, places[order[recent]]) * h.size(1) ** 0.5
        padded = entries.new_zeros(len(histories), longest, h.size(1)).index_put((rows, place), entries)
        states, _ = gru(padded)
        at = torch.arange(len(histories), device=h.device)
        last: Tensor = states[at, (lengths - 1).clamp(min=0)]
        return last * (lengths > 0).unsqueeze(1)
