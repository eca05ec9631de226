"""Curves and intervals: a metric over epochs, against a quantity, between models, and precision against recall."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graphrec.errors import ArgumentError, RunError
from graphrec.experiment.pictures.style import (
    BLACK,
    BLUE,
    CYCLE,
    DASHES,
    GREY,
    MARKERS,
    SMALL,
    About,
    new_axes,
    open_frame,
    plain,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PR = "pr_curve@"


class HasInterval(Protocol):
    """A mean with its interval: :class:`~graphrec.experiment.report.Figure`, or an interval of the evaluation."""

    @property
    def mean(self) -> float:
        """The mean."""

    @property
    def low(self) -> float | None:
        """Lower end; ``None`` where no interval can be given."""

    @property
    def high(self) -> float | None:
        """Upper end."""


def learning_curves(
    runs: Mapping[str, str | Path | Sequence[Mapping[str, Any]]], metric: str, about: About, ax: Axes | None = None
) -> Axes:
    """Draw the loss or a validation metric over the epochs that select, a line a run; the best epoch is marked.

    Args:
        runs: By name: a run folder (its ``log.jsonl`` is read), or the records of a ``TrainResult``'s history.
        metric: ``"loss"``, or a metric that was measured on the validation part.
        about: Where the numbers come from.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: No run, or a run without a value of the metric; a closed form has no epochs.
        RunError: A folder has no log, or a damaged one.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> log = [{"phase": "select", "epoch": e, "loss": 1 / e, "valid": {"ndcg@20": 0.1 * e}} for e in (1, 2)]
        >>> ax = learning_curves({"KGAT": log}, "ndcg@20", About("films", "random, valid", 0))
        >>> ax.lines[0].get_xydata().tolist()
        [[1.0, 0.1], [2.0, 0.2]]
    """
    _check_some("runs", runs)
    ax = new_axes(ax, 4.0)
    for number, (name, run) in enumerate(runs.items()):
        points = _points(name, run, metric)
        epochs, values = zip(*points, strict=True)
        colour, dashes = CYCLE[number % len(CYCLE)], DASHES[number % len(DASHES)]
        ax.plot(epochs, values, color=colour, linestyle=dashes, linewidth=2, label=plain(name))
        if metric != "loss":
            epoch, value = max(points, key=lambda point: (point[1], -point[0]))
            ax.plot(epoch, value, MARKERS[number % len(MARKERS)], color=colour, markersize=8)
    ax.set_xlabel("epoch" if metric == "loss" else "epoch (marked: the best)", fontsize=SMALL)
    ax.set_ylabel("training loss" if metric == "loss" else f"{metric}, validation", fontsize=SMALL)
    ax.locator_params(axis="x", integer=True)
    if len(runs) > 1:
        ax.legend(frameon=False, fontsize=SMALL)
    open_frame(ax, grid="y")
    set_title(ax, "Training loss" if metric == "loss" else f"Learning curves: {metric}", about)
    return ax


def metric_curves(
    lines: Mapping[str, Mapping[float, HasInterval]],
    xlabel: str,
    metric: str,
    about: About,
    heading: str = "",
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric against a quantity, such as the length of a history or the share of data kept.

    Args:
        lines: By name: the mean and its interval at each value of the quantity.
        xlabel: What the quantity is, with its unit.
        metric: What was measured.
        about: Where the numbers come from.
        heading: The title; made of ``metric`` and ``xlabel`` when not given.
        log: Whether the quantity's axis is logarithmic.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: No line, or a line without points.
    """
    _check_some("lines", lines)
    ax = new_axes(ax, 4.2)
    places = sorted({x for line in lines.values() for x in line})
    for number, (name, line) in enumerate(lines.items()):
        _check_some(f"lines[{name!r}]", line)
        colour, dashes = CYCLE[number % len(CYCLE)], DASHES[number % len(DASHES)]
        xs = sorted(line)
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "marker": MARKERS[number % len(MARKERS)]}
        ax.plot(xs, [line[x].mean for x in xs], **style, linewidth=2, markersize=7, label=plain(name))
        bands = [(x, line[x].low, line[x].high) for x in xs]
        known = [(x, low, high) for x, low, high in bands if low is not None and high is not None]
        if known:
            at, lows, highs = zip(*known, strict=True)
            ax.fill_between(at, lows, highs, color=colour, alpha=0.15, linewidth=0)
    if log:
        ax.set_xscale("log")
    ax.set_xticks(places, [f"{x:g}" for x in places])
    ax.minorticks_off()
    if ax.get_ylim()[0] < 0:
        ax.axhline(0, color=BLACK, linewidth=0.8)
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlabel(xlabel, fontsize=SMALL)
    ax.set_ylabel(f"{metric}, with 95 % interval", fontsize=SMALL)
    ax.legend(frameon=False, fontsize=SMALL)
    open_frame(ax, grid="y")
    set_title(ax, heading or f"{metric} against {xlabel}", about)
    return ax


def metric_intervals(
    rows: Mapping[str, HasInterval],
    metric: str,
    about: About,
    heading: str = "",
    reference: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a mean with its interval a row, and the numbers beside them.

    Args:
        rows: By name of the model, from top to bottom.
        metric: What was measured.
        about: Where the numbers come from.
        heading: The title; the metric when not given.
        reference: The row through whose mean a dashed line goes.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: No row, or a reference that is none of them.
    """
    _check_some("rows", rows)
    if reference is not None and reference not in rows:
        raise ArgumentError(f"reference must be one of {', '.join(map(repr, rows))}, got {reference!r}")
    ax = new_axes(ax, 1.6 + 0.42 * len(rows))
    for place, row in enumerate(rows.values()):
        ax.plot(row.mean, place, "o", color=BLUE, markersize=7)
        if row.low is not None and row.high is not None:
            ax.hlines(place, row.low, row.high, color=BLUE, linewidth=2.5)
        # In a column of their own, where no interval covers them.
        where: dict[str, Any] = {"xy": (1.02, place), "xycoords": ("axes fraction", "data")}
        ax.annotate(f"{row.mean:.4f}", **where, va="center_baseline", fontsize=SMALL, annotation_clip=False)
    if reference is not None:
        ax.axvline(rows[reference].mean, color=GREY, linestyle="--", linewidth=1, zorder=0)
    ax.set_yticks(range(len(rows)), [plain(name) for name in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(f"{metric}, mean and 95 % interval", fontsize=SMALL)
    open_frame(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    set_title(ax, heading or metric, about)
    return ax


def precision_recall(
    models: Mapping[str, Mapping[str, float]], about: About, heading: str = "", ax: Axes | None = None
) -> Axes:
    """Draw interpolated precision at the levels of recall, a line a model.

    Args:
        models: By name: the metrics of an ``Evaluation`` that measured ``"pr_curve"``.
        about: Where the numbers come from.
        heading: The title; "Precision against recall" when not given.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: No model, or one whose metrics hold no ``pr_curve@LEVEL``.
    """
    _check_some("models", models)
    ax = new_axes(ax, 4.2)
    for number, (name, metrics) in enumerate(models.items()):
        points = sorted((float(key.removeprefix(PR)), value) for key, value in metrics.items() if key.startswith(PR))
        if not points:
            raise ArgumentError(f"models[{name!r}] holds no {PR}LEVEL; evaluate with Evaluator(['pr_curve'])")
        style: dict[str, Any] = {"color": CYCLE[number % len(CYCLE)], "linestyle": DASHES[number % len(DASHES)]}
        marker = MARKERS[number % len(MARKERS)]
        ax.plot(*zip(*points, strict=True), **style, marker=marker, linewidth=2, markersize=6, label=plain(name))
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("recall", fontsize=SMALL)
    ax.set_ylabel("interpolated precision", fontsize=SMALL)
    ax.legend(frameon=False, fontsize=SMALL)
    open_frame(ax, grid="both")
    set_title(ax, heading or "Precision against recall", about)
    return ax


def _points(name: str, run: str | Path | Sequence[Mapping[str, Any]], metric: str) -> list[tuple[int, float]]:
    records = _read_log(Path(run)) if isinstance(run, str | Path) else run
    points = []
    for record in records:
        if record["phase"] == "select" and record["loss"] is not None:
            value = record["loss"] if metric == "loss" else (record["valid"] or {}).get(metric)
            if value is not None:
                points.append((record["epoch"], value))
    if not points:
        measured = sorted({key for record in records for key in record["valid"] or {}})
        allowed = ", ".join(map(repr, ["loss", *measured]))
        raise ArgumentError(f"runs[{name!r}] has no epochs with {metric!r}; it measured {allowed}")
    return points


def _read_log(folder: Path) -> list[dict[str, Any]]:
    path = folder / "log.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: the log cannot be read: {error}") from error


def _check_some(name: str, values: Mapping[Any, Any]) -> None:
    if not values:
        raise ArgumentError(f"{name} must hold at least one, got none")
