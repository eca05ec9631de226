"""Tables and plots of compared runs: console, Markdown, CSV, and a metric with its interval."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from graphrec.errors import ArgumentError, check_choice
from graphrec.experiment.files import write, write_text
from graphrec.experiment.pictures.style import BLUE, GREEN, GREY, ORANGE

COLOURS = {"full": BLUE, "none": ORANGE, "shuffled": GREEN, "": GREY}
KG_NAMES = {"full": "with KG", "none": "no KG", "shuffled": "shuffled KG", "": "uses no KG"}

PLOT_DPI = 150


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval.

    Args:
        mean: The mean.
        low: Lower end of the interval; ``None`` where none can be given.
        high: Its upper end.
    """

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return _number(self.mean)
        return f"{_number(self.mean)} [{_number(self.low)}, {_number(self.high)}]"


@dataclass(frozen=True)
class Row:
    """One model of a comparison, over its seeds.

    Args:
        model: Name of the model.
        kg: "full", "none" or "shuffled"; empty for a model that reads no knowledge graph.
        seeds: The seeds of its runs.
        figures: By metric.
        p_value: Of the paired test against the reference row, after Holm; ``None`` for the reference itself.
        seconds: Mean seconds to train.
        peak_memory_mb: Highest memory of its runs.
        runs: Its run folders.
        without: The part of the model that is left out; empty where it is whole.
        setting: What tells it from another row of the same model; empty where nothing needs to.
    """

    model: str
    kg: str
    seeds: tuple[int, ...]
    figures: Mapping[str, Figure]
    p_value: float | None
    seconds: float
    peak_memory_mb: float
    runs: tuple[str, ...] = ()
    without: str = ""
    setting: str = ""

    @property
    def label(self) -> str:
        """How the row is called."""
        if self.without:
            return f"{self.model}, without {self.without}"
        name = f"{self.model}, {KG_NAMES[self.kg]}" if self.kg else self.model
        return f"{name} ({self.setting})" if self.setting else name


@dataclass(frozen=True)
class Table:
    """A comparison, ready to be shown.

    Args:
        data: Name of the data set.
        split: How it was split.
        part: What was measured: "test", or "valid" where there is no test part.
        metrics: The columns, in order.
        rows: One a model.
        tested: The metric of the paired test.
        reference: Label of the row that the others are tested against.

    Example:
        >>> row = Row("EASE", "", (0,), {"recall@20": Figure(0.25, 0.2, 0.3)}, None, 1.5, 200.0)
        >>> print(Table("films", "random", "test", ("recall@20",), (row,), "recall@20", "EASE").to_markdown())
        films, split random, test part, 95 % intervals; p: paired test of recall@20 against EASE, Holm over the rows.
        <BLANKLINE>
        | model | seeds | recall@20 | p | seconds | peak MB |
        |---|---:|---:|---:|---:|---:|
        | EASE | 1 | 0.2500 [0.2000, 0.3000] | | 1.5 | 200 |
        <BLANKLINE>
    """

    data: str
    split: str
    part: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    tested: str
    reference: str

    @property
    def caption(self) -> str:
        """What the figures are, in one sentence."""
        return (
            f"{self.data}, split {self.split}, {self.part} part, 95 % intervals; "
            f"p: paired test of {self.tested} against {self.reference}, Holm over the rows."
        )

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return ["model", "seeds", *self.metrics, "p", "seconds", "peak MB"]

    def cells(self) -> list[list[str]]:
        """Return the rows as text."""
        return [
            [
                row.label,
                str(len(row.seeds)),
                *(str(row.figures[metric]) if metric in row.figures else "" for metric in self.metrics),
                "" if row.p_value is None else _p_value(row.p_value),
                f"{row.seconds:.1f}",
                f"{row.peak_memory_mb:.0f}",
            ]
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        """Return caption and table as Markdown."""
        lines = [self.caption, "", _markdown_row(self.header), "|---|" + "---:|" * (len(self.header) - 1)]
        return "\n".join([*lines, *map(_markdown_row, self.cells())]) + "\n"

    def to_csv(self) -> str:
        """Return one line a row with full precision; a metric takes three columns: mean, low, high."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ends = [f"{metric}{end}" for metric in self.metrics for end in ("", " low", " high")]
        which = ["data", "split", "part", "model", "kg", "without", "setting", "seeds"]
        writer.writerow([*which, *ends, "p", "seconds", "peak_memory_mb"])
        for row in self.rows:
            figures = [row.figures.get(metric, Figure(math.nan)) for metric in self.metrics]
            values = [value for figure in figures for value in (figure.mean, figure.low, figure.high)]
            seeds = " ".join(map(str, row.seeds))
            numbers = [*values, row.p_value, row.seconds, row.peak_memory_mb]
            table = [self.data, self.split, self.part]
            writer.writerow([*table, row.model, row.kg, row.without, row.setting, seeds, *numbers])
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values."""
        rows = [
            {
                "model": row.model,
                "kg": row.kg,
                "without": row.without,
                "setting": row.setting,
                "seeds": list(row.seeds),
                "figures": {name: [f.mean, f.low, f.high] for name, f in row.figures.items()},
                "p_value": row.p_value,
                "seconds": row.seconds,
                "peak_memory_mb": row.peak_memory_mb,
                "runs": list(row.runs),
            }
            for row in self.rows
        ]
        about = {"data": self.data, "split": self.split, "part": self.part}
        return {**about, "tested": self.tested, "reference": self.reference, "rows": rows}

    def show(self, stream: TextIO | None = None) -> None:
        """Print the table: drawn on a terminal, plain lines when piped."""
        print_table(self.header, self.cells(), self.caption, stream)

    def save(self, folder: Path) -> list[Path]:
        """Write ``table.csv``, ``table.md`` and, with matplotlib, ``table.png``; return what was written."""
        write_text(folder / "table.csv", self.to_csv())
        write_text(folder / "table.md", self.to_markdown())
        written = [folder / "table.csv", folder / "table.md"]
        try:
            import matplotlib  # noqa: F401 - whether the extra is there
        except ImportError:
            return written
        self.plot(folder / "table.png")
        return [*written, folder / "table.png"]

    def plot(self, path: Path, metrics: Sequence[str] | None = None) -> None:
        """Draw each row's mean with its interval, a panel a metric.

        Args:
            path: A picture file; its suffix decides the format.
            metrics: The panels; the tested metric when not given.

        Raises:
            ArgumentError: A metric is not in the table, or matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure as Canvas
            from matplotlib.layout_engine import ConstrainedLayoutEngine
        except ImportError as error:
            raise ArgumentError("a plot needs matplotlib: pip install 'graphrec[plots]'") from error
        shown = [self.tested] if metrics is None else list(metrics)
        for metric in shown:
            check_choice("metric", metric, self.metrics)
        size = (2.6 + 4.4 * len(shown), 1.5 + 0.34 * len(self.rows))
        canvas = Canvas(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        FigureCanvasAgg(canvas)
        panels = canvas.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, shown, strict=True):
            self._draw(panel, metric)
        panels[0].set_yticks(range(len(self.rows)), [row.label for row in self.rows])
        panels[0].set_ylim(len(self.rows) - 0.5, -0.5)
        name = Path(self.data).name.replace("$", r"\$")  # not mathematics
        canvas.suptitle(f"Models on {name}", x=0.02, ha="left", fontsize=13, fontweight="bold")
        seeds = ", ".join(map(str, sorted({seed for row in self.rows for seed in row.seeds})))
        about = f"{self.part} part, split {self.split}, seeds {seeds}: mean and 95 % interval"
        canvas.supxlabel(f"{about}; dashed: {self.reference}", x=0.02, ha="left", fontsize=8, color="#555555")
        kind = path.suffix[1:] or "png"
        write(path, lambda partial: canvas.savefig(partial, format=kind, dpi=PLOT_DPI))

    def _draw(self, panel: Any, metric: str) -> None:
        for height, row in enumerate(self.rows):
            figure = row.figures.get(metric)
            if figure is None:
                continue
            colour = COLOURS[row.kg]
            panel.plot(figure.mean, height, "o", color=colour)
            if figure.low is not None and figure.high is not None:
                panel.hlines(height, figure.low, figure.high, color=colour, linewidth=2)
            # In a column of their own, where no interval covers them.
            place = {"xy": (1.02, height), "xycoords": ("axes fraction", "data")}
            style = {"va": "center_baseline", "fontsize": 9, "color": colour}
            panel.annotate(_number(figure.mean), **place, **style, annotation_clip=False)
            if row.label == self.reference:
                panel.axvline(figure.mean, color=colour, linestyle="--", linewidth=0.8, zorder=0)
        panel.set_title(metric, loc="left", fontsize=10)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", alpha=0.3)


def print_table(
    header: Sequence[str], cells: Sequence[Sequence[str]], caption: str = "", stream: TextIO | None = None
) -> None:
    """Print a table: drawn by rich on a terminal, plain aligned columns when piped.

    Where a terminal is too narrow for all columns, they come in several tables, so that no cell is cut.

    Args:
        header: Names of the columns; the first is aligned left, the others right.
        cells: Rows of text.
        caption: Printed above.
        stream: Standard output when not given.
    """
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        if caption:
            print(caption, file=stream)
        for line in plain_table(header, cells):
            print(line, file=stream)
        return
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console(file=stream, markup=False, highlight=False)
    for number, columns in enumerate(_columns_that_fit(header, cells, console.width)):
        drawn = Drawn(title=caption if caption and not number else None, title_justify="left")
        for column in columns:
            drawn.add_column(header[column], justify="right" if column else "left")
        for row in cells:
            drawn.add_row(*(row[column] for column in columns))
        console.print(drawn)


def _columns_that_fit(header: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Share the columns out among tables of at most ``width`` characters, each with the first column and one more."""
    widths = [len(max(column, key=len)) + len(" │ ") for column in zip(header, *cells, strict=True)]
    tables, left = [[0]], width - len("│") - widths[0]
    for column in range(1, len(header)):
        if widths[column] > left and len(tables[-1]) > 1:
            tables.append([0])
            left = width - len("│") - widths[0]
        tables[-1].append(column)
        left -= widths[column]
    return tables


def plain_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as aligned lines of text.

    Example:
        >>> plain_table(["model", "auc"], [["EASE", "0.9"]])
        ['model  auc', 'EASE   0.9']
    """
    rows = [list(header), *map(list, cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _markdown_row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
