from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import ClosedFormCase, relaxed, score, watch_large_tensors

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import EASE, DualEASE, dual_ease
from graphrec.models.block_triangle import BlockTriangle
from kg_loaders.synthetic import planted


def train_histories(graph):
    return Histories.from_interactions(graph.part("train"), graph.num_users)


class TestDualEASE(ClosedFormCase):
    model_class = DualEASE
    options: ClassVar = {"l2": 5.0}


class TestRelaxedDualEASE(ClosedFormCase):
    model_class = DualEASE
    options: ClassVar = {"l2": 5.0, "input_dropout": 0.2, "relax": 0.3}


@pytest.mark.parametrize("l2", [0.5, 10.0, 2000.0])
@pytest.mark.parametrize("block_rows", [7, 1024])
@pytest.mark.parametrize(("dropout", "relax"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.3), (0.2, 0.6)])
@pytest.mark.parametrize("weighted", ["", "user", "item", "user item"])
def test_dual_ease_equals_ease(l2, block_rows, dropout, relax, weighted, monkeypatch):
    monkeypatch.setattr("graphrec.models.inversion.BLOCK_ROWS", block_rows)
    graph = planted(num_users=30, num_items=100)
    histories = train_histories(graph)
    draw = torch.Generator().manual_seed(0)
    of_users, of_items = (torch.rand(size, generator=draw) + 0.1 for size in (graph.num_users, graph.num_items))
    weights_given = {"user_weights": of_users if "user" in weighted else None}
    weights_given["item_weights"] = of_items if "item" in weighted else None
    ours, theirs = (kind(graph.num_items, l2, dropout, relax, **weights_given) for kind in (DualEASE, EASE))
    ours.fit(histories)
    theirs.fit(histories)
    x = np.zeros((len(histories), graph.num_items))
    x[histories.rows, histories.items] = 1
    counted = [1.0 if given is None else given.double().numpy() for given in weights_given.values()]
    weights = relaxed(x, l2, dropout, relax, *counted)
    # People of the training, and strangers: one item more than a user has, one less, somebody else's taste, none.
    first, other = histories.items[: histories.lengths[0]].tolist(), list(range(9))
    more = [*first, next(item for item in range(graph.num_items) if item not in first)]
    strangers = Histories.from_lists([more, first, first[1:], other, []])
    y = np.zeros((len(strangers), graph.num_items))
    y[strangers.rows, strangers.items] = 1
    for asked, rows in ((histories, x), (strangers, y)):
        for model in (ours, theirs):
            np.testing.assert_allclose(score(model, asked).numpy(), rows @ weights, rtol=1e-3, atol=1e-4)


def test_an_item_counts_once_however_often_a_history_names_it():
    histories, twice = Histories.from_lists([[0, 1], [0, 1], [2]]), Histories.from_lists([[0, 0, 2], [2, 0]])
    for model in (DualEASE(3, 1.0), EASE(3, 1.0)):
        model.fit(histories)
        scores = score(model, twice)
        torch.testing.assert_close(scores[0], scores[1])
    parts = model.contributions(twice, item=1)
    assert parts[0] == parts[1] == parts[4] / 2
    assert parts[:3].sum().item() == pytest.approx(scores[0, 1].item())


def test_double_precision_ranks_alike():
    model = DualEASE(4, 1.0)
    model.fit(Histories.from_lists([[0, 1], [0, 1, 3], [2]]))
    asked = Histories.from_lists([[0], [2, 3]])
    before = score(model, asked)
    torch.testing.assert_close(score(model.double(), asked).float(), before)


def test_dual_ease_ranks_its_training_histories_without_a_product_of_matrices():
    graph = planted(num_users=30, num_items=100)
    histories = train_histories(graph)
    model = DualEASE(graph.num_items, 5.0)
    model.fit(histories)
    expected = score(model, histories)
    stranger = Histories.from_lists([histories.items[: histories.lengths[0]].tolist()[1:]])
    assert score(model, stranger).isfinite().all()
    rows = torch.full((30, 30), torch.nan)
    rows[0] = rows[:, 0] = BlockTriangle(model.kernel, 30).rows(torch.tensor([0]))
    model.kernel = rows.flatten()  # of user 0 no other row is read
    assert torch.equal(score(model, histories)[0], expected[0])
    assert score(model, stranger).isnan().any()


def test_dual_ease_counts_an_item_that_was_taken_twice_once():
    once, twice = Histories.from_lists([[0, 3], [3, 1], [2]]), Histories.from_lists([[3, 0, 3], [3, 1], [2]])
    ours, theirs = DualEASE(5, 2.0), EASE(5, 2.0)
    ours.fit(twice)
    theirs.fit(once)
    torch.testing.assert_close(score(ours, once), score(theirs, once))


def test_dual_ease_holds_one_matrix_at_a_time(monkeypatch):
    living = watch_large_tensors(monkeypatch, dual_ease)
    graph = planted_graph()
    model = DualEASE(graph.num_items, [1.0, 10.0])
    model.fit(histories_of(graph), lambda: -model.chosen_l2)
    assert living == [0, 0, 0]  # the first one again: it is the best
    model.fit(histories_of(graph))
    assert living == [0, 0, 0, 0]
    assert model.chosen_l2 == 1.0


def test_dual_ease_holds_half_of_the_matrix(monkeypatch):
    monkeypatch.setattr("graphrec.models.inversion.BLOCK_ROWS", 2)
    graph = planted(num_users=30, num_items=100)
    model = DualEASE(graph.num_items, 5.0)
    model.fit(train_histories(graph))
    assert model.kernel.shape == (30 * 31 // 2 + 15,)  # the triangle, and one number more in each block


def test_dual_ease_chooses_the_best_penalty():
    graph = planted_graph()
    model = DualEASE(graph.num_items, [1.0, 10.0, 100.0])
    values = iter([0.1, 0.3, 0.2])
    assert model.fit(histories_of(graph), lambda: next(values)) == {"l2": 10.0}
    assert float(model.chosen) == 10.0
    for wrong in (0.0, [], [1.0, -1.0]):
        with pytest.raises(ArgumentError, match="l2 must be a number above 0"):
            DualEASE(3, wrong)
