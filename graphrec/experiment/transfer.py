"""TransferStudy: models of a target domain that use a source domain in several ways."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.errors import ArgumentError, check_choice
from graphrec.evaluation import Evaluator
from graphrec.models import (
    EASE,
    EMCDR,
    FBSM,
    IALS,
    PTUPCDR,
    Blend,
    ContentKNN,
    CrossDomainKGAT,
    DualEASE,
    InductiveKGAT,
    LightGCN,
    Popularity,
)
from graphrec.models.base import Recommender
from graphrec.models.bridged import BridgedRecommender
from graphrec.models.dual_ease import smaller_ease
from graphrec.training import TrainConfig, Trainer
from kg_loaders import LinkedPair, RecGraph
from kg_loaders.splits import carve_cold, carve_valid

SETTINGS = (
    "target-only",
    "target-only+ease",
    "joint",
    "joint+ease",
    "fine-tuned",
    "frozen-items",
    "zero-shot",
    "zero-shot+ease",
)
COMPARATORS = (
    "popularity",
    "popularity-union",
    "content-knn",
    "fbsm-source",
    "ease",
    "ease-union",
    "ease-weighted",
    "ease-source",
    "cmf",
    "emcdr",
    "ptupcdr",
    "light-gcn",
    "light-gcn-union",
)
EASE_OPTIONS = ("input_dropout", "relax")  # of EASE alone
CROSS_OPTIONS = ("source_weight", "target_dropout", "domain_gate", "user_prior")  # of CrossDomainKGAT alone
# Of InductiveKGAT, not of CrossDomainKGAT.
NOT_CROSS = ("match_temperature", "sequence", "popularity_prior", "negative_power", "head")
METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20")
BRIDGES: dict[str, type[BridgedRecommender]] = {"emcdr": EMCDR, "ptupcdr": PTUPCDR}
# How a bridge is trained unless told otherwise: small steps on few weights, and few users a step.
BRIDGE_TRAIN: dict[str, Any] = {"epochs": 60, "batch_size": 128, "learning_rate": 3e-3, "eval_every": 5, "patience": 4}
# Comparators that read both domains, whatever their names end with.
UNION = ("ease-weighted", "ease-source", "cmf", *BRIDGES)
SOURCE_WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # that "ease-weighted" tries
FINE_TUNE_RATE = 0.3  # of the learning rate, for weights that have learned already


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted model, and the graph that tells it the users' histories.

    Args:
        model: In evaluation mode.
        graph: The pair's target or union.
        seconds: To train.
    """

    model: Recommender
    graph: RecGraph
    seconds: float


class TransferStudy:
    """Fits models to a linked pair in one of several settings, and measures them on the target.

    In each of them the epochs and hyper-parameters are selected on the target's validation part, but for those that are
    not to see the target, which select on a tenth of the source's pairs. All are measured on the target's test
    users with the target's items as candidates, ranked in full.

    - ``target-only``: :class:`InductiveKGAT` on the target.
    - ``joint``: one :class:`CrossDomainKGAT` on the union.
    - ``target-only+ease``, ``joint+ease``, ``zero-shot+ease``: these, blended (:class:`Blend`) with EASE, that of
      ``joint+ease`` being ``ease-weighted``, that of ``zero-shot+ease`` being ``ease-source``.
    - ``fine-tuned``: trained on the source, then on with the target's users at a lower learning rate.
    - ``frozen-items``: the same, but only what a history's items weigh is trained on, and the gates of the domains.
    - ``zero-shot``: trained on the source alone; target users' histories are read, and no pair that only the
      target has is learned from.
    - ``popularity``, ``ease``, ``light-gcn``: on the target, or on the ``-union``; ``cmf`` is collective matrix
      factorisation, one factorisation of both domains' matrices with common users or items; ``content-knn`` learns
      nothing from interactions.
    - ``ease-weighted``: EASE on the union, where validation chooses what the source weighs out of
      :data:`SOURCE_WEIGHTS`; see :meth:`EASE.from_graph`. Where it is blended it takes the options in ``ease``, and so
      it does alone; ``ease`` and ``ease-union`` are plain.
    - ``ease-source``: EASE, with the options in ``ease``, learned on the source alone: what the common items say.
    - ``fbsm-source``: :class:`FBSM`, content alone (``modalities`` of the options, and the KG), learned on the source.
      No target pair is learned from, nor chosen by: the penalty is, on a tenth of the source's items, all of whose
      pairs are held out (:func:`~kg_loaders.splits.carve_cold`), ranked among themselves.
    - ``emcdr``, ``ptupcdr``: a factorisation of each domain, and a bridge for users whom the target does not know; see
      :func:`cold_split`. The factorisations take what the target's alone chooses.

    Args:
        pair: The linked pair.
        train: How gradient models are trained; a model of another kind takes what it needs.
        options: Keyword arguments of InductiveKGAT, and of CrossDomainKGAT in the settings that use the source.
        ease: Those of EASE where it is weighted or blended, such as ``relax``.
        trains: Other training of a comparator, by its name.
        quiet: Show no progress.

    Raises:
        ArgumentError: ``train`` or one of ``trains`` does not select.

    Source:
        CMF: Singh and Gordon, "Relational Learning via Collective Matrix Factorization" (KDD 2008), with the implicit
        loss of Hu et al. (ICDM 2008).
    """

    def __init__(
        self,
        pair: LinkedPair,
        train: TrainConfig | None = None,
        options: Mapping[str, Any] | None = None,
        trains: Mapping[str, TrainConfig] | None = None,
        quiet: bool = True,
        ease: Mapping[str, Any] | None = None,
    ) -> None:
        self.pair = pair
        self.train = TrainConfig(select_by="ndcg@10") if train is None else train
        self.options = dict(options or {})
        self.trains = dict(trains or {})
        if not all(each.select for each in (self.train, *self.trains.values())):
            raise ArgumentError("train.select must be true in a transfer: every setting selects on a validation part")
        self.ease = dict(ease or {})
        self.quiet = quiet
        self._before: tuple[int, Fitted] | None = None
        self._chosen: dict[bool, dict[str, float]] = {}  # what _best_ease chose on the target, and on the union
        self._source_penalty: float | None = None  # that EASE chose on the source
        self._factors: dict[str, float] = {}  # that IALS chose on the target

    def fit(self, setting: str, seed: int = 0) -> Fitted:
        """Return a model fitted in one of :data:`SETTINGS` or :data:`COMPARATORS`.

        Raises:
            ArgumentError: An unknown setting, or one that this pair cannot have.
        """
        check_choice("setting", setting, (*SETTINGS, *COMPARATORS))
        settings: dict[str, Callable[[int], Fitted]] = {
            "target-only": self._target_only,
            "target-only+ease": lambda seed: self._with_ease("target-only", seed),
            "joint": self._joint,
            "joint+ease": lambda seed: self._with_ease("joint", seed),
            "fine-tuned": lambda seed: self._after_source(seed, frozen=False),
            "frozen-items": lambda seed: self._after_source(seed, frozen=True),
            "zero-shot": self._zero_shot,
            "zero-shot+ease": self._zero_shot_with_ease,
        }
        torch.manual_seed(seed)
        return settings[setting](seed) if setting in settings else self._comparator(setting, seed)

    def evaluator(self, metrics: Sequence[str] = METRICS, seed: int = 0) -> Evaluator:
        """Return what measures a model: target items alone are ranked."""
        wanted = list(dict.fromkeys([*metrics, self.train.select_by]))
        return Evaluator(wanted, seed=seed, candidates=self.pair.target.num_items)

    def _target_only(self, seed: int) -> Fitted:
        return self._fit(self._model("target-only"), self.pair.target, self.train, seed)

    def _joint(self, seed: int) -> Fitted:
        return self._fit(self._model("joint"), self.pair.union, self.train, seed)

    def _model(self, setting: str) -> InductiveKGAT:
        if setting == "joint":
            return CrossDomainKGAT.from_graph(self.pair.union, **self.options)
        own = {k: v for k, v in self.options.items() if k not in CROSS_OPTIONS}
        return InductiveKGAT.from_graph(self.pair.target, **own)

    def _with_ease(self, setting: str, seed: int) -> Fitted:
        """Fit the blend with the EASE that is best alone."""
        graph = self.pair.union if setting == "joint" else self.pair.target
        return self._fit(Blend(self._model(setting), self._best_ease(graph)), graph, self.train, seed)

    def _best_ease(self, graph: RecGraph) -> EASE | DualEASE:
        """Return EASE, unfitted, with the penalty and the weight of the source that are best on validation."""
        kind, is_union = smaller_ease(graph), graph is self.pair.union
        if is_union not in self._chosen:
            best = -math.inf
            for weight in SOURCE_WEIGHTS if is_union else (1.0,):
                tried = kind.from_graph(graph, source_weight=weight, **self.ease)
                # By one seed, whichever comes first: a comparison that goes on must choose what it chose before.
                trainer = Trainer(self._train_of("ease").without_refit(), seed=0, quiet=self.quiet)
                value = trainer.fit(tried, graph, self.evaluator(seed=0)).best_value
                if value > best:
                    best = value
                    self._chosen[is_union] = {"l2": tried.chosen_l2, "source_weight": weight}
        return kind.from_graph(graph, **{**self.ease, **self._chosen[is_union]})

    def _train_of(self, comparator: str) -> TrainConfig:
        return self.trains.get(comparator, self.trains.get(comparator.removesuffix("-union"), self.train))

    def _zero_shot(self, seed: int) -> Fitted:
        if self._before is None or self._before[0] != seed:
            self._before = seed, self._fit_to_source(self._source_model(), self.train, seed)
        return self._before[1]

    def _zero_shot_with_ease(self, seed: int) -> Fitted:
        return self._fit_to_source(Blend(self._source_model(), self._source_ease()), self.train, seed)

    def _source_model(self) -> CrossDomainKGAT:
        pair = self.pair
        if not len(pair.shared_items) and not pair.union.num_triples:
            raise ArgumentError(
                "setting must not be 'zero-shot', 'zero-shot+ease', 'fine-tuned' or 'frozen-items' for a pair that "
                "shares neither items nor a knowledge graph: nothing learned of the source's items speaks of the "
                "target's"
            )
        return CrossDomainKGAT.from_graph(pair.union, **{**self.options, "source_weight": 1.0})

    def _source_ease(self) -> EASE | DualEASE:
        """Return EASE, unfitted, with the penalty that is best on the source."""
        if not len(self.pair.shared_items):
            raise ArgumentError(
                "setting must not be 'ease-source' or 'zero-shot+ease' for a pair that shares no items: "
                "EASE learns of no others"
            )
        source = self.pair.source_only()
        kind = smaller_ease(source)
        if self._source_penalty is None:
            tried = kind.from_graph(source, **self.ease)
            self._fit_to_source(tried, self._train_of("ease").without_refit(), seed=0)  # as in _best_ease
            self._source_penalty = tried.chosen_l2
        return kind.from_graph(source, **{**self.ease, "l2": self._source_penalty})

    def _fit_to_source(self, model: Recommender, train: TrainConfig, seed: int) -> Fitted:
        """Fit without a pair of the target; what selects is a part of the source's own pairs, over all items."""
        graph = carve_valid(self.pair.source_only(), seed=seed)
        start = time.perf_counter()
        Trainer(train, seed=seed, quiet=self.quiet).fit(model, graph, Evaluator([self.train.select_by], seed=seed))
        return Fitted(model, self.pair.union, time.perf_counter() - start)

    def _after_source(self, seed: int, frozen: bool) -> Fitted:
        before = self._zero_shot(seed)
        users = self.pair.union.interactions.user < self.pair.target.num_users
        own = replace(self.pair.union, interactions=self.pair.union.interactions[users])  # with what they took there
        model = CrossDomainKGAT.from_graph(self.pair.union, **{**self.options, "source_weight": 0.0})
        model.start_from(before.model.state_dict(), frozen=frozen)
        train = replace(self.train, learning_rate=FINE_TUNE_RATE * self.train.learning_rate)
        fitted = self._fit(model, own, train, seed)
        return Fitted(fitted.model, self.pair.union, before.seconds + fitted.seconds)

    def _comparator(self, setting: str, seed: int) -> Fitted:
        graph = self.pair.union if setting.endswith("-union") or setting in UNION else self.pair.target
        kind = setting.removesuffix("-union")
        if kind in BRIDGES:
            return self._bridged(kind, seed)
        if setting == "fbsm-source":
            return self._content_alone(seed)
        if setting == "ease-weighted":
            return self._weighted_ease(seed)
        if setting == "ease-source":
            return self._fit_to_source(self._source_ease(), self._train_of("ease"), seed)
        if kind == "content-knn" and not graph.num_triples:
            raise ArgumentError(f"setting must not be 'content-knn': {graph.name!r} has no knowledge graph")
        kinds: dict[str, type[Recommender]] = {
            "popularity": Popularity,
            "ease": smaller_ease(graph),
            "cmf": IALS,
            "light-gcn": LightGCN,
            "content-knn": ContentKNN,
        }
        model = kinds[kind].from_graph(graph)
        return self._fit(model, graph, self._train_of(setting), seed)

    def _weighted_ease(self, seed: int) -> Fitted:
        start = time.perf_counter()
        fitted = self._fit(self._best_ease(self.pair.union), self.pair.union, self._train_of("ease"), seed)
        return Fitted(fitted.model, fitted.graph, time.perf_counter() - start)

    def _content_alone(self, seed: int) -> Fitted:
        """Learn on the source what goes with what, by content."""
        union, modalities = self.pair.union, self.options.get("modalities", ())
        if not modalities and not union.num_triples:
            raise ArgumentError(
                f"setting must not be 'fbsm-source': {union.name!r} has no knowledge graph, and no modalities are named"
            )
        encoder = {name: self.options[name] for name in ("text_encoder",) if name in self.options}
        model = FBSM.from_graph(union, modalities=modalities, **encoder)
        graph = carve_cold(self.pair.source_only(), seed=seed)
        start = time.perf_counter()
        # All users: few of the items of one are held out. And these alone are ranked, as nobody took them: all items
        # of the target are such.
        train = replace(self.train, refit=True, valid_users=0)
        held_out = np.unique(graph.part("valid").item).tolist()
        evaluator = Evaluator([self.train.select_by], seed=seed, candidates=held_out)
        Trainer(train, seed=seed, quiet=self.quiet).fit(model, graph, evaluator)
        return Fitted(model, union, time.perf_counter() - start)

    def _bridged(self, kind: str, seed: int) -> Fitted:
        """Fit a bridge between the two domains' users."""
        if not len(self.pair.shared_users):
            raise ArgumentError(f"setting must not be {kind!r} for a pair that shares no users: nobody crosses")
        if not self._factors:
            alone = IALS.from_graph(self.pair.target)
            # By one seed, whichever comes first: a comparison that goes on must choose what it chose before.
            Trainer(self.train.without_refit(), seed=0, quiet=self.quiet).fit(
                alone, self.pair.target, self.evaluator(seed=0)
            )
            self._factors = dict(zip(("l2", "confidence"), alone.chosen.tolist(), strict=True))
        model = BRIDGES[kind].from_graph(self.pair.union, **self._factors)
        train = self.trains.get(kind, replace(self.train, schedule="constant", warmup=0.0, **BRIDGE_TRAIN))
        return self._fit(model, self.pair.union, train, seed)

    def _fit(self, model: Recommender, graph: RecGraph, train: TrainConfig, seed: int) -> Fitted:
        start = time.perf_counter()
        Trainer(train, seed=seed, quiet=self.quiet).fit(model, graph, self.evaluator(seed=seed))
        return Fitted(model, graph, time.perf_counter() - start)


def cold_split(pair: LinkedPair, share: float, seed: int = 0) -> tuple[LinkedPair, NDArray[np.int64]]:
    """Make users cold: the target forgets them, but for what it asks.

    Of the test users who took something in the source, beside what the test part asks for, a share loses all pairs of
    the target but those of the test part. As many others have their train pairs moved to validation
    (:meth:`LinkedPair.validate_cold`), so that what is selected is selected for cold users too; they are at most half
    of those that are left.

    Args:
        pair: The linked pair; its target is split.
        share: Of these users, above 0 and below 1.
        seed: Decides who.

    Returns:
        The pair, and the cold users, ascending.

    Raises:
        ArgumentError: ``share`` is outside its range, or no test user has a history in the source.
    """
    if not 0 < share < 1:
        raise ArgumentError(f"share of cold users must be above 0 and below 1, got {share!r}")
    size, pairs, test = pair.union.num_items, pair.source.interactions, pair.target.part("test")
    users = pair.users[pairs.user]
    left = ~np.isin(users * size + pair.items[pairs.item], test.user * size + test.item)  # what the source may tell
    known = np.intersect1d(users[left], test.user)
    count = round(share * len(known))
    if not count:
        raise ArgumentError(
            f"a share of {share:g} of the {len(known)} test users that {pair.source.name!r} and {pair.target.name!r} "
            "have in common is nobody; a cold user needs a history in the source"
        )
    drawn = np.random.default_rng(seed).permutation(known)
    cold, helpers = drawn[:count], drawn[count : count + min(count, (len(drawn) - count) // 2)]
    return pair.without_history(cold).validate_cold(helpers), np.sort(cold)
