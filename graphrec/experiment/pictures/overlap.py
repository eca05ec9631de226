"""domain_overlap: what two domains share, as two circles of true area, and what was dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphrec.errors import ArgumentError, check_range
from graphrec.experiment.pictures.style import BLACK, BLUE, GREY, ORANGE, SMALL, TEXT, About, new_axes, plain, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def domain_overlap(
    source: tuple[str, int],
    target: tuple[str, int],
    shared: int,
    kind: str,
    about: About,
    dropped: Mapping[str, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw two domains as circles whose areas, and that of their overlap, are in proportion to the counts.

    Args:
        source: Name of the source domain and how many it holds, shared ones included.
        target: The same of the target domain.
        shared: How many are in both.
        kind: What is counted: "users", "items", "entities".
        about: Where the numbers come from.
        dropped: What linking left out, by reason; listed below the circles.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: A count below 1, or more shared ones than a domain holds.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> ax = domain_overlap(("books", 400), ("films", 100), 100, "users", About("two shops"))
        >>> [circle.radius for circle in ax.patches]  # an area four times as large
        [1.0, 0.5]
    """
    for name, (_, size) in (("source", source), ("target", target)):
        check_range(name, size, 1)
        if not 0 <= shared <= size:
            raise ArgumentError(f"shared must be within 0..{size}, the size of {name}, got {shared}")
    from matplotlib.patches import Circle

    largest = max(source[1], target[1])
    radii = [math.sqrt(size / largest) for _, size in (source, target)]
    apart = _distance(radii[0], radii[1], math.pi * shared / largest)
    ax = new_axes(ax, 4.4 + 0.2 * len(dropped or ()))
    centres = (0.0, apart)
    for centre, radius, colour in zip(centres, radii, (BLUE, ORANGE), strict=True):
        ax.add_patch(Circle((centre, 0), radius, facecolor=colour, edgecolor=colour, alpha=0.45, linewidth=2))
    left, right, high = min(-radii[0], apart - radii[1]), max(radii[0], apart + radii[1]), max(radii)
    parts = (
        (f"{source[0]} only", source[1] - shared, f" of {source[1]:,}", (-radii[0], apart - radii[1])),
        ("both", shared, f" {kind}", (apart - radii[1], min(radii[0], apart + radii[1]))),
        (f"{target[0]} only", target[1] - shared, f" of {target[1]:,}", (radii[0], apart + radii[1])),
    )
    # Always outside the circles, with a line: a part may be too thin for any words.
    for (label, count, rest, ends), at, side in zip(parts, (0, 0.5, 1), ("left", "center", "right"), strict=True):
        if count:
            ax.annotate(
                plain(f"{label}\n{count:,}{rest}"),
                (sum(ends) / 2, 0),
                xytext=(at, -high * 1.2),
                textcoords=("axes fraction", "data"),
                ha=side,
                va="top",
                fontsize=TEXT,
                arrowprops={"arrowstyle": "-", "color": BLACK, "relpos": (0.25 + at / 2, 1)},
            )
    low = -high * 1.6
    if dropped:
        lines = [f"{reason}: {count:,}" for reason, count in dropped.items()]
        text = plain("\n".join(["left out", *lines]))
        ax.text(0, low, text, transform=ax.get_yaxis_transform(), va="top", fontsize=SMALL, color=GREY)
        low -= 0.17 * high * (1 + len(lines))
    ax.update_datalim([(left, low), (right, high)])
    ax.margins(0.02)
    ax.set_aspect("equal", adjustable="datalim")
    ax.axis("off")
    set_title(ax, f"{source[0]} and {target[0]} share {shared:,} {kind}", about)
    return ax


def _distance(first: float, second: float, area: float) -> float:
    """Return how far apart two circles of these radii are if they overlap on this area."""
    from scipy.optimize import brentq

    smaller = min(first, second)
    if area >= math.pi * smaller**2 * (1 - 1e-9):
        return abs(first - second)  # one within the other, at its edge
    if area <= 0:
        return 1.1 * (first + second)
    return float(brentq(lambda apart: _lens(first, second, apart) - area, abs(first - second), first + second))


def _lens(first: float, second: float, apart: float) -> float:
    """Return the area that two circles share, their centres ``apart`` between tangent inside and tangent outside."""
    if apart <= abs(first - second):
        return math.pi * min(first, second) ** 2
    total = 0.0
    for own, other in ((first, second), (second, first)):
        cosine = (apart**2 + own**2 - other**2) / (2 * apart * own)
        angle = math.acos(min(1.0, max(-1.0, cosine)))
        total += own**2 * (angle - math.sin(2 * angle) / 2)  # the segment of a circle
    return total
