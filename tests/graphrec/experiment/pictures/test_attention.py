import pytest

from graphrec.errors import ArgumentError
from graphrec.experiment.pictures import About, attention_shares

ABOUT = About("films", "random, test", 0)
SHARES = {"actor": 0.5, "director": 0.3, "country": 0.15, "award": 0.05}


def bars(ax):
    return [pytest.approx(bar.get_width()) for bar in ax.patches]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_bar_is_as_long_as_its_share_and_the_largest_comes_first():
    ax = attention_shares(dict(reversed(SHARES.items())), "Attention over the relations", ABOUT)
    assert bars(ax) == [50, 30, 15, 5]
    assert texts(ax)[:4] == ["actor", "50.0 %", "director", "30.0 %"]
    assert ax.get_title(loc="left") == "Attention over the relations"
    assert texts(ax)[-1] == str(ABOUT)
    assert ax.get_xlabel() == "share, %"


def test_what_is_left_is_one_bar_so_nothing_is_lost():
    ax = attention_shares(SHARES, "Attention", ABOUT, most=2)
    assert bars(ax) == [50, 30, 20]
    assert "2 others" in texts(ax)


def test_the_order_of_time_can_be_kept():
    ax = attention_shares({"old": 0.2, "new": 0.8}, "Attention", ABOUT, in_order=True, most=1)
    assert bars(ax) == [20, 80]


def test_compared_shares_are_marks_on_their_bars():
    compared = {"award": 0.4, "country": 0.1, "director": 0.1, "actor": 0.4}
    ax = attention_shares(SHARES, "Attention", ABOUT, compared=compared, compared_name="share of the edges", most=2)
    marks = [collection.get_segments()[0][0, 0] for collection in ax.collections]
    assert marks == pytest.approx([40, 10, 50])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["share of the edges"]


def test_long_names_stay_within_the_picture():
    ax = attention_shares({"a very long title " * 6: 1.0, "$5 and $6": 0.0}, "Attention", ABOUT)
    ax.figure.canvas.draw()
    assert all(text.get_window_extent().x1 <= ax.figure.bbox.x1 for text in ax.texts)


@pytest.mark.parametrize(
    ("shares", "compared", "message"),
    [
        ({}, None, "at least one"),
        ({"actor": -0.1}, None, "at least 0, got -0.1 for 'actor'"),
        ({"actor": float("nan")}, None, "finite"),
        ({"actor": 1.0}, {"director": 1.0}, "'actor' is in one of them alone"),
    ],
)
def test_bad_shares_are_named(shares, compared, message):
    with pytest.raises(ArgumentError, match=message):
        attention_shares(shares, "Attention", ABOUT, compared=compared)


def test_all_shares_may_be_zero():
    assert bars(attention_shares({"actor": 0.0}, "Attention", ABOUT)) == [0]
