"""Tuning: search settings with Optuna, on the validation part alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

import graphrec
from graphrec.errors import ArgumentError, ConfigError, DivergedError, RunError, check_choice
from graphrec.experiment.build import build_evaluator, build_model
from graphrec.experiment.catalogue import FLAGSHIP, read_yaml
from graphrec.experiment.config import RunConfig, simplified
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.files import make_folder, write_text
from graphrec.experiment.reading import read_options, take_option
from kg_loaders.graph import SPLITS, RecGraph

if TYPE_CHECKING:
    import optuna

STUDY, BEST, TRIALS = "study.db", "best.yaml", "trials.tsv"
# What a trial's figure is and of whom, which must be one for all; and what no trial does.
OF_ALL_TRIALS = ("train.select_by", "train.valid_users", "train.select", "train.refit")


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Args:
        name: As on the command line: ``"model.dim"``, ``"train.learning_rate"``.
        choices: Its values; or else
        low: its least
        high: and its largest value, integers if both are,
        log: on a logarithmic scale,
        step: in steps.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    @classmethod
    def read(cls, name: str, settings: Any, source: str) -> Dimension:
        """Read one entry of a search space.

        Raises:
            ConfigError: It is neither a list of choices nor a range, no setting of one model or its training, or one
                that has to be the same in all trials.
        """
        where = f"{source}: {name}"
        if name.partition(".")[0] not in ("model", "train"):
            raise ConfigError(f"{where}: only settings of model and train can be searched")
        if name == "model.name":
            raise ConfigError(f"{where}: one model is searched at a time; name it with --model")
        if name in OF_ALL_TRIALS:
            raise ConfigError(
                f"{where}: cannot be searched: trials are compared by one metric of the same users; none is refitted"
            )
        if isinstance(settings, Sequence) and not isinstance(settings, str) and len(settings):
            return cls(name, choices=tuple(settings))
        if not isinstance(settings, Mapping) or not {"low", "high"} <= set(settings):
            raise ConfigError(f"{where}: must be a list of choices or a mapping with low and high, got {settings!r}")
        for key in settings:
            check_choice(f"{where}", str(key), ("low", "high", "log", "step"), ConfigError)
        low, high, log, step = settings["low"], settings["high"], settings.get("log", False), settings.get("step")
        if not (_is_number(low) and _is_number(high)):
            raise ConfigError(f"{where}: low and high must be numbers, got {low!r} and {high!r}")
        if low >= high:
            raise ConfigError(f"{where}: low must be below high, got {low!r} and {high!r}")
        if not isinstance(log, bool):
            raise ConfigError(f"{where}: log must be true or false, got {log!r}")
        if log and low <= 0:
            raise ConfigError(f"{where}: low must be above 0 on a logarithmic scale, got {low!r}")
        if log and step is not None:
            raise ConfigError(f"{where}: log and step do not go together, got step {step!r}")
        in_integers = isinstance(low, int) and isinstance(high, int)
        if step is not None and not (_is_number(step) and step > 0 and (isinstance(step, int) or not in_integers)):
            kind = "an integer" if in_integers else "a number"
            raise ConfigError(f"{where}: step must be {kind} above 0, got {step!r}")
        return cls(name, low=low, high=high, log=log, step=step)

    def suggest(self, trial: optuna.Trial) -> Any:
        """Draw a value."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Args:
        best: Settings by name.
        value: ``train.select_by`` on the validation part.
        metric: That metric.
        num_trials: Trials so far, those of earlier calls included.
        folder: Where ``study.db``, ``trials.tsv`` and ``best.yaml`` are.
    """

    best: dict[str, Any]
    value: float
    metric: str
    num_trials: int
    folder: Path


def spaces_root() -> Path:
    """Return the folder of the committed search spaces; see :func:`~graphrec.experiment.catalogue.configs_root`."""
    package = Path(graphrec.__file__).parent
    packed = package / "search_spaces"
    return packed if packed.is_dir() else package.parent / "scripts" / "search_spaces"


def read_space(path: Path) -> list[Dimension]:
    """Read a search space.

    Raises:
        ConfigError: The file cannot be read, is empty, or an entry is wrong.
    """
    found = [Dimension.read(name, settings, str(path)) for name, settings in read_yaml(path).items()]
    if not found:
        raise ConfigError(f"{path}: names no setting to search")
    return found


def find_space(dataset: str, model: str) -> Path:
    """Return the committed search space of a model: for the data set, or else for all.

    Raises:
        ConfigError: There is none.
    """
    for folder in (Path(dataset).name, "any"):
        for path in sorted((spaces_root() / folder).glob("*.yaml")):
            if simplified(path.stem) == simplified(model):
                return path
    raise ConfigError(f"there is no committed search space of {model}; give one with --space FILE.yaml")


def tune(
    data: str,
    options: Sequence[str] = (),
    space: Path | None = None,
    trials: int = 20,
    out: Path | None = None,
    graph: RecGraph | None = None,
    quiet: bool = False,
) -> Tuned:
    """Search the settings of a model, each trial a selection on the validation part. The test part is not loaded.

    Trials draw by Optuna's TPE sampler; one that lies below the median of the others at the same epoch is given up, and
    so is one whose training diverges. The study is kept in ``out``: the same call goes on where an interrupted one
    stopped.

    Args:
        data: Name or folder of the data set.
        options: Settings that stay, as on the command line: ``["--model", "EASE", "--train.epochs", "10"]``; of the
            flagship when they name no model.
        space: File of the search space; the committed one when not given.
        trials: How many trials the study shall have, those of earlier calls included; at least 1.
        out: Where the study goes; ``runs/<data set>/tune-<model>`` when not given.
        graph: The data set, where it has been read already.
        quiet: Show no progress.

    Raises:
        ConfigError: A wrong setting or search space, or one setting in both.
        ArgumentError: Optuna is not installed, or ``trials`` is below 1.
        RunError: ``out`` holds a study of other settings or another search space, or all trials diverged.
    """
    if trials < 1:
        raise ArgumentError(f"trials must be >= 1, got {trials}")
    try:
        import optuna
    except ImportError as error:
        raise ArgumentError(f"tuning needs Optuna: pip install 'graphrec[tune]' ({error})") from None
    if take_option(options, "model", "model.name")[1] is None and take_option(options, "config")[1] is None:
        options = ["--model", FLAGSHIP, *options]
    base = read_options(options, data).config
    path = space or find_space(data, base.model.name)
    dimensions = read_space(path)
    _check_apart(dimensions, options, path)
    graph = load_graph(base.data) if graph is None else graph
    base = resolve(base, graph)
    folder = out or Path("runs") / Path(data).name / f"tune-{base.model.name.lower()}"
    make_folder(folder, f"the folder --out {folder}")
    visible = _without_test(prepare(graph, base))

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would show the traceback of an interruption
    study = optuna.create_study(
        study_name=f"{base.data.name} {base.model.name}",
        storage=f"sqlite:///{folder / STUDY}",
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        load_if_exists=True,
    )
    # Another seed for every number of trials done: one that starts again would draw what an earlier call drew.
    study.sampler = optuna.samplers.TPESampler(seed=base.seed + len(study.trials))
    asked = {"settings": base.hash, "space": path.read_text(encoding="utf-8"), "graph": visible.fingerprint}
    if study.trials and study.user_attrs != asked:
        what = "other settings or data, or another search space"
        raise RunError(f"{folder} holds a study of {what}; choose another --out")
    for name, value in asked.items():
        study.set_user_attr(name, value)

    def objective(trial: optuna.Trial) -> float:
        drawn = {dimension.name: dimension.suggest(trial) for dimension in dimensions}
        given = [part for name, value in drawn.items() for part in (f"--{name}", _exact(value))]
        config = resolve(read_options([*options, *given], data).config, visible)
        shown = ", ".join(f"{name} = {_short(setting)}" for name, setting in drawn.items())
        try:
            value = _measure(config, visible, trial)
        except DivergedError as error:  # of such settings no more need be known; the next trial may be the best
            if not quiet:
                print(f"trial {trial.number + 1}: given up: {error}  {shown}", file=sys.stderr, flush=True)
            raise optuna.TrialPruned from error
        if not quiet:
            print(
                f"trial {trial.number + 1}: {config.train.select_by} {value:.4f}  {shown}", file=sys.stderr, flush=True
            )
        return value

    states = [trial.state for trial in study.trials]  # an interrupted trial counts as failed, and is made up for
    left = trials - sum(state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED) for state in states)
    if left > 0:
        study.optimize(objective, n_trials=left)
    _save(study, folder, base, path)
    return Tuned(study.best_params, study.best_value, base.train.select_by, len(study.trials), folder)


def _check_apart(dimensions: Sequence[Dimension], options: Sequence[str], space: Path) -> None:
    """Make sure that no setting is both searched and given: every trial would put a value of the space in its place."""
    for name in (dimension.name for dimension in dimensions):
        value = take_option(options, name)[1]
        if value is not None:
            raise ConfigError(f"--{name} {value} is given, but {space} searches {name}; leave it out of one of the two")


def _measure(config: RunConfig, graph: RecGraph, trial: optuna.Trial) -> float:
    """Train one trial and return its best validation figure."""
    import optuna

    from graphrec.models.base import GradientRecommender
    from graphrec.training import Trainer

    def report(record: dict[str, Any]) -> None:
        if record["valid"] is None:
            return
        trial.report(record["valid"][config.train.select_by], record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    trainer = Trainer(config.train.without_refit(), seed=config.seed, quiet=True)
    model = build_model(config, graph)
    # The values that a closed form tries are no learning curve: the last may be the best.
    curve = report if isinstance(model, GradientRecommender) else None
    return trainer.fit(model, graph, build_evaluator(config), on_record=curve).best_value


def _without_test(graph: RecGraph) -> RecGraph:
    codes = graph.interactions.split
    assert codes is not None, "prepared graphs are split"
    return replace(graph, interactions=graph.interactions[np.flatnonzero(codes != SPLITS.index("test"))])


def _exact(value: Any) -> str:
    """Return a setting as the command line takes it, to the last digit: ``best.yaml`` holds what was trained."""
    return repr(value) if isinstance(value, float) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _save(study: optuna.Study, folder: Path, base: RunConfig, space: Path) -> None:
    """Write all trials as a table, and the best as settings for ``graphrec train --config``.

    Raises:
        RunError: No trial came to its end.
    """
    names = sorted({name for trial in study.trials for name in trial.params})
    rows = [["trial", "state", base.train.select_by, *names]]
    for trial in study.trials:
        value = "" if trial.value is None else f"{trial.value:.6f}"
        rows.append(
            [
                str(trial.number + 1),
                trial.state.name.lower(),
                value,
                *(str(trial.params.get(name, "")) for name in names),
            ]
        )
    write_text(folder / TRIALS, "".join("\t".join(row) + "\n" for row in rows))
    if all(trial.state.name != "COMPLETE" for trial in study.trials):
        raise RunError(
            f"none of {len(study.trials)} trials came to its end, see {folder / TRIALS}; search lower learning rates, "
            "or set --train.clip_norm"
        )
    settings = base.to_dict()
    for name, value in study.best_params.items():
        section, _, key = name.partition(".")
        settings[section][key] = value
    head = (
        f"# The best of {len(study.trials)} trials over {space.name}: "
        f"{base.train.select_by} {study.best_value:.4f} on the validation part.\n"
    )
    write_text(folder / BEST, head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
