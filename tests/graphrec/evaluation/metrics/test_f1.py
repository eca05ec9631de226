import pytest
from cases.hand_table import hand_ranking
from cases.oracles import from_torch_geometric, torch_geometric_metrics
from cases.rankings import random_scene

from graphrec.evaluation.metrics import f1


@pytest.mark.parametrize(("k", "expected"), [(1, [0, 1, 0]), (2, [2 / 5, 2 / 3, 0]), (5, [1 / 2, 1 / 3, 0])])
def test_hand_table(k, expected):
    assert f1(hand_ranking(), k).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 5, 20, 50])
def test_torch_geometric_agrees(k):
    scene = random_scene(k, num_users=40, num_items=45, tied=False)
    expected = from_torch_geometric(torch_geometric_metrics.LinkPredF1(k), scene)
    assert float(f1(scene.ranking(), k).mean()) == pytest.approx(expected, abs=1e-6)
