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
PAIRS_AT_ONCE = 2**15  # a block of their products stays in the cache


class Step(NamedTuple):
    """What a head learns from in a step of training.

    Args:
        user: User vectors of length 1, ``[num_rows, dim]``.
        item: Item vectors of length 1, ``[num_step_items, dim]``; the last are those of the negatives.
        bias: :math:`b_j` of these items.
        took: What each row's user took, which is no negative.
        negatives: Which items the negatives are, int64 ``[num_negatives]``.
        rows: The row of each target, int64 ``[num_targets]``.
        targets: The place of each target among the item vectors.
        weights: Of the targets.
        context: What :meth:`RankingHead.context` returned.
        matched: Scores of all items before the negatives, and of the negatives for each row, ``[num_rows,
            num_negatives]``, where they are no products of the vectors.
    """

    user: Tensor
    item: Tensor
    bias: Tensor
    took: Histories
    negatives: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor
    context: Tensor | None
    matched: tuple[Tensor, Tensor] | None = None


class RankingHead(nn.Module):
    r"""Ranks the best candidates of a product anew, by a network that is trained with the rest.

    .. math:: \hat{s}(u, j) = s(u, j) + y_{uj}, \qquad j \in \text{the best } N \text{ of } s(u, \cdot)

    where y is that of a :class:`~graphrec.layers.MatchHead`, told of the side features and, with a GRU, of its last
    state over the most recent items. All other items keep their order, below the candidates.

    Training asks for what is hidden of a history against the N negatives that the product finds hardest: what the head
    meets at ranking time. Its loss is added to that of the product, which goes on finding the candidates.

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

    def loss(self, step: Step, temperature: float) -> Tensor:
        """Return the softmax loss of the targets against the negatives that score best by the product.

        Args:
            step: The step.
            temperature: By which the product is divided.
        """
        first = len(step.item) - len(step.negatives)
        rivals, there = self._hardest(step, temperature)
        each = torch.arange(len(rivals), device=rivals.device).repeat_interleave(rivals.size(1))
        rows, columns = torch.cat([step.rows, each]), torch.cat([step.targets, first + rivals.flatten()])
        if step.matched is None:
            # Rows of vectors, not places in a matrix of all scores: that would be slow to differentiate.
            match = (step.user.index_select(0, rows) * step.item.index_select(0, columns)).sum(dim=1)
            score = match / temperature + step.bias.index_select(0, columns)
        else:
            of_targets, of_negatives = step.matched
            score = torch.cat([of_targets[step.targets], of_negatives.gather(1, rivals).flatten()])
        head = self(step.user, step.item, rows, columns, score, step.context)
        positive, negative = head.tensor_split([len(step.targets)])
        negative = negative.view(there.shape).masked_fill(~there, torch.finfo(negative.dtype).min / 2)
        # The rivals stand for themselves alone, so nothing is corrected.
        log_q = -math.log(rivals.size(1))
        return softmax_over_samples(positive, negative, log_q, rows=step.rows, weights=step.weights)

    @torch.no_grad()
    def _hardest(self, step: Step, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the places of the best negatives of each row, and which are any: the others are what the user took."""
        if step.matched is None:
            rival, bias = (part[len(step.item) - len(step.negatives) :] for part in (step.item, step.bias))
            scores = torch.addmm(bias, step.user / temperature, rival.t())
        else:
            scores = step.matched[1].clone()
        taken = accidental_hits(step.took.rows, step.took.items, step.negatives)
        scores = scores.index_put_(taken, scores.new_tensor(-torch.inf))
        best, rivals = scores.topk(min(self.num_candidates, scores.size(1)), dim=1, sorted=False)
        return rivals, best > -torch.inf

    def rerank(
        self, scores: Tensor, histories: Histories, user: Tensor, item: Tensor, context: Tensor | None
    ) -> Tensor:
        """Return scores by which the best candidates are in the head's order, and all others below in their own.

        The N best items that are not in the history are candidates, and so is what scores as well as these. Where the
        head puts a candidate below the others, these fall as a whole; so no score of a candidate depends on another.
        A row without a history stays as it is: there is nothing for the head to go by.

        Args:
            scores: By the product, ``[batch_size, num_items]``.
            histories: What the users took.
            user: ``[batch_size, dim]``, of length 1.
            item: ``[num_items, dim]``, of length 1.
            context: What :meth:`context` returned.
        """
        new = scores.index_put((histories.rows, histories.items), scores.new_tensor(-torch.inf))
        least = new.topk(min(self.num_candidates, scores.size(1)), dim=1).values[:, -1:]  # [batch_size, 1]
        asked = (scores >= least) & (histories.lengths > 0).unsqueeze(1)
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
