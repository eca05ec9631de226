import pytest
from cases.rankings import Scene, random_scene
from sklearn.metrics import roc_auc_score

from graphrec.evaluation.metrics import auc


@pytest.mark.parametrize(
    ("scores", "relevant", "expected"),
    [
        ({0: 3.0, 1: 2.0, 2: 1.0}, {0}, 1.0),
        ({0: 3.0, 1: 2.0, 2: 1.0}, {1}, 0.5),
        ({0: 3.0, 1: 2.0, 2: 1.0}, {2}, 0.0),
        ({0: 3.0, 1: 3.0, 2: 1.0, 3: 1.0}, {0, 2}, (0.5 + 1 + 0 + 0.5) / 4),
        ({0: 1.0, 1: 1.0, 2: 1.0}, {2}, 0.5),
        ({0: 3.0, 2: 1.0}, {0, 2}, 0.5),  # nothing irrelevant to tell apart
    ],
)
def test_hand_table(scores, relevant, expected):
    assert auc(Scene([scores], [relevant], [1, 1, 1, 1, 1]).ranking()).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("tied", [False, True])
def test_scikit_learn_agrees(tied):
    scene = random_scene(0, num_users=40, num_items=45, tied=tied)
    for value, scores, wanted in zip(auc(scene.ranking()).tolist(), scene.scores, scene.relevant, strict=True):
        if len(wanted) < len(scores):
            expected = roc_auc_score([item in wanted for item in scores], list(scores.values()))
            assert value == pytest.approx(expected, abs=1e-9)
