"""draw_explanation: a picture of what a recommendation leans on."""

from __future__ import annotations

from pathlib import Path

from graphrec.serving.explain import Explanation

BLUE, ORANGE = "#0072b2", "#e69f00"  # apart for colour-blind eyes, too
WIDTH_OF_LABELS = 48  # characters


def draw_explanation(explanation: Explanation, path: Path, who: str) -> None:
    """Save a picture with the past items' shares above and the attention on paths through the KG below.

    Args:
        explanation: What to draw.
        path: The file; its ending (``.png``, ``.svg``) chooses the format.
        who: The user's name for the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [("share of what speaks for it", BLUE, [(p.title, p.share) for p in explanation.past])]
    if explanation.paths:
        strongest = max(p.attention for p in explanation.paths)
        rows = [(str(p), p.attention / strongest) for p in explanation.paths]
        panels.append(("attention along the path, strongest = 1", ORANGE, rows))
    num_rows = sum(len(rows) for _, _, rows in panels)
    figure = Figure(figsize=(9, 1.4 + 0.42 * num_rows + 0.6 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Why {explanation.title} for {who}", fontsize=14)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[max(len(rows), 1) for _, _, rows in panels])
    for axis, (label, colour, rows) in zip(axes[:, 0], panels, strict=True):
        axis.barh(range(len(rows)), [value for _, value in rows], color=colour)
        axis.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
        axis.invert_yaxis()
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _short(text: str) -> str:
    text = text.replace("$", r"\$")  # not mathematics
    return text if len(text) <= WIDTH_OF_LABELS else text[: WIDTH_OF_LABELS - 1] + "…"
