"""RippleNet: a user as the triples that spread from a history."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.models.base import GradientRecommender
from graphrec.models.triples import check_triples
from graphrec.sampling import untaken_items
from kg_loaders import RecGraph

SCORED_AT_ONCE = 2**24  # (item, triple) pairs


class RippleNet(GradientRecommender):
    r"""Asks the triples around a user's history how well they fit an item.

    .. math::
        p_k = \operatorname{softmax}_k \, v_j^{(l - 1) \top} R_{r_k} h_k, \qquad
        o^{(l)} = \sum_{k \in \mathcal{S}_u^l} p_k \, t_k, \\
        v_j^{(l)} = W (v_j^{(l - 1)} + o^{(l)}), \qquad
        s(u, j) = \Bigl( \sum_{l=1}^H o^{(l)} \Bigr)^\top v_j^{(H)}

    :math:`\mathcal{S}_u^l` is a sample of the triples whose heads are the tails of :math:`\mathcal{S}_u^{l-1}`; at the
    start, the user's items. :math:`v_j^{(0)}` is the item's vector, which the paper keeps for all H hops and its
    authors' code updates after each. No user has a parameter, so strangers are served. Trained by binary cross-entropy
    on the pairs of a batch and as many pairs with an item that the user did not take, and by the triples' own
    plausibility :math:`\sigma(h^\top R_r t)`.

    A history is its own sample's source, in training as well as in ranking, as in the authors' code. A history whose
    items stand in no triple gets zeros.

    Args:
        num_items: Number of items; they are the first entities.
        num_entities: Number of entities, items included.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), at least one.
        dim: Width of all vectors.
        num_hops: Hops from the history, at least 1.
        num_memories: Triples drawn a hop, with replacement where there are fewer.
        kg_weight: Weight of the triples' plausibility in the loss.
        l2: Penalty on the vectors that a pair uses.

    Raises:
        ArgumentError: A value outside its range, or no triples.

    Source:
        Wang et al., "RippleNet: Propagating User Preferences on the Knowledge Graph for Recommender Systems"
        (CIKM 2018), eq. 1-13; the item's update after its authors' code.
    """

    needs_kg = True
    logits = True

    def __init__(
        self,
        num_items: int,
        num_entities: int,
        num_relations: int,
        triples: Tensor,
        dim: int = 16,
        num_hops: int = 2,
        num_memories: int = 32,
        kg_weight: float = 0.01,
        l2: float = 1e-7,
    ) -> None:
        super().__init__(num_items)
        check_range("dim", dim, low=1)
        check_range("num_hops", num_hops, low=1, high=4)
        check_range("num_memories", num_memories, low=1)
        check_range("kg_weight", kg_weight, low=0.0)
        check_range("l2", l2, low=0.0)
        check_triples("RippleNet", triples, num_entities, num_relations)
        self.num_hops = num_hops
        self.num_memories = num_memories
        self.kg_weight = kg_weight
        self.l2 = l2
        self.dim = dim
        self.entity = nn.Parameter(torch.empty(num_entities, dim))
        self.relation = nn.Parameter(torch.empty(num_relations, dim, dim))
        self.update = nn.Linear(dim, dim, bias=False)
        order = triples[:, 0].argsort(stable=True)
        self.triples: Tensor
        self.starts: Tensor
        self.priority: Tensor
        self.register_buffer("triples", triples[order], persistent=False)
        starts = F.pad(torch.bincount(triples[:, 0], minlength=num_entities).cumsum(0), (1, 0))
        self.register_buffer("starts", starts, persistent=False)
        # Which triples a crowded hop keeps: drawn once, so that a history always means the same sample.
        self.register_buffer("priority", torch.empty(len(triples)))
        self.reset_parameters()

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's items and triples; options are the constructor's keyword arguments."""
        triples = torch.from_numpy(graph.triples)
        return cls(graph.num_items, graph.num_entities, graph.num_relations, triples, **options)

    def reset_parameters(self) -> None:
        """Draw all weights, and which triples a crowded hop keeps, anew."""
        nn.init.xavier_uniform_(self.entity)
        for matrix in self.relation:
            nn.init.xavier_uniform_(matrix)
        self.update.reset_parameters()
        self.priority.uniform_()

    def ripples(self, histories: Histories) -> list[Tensor]:
        """Return each hop's triples, as numbers into the model's list, int64 ``[batch_size, num_memories]``.

        -1 stands where a hop has no triple at all, and in all hops after it.

        Raises:
            ArgumentError: An item is outside the catalogue.
        """
        histories.check_items(self.num_items)
        rows, entities = histories.rows, histories.items
        hops = []
        for _ in range(self.num_hops):
            keys = torch.unique(rows * len(self.entity) + entities)
            rows, entities = torch.div(keys, len(self.entity), rounding_mode="floor"), keys % len(self.entity)
            start, degree = self.starts[entities], self.starts[entities + 1] - self.starts[entities]
            rows = rows.repeat_interleave(degree)
            position = torch.arange(len(rows), device=rows.device)
            triple = position + (start - degree.cumsum(0) + degree).repeat_interleave(degree)
            # By priority within each user: a stable sort by the row comes last.
            triple_order = self.priority[triple].argsort(stable=True)
            triple_order = triple_order[rows[triple_order].argsort(stable=True)]
            rows, triple = rows[triple_order], triple[triple_order]
            counts = torch.bincount(rows, minlength=len(histories))
            first = counts.cumsum(0) - counts
            slot = torch.arange(self.num_memories, device=rows.device) % counts.clamp(min=1).unsqueeze(1)
            place = (first.unsqueeze(1) + slot).clamp(max=max(len(triple) - 1, 0))
            hop = triple[place] if len(triple) else torch.zeros_like(place)
            hops.append(torch.where(counts.unsqueeze(1) > 0, hop, -1))
            kept = hops[-1] >= 0
            rows, entities = kept.nonzero()[:, 0], self.triples[hops[-1][kept], 2]
        return hops

    def _read(self, hops: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return, for each hop, ``R h`` and ``t`` of the triples, and whether they are there."""
        read = []
        for hop in hops:
            head, relation, tail = self.triples[hop.clamp(min=0)].unbind(dim=2)
            turned = self._turned(head.flatten(), relation.flatten()).view(*hop.shape, self.dim)
            read.append((turned, self.entity[tail], hop >= 0))
        return read

    def _turned(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return ``R_r h`` of each triple, relation by relation, ``[num_triples, dim]``."""
        order = relation.argsort(stable=True)
        counts = torch.bincount(relation, minlength=len(self.relation)).tolist()
        groups = torch.split(self.entity.index_select(0, head[order]), counts)
        turned = [group @ matrix.t() for group, matrix in zip(groups, self.relation, strict=True)]
        return torch.cat(turned)[order.argsort()]

    def match(self, read: list[tuple[Tensor, Tensor, Tensor]], items: Tensor) -> Tensor:
        """Score items for users.

        Args:
            read: The users' triples, from :meth:`ripples`, read.
            items: Item vectors, ``[batch_size, num_scored, dim]``.

        Returns:
            ``[batch_size, num_scored]``.
        """
        answer = torch.zeros_like(items)
        for turned, tail, there in read:
            fit = items @ turned.transpose(1, 2)  # [batch_size, num_scored, num_memories]
            found = (fit.softmax(dim=2) * there.unsqueeze(1)) @ tail
            answer = answer + found
            items = self.update(items + found)
        return (answer * items).sum(dim=2)

    def score(self, histories: Histories) -> Tensor:
        """Score all items for each history; see :meth:`Recommender.score`."""
        scores = [self.entity.new_empty(0, self.num_items)]
        items = self.entity[: self.num_items]
        users_at_once = max(1, SCORED_AT_ONCE // (self.num_items * self.num_memories))
        for rows in torch.split(torch.arange(len(histories)), users_at_once):
            read = self._read(self.ripples(histories.select(rows.to(histories.items.device))))
            scores.append(self.match(read, items.expand(len(rows), -1, -1)))
        return torch.cat(scores)  # [batch_size, num_items]

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of all pairs and their negatives, with the plausibility of the triples."""
        negative = untaken_items(histories.to("cpu"), self.num_items, generator).to(histories.items.device)
        chosen = negative >= 0  # a user who took everything teaches nothing
        rows = histories.rows[chosen]
        items = torch.stack([histories.items[chosen], negative[chosen]], dim=1)
        if not len(items):
            return (self.entity[:0].sum() + self.relation[:0].sum() + self.update.weight[:0].sum()) * 0.0
        hops = self.ripples(histories)
        read = self._read(hops)
        of_item = self.entity[items]  # [num_pairs, 2, dim]
        logits = self.match([tuple(part[rows] for part in hop) for hop in read], of_item)  # type: ignore[misc]
        taken = torch.tensor([1.0, 0.0], device=logits.device).expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, taken)
        kept = [(turned[there], tail[there]) for turned, tail, there in read]
        turned, tail = (torch.cat(parts) for parts in zip(*kept, strict=True))
        if len(turned):
            loss = loss - self.kg_weight * torch.sigmoid((turned * tail).sum(dim=1)).mean()
            loss = loss + self.l2 * (turned.square().sum() + tail.square().sum()) / len(turned)
        return loss + self.l2 * of_item.square().sum() / len(items)
