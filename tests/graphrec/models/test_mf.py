from typing import ClassVar

import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import GradientCase

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import SoftmaxMF


class TestSoftmaxMF(GradientCase):
    model_class = SoftmaxMF
    options: ClassVar = {"dim": 16, "num_negatives": 40, "temperature": 0.2}
    reads_history = False  # the table speaks for the user


def test_scores_are_cosines_over_the_temperature():
    model = SoftmaxMF(num_users=3, num_items=4, dim=5, temperature=0.5).eval()
    scores = model.score(Histories.from_lists([[], []], [2, 0]))
    for row, user in enumerate((2, 0)):
        expected = torch.nn.functional.cosine_similarity(model.user[user], model.item) / 0.5
        torch.testing.assert_close(scores[row], expected)


def test_loss_with_all_items_is_the_softmax_over_what_the_user_did_not_take():
    model = SoftmaxMF(num_users=3, num_items=6, dim=5, num_negatives=100, temperature=0.5)
    taken = [[1, 4], [], [0]]
    scores = model.score(Histories.from_lists(taken, [0, 1, 2]))
    losses = []
    for row, items in enumerate(taken):
        for item in items:
            rivals = [j for j in range(6) if j == item or j not in items]
            losses.append(scores[row, rivals].logsumexp(0) - scores[row, item])
    loss = model.loss(Histories.from_lists(taken, [0, 1, 2]), torch.Generator())
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_negatives_follow_the_generator():
    graph = planted_graph()
    model = SoftmaxMF.from_graph(graph, num_negatives=10)
    first, again, other = (model.loss(histories_of(graph), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_user_beyond_the_table_cannot_be_trained():
    model = SoftmaxMF(num_users=3, num_items=4)
    with pytest.raises(ValueError, match=r"SoftmaxMF knows users 0\.\.2, got 3"):
        model.loss(Histories.from_lists([[0]], [3]), torch.Generator())


@pytest.mark.parametrize("name", ["num_users", "num_items", "dim", "temperature", "num_negatives"])
def test_values_outside_their_range_are_named(name):
    with pytest.raises(ArgumentError, match=f"{name} must be >= .*, got 0"):
        SoftmaxMF(**{"num_users": 3, "num_items": 4, name: 0})
