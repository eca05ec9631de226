import pytest
from cases.hand_table import hand_ranking
from cases.oracles import from_torch_geometric, torch_geometric_metrics
from cases.rankings import random_scene

from graphrec.evaluation.metrics import coverage


@pytest.mark.parametrize(("k", "expected"), [(1, 3 / 8), (2, 4 / 8), (3, 6 / 8), (5, 6 / 8)])
def test_hand_table(k, expected):
    # first places 4, 1, 0; second places add 3; third places add 2 and 5
    assert float(coverage(hand_ranking(), k)) == expected


@pytest.mark.parametrize("k", [1, 2])
def test_torch_geometric_agrees(k):
    scene = random_scene(3, num_users=9, num_items=45, tied=False)
    whole = [user for user, listed in enumerate(scene.lists) if len(listed) >= k]
    assert len(whole) == 9
    expected = from_torch_geometric(torch_geometric_metrics.LinkPredCoverage(k, num_dst_nodes=45), scene)
    assert float(coverage(scene.ranking(), k)) == pytest.approx(expected, abs=1e-6)
