"""What all pictures share: colours, sizes, and the title that says where the numbers come from."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from graphrec.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY, YELLOW, BLACK, GREY = "#56B4E9", "#F0E442", "#000000", "#555555"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
# Where two lines cross, or in print without colours, the markers and dashes tell them apart.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))

WIDTH = 6.4  # inches
TEXT, SMALL = 12, 10.5  # points; half of that is still legible
CHARACTER = 0.108  # inches, the mean width of one of the heading


@dataclass(frozen=True)
class About:
    """Where the numbers of a picture come from; the second line of its title.

    Args:
        data: Name of the data set.
        split: How it was split, and the part that was measured; empty where no split matters.
        seeds: Seeds of the model, or of what else was drawn at random; empty where nothing was.

    Example:
        >>> print(About("MovieLens-100k", "random 8:1:1, test", 0))
        MovieLens-100k, random 8:1:1, test, seed 0
        >>> print(About("MovieLens-100k", "leave last, valid", (0, 1, 2)))
        MovieLens-100k, leave last, valid, seeds 0, 1, 2
    """

    data: str
    split: str = ""
    seeds: int | tuple[int, ...] = ()

    def __str__(self) -> str:
        seeds = (self.seeds,) if isinstance(self.seeds, int) else self.seeds
        words = "seed" if len(seeds) == 1 else "seeds"
        parts = [self.data, self.split, f"{words} {', '.join(map(str, seeds))}" if seeds else ""]
        return ", ".join(part for part in parts if part)


def new_axes(ax: Axes | None, height: float, width: float = WIDTH) -> Axes:
    """Return ``ax``, or the axes of a new figure of pyplot's, which a notebook shows at the end of its cell.

    Raises:
        ArgumentError: matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ArgumentError("a picture needs matplotlib: pip install 'graphrec[plots]'") from error
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def set_title(ax: Axes, heading: str, about: About) -> None:
    """Put the heading in bold above the axes, and below it where the numbers come from."""
    # Before it is laid out, a figure has wider margins than after.
    characters = int(1.15 * ax.bbox.width / ax.figure.dpi / CHARACTER)
    lines = textwrap.wrap(str(about), characters + 10)
    ax.annotate(
        plain("\n".join(lines)),
        (0, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        fontsize=SMALL,
        color=GREY,
        annotation_clip=False,
    )
    title = "\n".join(textwrap.wrap(heading, characters))
    ax.set_title(plain(title), loc="left", fontsize=TEXT + 1, fontweight="bold", pad=12 + 14 * len(lines))


def open_frame(ax: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Leave out the lines that tell nothing, set the size of the ticks, and draw a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    ax.grid(axis=grid, alpha=0.3)
    ax.set_axisbelow(True)


def plain(text: str) -> str:
    """Return the text as matplotlib is to draw it: a dollar begins no mathematics."""
    return text.replace("$", r"\$")
