"""Finished runs as the rows of a table, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import ConfigError, check_choice
from graphrec.evaluation import combined_interval, paired_bootstrap_rows, seed_interval
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.config import RunConfig
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.report import Figure, Row

# Resamples of the users: as many as DRAWS users in total allow, within these bounds.
MIN_SAMPLES, MAX_SAMPLES, DRAWS = 1_000, 10_000, 500_000_000


@dataclass(frozen=True)
class Group:
    """Finished runs of one row: one configuration, several seeds."""

    model: str
    kg: str
    folders: tuple[RunFolder, ...]
    without: str = ""
    setting: str = ""

    @property
    def said(self) -> str:
        """:attr:`setting`, and "told when" where evaluation told the model when the items asked for were taken."""
        told = self.folders[0].config.model.options.get("request_time") and "request_time" not in self.setting
        return ", ".join(filter(None, [self.setting, "told when" if told else ""]))

    @property
    def read_kg(self) -> str:
        """What its runs read of a knowledge graph: :attr:`kg`, but nothing where the data have no triples."""
        has_kg = any(folder.info.sizes["triples"] for folder in self.folders)
        return self.kg if has_kg or self.kg == "none" else ""


def metrics_of(config: RunConfig, tested: str | None) -> tuple[tuple[str, ...], str]:
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


def rows_of(groups: Sequence[Group], part: str, metrics: Sequence[str], tested: str, at: int) -> tuple[Row, ...]:
    """Return the rows of a table, each tested against the row ``at``."""
    values = [_values_of(group.folders, part) for group in groups]
    p_values = _test([value[tested] for value in values], at)
    return tuple(
        Row(
            group.model,
            group.read_kg,
            tuple(folder.config.seed for folder in group.folders),
            {metric: _figure(metric, group.folders, part, per_user) for metric in metrics},
            p_value,
            sum(folder.metrics["seconds"]["train"] for folder in group.folders) / len(group.folders),
            max(folder.metrics["peak_memory_mb"] for folder in group.folders),
            tuple(str(folder.path) for folder in group.folders),
            group.without,
            group.said,
        )
        for group, per_user, p_value in zip(groups, values, p_values, strict=True)
    )


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
