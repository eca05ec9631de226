"""compare: several models on one split, over seeds, with intervals and paired tests."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphrec.errors import ArgumentError, ConfigError
from graphrec.experiment.ablation import ablations
from graphrec.experiment.catalogue import FLAGSHIP
from graphrec.experiment.comparison_rows import Group, metrics_of, rows_of
from graphrec.experiment.config import KgName, RunConfig, check_kg, reads_kg, resolve_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.reading import read_options, split_model_options, take_option
from graphrec.experiment.report import Table
from graphrec.experiment.runner import RUNS, run
from graphrec.models import MODELS
from kg_loaders import RecGraph

ALWAYS = ("Popularity", "EASE")  # no table without them


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
        ConfigError: An unknown model or setting, one that is for a single run (``--model``, ``--seed``), another ``kg``
            than "full" where the data have no triples, or committed configurations that split the data differently.
    """
    chosen = _with_baselines(models)
    seeds = tuple(dict.fromkeys(seeds))
    if not seeds:
        raise ArgumentError("seeds must hold at least one seed, got none")
    check_kg(kg)
    reference = resolve_model(versus or list(models)[-1])
    if reference not in chosen:
        raise ConfigError(f"versus must be one of the compared models {', '.join(chosen)}, got {versus!r}")

    for names, instead in (
        (("model", "model.name"), "models"),
        (("seed",), "seeds"),
        (("out",), "out"),
        (("config",), "options"),
        (("data.kg",), "kg"),
    ):
        if take_option(options, *names)[1] is not None:
            raise ConfigError(f"--{names[0]} is for one run; a comparison takes {instead}")
    shared, own = split_model_options(options)
    configs = {
        name: read_options(["--model", name, *shared, *(own if name == reference else ())], data).config
        for name in chosen
    }
    _check_agreement(configs)
    graph = load_graph(configs[reference].data) if graph is None else graph
    if not graph.num_triples and set(kg) != {"full"}:
        raise ConfigError(f"kg must be 'full' for {graph.name!r}, which has no triples, got {', '.join(map(repr, kg))}")
    configs = {name: resolve(config, graph) for name, config in configs.items()}
    has_test = prepare(graph, configs[reference]).has_split("test")
    if not has_test:
        configs = {name: replace(c, train=c.train.without_refit()) for name, c in configs.items()}
    metrics, tested = metrics_of(configs[reference], metric)

    entries = [entry for name, config in configs.items() for entry in _entries(name, config, seeds, kg)]
    at = next((i for i, entry in enumerate(entries) if entry.model == reference), None)
    if at is None:
        raise ConfigError(f"kg must hold 'full' or 'shuffled': {reference} cannot do without a knowledge graph")
    if ablate:
        entries += _ablated(entries[at].configs[0], graph, seeds)
    out = out or RUNS / Path(graph.name).name / "compare"
    finished = _run_all(entries, graph, out, quiet)
    part = "test" if has_test else "valid"
    groups = [
        Group(entry.model, entry.kg, tuple(folders), entry.without)
        for entry, folders in zip(entries, finished, strict=True)
    ]
    rows = rows_of(groups, part, metrics, tested, at)
    table = Table(graph.name, configs[reference].data.split or "", part, metrics, rows, tested, rows[at].label)
    table.save(out)
    return table


def _ablated(config: RunConfig, graph: RecGraph, seeds: Sequence[int]) -> list[Entry]:
    """Return a row for a model without each of its parts; nothing where it has none."""
    name = config.model.name
    kg = config.data.kg if reads_kg(config.model) else ""
    reads = bool(kg) and not MODELS[name].needs_kg
    own_seeds = seeds if MODELS[name].random else seeds[:1]
    return [
        Entry(name, kg, tuple(replace(left, seed=seed) for seed in own_seeds), part)
        for part, left in ablations(config, graph, reads, MODELS[name].needs_content)
    ]


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


def _entries(model: str, config: RunConfig, seeds: Sequence[int], kg: Sequence[KgName]) -> list[Entry]:
    # In most closed forms nothing is random but the order of ties.
    own_seeds = seeds if MODELS[model].random else seeds[:1]
    if not reads_kg(config.model):
        return [Entry(model, "", tuple(replace(config, seed=seed) for seed in own_seeds))]
    return [
        Entry(model, part, tuple(replace(config, seed=seed, data=replace(config.data, kg=part)) for seed in own_seeds))
        for part in dict.fromkeys(kg)
        if part != "none" or _does_without_kg(config)
    ]


def _does_without_kg(config: RunConfig) -> bool:
    model = MODELS[config.model.name]
    return not (model.needs_kg or (model.needs_content and not config.model.options.get("modalities")))


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
