import pytest
from cases.hand_table import hand_ranking
from cases.oracles import from_ir_measures, from_torch_geometric, torch_geometric_metrics
from cases.rankings import random_scene

from graphrec.evaluation.metrics import recall


@pytest.mark.parametrize(("k", "expected"), [(1, [0, 1, 0]), (2, [1 / 3, 1, 0]), (5, [2 / 3, 1, 0])])
def test_hand_table(k, expected):
    assert recall(hand_ranking(), k).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 5, 20, 50])
def test_libraries_agree(k):
    scene = random_scene(k, num_users=40, num_items=45, tied=False)
    value = recall(scene.ranking(), k)
    assert value.tolist() == pytest.approx(from_ir_measures(f"R@{k}", scene), abs=1e-9)
    assert float(value.mean()) == pytest.approx(
        from_torch_geometric(torch_geometric_metrics.LinkPredRecall(k), scene), abs=1e-6
    )
