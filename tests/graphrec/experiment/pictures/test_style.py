import sys

import pytest
from matplotlib.figure import Figure

from graphrec.errors import ArgumentError
from graphrec.experiment.pictures import About
from graphrec.experiment.pictures.style import CYCLE, DASHES, MARKERS, new_axes, set_title


def test_about_says_data_split_and_seeds():
    assert str(About("films", "random 8:1:1, test", 3)) == "films, random 8:1:1, test, seed 3"
    assert str(About("films", seeds=(0, 1))) == "films, seeds 0, 1"
    assert str(About("films")) == "films"


def test_title_has_the_heading_and_below_it_the_origin():
    ax = Figure().subplots()
    set_title(ax, "Costs $1 to $2", About("a $ set", "random", 0))
    assert ax.get_title(loc="left") == r"Costs \$1 to \$2"
    assert ax.texts[0].get_text() == r"a \$ set, random, seed 0"


def test_a_long_heading_and_a_long_origin_are_broken_and_do_not_overlap():
    ax = new_axes(None, 4.0)
    figure = ax.figure
    set_title(ax, "word " * 30, About("data " * 20, "split " * 10, (0, 1, 2)))
    figure.canvas.draw()
    (origin,) = ax.texts
    heading = ax._left_title.get_window_extent()
    assert not heading.overlaps(origin.get_window_extent())
    assert heading.y1 <= figure.bbox.y1
    assert max(heading.x1, origin.get_window_extent().x1) <= figure.bbox.x1


def test_given_axes_are_used_and_nothing_else_is_made():
    from matplotlib import pyplot

    ax = Figure().subplots()
    assert new_axes(ax, 3.0) is ax
    assert pyplot.get_fignums() == []
    assert new_axes(None, 3.0).figure.get_size_inches().tolist() == [6.4, 3.0]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArgumentError, match=r"pip install 'graphrec\[plots\]'"):
        new_axes(None, 3.0)


def test_lines_differ_without_colours_too():
    assert len(CYCLE) == len(set(CYCLE)) == len(set(MARKERS)) == len(set(DASHES))
