"""From a DataConfig to the graph that a run trains on, and the settings that the graph decides."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphrec.errors import ConfigError, check_choice
from graphrec.experiment.config import DataConfig, ModelConfig, RunConfig, options_of
from graphrec.experiment.folder import CONFIG, INFO
from kg_loaders import SPLITS, RecGraph
from kg_loaders.benchmarks import BENCHMARKS
from kg_loaders.registry import load
from kg_loaders.splits import carve_last, carve_valid, leave_last, random_split, temporal


def load_graph(data: DataConfig) -> RecGraph:
    """Return the data set as its files hold it, with ``data.features``; :func:`prepare` splits it.

    Raises:
        ConfigError: The folder is a run, and no data set.
    """
    if (Path(data.name) / INFO).is_file():
        raise ConfigError(
            f"{data.name} is a run folder and no data set; the one it was trained on stands in its {CONFIG}"
        )
    graph = load(data.name, data.format)
    if not data.features:
        return graph
    from graphrec.experiment.features import add_features

    return add_features(graph, data)


def resolve(config: RunConfig, graph: RecGraph) -> RunConfig:
    """Return the configuration with every open choice made, so that it means the same for ever.

    Args:
        config: What the caller asked for.
        graph: The data set as its files hold it.

    Raises:
        ConfigError: The ratios do not fit the split, or epochs are selected by a metric that is not measured.
        ArgumentError: There is no such metric.
    """
    from graphrec.evaluation import Evaluator
    from graphrec.models import MODELS

    split = config.data.split or _natural_split(graph)
    features = tuple(_lasting_name(name) for name in config.data.features)
    data = replace(config.data, name=_lasting_name(config.data.name), split=split, features=features)
    data = replace(data, ratios=_ratios(data))
    known = options_of(MODELS[config.model.name])
    options = {name: option.default for name, option in known.items()} | dict(config.model.options)
    default = inspect.signature(Evaluator).parameters["metrics"].default
    metrics = tuple(default if config.eval.metrics is None else config.eval.metrics)
    check_choice("train.select_by", config.train.select_by, Evaluator(metrics).metrics, ConfigError)
    return replace(
        config,
        data=data,
        model=ModelConfig(config.model.name, options),
        eval=replace(config.eval, metrics=metrics),
    )


def prepare(graph: RecGraph, config: RunConfig) -> RecGraph:
    """Return the graph split and with the part of its knowledge graph that a resolved configuration asks for.

    Raises:
        ConfigError: The graph has no split of its own, and "given" asks for it.
    """
    data = config.data
    graph = split_graph(graph, data)
    if data.kg == "none":
        return graph.without_kg()
    if data.kg == "shuffled":
        return graph.shuffled_kg(config.seed)
    return graph


def split_graph(graph: RecGraph, data: DataConfig) -> RecGraph:
    """Return the graph split as a resolved DataConfig says; train and validation have to come out of it."""
    ratios: Any = data.ratios
    if data.split == "given":
        if graph.interactions.split is None:
            raise ConfigError(f"data.split is 'given', but {data.name} has no split of its own; try 'random'")
    elif data.split == "random":
        graph = random_split(graph, ratios, seed=data.seed)
    elif data.split == "temporal":
        graph = temporal(graph, ratios)
    elif data.split == "leave-last":
        graph = leave_last(graph)
    elif data.split == "carve-last":
        graph = carve_last(graph)
    else:
        graph = carve_valid(graph, ratios[1], seed=data.seed)
    for part in ("train", "valid"):
        if not graph.has_split(part):
            raise ConfigError(
                f"{data.name}: the split {data.split!r} leaves no {part} pairs; choose another data.split"
            )
    return graph


def _natural_split(graph: RecGraph) -> Any:
    if graph.interactions.split is None:
        return "random"
    return "given" if graph.has_split("valid") else "carve"


def _ratios(data: DataConfig) -> tuple[float, ...] | None:
    """Return the ratios that the split needs, with the split function's own default where none are given."""
    functions: dict[str, Callable[..., RecGraph]] = {"random": random_split, "temporal": temporal}
    if data.split in functions:
        own = inspect.signature(functions[data.split]).parameters["ratios"].default
        needed, parts = data.ratios or tuple(own), SPLITS
    elif data.split == "carve":
        share = inspect.signature(carve_valid).parameters["ratio"].default
        needed, parts = data.ratios or (round(1 - share, 10), share), SPLITS[:2]
    else:
        if data.ratios is not None:
            raise ConfigError(f"data.ratios has no meaning for the split {data.split!r}; leave it out")
        return None
    if len(needed) != len(parts) or abs(sum(needed) - 1) > 1e-6 or min(needed) < 0:
        raise ConfigError(
            f"data.ratios of the split {data.split!r} must be {len(parts)} shares ({', '.join(parts)}) "
            f"that sum to 1, got {list(needed)}"
        )
    return needed


def _lasting_name(name: str) -> str:
    """Return a path as an absolute one, so that the run can be read from anywhere; a known name as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name not in BENCHMARKS and path.exists() else name
