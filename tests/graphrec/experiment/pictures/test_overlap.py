import math

import numpy as np
import pytest
from matplotlib.text import Text

from graphrec.errors import ArgumentError
from graphrec.experiment.pictures import About, domain_overlap

ABOUT = About("two shops")


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
    ("source", "target", "shared"), [(3706, 1682, 1500), (500, 500, 20), (400, 100, 100), (90, 300, 1), (7, 7, 7)]
)
def test_areas_are_in_proportion_to_the_counts(source, target, shared):
    ax = domain_overlap(("books", source), ("films", target), shared, "users", ABOUT)
    one, other = ax.patches
    # The shared area, by counting the points of a grid.
    x, y = np.meshgrid(np.linspace(-1, 3, 2001), np.linspace(-1, 1, 1001))
    within = [(x - circle.center[0]) ** 2 + y**2 <= circle.radius**2 for circle in (one, other)]
    per_point = max(source, target) / math.pi * (4 / 2000) * (2 / 1000)
    counted = [mask.sum() * per_point for mask in (*within, within[0] & within[1])]
    assert counted == pytest.approx([source, target, shared], rel=0.01, abs=0.01 * max(source, target))


def test_labels_count_each_part_and_what_was_left_out():
    ax = domain_overlap(("books", 1200), ("films", 300), 40, "users", ABOUT, {"ambiguous titles": 1031})
    assert texts(ax)[:3] == ["books only\n1,160 of 1,200", "both\n40 users", "films only\n260 of 300"]
    assert "left out\nambiguous titles: 1,031" in texts(ax)
    assert ax.get_title(loc="left") == "books and films share 40 users"


def test_domains_apart_and_one_within_the_other_have_no_label_for_what_is_not_there():
    apart = domain_overlap(("books", 10), ("films", 20), 0, "users", ABOUT)
    assert not any(text.startswith("both") for text in texts(apart))
    one, other = apart.patches
    assert other.center[0] - one.center[0] > one.radius + other.radius
    within = domain_overlap(("books", 10), ("films", 20), 10, "users", ABOUT)
    assert not any(text.startswith("books only") for text in texts(within))


def test_no_label_covers_another():
    ax = domain_overlap(("MovieLens-1M", 3706), ("MovieLens-100k", 1682), 1500, "films", ABOUT, {"no year": 3})
    ax.figure.canvas.draw()
    # The extent of an annotation takes in its line; that of the text alone is Text's own.
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


@pytest.mark.parametrize(("source", "target", "shared"), [(0, 5, 0), (5, 0, 0), (5, 9, 6), (9, 5, 6), (5, 5, -1)])
def test_impossible_counts_are_refused(source, target, shared):
    with pytest.raises(ArgumentError, match="must be"):
        domain_overlap(("books", source), ("films", target), shared, "users", ABOUT)
