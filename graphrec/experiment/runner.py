"""run: from a configuration to a finished run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from graphrec.evaluation import Evaluation, Evaluator
from graphrec.experiment.build import build_evaluator, build_model
from graphrec.experiment.config import RunConfig, reads_kg
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.run_info import current_commit
from graphrec.models.base import Recommender
from graphrec.process import return_freed_memory
from graphrec.training import TensorBoardWriter, Trainer, TrainResult, tensorboard_installed
from graphrec.training.weights_and_biases import WandbWriter, check_wandb
from kg_loaders import RecGraph
from kg_loaders.benchmarks import BENCHMARKS
from kg_loaders.textio import NOT_READ

RUNS = Path("runs")  # where runs go that were not told


def run(
    config: RunConfig,
    out: Path | None = None,
    graph: RecGraph | None = None,
    quiet: bool = False,
    wandb: str | None = None,
) -> RunFolder:
    """Train, measure and save one run; continue it if its folder holds a part of it; return it if it is finished.

    Args:
        config: What to run; open choices are made by :func:`~graphrec.experiment.data.resolve`.
        out: The run folder; ``config.out`` or one named after the configuration when not given.
        graph: The data set, where it has been read already; it is split here.
        quiet: Show no progress.
        wandb: Project of Weights & Biases to write the training to as well; see :class:`WandbWriter`.

    Raises:
        ConfigError: The configuration does not fit the data, or the extra ``wandb`` is asked for and missing.
        RunError: The folder holds another run.
        Interrupted: SIGINT or SIGTERM came; the same call resumes.
    """
    if wandb is not None:
        check_wandb()
    graph = load_graph(config.data) if graph is None else graph
    config = resolve(config, graph)
    graph = prepare(graph, config)
    folder = RunFolder.start(out or default_out(config), config, graph)
    if folder.finished:
        if not quiet and folder.info.commit != current_commit():
            made_by = folder.info.commit or "an installed package"
            print(f"{folder.path} was finished by {made_by}; delete it to train again", file=sys.stderr)
        return folder.tidy()
    if not quiet and _lacks_kg(config, graph):
        unread = ", ".join(reason for reason in graph.dropped if reason.startswith(NOT_READ))
        why = f" ({unread})" if unread else ""
        print(f"{graph.name} has no triples{why}: {config.model.name} learns without them", file=sys.stderr)
    reset_peak_memory()
    model, evaluator = build_model(config, graph), build_evaluator(config)
    writer = None if wandb is None else WandbWriter(folder.path, wandb, config.to_dict())
    with training_log(folder.path, writer) as on_record:
        trainer = Trainer(config.train, seed=config.seed, quiet=quiet)
        result = trainer.fit(model, graph, evaluator, run_dir=folder.path, on_record=on_record)
    measured = measure(model, graph, evaluator, refitted=config.train.refit)
    return folder.finish(model, summary(result, measured), {s: (e.users, e.per_user) for s, e in measured.items()})


def default_out(config: RunConfig) -> Path:
    """Return ``runs/<data set>/<model>-seed<seed>-<hash>``: equal configurations share a folder, others do not."""
    return Path(config.out) if config.out else RUNS / Path(config.data.name).name / config.label


def _lacks_kg(config: RunConfig, graph: RecGraph) -> bool:
    """Whether a model goes without the knowledge graph that it asks for, which in a folder may be a misnamed file."""
    wanted = config.data.kg == "full" and reads_kg(config.model)
    return wanted and not graph.num_triples and config.data.name not in BENCHMARKS


def measure(model: Recommender, graph: RecGraph, evaluator: Evaluator, refitted: bool) -> dict[str, Evaluation]:
    """Evaluate a fitted model on every part that it has not seen: test, and validation unless it was refitted."""
    measured = {}
    if not refitted:
        measured["valid"] = evaluator.evaluate(model, graph, split="valid")
    if graph.has_split("test"):
        measured["test"] = evaluator.evaluate(model, graph, split="test")
    return measured


def summary(result: TrainResult, measured: dict[str, Evaluation]) -> dict[str, Any]:
    """Return what ``metrics.json`` holds: valid as of the selection and test if there is one, seconds, and more."""
    # All users, where the final model has not been told their validation items; else as while selecting.
    valid = measured["valid"].metrics if "valid" in measured else result.valid
    content: dict[str, Any] = {"valid": valid} if valid else {}
    if "test" in measured:
        content["test"] = measured["test"].metrics
    spent = result.seconds
    train = sum(seconds for phase, seconds in spent.items() if phase != "evaluate")
    content["seconds"] = {"train": train, **spent, **{part: e.seconds for part, e in measured.items()}}
    content["skipped_users"] = {part: evaluation.num_skipped for part, evaluation in measured.items()}
    content |= {"best_epoch": result.best_epoch, "num_epochs": result.num_epochs, "chosen": result.chosen}
    content["peak_memory_mb"] = peak_memory_mb()
    return content


@contextmanager
def training_log(folder: Path, writer: WandbWriter | None = None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that writes training records to ``log.jsonl``, to TensorBoard if installed, and to ``writer``.

    A resumed run hands out its earlier records again, so all are written anew. The writer is closed at the end.
    """
    with ExitStack() as stack:
        if writer is not None:
            stack.callback(writer.close)
        log = stack.enter_context((folder / "log.jsonl").open("w", encoding="utf-8"))
        board = stack.enter_context(TensorBoardWriter(folder / "tensorboard")) if tensorboard_installed() else None

        def write(record: dict[str, Any]) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()
            for other in (board, writer):
                if other is not None:
                    other.write(record)

        yield write


def reset_peak_memory() -> None:
    """Start counting :func:`peak_memory_mb` anew, without what earlier runs freed, where the system can."""
    return_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # elsewhere the peak counts from the start of the process


def peak_memory_mb() -> float:
    """Return the highest resident memory of this process, in megabytes of 10^6 bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kib = peak // 1024 if sys.platform == "darwin" else peak
    return round(kib * 1024 / 1e6, 1)
