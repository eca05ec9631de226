import pytest
from cases.oracles import from_torch_geometric, torch_geometric_metrics
from cases.rankings import random_scene, ranking_of

from graphrec.evaluation.metrics import personalization
from graphrec.evaluation.metrics.base import Ranking

SIX = [1] * 6


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([[0, 1], [1, 0]], 0.0),
        ([[0, 1], [2, 3]], 1.0),
        ([[0, 1], [1, 2], [3, 4]], 1 - (1 / 2 + 0 + 0) / 3),
        ([[0, 1], [1]], 1 - 1 / 2**0.5),
        ([[0, 1], [2, 3], []], 1.0),  # a user without a list makes no pair
        ([[0, 1]], 0.0),
    ],
)
def test_hand_table(lists, expected):
    ranking = ranking_of(lists, [{0}] * len(lists), SIX, depth=2)
    assert float(personalization(ranking, 2)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_torch_geometric_agrees_on_full_lists(k):
    scene = random_scene(k, num_users=60, num_items=45, tied=False)
    full = [user for user, listed in enumerate(scene.lists) if len(listed) >= k]
    ranking = scene.ranking()
    ranking = Ranking(ranking.items[full], ranking.hits[full], ranking.num_relevant[full], ranking.popularity)
    expected = from_torch_geometric(torch_geometric_metrics.LinkPredPersonalization(k), scene, full)
    assert float(personalization(ranking, k)) == pytest.approx(expected, abs=1e-6)
