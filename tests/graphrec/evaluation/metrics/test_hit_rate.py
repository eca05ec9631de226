import pytest
from cases.hand_table import hand_ranking
from cases.oracles import from_ir_measures, from_torch_geometric, torch_geometric_metrics
from cases.rankings import random_scene

from graphrec.evaluation.metrics import hit_rate


@pytest.mark.parametrize(("k", "expected"), [(1, [0, 1, 0]), (2, [1, 1, 0]), (5, [1, 1, 0])])
def test_hand_table(k, expected):
    assert hit_rate(hand_ranking(), k).tolist() == expected


@pytest.mark.parametrize("k", [1, 5, 20, 50])
def test_libraries_agree(k):
    scene = random_scene(k, num_users=40, num_items=45, tied=False)
    value = hit_rate(scene.ranking(), k)
    assert value.tolist() == pytest.approx(from_ir_measures(f"Success@{k}", scene), abs=1e-9)
    assert float(value.mean()) == pytest.approx(
        from_torch_geometric(torch_geometric_metrics.LinkPredHitRatio(k), scene), abs=1e-6
    )
