"""From a resolved configuration to the objects it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphrec.experiment.config import RunConfig

if TYPE_CHECKING:
    from graphrec.evaluation import Evaluator
    from graphrec.models.base import Recommender
    from kg_loaders import RecGraph


def build_model(config: RunConfig, graph: RecGraph) -> Recommender:
    """Return the unfitted model of a configuration."""
    from graphrec.models import MODELS

    return MODELS[config.model.name].from_graph(graph, **config.model.options)


def build_evaluator(config: RunConfig) -> Evaluator:
    """Return the evaluator of a resolved configuration. Ties are broken by the seed of the run."""
    from graphrec.evaluation import Evaluator

    settings: dict[str, Any] = {"metrics": config.eval.metrics, "batch_size": config.eval.batch_size}
    return Evaluator(seed=config.seed, **settings)
