from math import log2

import pytest
from cases.hand_table import hand_ranking
from cases.rankings import ranking_of

from graphrec.evaluation.metrics import ndcg, ndcg_kgat


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [0, 1, 0]), (5, [(1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3)), 1, 0])],
)
def test_hand_table(k, expected):
    assert ndcg_kgat(hand_ranking(), k).tolist() == pytest.approx(expected)


def test_it_does_not_miss_what_was_not_found():
    ranking = ranking_of([list(range(40))], [{0, 100, 101, 102}], [1] * 200, depth=100)
    assert float(ndcg_kgat(ranking, 20)) == 1.0
    assert float(ndcg(ranking, 20)) == pytest.approx(1 / (1 + 1 / log2(3) + 1 / 2 + 1 / log2(5)))


def test_finding_one_more_item_low_in_the_list_lowers_it():
    items = list(range(100))
    fewer = ranking_of([items], [{0, 100}], [1] * 200, depth=100)
    more = ranking_of([items], [{0, 99}], [1] * 200, depth=100)
    assert float(ndcg_kgat(more, 20)) < float(ndcg_kgat(fewer, 20))


def test_it_says_that_it_is_legacy():
    assert "Legacy" in ndcg_kgat.__doc__
