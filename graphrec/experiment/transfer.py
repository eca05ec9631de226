"""TransferStudy: models of a target domain that use a source domain in several ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from graphrec.errors import ArgumentError, check_choice
from graphrec.evaluation import Evaluator
from graphrec.models import (
    EASE,
    IALS,
    Blend,
    ContentKNN,
    CrossDomainKGAT,
    DualEASE,
    InductiveKGAT,
    LightGCN,
    Popularity,
)
from graphrec.models.base import Recommender
from graphrec.training import TrainConfig, Trainer
from kg_loaders import LinkedPair, RecGraph
from kg_loaders.splits import carve_valid

SETTINGS = ("target-only", "target-only+ease", "joint", "joint+ease", "fine-tuned", "frozen-items", "zero-shot")
COMPARATORS = (
    "popularity",
    "popularity-union",
    "content-knn",
    "ease",
    "ease-union",
    "cmf",
    "light-gcn",
    "light-gcn-union",
)
CROSS_OPTIONS = ("source_weight", "target_dropout", "domain_gate")  # of CrossDomainKGAT alone
METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20")
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

    In each of them the epochs and hyper-parameters are selected on the target's validation part, but for ``zero-shot``,
    which is not to see the target and selects on a tenth of the source's pairs. All are measured on the target's test
    users with the target's items as candidates, ranked in full.

    - ``target-only``: :class:`InductiveKGAT` on the target.
    - ``joint``: one :class:`CrossDomainKGAT` on the union.
    - ``target-only+ease``, ``joint+ease``: the same, blended with EASE on the same graph (:class:`Blend`).
    - ``fine-tuned``: trained on the source, then on with the target's users at a lower learning rate.
    - ``frozen-items``: the same, but only what a history's items weigh is trained on, and the gates of the domains.
    - ``zero-shot``: trained on the source alone; target users' histories are read, and no target pair is learned from.
    - ``popularity``, ``ease``, ``light-gcn``: on the target, or on the ``-union``; ``cmf`` is collective matrix
      factorisation, one factorisation of both domains' matrices with common users or items; ``content-knn`` learns
      nothing from interactions.

    Args:
        pair: The linked pair.
        train: How gradient models are trained; a model of another kind takes what it needs.
        options: Keyword arguments of InductiveKGAT, and of CrossDomainKGAT in the settings that use the source.
        trains: Other training of a comparator, by its name.
        quiet: Show no progress.

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
    ) -> None:
        self.pair = pair
        self.train = TrainConfig(select_by="ndcg@10") if train is None else train
        self.options = dict(options or {})
        self.trains = dict(trains or {})
        self.quiet = quiet
        self._before: tuple[int, Fitted] | None = None
        self._penalties: dict[str, float] = {}  # that EASE chose, by comparator

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
        """Fit the blend; the penalty of EASE is the one that EASE alone chooses."""
        comparator = "ease-union" if setting == "joint" else "ease"
        if comparator not in self._penalties:
            self._comparator(comparator, seed)
        graph = self.pair.union if setting == "joint" else self.pair.target
        ease = _ease(graph)(graph.num_items, self._penalties[comparator])
        return self._fit(Blend(self._model(setting), ease), graph, self.train, seed)

    def _zero_shot(self, seed: int) -> Fitted:
        if self._before is None or self._before[0] != seed:
            pair = self.pair
            if not len(pair.shared_items) and not pair.union.num_triples:
                raise ArgumentError(
                    "setting must not be 'zero-shot', 'fine-tuned' or 'frozen-items' for a pair that shares neither "
                    "items nor a knowledge graph: nothing learned of the source's items speaks of the target's"
                )
            model = CrossDomainKGAT.from_graph(pair.union, **{**self.options, "source_weight": 1.0})
            # Measured while selecting: the source's own held-out pairs, over all items.
            evaluator = Evaluator([self.train.select_by], seed=seed)
            graph = carve_valid(pair.source_only(), seed=seed)
            start = time.perf_counter()
            Trainer(self.train, seed=seed, quiet=self.quiet).fit(model, graph, evaluator)
            self._before = seed, Fitted(model, pair.union, time.perf_counter() - start)
        return self._before[1]

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
        graph = self.pair.union if setting.endswith("-union") or setting == "cmf" else self.pair.target
        kind = setting.removesuffix("-union")
        if kind == "content-knn" and not graph.num_triples:
            raise ArgumentError(f"setting must not be 'content-knn': {graph.name!r} has no knowledge graph")
        kinds: dict[str, type[Recommender]] = {
            "popularity": Popularity,
            "ease": _ease(graph),
            "cmf": IALS,
            "light-gcn": LightGCN,
            "content-knn": ContentKNN,
        }
        model = kinds[kind].from_graph(graph)
        fitted = self._fit(model, graph, self.trains.get(setting, self.trains.get(kind, self.train)), seed)
        if isinstance(model, EASE | DualEASE):
            self._penalties[setting] = model.chosen_l2
        return fitted

    def _fit(self, model: Recommender, graph: RecGraph, train: TrainConfig, seed: int) -> Fitted:
        start = time.perf_counter()
        Trainer(train, seed=seed, quiet=self.quiet).fit(model, graph, self.evaluator(seed=seed))
        return Fitted(model, graph, time.perf_counter() - start)


def _ease(graph: RecGraph) -> type[EASE | DualEASE]:
    """Return the form of EASE that inverts the smaller matrix."""
    return DualEASE if graph.num_items > graph.num_users else EASE
