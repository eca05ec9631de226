"""What a model is without each of its parts: the rows of ``graphrec compare --ablate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from graphrec.experiment.config import RunConfig
from kg_loaders import RecGraph

# Options that switch a part on, their value without it, and how the part is called.
SWITCHES: tuple[tuple[str, Any, str], ...] = (
    ("sequence", 0, "sequence"),
    ("num_time_buckets", 0, "times"),
    ("request_time", False, "the time of the request"),
    ("recency", 0.0, "the closed form's order"),
    ("co_neighbors", 0, "co-occurrences"),
    ("like_neighbors", 0, "likeness"),
    ("match_temperature", 0.0, "matching"),
    ("members", 1, "further members"),
    ("match_members", 1, "further members that match"),
    ("drop_id", 0.0, "dropped ids"),
    ("content_popularity", False, "foretold popularity"),
    ("side_features", (), "side features"),
    ("head", None, "head"),
)


def ablations(
    config: RunConfig, graph: RecGraph, reads_kg: bool, needs_content: bool = False
) -> Iterator[tuple[str, RunConfig]]:
    """Yield the name of each part that a resolved configuration has, and the configuration without it.

    The parts are the knowledge graph, each modality, all of several modalities, and what :data:`SWITCHES` names.

    Args:
        config: A resolved configuration.
        graph: The data set; without triples the knowledge graph is no part.
        reads_kg: Whether the model reads the knowledge graph.
        needs_content: Whether the model cannot be without both a knowledge graph and modalities.
    """
    has_kg = reads_kg and graph.num_triples > 0 and config.data.kg != "none"
    modalities = tuple(config.model.options.get("modalities", ()))
    if has_kg and config.data.kg == "full" and (modalities or not needs_content):
        left = _with(config, has_content=bool(modalities))
        yield "KG", replace(left, data=replace(config.data, kg="none"))
    can_do_without = has_kg or not needs_content
    for name in modalities if can_do_without or len(modalities) > 1 else ():
        left_over = tuple(other for other in modalities if other != name)
        yield name, _with(config, has_content=has_kg or bool(left_over), modalities=left_over)
    if len(modalities) > 1 and can_do_without:
        yield " and ".join(modalities), _with(config, has_content=has_kg, modalities=())
    for option, without, name in SWITCHES:
        if option in ("num_time_buckets", "request_time") and config.model.options.get("sequence") == 0:
            continue  # only what reads in order reads times
        if option == "recency" and config.model.name == "SLIST":
            continue  # a Blend has EASE without it; this is nothing but order
        value = config.model.options.get(option)
        if value and value != without:
            left = _with(config, **{option: without})
            if not _is_lone(left.model.options):
                yield name, left


def _is_lone(options: Mapping[str, Any]) -> bool:
    """Whether options of a Blend leave but one model, which is no blend."""
    return options.get("members") == 1 and not options["l2"] and not options["match_temperature"]


def _with(config: RunConfig, has_content: bool = True, **options: Any) -> RunConfig:
    if not has_content and config.model.options.get("content_weight"):
        options["content_weight"] = 0.0  # a Blend's second model is then plain EASE
    if not has_content and config.model.options.get("content_popularity"):
        options["content_popularity"] = False  # nothing is left to foretell it
    if options.get("modalities") == () and config.model.options.get("like_neighbors"):
        options["like_neighbors"] = 0  # nothing is left to be like
    if "num_time_buckets" in options and config.model.options.get("request_time"):
        options["request_time"] = False  # nothing is left to read it
    if "match_temperature" in options and "match_members" in config.model.options:
        options["match_members"] = 1  # nothing is left that matches
    if "head" in options:
        options["side_features"] = ()  # nothing is left to read them
    return replace(config, model=replace(config.model, options={**config.model.options, **options}))
