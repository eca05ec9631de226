"""draw_explanation: a picture of what a recommendation leans on."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphrec.errors import ArgumentError
from graphrec.serving.explain import NO_HISTORY, NOTHING, Explanation, percent

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#555555"  # apart for colour-blind eyes, too
DARK_ORANGE = "#8a5a00"  # for words: orange ones are hard to read on white
CHARACTERS_A_LINE = 54
WIDTH, LINE, GAP, HEAD, TOP = 10.0, 0.19, 0.18, 0.66, 0.85  # inches
LABELS, BARS = 0.46, 0.42  # where the labels end and how long the longest bar is, of the width
POPULAR = f"{NOTHING}: it is popular"
HOW = {
    "leave-one-out": "the fall of the score without it,",
    "contributions": "its summand of the score,",
    "attention": "the model's attention to it,",
}


@dataclass(frozen=True)
class _Panel:
    heading: str
    note: str
    colour: str
    ink: str
    rows: Sequence[tuple[list[str], float]]  # lines of the label, and the share

    @property
    def height(self) -> float:
        return HEAD + sum(LINE * len(lines) + GAP for lines, _ in self.rows)


SUFFIXES = (".png", ".svg")


def check_picture(path: Path) -> None:
    """Make sure that a picture of this name can be drawn, before any work is done.

    Raises:
        ArgumentError: The suffix is neither ``.png`` nor ``.svg``, there is no such folder, or matplotlib is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"picture must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ArgumentError("a picture needs matplotlib: pip install 'graphrec[plots]'")
    if not path.parent.is_dir():
        raise ArgumentError(f"picture: there is no folder {str(path.parent)!r}")


def draw_explanation(explanation: Explanation, path: Path, who: str) -> None:
    """Save a picture with the past items' shares above and those of the paths through the KG below.

    Args:
        explanation: What to draw.
        path: The file; its ending (``.png``, ``.svg``) chooses the format.
        who: The user's name for the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(explanation)
    title = textwrap.wrap(f"Why {explanation.title}?", 60)
    top = TOP + 0.3 * (len(title) - 1)
    height = top + sum(panel.height for panel in panels)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 1), ylim=(height, 0))
    axis.axis("off")
    _write(axis, 0.025, 0.2, "\n".join(title), fontsize=17, fontweight="bold")
    _write(axis, 0.025, top - 0.32, f"recommended to {who}", fontsize=11, color=GREY)
    for panel in panels:
        _draw(axis, panel, top)
        top += panel.height
    figure.savefig(path, dpi=130)


def _panels(explanation: Explanation) -> list[_Panel]:
    past = [(_wrap(item.title), item.share) for item in explanation.past if item.share > 0]
    whole = "of the attention" if explanation.method == "attention" else "of all that speaks for it"
    note = f"{HOW.get(explanation.method, '')} in % {whole}; those shown are {percent(sum(share for _, share in past))}"
    nothing = NO_HISTORY if explanation.method == "none" else POPULAR if explanation.base > 0 else NOTHING
    panels = [_Panel("What you took before", note if past else nothing, BLUE, BLUE, past)]
    if explanation.paths:
        strengths = [path.attention if path.effect is None else path.effect for path in explanation.paths]
        most = max(strengths)
        note = "the model's attention along the path, in % of the largest shown; the most telling paths first"
        if explanation.paths[0].effect is not None:
            # A history may add nothing as a whole, where some of it speaks against the item.
            most = max(most, explanation.score - explanation.base)
            note = "the fall of the score without the path, in % of all that your history adds to it"
        shares = [strength / most for strength in strengths]
        rows = [(_wrap(str(path)), share) for path, share in zip(explanation.paths, shares, strict=True)]
        panels.append(_Panel("What the knowledge graph says", note, ORANGE, DARK_ORANGE, rows))
    return panels


def _draw(axis: Any, panel: _Panel, top: float) -> None:
    _write(axis, 0.025, top + 0.1, panel.heading, fontsize=12, fontweight="bold", color=panel.ink)
    _write(axis, 0.025, top + 0.33, panel.note, fontsize=9, color=GREY)
    longest = max((share for _, share in panel.rows), default=1.0)
    top += HEAD
    for lines, share in panel.rows:
        height = LINE * len(lines)
        middle = top + height / 2
        label = _plain("\n".join(lines))
        axis.text(LABELS, middle, label, fontsize=10, ha="right", va="center_baseline", linespacing=1.15)
        length = BARS * share / longest
        axis.barh(middle, length, height=LINE, left=LABELS + 0.015, color=panel.colour)
        axis.text(LABELS + 0.025 + length, middle, percent(share), fontsize=10, va="center_baseline", color=GREY)
        top += height + GAP


def _write(axis: Any, x: float, y: float, text: str, **style: Any) -> None:
    axis.text(x, y, _plain(text), ha="left", va="top", **style)


def _wrap(text: str) -> list[str]:
    """Break a label where its parts begin, and within a part where that is too long."""
    lines: list[str] = []
    for part in re.split(r" (?=\(also |and \d+ more you took)", text):
        if lines and len(lines[-1]) + 1 + len(part) <= CHARACTERS_A_LINE:
            lines[-1] += f" {part}"
        else:
            lines += textwrap.wrap(part, CHARACTERS_A_LINE)
    return lines


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # not mathematics
