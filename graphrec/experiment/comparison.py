"""compare: several models on one split, over seeds, with intervals and paired tests."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, ConfigError, RunError, check_choice
from graphrec.evaluation import combined_interval, paired_bootstrap_rows, seed_interval
from graphrec.experiment.ablation import ablations
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.catalogue import FLAGSHIP
from graphrec.experiment.config import KgName, RunConfig, first_difference, resolve_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.reading import read_options, split_model_options, take_option
from graphrec.experiment.report import Figure, Row, Table
from graphrec.experiment.runner import RUNS, run
from graphrec.models import MODELS
from kg_loaders import RecGraph

ALWAYS = ("Popularity", "EASE")  # no table without them

# Resamples of the users: as many as DRAWS users in total allow, within these bounds.
MIN_SAMPLES, MAX_SAMPLES, DRAWS = 1_000, 10_000, 500_000_000


@dataclass(frozen=True)
class Entry:
    """One row to be: a model with a part of the knowledge graph, as one configuration a seed.

    ``without`` names the part of the model that is left out; it is empty where none is.
    """

    model: str
    kg: str
    configs: tuple[RunConfig, ...]
    without: str = ""


def compare(
    data: str,
    models: Sequence[str] = (FLAGSHIP,),
    seeds: Iterable[int] = range(3),
    kg: Sequence[KgName] = ("full",),
    versus: str | None = None,
    metric: str | None = None,
    options: Sequence[str] = (),
    out: Path | None = None,
    graph: RecGraph | None = None,
    quiet: bool = False,
    ablate: bool = False,
) -> Table:
    """Train models on one split over several seeds and return the table of their figures.

    Every model uses its committed configuration. Popularity and EASE are always in. Where the data have a test part
    it is measured, after a refit on train and validation; where they have none, validation is measured and models are
    not refitted. A figure is the mean over users and seeds. Its interval and the paired tests resample users, each
    with the mean over the seeds; p-values are corrected by Holm over the rows.

    Runs that are finished in ``out`` are taken as they are, and unfinished ones continue, so a comparison that was
    interrupted, or that gets another model or seed, costs only what is new.

    Args:
        data: Name or folder of the data set.
        models: Names of models, whatever their case and hyphens.
        seeds: Seeds of the models that draw at random; a closed form is fitted once.
        kg: "full", "none", "shuffled": a row each for every model that reads the knowledge graph; "none" is left out
            for those that cannot do without one.
        versus: The model that the others are tested against (with the first of ``kg``); the last of ``models``
            when not given.
        metric: The metric of the test, which has a value a user. When not given: the one that selects epochs, or the
            first that has one where that has none, as ``ctr_auc``.
        options: Settings of all runs, as on the command line: ``["--train.epochs", "5"]``; those of a model
            (``--model.dim``) are for the reference alone.
        out: Where the runs and the table go; ``runs/<data set>/compare`` when not given.
        graph: The data set, where it has been read already.
        quiet: Show no progress.
        ablate: Add a row for the reference without each of its parts (:mod:`graphrec.experiment.ablation`).

    Raises:
        ConfigError: An unknown model or setting, or committed configurations that split the data differently.
    """
    chosen = _with_baselines(models)
    seeds = tuple(dict.fromkeys(seeds))
    if not seeds:
        raise ArgumentError("seeds must hold at least one seed, got none")
    if not kg:
        raise ArgumentError("kg must hold at least one of 'full', 'none', 'shuffled', got none")
    for wanted in kg:
        check_choice("kg", wanted, ("full", "none", "shuffled"))
    reference = resolve_model(versus or list(models)[-1])
    if reference not in chosen:
        raise ConfigError(f"versus must be one of the compared models {', '.join(chosen)}, got {versus!r}")

    for name, instead in (("seed", "seeds"), ("out", "out"), ("config", "options")):
        if take_option(options, name)[1] is not None:
            raise ConfigError(f"--{name} is for one run; a comparison takes {instead}")
    shared, own = split_model_options(options)
    configs = {
        name: read_options(["--model", name, *shared, *(own if name == reference else ())], data).config
        for name in chosen
    }
    _check_agreement(configs)
    graph = load_graph(configs[reference].data) if graph is None else graph
    configs = {name: resolve(config, graph) for name, config in configs.items()}
    has_test = prepare(graph, configs[reference]).has_split("test")
    if not has_test:
        configs = {name: replace(c, train=replace(c.train, refit=False)) for name, c in configs.items()}
    metrics, tested = _metrics(configs[reference], metric)

    entries = [entry for name, config in configs.items() for entry in _entries(name, config, seeds, kg)]
    if ablate:
        entries += _ablated(configs[reference], graph, seeds)
    at = next(i for i, entry in enumerate(entries) if entry.model == reference)
    out = out or RUNS / Path(graph.name).name / "compare"
    finished = _run_all(entries, graph, out, quiet)
    part = "test" if has_test else "valid"
    groups = [
        _Group(entry.model, entry.kg, tuple(folders), entry.without)
        for entry, folders in zip(entries, finished, strict=True)
    ]
    rows = _rows(groups, part, metrics, tested, at)
    table = Table(graph.name, configs[reference].data.split or "", part, metrics, rows, tested, rows[at].label)
    table.save(out)
    return table


def compare_runs(
    paths: Sequence[str | Path], versus: str | Path | None = None, metric: str | None = None, out: Path | None = None
) -> Table:
    """Return the table of runs that are finished, with intervals and paired tests; nothing is trained.

    Runs of one configuration but for the seed make one row. The test part is measured where all runs have it, else the
    validation part, which needs runs without a refit (``--train.refit false``).

    Args:
        paths: The run folders, at least two.
        versus: The run whose row the others are tested against; the last of ``paths`` when not given.
        metric: The metric of the test; when not given as in :func:`compare`, by the reference's configuration.
        out: Where the table goes, if anywhere.

    Raises:
        ConfigError: Fewer than two runs, or runs of other data, splits or evaluations than the reference's.
        RunError: A folder holds no finished run, or runs have no part in common on which all were measured.
    """
    paths = [Path(path) for path in dict.fromkeys(map(str, paths))]
    if len(paths) < 2:
        raise ConfigError(f"a comparison of runs takes at least two, got {len(paths)}")
    chosen = Path(versus) if versus is not None else paths[-1]
    if chosen not in paths:
        raise ConfigError(f"versus must be one of the compared runs {', '.join(map(str, paths))}, got {str(versus)!r}")
    folders = [RunFolder.open(path) for path in paths]
    reference = folders[paths.index(chosen)]
    for folder in folders:
        _check_same_question(folder, reference)
    part = "test" if all("test" in folder.metrics for folder in folders) else "valid"
    _check_same_users(folders, part)
    alike: dict[str, list[RunFolder]] = {}
    for folder in folders:
        alike.setdefault(replace(folder.config, seed=0, out=None).hash, []).append(folder)
    groups = _named([tuple(group) for group in alike.values()])
    at = next(i for i, group in enumerate(groups) if reference in group.folders)
    metrics, tested = _metrics(reference.config, metric)
    rows = _rows(groups, part, metrics, tested, at)
    split = reference.config.data.split or ""
    table = Table(reference.config.data.name, split, part, metrics, rows, tested, rows[at].label)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.save(out)
    return table


@dataclass(frozen=True)
class _Group:
    """Finished runs of one row: one configuration, several seeds."""

    model: str
    kg: str
    folders: tuple[RunFolder, ...]
    without: str = ""
    setting: str = ""


def _check_same_question(folder: RunFolder, reference: RunFolder) -> None:
    """Make sure that two runs saw the same pairs, whatever part of the KG, and were measured alike."""
    own, other = folder.config.to_dict(), reference.config.to_dict()
    own["data"]["kg"] = other["data"]["kg"]
    for section in ("data", "eval"):
        changed = first_difference({section: own[section]}, {section: other[section]})
        if changed is not None:
            raise ConfigError(
                f"{folder.path} and {reference.path} differ in {changed[0]}: {changed[1]!r} and {changed[2]!r}"
            )


def _check_same_users(folders: Sequence[RunFolder], part: str) -> None:
    """Make sure that the runs have values on a part, of the same users.

    Raises:
        RunError: A run has none, or was measured on other users.
    """
    first: Tensor | None = None
    for folder in folders:
        if part == "valid" and folder.config.train.refit:
            raise RunError(
                f"{folder.path} was refitted on the validation part, and not all runs have a test part; "
                "train it with --train.refit false to compare it there"
            )
        users, _ = folder.per_user(part)
        first = users if first is None else first
        if not torch.equal(users, first):
            raise RunError(f"{folder.path} and {folders[0].path} were measured on other users: the data have changed")


def _named(groups: Sequence[tuple[RunFolder, ...]]) -> list[_Group]:
    """Name each row by its model and knowledge graph, and where that names two, by the first setting that differs."""
    firsts: dict[tuple[str, str], RunConfig] = {}
    named = []
    for group in groups:
        config = group[0].config
        kg = config.data.kg if reads_kg(config.model.name) else ""
        first = firsts.setdefault((config.model.name, kg), config)
        changed = first_difference(first.to_dict(), replace(config, seed=first.seed, out=first.out).to_dict())
        setting = "" if changed is None else f"{changed[0]} {changed[2]}"
        named.append(_Group(config.model.name, kg, group, setting=setting))
    return named


def _rows(groups: Sequence[_Group], part: str, metrics: Sequence[str], tested: str, at: int) -> tuple[Row, ...]:
    """Return the rows of a table, each tested against the row ``at``."""
    values = [_values_of(group.folders, part) for group in groups]
    p_values = _test([value[tested] for value in values], at)
    return tuple(
        Row(
            group.model,
            group.kg,
            tuple(folder.config.seed for folder in group.folders),
            {metric: _figure(metric, group.folders, part, per_user) for metric in metrics},
            p_value,
            sum(folder.metrics["seconds"]["train"] for folder in group.folders) / len(group.folders),
            max(folder.metrics["peak_memory_mb"] for folder in group.folders),
            tuple(str(folder.path) for folder in group.folders),
            group.without,
            group.setting,
        )
        for group, per_user, p_value in zip(groups, values, p_values, strict=True)
    )


def _ablated(config: RunConfig, graph: RecGraph, seeds: Sequence[int]) -> list[Entry]:
    """Return a row for a model without each of its parts; nothing where it has none."""
    name = config.model.name
    kg = config.data.kg if reads_kg(name) else ""
    reads = bool(kg) and not MODELS[name].needs_kg
    own_seeds = seeds if MODELS[name].random else seeds[:1]
    return [
        Entry(name, kg, tuple(replace(left, seed=seed) for seed in own_seeds), part)
        for part, left in ablations(config, graph, reads, MODELS[name].needs_content)
    ]


def reads_kg(model: str) -> bool:
    """Whether a model reads the knowledge graph: its constructor, or that of a model in it, takes triples."""
    return any("triples" in inspect.signature(source).parameters for source in MODELS[model].configured_by())


def _with_baselines(models: Sequence[str]) -> list[str]:
    if not models:
        raise ArgumentError("models must name at least one model, got none")
    named = [resolve_model(name) for name in models]
    return list(dict.fromkeys([*(name for name in ALWAYS if name not in named), *named]))


def _check_agreement(configs: dict[str, RunConfig]) -> None:
    """Make sure that all models see the same pairs and are measured alike."""
    (first, own), *others = configs.items()
    for name, config in others:
        for section in ("data", "eval"):
            if getattr(config, section) != getattr(own, section):
                raise ConfigError(
                    f"the committed configurations of {first} and {name} differ in {section}: "
                    f"{getattr(own, section)} and {getattr(config, section)}"
                )


def _metrics(config: RunConfig, tested: str | None) -> tuple[tuple[str, ...], str]:
    """Return all metrics that are measured, and the one to test, after making sure that it has a value a user."""
    measured = build_evaluator(config).metrics
    per_user = [name for name, (kind, _) in measured.items() if kind.scope == "user"]
    if tested is None:
        chosen_by = config.train.select_by
        tested = per_user[0] if per_user and chosen_by not in per_user else chosen_by
    if tested in measured and tested not in per_user:
        raise ConfigError(f"metric must be one with a value a user ({', '.join(per_user)}), got {tested!r}")
    check_choice("metric", tested, per_user, ConfigError)
    return tuple(measured), tested


def _entries(model: str, config: RunConfig, seeds: Sequence[int], kg: Sequence[KgName]) -> list[Entry]:
    # In most closed forms nothing is random but the order of ties.
    own_seeds = seeds if MODELS[model].random else seeds[:1]
    if not reads_kg(model):
        return [Entry(model, "", tuple(replace(config, seed=seed) for seed in own_seeds))]
    return [
        Entry(model, part, tuple(replace(config, seed=seed, data=replace(config.data, kg=part)) for seed in own_seeds))
        for part in dict.fromkeys(kg)
        if part != "none" or not MODELS[model].needs_kg
    ]


def _run_all(entries: Sequence[Entry], graph: RecGraph, out: Path, quiet: bool) -> list[list[RunFolder]]:
    total = sum(len(entry.configs) for entry in entries)
    done = 0
    finished: list[list[RunFolder]] = []
    for entry in entries:
        folders = []
        for config in entry.configs:
            done += 1
            if not quiet:
                print(f"run {done} of {total}: {config.label}", file=sys.stderr, flush=True)
            folders.append(run(config, out / config.label, graph=graph, quiet=quiet))
        finished.append(folders)
    return finished


def _values_of(folders: Sequence[RunFolder], part: str) -> dict[str, Tensor]:
    """Return the values of one row: by metric, float64 ``[num_seeds, num_users]``."""
    measured = [folder.per_user(part) for folder in folders]
    first, values = measured[0]
    for users, _ in measured:
        assert torch.equal(users, first), "one split, one list of users"
    return {name: torch.stack([per_user[name] for _, per_user in measured]) for name in values}


def _figure(metric: str, folders: Sequence[RunFolder], part: str, values: dict[str, Tensor]) -> Figure:
    if metric in values:
        per_user = values[metric]
        return Figure(*combined_interval(per_user, num_samples=_num_samples(per_user.size(1))))
    # A metric of the whole catalogue, such as coverage, has a value a run and none a user.
    figures = [folder.metrics[part][metric] for folder in folders]
    return Figure(*seed_interval(figures)) if len(figures) > 1 else Figure(figures[0])


def _test(values: Sequence[Tensor], at: int) -> list[float | None]:
    """Return the p-value of each row against the row ``at``, after Holm."""
    means = [value.mean(0) for value in values]
    others = {str(row): mean for row, mean in enumerate(means) if row != at}
    tests = paired_bootstrap_rows(others, means[at], num_samples=_num_samples(len(means[at])))
    return [tests[str(row)].p_holm if row != at else None for row in range(len(values))]


def _num_samples(num_users: int) -> int:
    """Return how often to resample: the more users, the less it takes, and the more it costs."""
    return min(MAX_SAMPLES, max(MIN_SAMPLES, DRAWS // num_users))
