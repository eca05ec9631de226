from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import ClosedFormCase

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import EASE, SLIST
from kg_loaders.synthetic import planted


class TestSLIST(ClosedFormCase):
    model_class = SLIST
    options: ClassVar = {"l2": 5.0, "recency": 3.0, "alpha": 0.4}


def naive(lists: list[list[int]], num_items: int, l2: float, recency: float, alpha: float) -> np.ndarray:
    """The ridge regression with a row for each target, solved item by item in float64."""
    inputs, targets = [], []
    for items in lists:
        row = np.zeros(num_items)
        row[items] = np.sqrt(alpha)
        inputs.append(row)
        targets.append(row)
        for t in range(1, len(items)):
            row, target = np.zeros(num_items), np.zeros(num_items)
            for k in range(t):
                row[items[k]] += np.exp(-(t - 1 - k) / recency)
            target[items[t]] = 1.0
            inputs.append(np.sqrt(1 - alpha) * row)
            targets.append(np.sqrt(1 - alpha) * target)
    x, y = np.array(inputs), np.array(targets)
    weight = np.zeros((num_items, num_items))
    for j in range(num_items):  # its own weight is held at 0, so its column is left out
        others = np.arange(num_items) != j
        known = x[:, others]
        weight[others, j] = np.linalg.solve(known.T @ known + l2 * np.eye(num_items - 1), known.T @ y[:, j])
    return weight


@pytest.mark.parametrize("most_pairs", [1, 50, 2**22])
@pytest.mark.parametrize(("l2", "recency", "alpha"), [(0.5, 1.0, 0.0), (10.0, 4.0, 0.3), (3.0, 1e6, 0.9)])
def test_equals_a_regression_on_a_row_for_each_target(l2, recency, alpha, most_pairs, monkeypatch):
    monkeypatch.setattr("graphrec.models.slist.MOST_PAIRS", most_pairs)
    graph = planted_graph()
    histories = histories_of(graph).in_order()
    lists = [histories.select(torch.tensor([row])).items.tolist() for row in range(len(histories))]
    model = SLIST(graph.num_items, l2, recency, alpha)
    model.fit(histories)
    expected = naive(lists, graph.num_items, l2, recency, alpha)
    np.testing.assert_allclose(model.weight.numpy(), expected, rtol=1e-3, atol=1e-5)
    x = np.zeros((len(histories), graph.num_items))
    x[histories.rows, histories.items] = np.exp(-histories.from_end.numpy() / recency)
    np.testing.assert_allclose(model.score(histories).numpy(), x @ expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("block_rows", [1, 7, 80])
def test_the_size_of_blocks_does_not_matter(block_rows, monkeypatch):
    histories = histories_of(planted_graph())
    whole, blocks = SLIST(planted_graph().num_items, 5.0), SLIST(planted_graph().num_items, 5.0)
    whole.fit(histories)
    monkeypatch.setattr("graphrec.models.inversion.BLOCK_ROWS", block_rows)
    monkeypatch.setattr("graphrec.models.slist.BLOCK_ROWS", block_rows)
    blocks.fit(histories)
    torch.testing.assert_close(blocks.weight, whole.weight, rtol=1e-4, atol=1e-6)


def test_sums_of_rows_are_the_product(monkeypatch):
    histories = histories_of(planted_graph())
    product, sums = SLIST(planted_graph().num_items, 5.0), SLIST(planted_graph().num_items, 5.0)
    for model, sparse in ((product, 0.0), (sums, 1.0)):
        monkeypatch.setattr("graphrec.models.slist.SPARSE", sparse)
        model.fit(histories)
    torch.testing.assert_close(sums.weight, product.weight, rtol=1e-4, atol=1e-6)


def test_without_order_its_weights_are_those_of_ease():
    graph = planted_graph()
    unordered, ease = SLIST(graph.num_items, 10.0, recency=2.0, alpha=1.0), EASE(graph.num_items, 10.0)
    for model in (unordered, ease):
        model.fit(histories_of(graph))
    torch.testing.assert_close(unordered.weight, ease.weight, rtol=1e-4, atol=1e-6)


def test_a_repeated_item_counts_in_each_of_its_places():
    lists = [[0, 1, 0, 2], [2, 0, 0], [1, 2]]
    model = SLIST(3, 1.0, 2.0, 0.0)
    model.fit(Histories.from_lists(lists))
    np.testing.assert_allclose(model.weight.numpy(), naive(lists, 3, 1.0, 2.0, 0.0), atol=1e-6)


def test_times_decide_the_order_and_equal_ones_stay():
    times = torch.tensor([9.0, 5.0, 5.0, 7.0])
    given = Histories(torch.tensor([4, 1, 2, 3]), torch.tensor([0, 4]), times=times)
    model, sorted_before = SLIST(5, 1.0, 2.0), SLIST(5, 1.0, 2.0)
    model.fit(given)
    sorted_before.fit(Histories.from_lists([[1, 2, 3, 4]]))
    assert torch.equal(model.weight, sorted_before.weight)
    assert torch.equal(model.score(given), model.score(Histories.from_lists([[1, 2, 3, 4]])))
    for item in range(5):
        parts = model.contributions(given, item)
        assert parts.sum().item() == pytest.approx(model.score(given)[0, item].item(), abs=1e-6)
        assert parts[0].item() == pytest.approx(model.weight[4, item].item())  # the last in time


@pytest.mark.parametrize("best", [(1.0, 2.0, 0.0), (9.0, 4.0, 0.5)])
def test_all_values_are_chosen_on_validation_and_kept(best):
    graph = planted_graph()
    histories = histories_of(graph)
    model = SLIST(graph.num_items, [1.0, 9.0], [2.0, 4.0], [0.0, 0.5])
    assert model.chosen_values == (9.0, 4.0, 0.5)
    tried = []

    def validate():
        tried.append(model.chosen_values)
        return float(tried[-1] == best)

    assert model.fit(histories, validate) == dict(zip(("l2", "recency", "alpha"), best, strict=True))
    assert len(tried) == len(set(tried)) == 8
    alone = SLIST(graph.num_items, *best)
    alone.fit(histories)
    assert torch.equal(model.weight, alone.weight)
    model.fit(histories)  # a refit uses what was chosen
    assert model.chosen_values == best
    loaded = SLIST(graph.num_items)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded.score(histories), alone.score(histories))


def test_order_that_the_data_have_is_found():
    # Each item is followed by the next one, and all are taken equally often: only order tells.
    lists = [[(start + step) % 6 for step in range(4)] for start in range(6)] * 3
    model = SLIST(6, 1.0, 1.0, 0.2)
    model.fit(Histories.from_lists(lists))
    last = Histories.from_lists([[item] for item in range(6)])
    assert model.score(last).argmax(dim=1).tolist() == [1, 2, 3, 4, 5, 0]


def test_a_graph_without_times_is_refused():
    graph = planted()
    timeless = replace(graph, interactions=replace(graph.interactions, time=None))
    with pytest.raises(ArgumentError, match="SLIST reads histories in order of time, and graph 'planted' has no times"):
        SLIST.from_graph(timeless)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2": 0.0}, "l2 must be a number above 0 or several of them"),
        ({"recency": 0.0}, "recency must be a number above 0 or several of them"),
        ({"recency": []}, "recency must be a number above 0"),
        ({"alpha": [0.5, 1.5]}, r"alpha must be within 0\.0\.\.1\.0, got 1\.5"),
        ({"alpha": -0.5}, "alpha must be a number >= 0"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        SLIST(5, **options)


def test_a_penalty_too_small_is_refused():
    with pytest.raises(ArgumentError, match="l2 must be larger for these data"):
        SLIST(3, 1e-12).fit(Histories.from_lists([[0, 1, 2]] * 1000))
