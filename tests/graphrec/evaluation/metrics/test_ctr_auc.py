import pytest
from cases.rankings import labelled_ranking
from sklearn.metrics import roc_auc_score

from graphrec.evaluation.metrics import ctr_auc


@pytest.mark.parametrize(
    ("relevant", "untaken", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0], 0.5),
        ([3.0, 1.0], [2.0, 1.0], (1 + 1 + 0 + 0.5) / 4),
        ([float("-inf"), 1.0], [float("-inf"), 0.0], (0.5 + 0 + 1 + 1) / 4),
    ],
)
def test_hand_table(relevant, untaken, expected):
    assert float(ctr_auc(labelled_ranking(relevant, untaken))) == pytest.approx(expected)


def test_scikit_learn_agrees():
    relevant, untaken = [(7 * n) % 11 + 2.0 for n in range(50)], [(5 * n) % 13 - 1.0 for n in range(50)]
    expected = roc_auc_score([1] * 50 + [0] * 50, [*relevant, *untaken])
    assert float(ctr_auc(labelled_ranking(relevant, untaken))) == pytest.approx(expected, abs=1e-12)


def test_a_threshold_is_none_of_its_business():
    assert ctr_auc(labelled_ranking([3.0, 1.0], [2.0, 0.0], threshold=9.0)) == 0.75
