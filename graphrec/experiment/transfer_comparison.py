"""compare_transfer: what a source domain is worth to a target, with intervals and paired tests."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, ConfigError, check_choice
from graphrec.evaluation import combined_interval, paired_bootstrap_rows
from graphrec.experiment.catalogue import FLAGSHIP, find_committed
from graphrec.experiment.config import KgName, check_kg
from graphrec.experiment.data import load_graph, resolve, split_graph
from graphrec.experiment.files import make_folder, write_text
from graphrec.experiment.reading import read_options, take_option
from graphrec.experiment.report import KG_NAMES, Figure, Row, Table
from graphrec.experiment.runner import RUNS, peak_memory_mb, reset_peak_memory
from graphrec.experiment.transfer import (
    COMPARATORS,
    CROSS_OPTIONS,
    EASE_OPTIONS,
    METRICS,
    NOT_CROSS,
    SETTINGS,
    SOURCE_WEIGHTS,
    TransferStudy,
    cold_split,
)
from graphrec.training import TrainConfig
from kg_loaders import LinkedPair, link, registry

NUM_SAMPLES = 5_000  # resamples of the users
WITH_EASE = ("ease-weighted", "ease-source", "target-only+ease", "joint+ease", "zero-shot+ease")  # and its options
READ_KG = (*SETTINGS, "content-knn", "fbsm-source")
FROM_SOURCE = ("fine-tuned", "frozen-items", "zero-shot", "zero-shot+ease")  # that learn of the source's items first
RANDOM = ("cmf", "emcdr", "ptupcdr", "light-gcn", "light-gcn-union")  # comparators that another seed makes another

# Settings of a run that a transfer does not read, and what to say of each.
OF_ONE_RUN = (
    (("model", "model.name"), "a transfer takes --settings and --comparators"),
    (("seed",), "a transfer takes --seeds"),
    (("out",), "a transfer takes out"),
    (("data.kg",), "a transfer takes --kg, which is of both domains"),
    (("train.select",), "every setting of a transfer selects on a validation part"),
    (("eval.batch_size",), "a transfer takes --eval.metrics alone"),
)

LABELS = {
    "target-only": "InductiveKGAT, target only",
    "target-only+ease": "InductiveKGAT + EASE, target only",
    "joint": "InductiveKGAT, source + target",
    "joint+ease": "InductiveKGAT + EASE, source + target",
    "fine-tuned": "InductiveKGAT, source, then target",
    "frozen-items": "InductiveKGAT, items frozen after source",
    "zero-shot": "InductiveKGAT, source only (zero-shot)",
    "zero-shot+ease": "InductiveKGAT + EASE, source only (zero-shot)",
    "popularity": "Popularity, target only",
    "popularity-union": "Popularity, union",
    "content-knn": "ContentKNN",
    "fbsm-source": "FBSM on content, source only (zero-shot)",
    "ease": "EASE, target only",
    "ease-union": "EASE, union",
    "ease-weighted": "EASE, union, source weighted",
    "ease-source": "EASE, source only (zero-shot)",
    "cmf": "CMF (IALS on the union)",
    "emcdr": "EMCDR",
    "ptupcdr": "PTUPCDR",
    "light-gcn": "LightGCN, target only",
    "light-gcn-union": "LightGCN, union",
}


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
    cold: NDArray[np.int64] | None = None,
    out: Path | None = None,
    quiet: bool = False,
    ease: Mapping[str, Any] | None = None,
    kg: Sequence[KgName] = ("full",),
) -> Table:
    """Measure a linked pair in several settings over seeds, and return the table; see :class:`TransferStudy`.

    Popularity and EASE, each on the target and EASE on the union, are always in, and with ``joint+ease`` the EASE that
    it is blended with. A figure is the mean over the target's test users and seeds; interval and paired tests resample
    users, each with the mean over the seeds, and p-values are corrected by Holm over the rows. Finished runs in ``out``
    are taken as they are.

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
        cold: Test users without a target history, see :func:`cold_split`; the table is of them alone, with one more
            column of ``metric`` for all others.
        out: Where the values of each run and the table go; nothing is written when not given.
        quiet: Show no progress.
        ease: Keyword arguments of EASE where it is weighted or blended.
        kg: "full", "none", "shuffled" (with seed 0): a row each for what reads the knowledge graphs, of which both
            domains then have as much; "none" is left out for what cannot do without. ``versus`` has the first.

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
    blended = ["ease-weighted"] if "joint+ease" in settings else []
    for name, chosen, allowed in (("settings", settings, SETTINGS), ("comparators", comparators, COMPARATORS)):
        for value in chosen:
            check_choice(name, value, allowed)
    names = list(dict.fromkeys([*(c for c in always if c not in comparators), *comparators, *blended, *settings]))
    versus = versus or names[-1]
    check_choice("versus", versus, names)
    metrics = tuple(dict.fromkeys([*metrics, metric]))
    seeds = tuple(dict.fromkeys(seeds))
    if not seeds:
        raise ArgumentError("seeds must hold at least one seed, got none")
    is_cold = None if cold is None else _cold_among_test_users(pair, cold)
    studies = {
        part: TransferStudy(_with_kg(pair, part), train, options, trains, quiet=True, ease=ease)
        for part in _checked(kg, pair)
    }
    entries = [
        entry
        for name in names
        for entry in _entries(name, studies, seeds if name in (*SETTINGS, *RANDOM) else seeds[:1])
    ]
    reference = next((entry for entry in entries if entry.name == versus), None)
    if reference is None:
        raise ArgumentError(f"kg must hold 'full' or 'shuffled': {versus!r} cannot do without a knowledge graph")
    runs = _run_all(entries, seeds, metrics, out, quiet)
    values = {entry: {m: torch.stack([run.per_user[m] for run in runs[entry]]) for m in metrics} for entry in entries}
    columns, whose = metrics, "of the target"
    if is_cold is not None:
        columns, whose = (*metrics, f"{metric}, others"), "of the target, users without a history there"
        for by_metric in values.values():
            by_metric[columns[-1]] = by_metric[metric][:, ~is_cold]
            by_metric.update({m: by_metric[m][:, is_cold] for m in metrics})
    rows = _rows(runs, values, reference, columns, metric)
    domains, versus_label = f"{pair.source.name} -> {pair.target.name}", rows[entries.index(reference)].label
    table = Table(domains, whose, "test", columns, tuple(rows), metric, versus_label)
    if out is not None:
        table.save(out)
    return table


def _cold_among_test_users(pair: LinkedPair, cold: NDArray[np.int64]) -> Tensor:
    """Return which of the test users, in their order, are cold."""
    is_cold = torch.from_numpy(np.isin(np.unique(pair.target.part("test").user), cold))
    num_cold, num_others = int(is_cold.sum()), int((~is_cold).sum())
    if min(num_cold, num_others) < 2:
        raise ArgumentError(f"an interval takes two test users, got {num_cold} cold ones and {num_others} others")
    return is_cold


def _checked(kg: Sequence[KgName], pair: LinkedPair) -> tuple[KgName, ...]:
    check_kg(kg)
    if not pair.union.num_triples and set(kg) != {"full"}:
        named = ", ".join(map(repr, kg))
        raise ArgumentError(f"kg must be 'full' for {pair.union.name!r}, which has no triples, got {named}")
    return tuple(dict.fromkeys(kg))


def _with_kg(pair: LinkedPair, part: KgName) -> LinkedPair:
    if part == "none":
        return pair.without_kg()
    return pair.shuffled_kg(0) if part == "shuffled" else pair


@dataclass(frozen=True, eq=False)
class _Entry:
    """A row to be: a setting or comparator, and what it reads of the knowledge graphs, "" where nothing tells rows."""

    name: str
    kg: str
    study: TransferStudy
    seeds: tuple[int, ...]

    @property
    def row_name(self) -> str:
        return f"{self.name} {self.kg}"


def _entries(name: str, studies: Mapping[KgName, TransferStudy], seeds: tuple[int, ...]) -> list[_Entry]:
    first, *others = studies
    if name not in READ_KG or (first == "full" and not others):
        return [_Entry(name, "", studies[first], seeds)]
    needs_kg = name == "content-knn" or (name == "fbsm-source" and not studies[first].options.get("modalities"))
    needs_kg |= name in FROM_SOURCE and not len(studies[first].pair.shared_items)  # nothing else ties the items
    return [_Entry(name, part, study, seeds) for part, study in studies.items() if part != "none" or not needs_kg]


def _run_all(
    entries: Sequence[_Entry], seeds: Sequence[int], metrics: Sequence[str], out: Path | None, quiet: bool
) -> dict[_Entry, list[_Run]]:
    """Fit and measure each row to be with each of its seeds."""
    order = [(entry, seed) for seed in seeds for entry in entries if seed in entry.seeds]  # the source is learned once
    runs: dict[_Entry, list[_Run]] = {entry: [] for entry in entries}
    for number, (entry, seed) in enumerate(order, 1):
        if not quiet:
            part = f", {KG_NAMES[entry.kg]}" if entry.kg else ""
            print(f"run {number} of {len(order)}: {entry.name}{part}, seed {seed}", file=sys.stderr, flush=True)
        runs[entry].append(_run(entry.study, entry.name, seed, metrics, out))
    return runs


def _rows(
    runs: Mapping[_Entry, Sequence[_Run]],
    values: Mapping[_Entry, Mapping[str, Tensor]],
    reference: _Entry,
    columns: Sequence[str],
    metric: str,
) -> list[Row]:
    """Return the table's rows: figures with intervals, and a paired test of each against the reference."""
    means = {entry.row_name: by_metric[metric].mean(0) for entry, by_metric in values.items()}
    against = means.pop(reference.row_name)
    tests = paired_bootstrap_rows(means, against, NUM_SAMPLES)
    return [
        Row(
            LABELS[entry.name],
            entry.kg,
            entry.seeds,
            {m: Figure(*combined_interval(values[entry][m], NUM_SAMPLES)) for m in columns},
            None if entry is reference else tests[entry.row_name].p_holm,
            sum(run.seconds for run in of_entry) / len(of_entry),
            max(run.peak_memory_mb for run in of_entry),
        )
        for entry, of_entry in runs.items()
    ]


def run_transfer(
    source: str,
    target: str,
    linking: Mapping[str, Any],
    options: Sequence[str] = (),
    target_share: float | None = None,
    cold_share: float | None = None,
    without_twins: bool = False,
    out: Path | None = None,
    **given: Any,
) -> Table:
    """Link two data sets by name and compare; what ``graphrec transfer`` does.

    The target is split, and gradient models are trained, by its committed configurations; LightGCN has its own. What
    CrossDomainKGAT does not know of them is left out of all settings, and said.

    Args:
        source: Name or folder of the source.
        target: Name or folder of the target.
        linking: Keyword arguments of :func:`kg_loaders.link`.
        options: Settings of the target's split, the model and its training, as on the command line.
        target_share: Share of the target's train and validation pairs to keep; all when not given.
        cold_share: Share of the common test users who lose their target history; see :func:`cold_split`.
        without_twins: Take items out of the source that may be the target's own; see :meth:`LinkedPair.without_twins`.
        out: Where values, table and ``review.csv`` go; ``runs/SOURCE-TARGET/transfer`` when not given. A ``review.csv``
            that holds other matches is kept, and the new one called ``review-new.csv``.
        given: Further arguments of :func:`compare_transfer`.

    Raises:
        ConfigError: An unknown setting, or one that a transfer does not read.
        GraphError: The two cannot be linked as asked.
    """
    for names, instead in OF_ONE_RUN:
        if take_option(options, *names)[1] is not None:
            raise ConfigError(f"--{names[0]} is for one run; {instead}")
    rest, own = _taken(options, target, "CrossDomainKGAT", CROSS_OPTIONS)
    rest, given["ease"] = _taken(rest, target, "EASE", EASE_OPTIONS)
    config = read_options(["--model", FLAGSHIP, *rest], target).config
    if config.eval.metrics is not None and take_option(rest, "eval.metrics")[1] is not None:
        given.setdefault("metrics", config.eval.metrics)
    asked = dict(config.model.options)
    for name in NOT_CROSS:
        if take_option(rest, f"model.{name}")[1] is not None:
            raise ConfigError(f"--model.{name} is not for a transfer: CrossDomainKGAT has none")
        if value := asked.pop(name, None):
            print(f"{name}={value} of {target}'s configuration is left out: CrossDomainKGAT has none", file=sys.stderr)
    graph = load_graph(config.data)
    config = resolve(config, graph)
    given.setdefault("kg", (config.data.kg,))
    pair = link(registry.load(source), split_graph(graph, config.data), **linking)
    if without_twins:
        pair = pair.without_twins()
    problems = [finding for finding in pair.audit() if finding.verdict == "problem"]
    if target_share is not None:
        pair = pair.keep_target(target_share)
    if cold_share is not None:
        pair, given["cold"] = cold_split(pair, cold_share)
    print(pair.summary(), file=sys.stderr, flush=True)
    for finding in problems:
        print(f"problem: {finding.count:,} {finding.check}, {finding.remark}", file=sys.stderr, flush=True)
    out = out or RUNS / f"{pair.source.name}-{pair.target.name}" / "transfer"
    if len(pair.review):
        make_folder(out, f"the folder --out {out}")
        _write_review(pair.review.to_csv(index=False), out)
    trains = {}
    if find_committed(target, "LightGCN") is not None:
        trains["light-gcn"] = read_options(["--model", "LightGCN"], target).config.train
    train = replace(config.train, select=True)  # whatever the target's own configuration does
    return compare_transfer(pair, train=train, options={**asked, **own}, trains=trains, out=out, **given)


def _write_review(text: str, folder: Path) -> None:
    """Write the matches to look at as ``review.csv``, or beside one that holds others: a person may have mended it."""
    file, beside = folder / "review.csv", folder / "review-new.csv"
    if not file.exists():
        write_text(file, text)
    elif file.read_bytes() != text.encode():
        write_text(beside, text)
        print(
            f"{file} holds other matches, which are kept; those of now are in {beside}; for what a corrected file says "
            "of them to hold, give it as --map, beside --by and what goes with it",
            file=sys.stderr,
            flush=True,
        )


def _taken(options: Sequence[str], target: str, model: str, names: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take the options of one model out of others; return the rest, and their values."""
    rest, found = list(options), dict[str, str]()
    for name in names:
        rest, value = take_option(rest, f"model.{name}")
        if value is not None:
            found[name] = value
    words = [word for name, value in found.items() for word in (f"--model.{name}", value)]
    read = read_options(["--model", model, *words], target).config.model.options
    return rest, {name: read[name] for name in found}


@dataclass(frozen=True, eq=False)
class _Run:
    """What is kept of a run: by metric, a value for each of the target's test users, in their order."""

    per_user: dict[str, Tensor]
    seconds: float
    peak_memory_mb: float


def _run(study: TransferStudy, name: str, seed: int, metrics: Sequence[str], out: Path | None) -> _Run:
    """Fit and measure, or read what an earlier call measured."""
    file = None
    if out is not None:
        make_folder(out, f"the folder --out {out}")
        # All three: pairs of other graphs may have one union, such as a source without what the target has too.
        graphs = [graph.fingerprint for graph in (study.pair.source, study.pair.target, study.pair.union)]
        content = [name, seed, graphs, asdict(study.train), study.options]
        content += [{key: asdict(value) for key, value in study.trains.items()}, list(metrics)]
        if name in WITH_EASE:
            content += [SOURCE_WEIGHTS, study.ease]
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
