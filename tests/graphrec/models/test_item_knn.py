import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import ClosedFormCase, recall

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import ItemKNN


class TestItemKNN(ClosedFormCase):
    model_class = ItemKNN
    options: ClassVar = {"num_neighbors": 6, "shrinkage": 2.0}


def naive(lists: list[list[int]], num_items: int, num_neighbors: int, shrinkage: float) -> np.ndarray:
    """Similarities ``[num_items, num_items]`` by loops over sets of users."""
    users = [{u for u, items in enumerate(lists) if item in items} for item in range(num_items)]
    similarity = np.zeros((num_items, num_items))
    for i in range(num_items):
        row = {}
        for j in range(num_items):
            if i != j and users[i] & users[j]:
                norm = math.sqrt(len(users[i]) * len(users[j])) + shrinkage
                row[j] = np.float32(len(users[i] & users[j]) / norm)
        least = sorted(row.values(), reverse=True)[:num_neighbors][-1:]
        for j, value in row.items():
            if value >= least[0]:
                similarity[i, j] = value
    return similarity


@pytest.mark.parametrize("shrinkage", [0.0, 3.5])
@pytest.mark.parametrize("num_neighbors", [1, 4, 1000])
def test_equals_naive_loops(num_neighbors, shrinkage):
    graph = planted_graph()
    histories = histories_of(graph)
    lists = [histories.select(torch.tensor([row])).items.tolist() for row in range(len(histories))]
    model = ItemKNN(graph.num_items, num_neighbors=num_neighbors, shrinkage=shrinkage)
    model.fit(histories)
    expected = naive(lists, graph.num_items, num_neighbors, shrinkage)
    each_item = Histories.from_lists([[item] for item in range(graph.num_items)])
    np.testing.assert_allclose(model.score(each_item).numpy(), expected, rtol=1e-6)
    x = np.zeros((len(histories), graph.num_items))
    x[histories.rows, histories.items] = 1
    np.testing.assert_allclose(model.score(histories).numpy(), x @ expected, rtol=1e-5)


def test_ties_with_the_last_neighbour_belong():
    # Item 0 is as similar to 1 as to 2, and less to nothing else.
    model = ItemKNN(num_items=4, num_neighbors=1, shrinkage=0.0)
    model.fit(Histories.from_lists([[0, 1], [0, 2], [3]]))
    scores = model.score(Histories.from_lists([[0]]))[0]
    assert scores[1] == scores[2] > 0
    assert scores[3] == 0


def test_only_the_neighbours_are_kept():
    graph = planted_graph()
    few, many = (ItemKNN(graph.num_items, num_neighbors=count, shrinkage=1.0) for count in (2, 20))
    for model in (few, many):
        model.fit(histories_of(graph))
    assert few.neighbors.numel() < many.neighbors.numel() < graph.num_items**2 / 2
    assert few.offsets.tolist()[-1] == few.neighbors.numel() == few.similarities.numel()


def test_both_values_are_chosen_on_validation():
    graph = planted_graph()
    histories = histories_of(graph)
    model = ItemKNN(graph.num_items, num_neighbors=[1, 30], shrinkage=[0.0, 10.0, 1e9])
    tried = {}

    def validate() -> float:
        single = ItemKNN(graph.num_items, model.chosen_num_neighbors, model.chosen_shrinkage)
        single.fit(histories)
        assert torch.equal(model.score(histories), single.score(histories))
        value = recall(model.score(histories), graph)
        tried[model.chosen_num_neighbors, model.chosen_shrinkage] = value
        return value

    chosen = model.eval().fit(histories, validate)
    assert set(tried) == {(k, s) for k in (1, 30) for s in (0.0, 10.0, 1e9)}
    assert tried[chosen["num_neighbors"], chosen["shrinkage"]] == max(tried.values()) > min(tried.values())
    # The next fit uses what was chosen.
    fewer = histories.select(torch.arange(50))
    assert model.fit(fewer) == {}
    single = ItemKNN(graph.num_items, int(chosen["num_neighbors"]), chosen["shrinkage"])
    single.fit(fewer)
    assert torch.equal(model.score(histories), single.score(histories))


@pytest.mark.parametrize("best", [(1, 0.0), (9, 0.0), (1, 5.0), (9, 5.0)])
def test_the_model_ends_as_the_best_one(best):
    graph = planted_graph()
    histories = histories_of(graph)
    model = ItemKNN(graph.num_items, [1, 9], [0.0, 5.0])
    model.eval().fit(histories, lambda: float((model.chosen_num_neighbors, model.chosen_shrinkage) == best))
    single = ItemKNN(graph.num_items, *best)
    single.fit(histories)
    for name, value in single.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_neighbors", 0),
        ("num_neighbors", []),
        ("num_neighbors", [5, 0]),
        ("num_neighbors", 2.5),
        ("shrinkage", -1.0),
        ("shrinkage", []),
        ("shrinkage", float("nan")),
    ],
)
def test_values_outside_their_range_are_named(name, value):
    with pytest.raises(ArgumentError, match=f"{name} must be .* or several of them, got"):
        ItemKNN(num_items=3, **{name: value})
