"""compare_transfer: what a source domain is worth to a target, by several ways of using it, with paired tests."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from graphrec.errors import ArgumentError, check_choice
from graphrec.evaluation import Evaluator, combined_interval, paired_bootstrap_rows
from graphrec.experiment.catalogue import FLAGSHIP, find_committed
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.files import write_text
from graphrec.experiment.reading import read_options, take_option
from graphrec.experiment.report import Figure, Row, Table
from graphrec.experiment.runner import RUNS, peak_memory_mb, reset_peak_memory
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
from kg_loaders import LinkedPair, RecGraph, link, registry
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
NUM_SAMPLES = 5_000  # resamples of the users

LABELS = {
    "target-only": "InductiveKGAT, target only",
    "target-only+ease": "InductiveKGAT + EASE, target only",
    "joint": "InductiveKGAT, source + target",
    "joint+ease": "InductiveKGAT + EASE, source + target",
    "fine-tuned": "InductiveKGAT, source, then target",
    "frozen-items": "InductiveKGAT, items frozen after source",
    "zero-shot": "InductiveKGAT, source only (zero-shot)",
    "popularity": "Popularity, target only",
    "popularity-union": "Popularity, union",
    "content-knn": "ContentKNN",
    "ease": "EASE, target only",
    "ease-union": "EASE, union",
    "cmf": "CMF (IALS on the union)",
    "light-gcn": "LightGCN, target only",
    "light-gcn-union": "LightGCN, union",
}


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


def compare_transfer(
    pair: LinkedPair,
    settings: Sequence[str] = ("target-only", "joint"),
    comparators: Sequence[str] = ("popularity", "ease", "ease-union"),
    seeds: Iterable[int] = range(5),
    train: TrainConfig | None = None,
    options: Mapping[str, Any] | None = None,
    trains: Mapping[str, TrainConfig] | None = None,
    metrics: Sequence[str] = METRICS,
    metric: str = "ndcg@10",
    versus: str | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> Table:
    """Measure a linked pair in several settings over seeds, and return the table; see :class:`TransferStudy`.

    Popularity and EASE, each on the target and EASE on the union, are always in. A figure is the mean over the target's
    test users and seeds; interval and paired tests resample users, each with the mean over the seeds, and p-values are
    corrected by Holm over the rows. Finished runs in ``out`` are taken as they are.

    Args:
        pair: The linked pair; see :func:`kg_loaders.link`.
        settings: Out of :data:`SETTINGS`.
        comparators: Out of :data:`COMPARATORS`.
        seeds: Seeds of what draws at random; a closed form is fitted once.
        train: How gradient models are trained.
        options: Keyword arguments of InductiveKGAT and CrossDomainKGAT.
        trains: Other training of a comparator, by its name.
        metrics: What is measured; metrics of the head of a list, with a value a user.
        metric: The metric of the test.
        versus: The setting or comparator that the others are tested against; the last of ``settings`` when not given.
        out: Where the values of each run and the table go; nothing is written when not given.
        quiet: Show no progress.

    Raises:
        ArgumentError: An unknown setting, metric, or one that the pair cannot have.

    Example:
        >>> import kg_loaders
        >>> from kg_loaders.synthetic import planted
        >>> pair = kg_loaders.link(planted(num_users=110, seed=1), planted(), on="item", by="label")
        >>> train = TrainConfig(epochs=1, select_by="ndcg@10")
        >>> table = compare_transfer(pair, ["joint"], seeds=[0], train=train, options={"dim": 8}, quiet=True)
        >>> [row.label for row in table.rows]
        ['Popularity, target only', 'EASE, target only', 'EASE, union', 'InductiveKGAT, source + target']
    """
    always = ("popularity", "ease", "ease-union")
    for name, chosen, allowed in (("settings", settings, SETTINGS), ("comparators", comparators, COMPARATORS)):
        for value in chosen:
            check_choice(name, value, allowed)
    rows = list(dict.fromkeys([*(c for c in always if c not in comparators), *comparators, *settings]))
    reference = versus or rows[-1]
    check_choice("versus", reference, rows)
    metrics = tuple(dict.fromkeys([*metrics, metric]))
    seeds = tuple(dict.fromkeys(seeds))
    if not seeds:
        raise ArgumentError("seeds must hold at least one seed, got none")
    study = TransferStudy(pair, train, options, trains, quiet=True)
    own_seeds = {name: seeds if name in SETTINGS or "gcn" in name or name == "cmf" else seeds[:1] for name in rows}
    runs: dict[tuple[str, int], _Run] = {}
    order = [(name, seed) for seed in seeds for name in rows if seed in own_seeds[name]]  # the source is learned once
    for number, (name, seed) in enumerate(order, 1):
        if not quiet:
            print(f"run {number} of {len(order)}: {name}, seed {seed}", file=sys.stderr, flush=True)
        runs[name, seed] = _run(study, name, seed, metrics, out)
    values = {
        name: {m: torch.stack([runs[name, s].per_user[m] for s in own_seeds[name]]) for m in metrics} for name in rows
    }
    means = {name: by_metric[metric].mean(0) for name, by_metric in values.items()}
    tests = paired_bootstrap_rows(
        {name: mean for name, mean in means.items() if name != reference}, means[reference], NUM_SAMPLES
    )
    table = Table(
        f"{pair.source.name} -> {pair.target.name}",
        "of the target",
        "test",
        metrics,
        tuple(
            Row(
                LABELS[name],
                "",
                own_seeds[name],
                {m: Figure(*combined_interval(values[name][m], NUM_SAMPLES)) for m in metrics},
                None if name == reference else tests[name].p_holm,
                sum(runs[name, s].seconds for s in own_seeds[name]) / len(own_seeds[name]),
                max(runs[name, s].peak_memory_mb for s in own_seeds[name]),
            )
            for name in rows
        ),
        metric,
        LABELS[reference],
    )
    if out is not None:
        table.save(out)
    return table


def run_transfer(
    source: str,
    target: str,
    linking: Mapping[str, Any],
    options: Sequence[str] = (),
    target_share: float | None = None,
    out: Path | None = None,
    **given: Any,
) -> Table:
    """Link two data sets by name and compare; what ``graphrec transfer`` does.

    The target is split, and gradient models are trained, by its committed configurations; LightGCN has its own.

    Args:
        source: Name or folder of the source.
        target: Name or folder of the target.
        linking: Keyword arguments of :func:`kg_loaders.link`.
        options: Settings of the target's split, the model and its training, as on the command line.
        target_share: Share of the target's train and validation pairs to keep; all when not given.
        out: Where values, table and ``review.csv`` go; ``runs/SOURCE-TARGET/transfer`` when not given.
        given: Further arguments of :func:`compare_transfer`.

    Raises:
        ConfigError: An unknown setting.
        GraphError: The two cannot be linked as asked.
    """
    own: dict[str, Any] = {}
    rest = list(options)
    for name in CROSS_OPTIONS:
        rest, value = take_option(rest, f"model.{name}")
        if value is not None:
            own[name] = yaml.safe_load(value)
    config = read_options(["--model", FLAGSHIP, *rest], target).config
    asked = dict(config.model.options)
    graph = load_graph(config.data)
    config = resolve(config, graph)
    pair = link(registry.load(source), prepare(graph, config), **linking)
    if target_share is not None:
        pair = pair.keep_target(target_share)
    print(pair.summary(), file=sys.stderr, flush=True)
    out = out or RUNS / f"{pair.source.name}-{pair.target.name}" / "transfer"
    if len(pair.review):
        out.mkdir(parents=True, exist_ok=True)
        pair.review.to_csv(out / "review.csv", index=False)
    trains = {}
    if find_committed(target, "LightGCN") is not None:
        trains["light-gcn"] = read_options(["--model", "LightGCN"], target).config.train
    return compare_transfer(pair, train=config.train, options={**asked, **own}, trains=trains, out=out, **given)


@dataclass(frozen=True, eq=False)
class _Run:
    """What is kept of a run: by metric, a value for each of the target's test users."""

    per_user: dict[str, Tensor]
    seconds: float
    peak_memory_mb: float


def _run(study: TransferStudy, name: str, seed: int, metrics: Sequence[str], out: Path | None) -> _Run:
    """Fit and measure, or read what an earlier call measured."""
    file = None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        content = [name, seed, study.pair.union.fingerprint, asdict(study.train), study.options]
        content += [{key: asdict(value) for key, value in study.trains.items()}, list(metrics)]
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
        file = out / f"{re.sub('[^a-z0-9-]', '', name)}-seed{seed}-{key}.json"
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            per_user = {m: torch.tensor(values, dtype=torch.float64) for m, values in found["per_user"].items()}
            return _Run(per_user, found["seconds"], found["peak_memory_mb"])
    reset_peak_memory()
    fitted = study.fit(name, seed)
    measured = study.evaluator(metrics, seed).evaluate(fitted.model, fitted.graph, split="test")
    run = _Run({m: measured.per_user[m] for m in metrics}, fitted.seconds, peak_memory_mb())
    if file is not None:
        kept: dict[str, Any] = {"metrics": measured.metrics, "seconds": run.seconds, "users": measured.users.tolist()}
        kept["peak_memory_mb"] = run.peak_memory_mb
        kept["per_user"] = {m: values.tolist() for m, values in run.per_user.items()}
        write_text(file, json.dumps(kept))
    return run
