import pytest
from cases.hand_table import hand_ranking
from cases.oracles import from_ir_measures, from_torch_geometric, torch_geometric_metrics
from cases.rankings import random_scene

from graphrec.evaluation.metrics import precision


@pytest.mark.parametrize(("k", "expected"), [(1, [0, 1, 0]), (2, [1 / 2, 1 / 2, 0]), (5, [2 / 5, 1 / 5, 0])])
def test_hand_table(k, expected):
    assert precision(hand_ranking(), k).tolist() == pytest.approx(expected)


def test_the_denominator_is_k_where_fewer_items_are_left():
    assert precision(hand_ranking(), 10).tolist() == pytest.approx([2 / 10, 1 / 10, 0])


@pytest.mark.parametrize("k", [1, 5, 20, 50])
def test_libraries_agree(k):
    scene = random_scene(k, num_users=40, num_items=45, tied=False)
    value = precision(scene.ranking(), k)
    assert value.tolist() == pytest.approx(from_ir_measures(f"P@{k}", scene), abs=1e-9)
    assert float(value.mean()) == pytest.approx(
        from_torch_geometric(torch_geometric_metrics.LinkPredPrecision(k), scene), abs=1e-6
    )
