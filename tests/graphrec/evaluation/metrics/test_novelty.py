from math import log2

import pytest
from cases.hand_table import hand_ranking
from cases.rankings import ranking_of

from graphrec.evaluation.metrics import novelty


def test_hand_table():
    # first places: items 4, 1, 0 with 1, 4 and 8 of 16 interactions
    assert float(novelty(hand_ranking(), 1)) == pytest.approx((4 + 2 + 1) / 3)
    # second places: items 0, 3, 1 with 8, 1 and 4
    assert float(novelty(hand_ranking(), 2)) == pytest.approx((4 + 2 + 1 + 1 + 4 + 2) / 6)


def test_an_item_nobody_took_counts_as_if_taken_once():
    ranking = ranking_of([[2]], [{0}], [3, 5, 0], depth=1)
    assert float(novelty(ranking, 1)) == pytest.approx(log2(8))


def test_places_without_an_item_do_not_count():
    # the third user has only three items left, and the others' lists go on
    ranking = ranking_of([[0, 1], [1]], [{0}, {0}], [2, 2], depth=2)
    assert float(novelty(ranking, 2)) == pytest.approx(1.0)
