"""compare_runs: runs that are finished, with intervals and paired tests; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from graphrec.errors import ConfigError, RunError
from graphrec.experiment.comparison_rows import Group, metrics_of, rows_of
from graphrec.experiment.config import RunConfig, differences, first_difference, reads_kg
from graphrec.experiment.files import make_folder
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.report import Table


def compare_runs(
    paths: Sequence[str | Path], versus: str | Path | None = None, metric: str | None = None, out: Path | None = None
) -> Table:
    """Return the table of runs that are finished, with intervals and paired tests; nothing is trained.

    Runs of one configuration but for the seed make one row. The test part is measured where all runs have it, else the
    validation part, which needs runs without a refit (``--train.refit false``).

    Args:
        paths: The run folders, at least two.
        versus: The run whose row the others are tested against; the last of ``paths`` when not given.
        metric: The metric of the test; when not given as in :func:`~graphrec.experiment.comparison.compare`, by the
            reference's configuration.
        out: Where the table goes, if anywhere.

    Raises:
        ConfigError: Fewer than two runs, runs of other data, splits or evaluations than the reference's, or two of one
            configuration and seed.
        RunError: A folder holds no finished run, or runs have no part in common on which all were measured.
    """
    chosen = Path(versus if versus is not None else paths[-1] if paths else "").resolve()
    named = {Path(path).resolve(): Path(path) for path in paths}  # a folder is one run, however it is spelled
    if len(named) < 2:
        raise ConfigError(f"a comparison of runs takes at least two, got {len(named)}")
    if chosen not in named:
        shown = ", ".join(map(str, named.values()))
        raise ConfigError(f"versus must be one of the compared runs {shown}, got {str(versus)!r}")
    folders = [RunFolder.open(path) for path in named.values()]
    reference = folders[list(named).index(chosen)]
    for folder in folders:
        _check_same_question(folder, reference)
    part = "test" if all("test" in folder.metrics for folder in folders) else "valid"
    _check_same_users(folders, part)
    alike: dict[str, list[RunFolder]] = {}
    for folder in folders:
        group = alike.setdefault(replace(folder.config, seed=0, out=None).hash, [])
        _check_other_seed(folder, group)
        group.append(folder)
    groups = _named([tuple(group) for group in alike.values()])
    at = next(i for i, group in enumerate(groups) if reference in group.folders)
    metrics, tested = metrics_of(reference.config, metric)
    rows = rows_of(groups, part, metrics, tested, at)
    split = reference.config.data.split or ""
    table = Table(reference.config.data.name, split, part, metrics, rows, tested, rows[at].label)
    if out is not None:
        make_folder(out, f"the folder --out {out}")
        table.save(out)
    return table


def _check_other_seed(folder: RunFolder, group: Sequence[RunFolder]) -> None:
    """Make sure that no seed counts twice: an interval over seeds would be as narrow as if all seeds agreed."""
    for other in group:
        seed = folder.config.seed
        if other.config.seed == seed:
            raise ConfigError(
                f"{other.path} and {folder.path} are one configuration with one seed, {seed}; leave one out"
            )


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
            selected = "" if folder.config.train.select else "--train.select true "
            raise RunError(
                f"{folder.path} was fitted to the validation part as well, and not all runs have a test part; "
                f"train it with {selected}--train.refit false to compare it there"
            )
        users, _ = folder.per_user(part)
        first = users if first is None else first
        if not torch.equal(users, first):
            raise RunError(f"{folder.path} and {folders[0].path} were measured on other users: the data have changed")


def _named(groups: Sequence[tuple[RunFolder, ...]]) -> list[Group]:
    """Name each row by its model and knowledge graph.

    Where that names several, each but the first also by settings in which it differs from the first: by one where that
    tells it from the others, else by as many as it takes.
    """
    firsts: dict[tuple[str, str], RunConfig] = {}
    changed: list[tuple[str, str, list[str]]] = []
    for group in groups:
        config = group[0].config
        kg = config.data.kg if reads_kg(config.model) else ""
        first = firsts.setdefault((config.model.name, kg), config)
        found = differences(first.to_dict(), replace(config, seed=first.seed, out=first.out).to_dict())
        changed.append((config.model.name, kg, [f"{setting} {value}" for setting, _, value in found]))
    named = []
    for i, ((model, read, settings), group) in enumerate(zip(changed, groups, strict=True)):
        others = [row[2] for j, row in enumerate(changed) if j != i and row[:2] == (model, read)]
        starts = (settings[:count] for count in range(1, len(settings)))
        said = next((some for some in starts if all(other[: len(some)] != some for other in others)), settings)
        named.append(Group(model, read, group, setting=", ".join(said)))
    return named
