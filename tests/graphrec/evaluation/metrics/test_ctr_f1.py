import pytest
from cases.rankings import labelled_ranking
from sklearn.metrics import f1_score

from graphrec.evaluation.metrics import ctr_f1


@pytest.mark.parametrize(
    ("relevant", "untaken", "threshold", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], None, 1.0),
        ([0.0, 1.0], [2.0, 3.0], None, 0.0),
        ([3.0, 1.0], [2.0, 0.0], None, 0.5),
        ([3.0, 1.0], [2.0, 0.0], 1.0, 2 * 2 / (3 + 2)),  # reaching the threshold is enough
        ([3.0, 1.0], [2.0, 0.0], 9.0, 0.0),
        ([1.0, 1.0], [1.0, 1.0], None, 2 * 2 / (4 + 2)),  # nothing to tell apart: all are called taken
    ],
)
def test_hand_table(relevant, untaken, threshold, expected):
    assert float(ctr_f1(labelled_ranking(relevant, untaken, threshold))) == pytest.approx(expected)


def test_scikit_learn_agrees():
    relevant, untaken = [(7 * n) % 11 - 3.0 for n in range(50)], [(5 * n) % 13 - 8.0 for n in range(50)]
    called = [score >= 0 for score in (*relevant, *untaken)]
    expected = f1_score([1] * 50 + [0] * 50, called)
    assert float(ctr_f1(labelled_ranking(relevant, untaken, 0.0))) == pytest.approx(expected, abs=1e-12)


def test_without_a_threshold_only_the_order_counts():
    relevant, untaken = [0.5, 2.0, -1.0], [0.1, 3.0, -4.0]
    stretched = [[score**3 + 5 for score in side] for side in (relevant, untaken)]
    assert ctr_f1(labelled_ranking(relevant, untaken)) == ctr_f1(labelled_ranking(*stretched))
