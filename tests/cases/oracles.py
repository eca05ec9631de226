"""The same figures from public libraries."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import ir_measures
import torch
from cases.rankings import Scene

with warnings.catch_warnings():  # torch_geometric still uses torch.jit.script
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_geometric.metrics as torch_geometric_metrics

__all__ = ["from_ir_measures", "from_torch_geometric", "torch_geometric_metrics"]


def from_ir_measures(measure: str, scene: Scene) -> list[float]:
    """Return the measure of every user (trec_eval underneath); scores must not tie."""
    truth = {str(user): {str(item): 1 for item in wanted} for user, wanted in enumerate(scene.relevant)}
    run = {str(user): {str(item): score for item, score in scores.items()} for user, scores in enumerate(scene.scores)}
    parsed = ir_measures.parse_measure(measure)
    values = {result.query_id: result.value for result in ir_measures.iter_calc([parsed], truth, run)}
    return [values[str(user)] for user in range(len(scene.scores))]


def from_torch_geometric(metric: Any, scene: Scene, users: Sequence[int] | None = None) -> float:
    """Return a metric of ``torch_geometric.metrics`` over the users; only full lists are the same to it as to us."""
    users = range(len(scene.scores)) if users is None else users
    # Places beyond the end of a list hold an item that does not exist, so nothing is found there.
    nowhere = len(scene.popularity)
    lists = torch.tensor([(scene.lists[user] + [nowhere] * metric.k)[: metric.k] for user in users])
    pairs = [(row, item) for row, user in enumerate(users) for item in sorted(scene.relevant[user])]
    metric.update(lists, torch.tensor(pairs).T)
    return float(metric.compute())
