"""attention_shares: how attention, or any whole, is shared out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphrec.errors import ArgumentError, check_range
from graphrec.experiment.pictures.style import (
    BLUE,
    GREY,
    SMALL,
    VERMILION,
    About,
    new_axes,
    open_frame,
    plain,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, EXTRA = 0.52, 1.35  # inches: of a label with its bar, and of title and axis
LABEL_CHARACTERS = 62


def attention_shares(
    shares: Mapping[str, float],
    heading: str,
    about: About,
    compared: Mapping[str, float] | None = None,
    compared_name: str = "",
    most: int = 10,
    in_order: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw shares as bars, the largest first: over a history, relations, modalities or domains.

    Args:
        shares: By name; at least 0. They need not add up to 1 (as where only the first are given).
        heading: What is shared out among what: "Attention over the relations".
        about: Where the numbers come from.
        compared: A mark on each bar, by the same names, such as the share of edges that a relation has.
        compared_name: What the marks are, for the legend.
        most: So many bars; what is left becomes one bar, "N others".
        in_order: Keep the order of ``shares``, such as that of time; all are drawn then.
        ax: Where to draw; a new figure when not given.

    Returns:
        The axes, with a bar a name.

    Raises:
        ArgumentError: No shares, a share that is negative or not finite, names of ``compared`` that differ.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> ax = attention_shares({"actor": 0.7, "director": 0.3}, "Attention over the relations", About("films"))
        >>> [float(bar.get_width()) for bar in ax.patches]
        [70.0, 30.0]
    """
    from matplotlib.transforms import ScaledTranslation

    check_range("most", most, 1)
    for name, share in shares.items():
        if not math.isfinite(share) or share < 0:
            raise ArgumentError(f"shares must be finite and at least 0, got {share!r} for {name!r}")
    if not shares:
        raise ArgumentError("shares must hold at least one, got none")
    if compared is not None and compared.keys() != shares.keys():
        differing = sorted(compared.keys() ^ shares.keys())
        raise ArgumentError(f"compared must have the names of shares; {differing[0]!r} is in one of them alone")
    marks = compared or {}
    names = list(shares) if in_order else sorted(shares, key=lambda name: -shares[name])
    rows = [(name, shares[name], marks.get(name)) for name in names]
    if not in_order and len(rows) > most:
        rest = names[most:]
        mark = sum(marks[name] for name in rest) if marks else None
        rows = [*rows[:most], (f"{len(rest)} others", sum(shares[name] for name in rest), mark)]

    ax = new_axes(ax, EXTRA + ROW * len(rows))
    for place, (name, share, mark) in enumerate(rows):
        ax.barh(place, 100 * share, height=0.36, color=BLUE)
        # The label stands above its bar: so it may be long, and the bars keep the whole width.
        label = textwrap.shorten(name, LABEL_CHARACTERS, placeholder=" …")
        ax.annotate(
            plain(label), (0, place - 0.24), xytext=(2, 0), textcoords="offset points", va="bottom", fontsize=SMALL
        )
        end = 100 * max(share, mark or 0.0)
        ax.annotate(
            f"{100 * share:.1f} %",
            (end, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=SMALL,
            color=GREY,
        )
        if mark is not None:
            ax.vlines(100 * mark, place - 0.26, place + 0.26, color=VERMILION, linewidth=2.5)
    ax.set_ylim(len(rows) - 0.6, -0.75)
    ax.set_xlim(0, 115 * max(max(share, mark or 0.0) for _, share, mark in rows) or 1)
    ax.set_yticks([])
    ax.set_xlabel("share, %", fontsize=SMALL)
    if compared is not None:
        ax.plot([], [], "|", color=VERMILION, markersize=12, markeredgewidth=2.5, label=plain(compared_name))
        # Under the axis, beside its label: between few bars there is no room.
        below = ax.transAxes + ScaledTranslation(0, -0.2, ax.figure.dpi_scale_trans)
        ax.legend(
            frameon=False,
            fontsize=SMALL,
            loc="upper right",
            bbox_to_anchor=(1, 0),
            bbox_transform=below,
            borderaxespad=0,
        )
    open_frame(ax, grid="x")
    set_title(ax, heading, about)
    return ax
