import numpy as np
import pytest
from cases.rankings import Scene, random_scene
from sklearn.metrics import average_precision_score, precision_recall_curve

from graphrec.evaluation.metrics import LEVELS, pr_auc, pr_curve

# Thresholds keep 1, 3 and 4 candidates, of which 1, 1 and 2 are relevant: recall 1/2, 1/2, 1.
SCORES = {0: 3.0, 1: 2.0, 2: 2.0, 3: 1.0}
HAND = Scene([SCORES], [{0, 3}], [1] * 5)


@pytest.mark.parametrize(("level", "expected"), [(0.0, 1.0), (0.5, 1.0), (0.51, 0.5), (1.0, 0.5)])
def test_hand_table_of_the_curve(level, expected):
    assert pr_curve(HAND.ranking(), level).tolist() == [expected]


def test_hand_table_of_the_area():
    assert pr_auc(HAND.ranking()).tolist() == pytest.approx([0.5 * 1 + 0.5 * 0.5])


def test_tied_items_come_together():
    constant = Scene([dict.fromkeys(range(4), 1.0)], [{3}], [1] * 5)
    assert pr_auc(constant.ranking()).tolist() == [0.25]
    assert pr_curve(constant.ranking(), 0.0).tolist() == [0.25]


@pytest.mark.parametrize("tied", [False, True])
def test_scikit_learn_agrees(tied):
    scene = random_scene(0, num_users=40, num_items=45, tied=tied)
    ranking = scene.ranking()
    area = pr_auc(ranking).tolist()
    curve = np.stack([pr_curve(ranking, level).numpy() for level in LEVELS], axis=1)
    for user, (scores, wanted) in enumerate(zip(scene.scores, scene.relevant, strict=True)):
        truth, values = [item in wanted for item in scores], list(scores.values())
        assert area[user] == pytest.approx(average_precision_score(truth, values), abs=1e-9)
        precision, recall, _ = precision_recall_curve(truth, values)
        # Its last point (recall 0, precision 1) is no threshold.
        expected = [precision[:-1][recall[:-1] >= level].max() for level in LEVELS]
        assert curve[user].tolist() == pytest.approx(expected, abs=1e-9)
