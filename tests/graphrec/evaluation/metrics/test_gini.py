import pytest
from cases.rankings import ranking_of

from graphrec.evaluation.metrics import gini

FOUR = [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([[0], [1], [2], [3]], 0.0),  # all alike
        ([[2], [2], [2], [2]], 3 / 4),  # always the same: (I - 1) / I
        ([[0], [0], [0], [1]], (-3 * 0 - 1 * 0 + 1 * 1 + 3 * 3) / (4 * 4)),
    ],
)
def test_hand_table(lists, expected):
    assert float(gini(ranking_of(lists, [{0}] * 4, FOUR, depth=1), 1)) == pytest.approx(expected)


def test_it_does_not_depend_on_which_items_they_are():
    one = ranking_of([[0, 1], [0, 2]], [{0}] * 2, FOUR, depth=2)
    other = ranking_of([[3, 2], [3, 0]], [{0}] * 2, FOUR, depth=2)
    assert float(gini(one, 2)) == pytest.approx(float(gini(other, 2)))
