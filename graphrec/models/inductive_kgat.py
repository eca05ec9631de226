"""InductiveKGAT: items attended from the knowledge graph, users attended from their histories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import check_range
from graphrec.histories import Histories
from graphrec.layers import HistoryAttentionPooling, HistoryMatch
from graphrec.layers.history_match import LEAST_TEMPERATURE
from graphrec.losses import sampled_softmax, softmax_over_samples
from graphrec.models.base import GradientRecommender
from graphrec.sampling import UniformNegatives
from kg_loaders import RecGraph

if TYPE_CHECKING:
    from graphrec.encoders import CooccurrenceEncoder, ItemEdges, KnowledgeGraphEncoder


class InductiveKGAT(GradientRecommender):
    r"""Attention from entities to items, and from items to users; no user has a parameter.

    .. math::
        h_i &= e_i + \gamma \odot \textstyle\sum_{(r, t) \in \mathcal{N}_i} \alpha_{irt} \, x_t
            + \delta \odot \textstyle\sum_{k \in \mathcal{C}_i} \beta_{ik} \, e_k
            &&\text{an item as part of a history} \\
        g_j &= e'_j + \gamma' \odot \textstyle\sum_{(r, t) \in \mathcal{N}_j} \alpha'_{jrt} \, x'_t
            + \delta' \odot \textstyle\sum_{k \in \mathcal{C}_j} \beta_{jk} \, e'_k
            &&\text{an item as a candidate} \\
        u   &= \textstyle\sum_{i \in \mathcal{H}_u} A_{ui} \, h_i, \qquad
        s(u, j) = \cos(u, g_j) / \tau + b_j

    An item attends to what the KG says of it, and to the items :math:`\mathcal{C}_i` that the same users took
    (:class:`~graphrec.encoders.CooccurrenceEncoder`).

    A user is a function of a history, so a stranger is served at once. Training hides a random part of each history
    and asks for the whole of it back, or for the hidden part alone, with a softmax over negatives.

    With ``match_temperature`` above 0 a history is not pooled before it meets a candidate: each candidate attends to
    the items that are like it (:class:`~graphrec.layers.HistoryMatch`), so interests far apart are not averaged away,

    .. math:: s(u, j) = \frac{\tau_m}{\tau} \log \sum_{i \in \mathcal{H}_u} A_{ui} \exp(\cos(h_i, g_j) / \tau_m) + b_j

    at the cost of a number for each history entry and candidate. The two err differently: see :class:`Blend`.

    That nobody took an item in training is no evidence against it: it is no negative, has no vector but the KG's
    (:math:`e = e' = 0`), and counts as e times less popular than the least popular item that somebody took
    (:math:`b = \min b - 1`).

    Args:
        num_items: Number of items; they are the first entities.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail); empty for a model without a KG.
        dim: Width of all vectors.
        heads: Attention heads over the KG's edges into items, averaged.
        hops: How many edges away from an item the KG is read, 1 to 3.
        min_entity_items: With one hop, entities linked to fewer distinct items are left out: they connect nothing.
        gate: Start value of the gates :math:`\gamma`, :math:`\gamma'`, :math:`\delta` and :math:`\delta'`, one for each
            channel.
        co_neighbors: Items that the same users took, :math:`|\mathcal{C}_i|`; 0 leaves them out.
        temperature: :math:`\tau`.
        match_temperature: :math:`\tau_m`, 0 or at least 0.025; 0 pools the history.
        keep: Share of a history shown as input in training, above 0, at most 1.
        hidden_only: Ask for the hidden part of a history alone, not for what is shown too.
        target_power: Each target of a user weighs ``1 / len(history) ** target_power``: 0 counts pairs, 1 users.
        num_negatives: Negatives a step, shared by its users; as many as there are items or more means all items.
        attend_history: Learn the weights of the pooling; ``False`` pools by the mean.
        attend_candidates: Whether the KG also reaches the candidate side :math:`g_j`.
        untied: Whether candidates have vectors of their own; ``False`` uses :math:`g = h`.

    Raises:
        ArgumentError: A value outside its range, or triples that do not fit ``num_relations``.

    Source:
        Typed attention after Wang et al., "KGAT" (KDD 2019), eq. 3-5; the user as a function of items after Paterek's
        "NSVD" (KDD Cup 2007), with attention; the loss after Liang et al., "Mult-VAE" (WWW 2018), eq. 2, sampled.
    """

    def __init__(
        self,
        num_items: int,
        num_relations: int,
        triples: Tensor,
        dim: int = 128,
        heads: int = 1,
        hops: int = 1,
        min_entity_items: int = 2,
        gate: float = 0.5,
        co_neighbors: int = 0,
        temperature: float = 0.2,
        match_temperature: float = 0.0,
        keep: float = 0.5,
        hidden_only: bool = False,
        target_power: float = 0.5,
        num_negatives: int = 4096,
        attend_history: bool = True,
        attend_candidates: bool = True,
        untied: bool = True,
    ) -> None:
        super().__init__(num_items)
        for name, value in (("dim", dim), ("heads", heads), ("num_negatives", num_negatives)):
            check_range(name, value, low=1)
        check_range("co_neighbors", co_neighbors, low=0)
        check_range("temperature", temperature, low=1e-3)
        if match_temperature:
            check_range("match_temperature", match_temperature, low=LEAST_TEMPERATURE)
        check_range("keep", keep, low=1e-3, high=1.0)
        check_range("target_power", target_power, low=0.0, high=1.0)
        self.dim = dim
        self.temperature = temperature
        self.keep = keep
        self.hidden_only = hidden_only
        self.target_power = target_power
        self.num_negatives = num_negatives
        self.negatives = UniformNegatives(num_items)
        self.taken: Tensor
        self.register_buffer("taken", torch.ones(num_items, dtype=torch.bool))
        self.attend_candidates = attend_candidates

        self.item = nn.Parameter(torch.empty(num_items, dim))
        self.candidate = nn.Parameter(torch.empty(num_items, dim)) if untied else None
        self.item_bias = nn.Parameter(torch.empty(num_items))
        self.attention_bias = nn.Parameter(torch.empty(num_items)) if attend_history else None
        self.match = HistoryMatch(match_temperature) if match_temperature else None
        self.pool = HistoryAttentionPooling(dim)
        self.pool.requires_grad_(attend_history)
        self.co: CooccurrenceEncoder | None = None
        if co_neighbors:
            from graphrec.encoders import CooccurrenceEncoder

            self.co = CooccurrenceEncoder(num_items, co_neighbors, dim, gate, num_sides=2 if untied else 1)
        self.kg: KnowledgeGraphEncoder | None = None
        if len(triples):
            # It brings torch_geometric, which takes two seconds to import; models without a KG never pay for it.
            from graphrec.encoders import KnowledgeGraphEncoder

            self.kg = KnowledgeGraphEncoder(
                num_items,
                num_relations,
                triples,
                dim,
                heads=heads,
                hops=hops,
                min_entity_items=min_entity_items,
                gate=gate,
                num_sides=2 if untied and attend_candidates else 1,
            )
        self.reset_parameters()

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Self:
        """Make a model for a graph's items and triples; options are the constructor's keyword arguments."""
        return cls(graph.num_items, graph.num_relations, torch.from_numpy(graph.triples), **options)

    def reset_parameters(self) -> None:
        """Draw all weights anew; vectors start with a length of about 1."""
        for table in (self.item, self.candidate):
            if table is not None:
                nn.init.normal_(table, std=self.dim**-0.5)
        nn.init.zeros_(self.item_bias)
        self.taken.fill_(True)
        if self.attention_bias is not None:
            nn.init.zeros_(self.attention_bias)
        self.pool.reset_parameters()
        for encoder in (self.kg, self.co):
            if encoder is not None:
                encoder.reset_parameters()

    def prepare(self, histories: Histories) -> None:
        """Note which items were taken at all, and by the same users; see :meth:`GradientRecommender.prepare`."""
        self.taken.copy_(torch.bincount(histories.items, minlength=self.num_items) > 0)
        self.negatives = UniformNegatives(self.num_items, self.taken)
        if self.co is not None:
            self.co.prepare(histories)
        with torch.no_grad():
            for table in (self.item, self.candidate):
                if table is not None:
                    table[~self.taken] = 0.0

    # Vectors

    def item_vectors(self, inputs: Tensor | None = None, candidates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(h, g)``: the items as parts of a history and as candidates, each ``[num_items, dim]``.

        Args:
            inputs: Which rows of ``h`` to make, int64; ``None`` means all.
            candidates: Which rows of ``g``; the same as ``inputs`` where the two share their vectors.
        """
        tables = [self.item] if self.candidate is None else [self.item, self.candidate]
        rows = [inputs, candidates][: len(tables)]
        own = [_at(table, at) for table, at in zip(tables, rows, strict=True)]
        sides = list(own)
        if self.co is not None:
            sides = [side + near for side, near in zip(sides, self.co(*tables, rows=rows), strict=True)]
        if self.kg is not None:
            # The KG reaches the history's side alone, or both.
            reached = len(self.kg.sides)
            said = self.kg(*own[:reached], rows=rows[:reached])
            sides[:reached] = [side + of_kg for side, of_kg in zip(sides[:reached], said, strict=True)]
        return sides[0], sides[-1]

    def user_vectors(self, histories: Histories, h: Tensor) -> Tensor:
        """Pool each history over the item vectors ``h``; ``[batch_size, dim]``, zeros for an empty history."""
        pooled: Tensor = self.pool(h, histories.items, histories.offsets, self.attention_bias)
        return pooled

    def history_attention(self, histories: Histories) -> Tensor:
        """Return :math:`A_{ui}` for every history entry, ``[total]``."""
        h, _ = self.cached("vectors", self.item_vectors)
        _, alpha = self.pool(h, histories.items, histories.offsets, self.attention_bias, return_attention_weights=True)
        weights: Tensor = alpha[:, 0]
        return weights

    def contributions(self, histories: Histories, item: int) -> Tensor:
        r"""Split the score of one item over the history entries, exactly; see :meth:`Recommender.contributions`.

        .. math:: s(u, j) - b_j = \sum_{i \in \mathcal{H}_u} \frac{A_{ui} \, h_i \cdot g_j}{\tau \, |u| \, |g_j|}

        or, where candidates attend to the history, :math:`\sum_i \alpha_{uij} (s(u, j) - b_j)` with their attention
        :math:`\alpha_{uij}`.

        Returns:
            One summand for each history entry, ``[total]``.
        """
        h, g = self.cached("vectors", self.item_vectors)
        target = F.normalize(g[item], dim=0)
        attention = self.history_attention(histories)
        if self.match is not None:
            cosine = F.normalize(h[histories.items], dim=1) @ target
            powers = attention * ((cosine - 1) / self.match.temperature).exp()
            total = powers.new_zeros(len(histories)).index_add(0, histories.rows, powers)
            score = (self.score(histories)[:, item] - self.cached("bias", self.bias)[item])[histories.rows]
            shares: Tensor = powers / total[histories.rows] * score
            return shares
        user = self.user_vectors(histories, h)
        scale = user.norm(dim=1).clamp(min=1e-12).reciprocal()[histories.rows]
        parts: Tensor = attention * (h[histories.items] @ target) * scale / self.temperature
        return parts

    def kg_attention(self) -> tuple[ItemEdges, ItemEdges] | None:
        """Return the attention of items to entities as parts of a history and as candidates; ``None`` without a KG."""
        if self.kg is None:
            return None
        history_side = self.kg.attention(self.item)
        if self.candidate is None or not self.attend_candidates:
            return history_side, history_side
        return history_side, self.kg.attention(self.candidate, side=1)

    # Scores and loss

    def bias(self) -> Tensor:
        r"""Return :math:`b_j` of every item, taken or not, ``[num_items]``."""
        return torch.where(self.taken, self.item_bias, self.item_bias[self.taken].min() - 1.0)

    def score(self, histories: Histories) -> Tensor:
        """Score all items for each history; see :meth:`Recommender.score`. An empty history gets :math:`b_j`."""
        h, g = self.cached("vectors", self.item_vectors)
        candidates = self.cached("candidates", lambda: F.normalize(g, dim=1))
        bias = self.cached("bias", self.bias)
        if self.match is not None:
            unit = self.cached("unit", lambda: F.normalize(h, dim=1))
            own = self.cached("history scores", lambda: self._history_scores(h, self.attention_bias))
            matched: Tensor = self.match(unit[histories.items], histories.offsets, own[histories.items], candidates)
            return matched.mul_(1 / self.temperature).add_(bias)  # [batch_size, num_items]
        user = F.normalize(self.user_vectors(histories, h), dim=1) / self.temperature
        scores: Tensor = torch.addmm(bias, user, candidates.t())
        return scores  # [batch_size, num_items]

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Softmax loss of whole histories, given a random part of each."""
        device = self.item.device
        shown = torch.rand(histories.items.numel(), generator=generator).to(device) < self.keep
        past = histories.keep(shown)
        negatives = self.negatives(self.num_negatives, generator)
        drawn = negatives.items.to(device)
        inputs, read = self._rows_of(past.items)
        candidates, position = self._rows_of(torch.cat([histories.items, drawn]))
        h, g = self.item_vectors(inputs, candidates)
        attention_bias = None if self.attention_bias is None else _at(self.attention_bias, inputs)
        g = F.normalize(g, dim=1)
        target, rival = (g.index_select(0, at) for at in position.tensor_split([histories.items.numel()]))
        bias, rival_bias = (self.item_bias.index_select(0, items) for items in (histories.items, drawn))
        log_q = negatives.log_q.to(device)
        weights = histories.lengths.clamp(min=1).to(g.dtype).pow(-self.target_power)[histories.rows]
        softmax = {
            "rows": histories.rows,
            # What is shown is no negative either way.
            "weights": weights.masked_fill(shown, 0.0) if self.hidden_only else weights,
            "positive_bias": bias,
            "positive_items": histories.items,
            "negative_items": drawn,
        }
        if self.match is None:
            user = F.normalize(self.pool(h, read, past.offsets, attention_bias), dim=1)
            return sampled_softmax(
                user, target, rival, log_q, negative_bias=rival_bias, temperature=self.temperature, **softmax
            )
        own = self._history_scores(h, attention_bias).index_select(0, read)
        entries = F.normalize(h, dim=1).index_select(0, read)
        positive = self.match.match_pairs(entries, past.offsets, own, target, histories.rows)
        negative = self.match(entries, past.offsets, own, rival)
        return softmax_over_samples(
            positive / self.temperature, negative / self.temperature + rival_bias, log_q, **softmax
        )

    def _history_scores(self, h: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the pooling's attention is a softmax of, for each item."""
        scores = h @ self.pool.att[0]
        return scores if bias is None else scores + bias

    def _rows_of(self, items: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the rows of a table that ``items`` need, ``None`` for all, and the place of each item among them.

        All, too, where inputs and candidates share their vectors, and so must be the same rows.
        """
        if self.candidate is None or items.numel() >= self.num_items:
            return None, items
        rows, place = torch.unique(items, return_inverse=True)
        return rows, place


def _at(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None else table.index_select(0, rows)
