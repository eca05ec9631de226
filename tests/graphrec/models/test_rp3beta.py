from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import ClosedFormCase

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import RP3beta


class TestRP3beta(ClosedFormCase):
    model_class = RP3beta
    options: ClassVar = {"alpha": 0.6, "beta": 0.3}


def walks(lists: list[list[int]], num_items: int, alpha: float, beta: float) -> np.ndarray:
    """Scores of each item for a history of one item, ``[num_items, num_items]``, by loops over users."""
    users = [[u for u, items in enumerate(lists) if item in items] for item in range(num_items)]
    scores = np.zeros((num_items, num_items))
    for i in range(num_items):
        for u in users[i]:
            for j in lists[u]:
                scores[i, j] += len(users[i]) ** -alpha * len(lists[u]) ** -alpha * len(users[j]) ** -beta
    return scores


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 0.4)])
def test_equals_walks_one_by_one(alpha, beta):
    graph = planted_graph()
    histories = histories_of(graph)
    lists = [histories.select(torch.tensor([row])).items.tolist() for row in range(len(histories))]
    model = RP3beta(graph.num_items, alpha, beta)
    model.fit(histories)
    expected = walks(lists, graph.num_items, alpha, beta)
    each_item = Histories.from_lists([[item] for item in range(graph.num_items)])
    np.testing.assert_allclose(model.score(each_item).numpy(), expected, rtol=1e-5)
    x = np.zeros((len(histories), graph.num_items))
    x[histories.rows, histories.items] = 1
    np.testing.assert_allclose(model.score(histories).numpy(), x @ expected, rtol=1e-5)


def test_steps_of_probability_keep_it():
    model = RP3beta(num_items=4, alpha=1.0, beta=0.0)
    model.fit(Histories.from_lists([[0, 1], [1, 2, 3], [2], [0, 3]]))
    np.testing.assert_allclose(model.score(Histories.from_lists([[0], [1], [2]])).sum(dim=1), 1.0, rtol=1e-6)


def test_a_larger_beta_ranks_what_is_popular_lower():
    # Both 1 and 2 were taken with 0 by one user; 2 by another, too, who took nothing else.
    lists = [[0, 1, 2], [2]]
    plain, penalised = (RP3beta(num_items=3, alpha=1.0, beta=beta) for beta in (0.0, 0.5))
    for model in (plain, penalised):
        model.fit(Histories.from_lists(lists))
    for model, ratio in ((plain, 1.0), (penalised, 2**-0.5)):
        scores = model.score(Histories.from_lists([[0]]))[0]
        assert (scores[2] / scores[1]).item() == pytest.approx(ratio)


def test_contributions_add_up_and_repeated_entries_share():
    graph = planted_graph()
    model = RP3beta(graph.num_items, 0.5, 0.3)
    model.fit(histories_of(graph))
    near = histories_of(graph).items[:2].tolist()  # of one user
    for items in ([2, 7, 11], [11, *near[:1] * 2]):
        history = Histories.from_lists([items])
        parts = model.contributions(history, item=near[1])
        assert parts.sum().item() == pytest.approx(model.score(history)[0, near[1]].item(), rel=1e-5)
    assert parts[1] == parts[2] > 0


@pytest.mark.parametrize("best", [(0.3, 0.0), (1.0, 0.5)])
def test_both_values_are_chosen_on_validation_and_kept(best):
    graph = planted_graph()
    histories = histories_of(graph)
    model = RP3beta(graph.num_items, [0.3, 1.0], [0.0, 0.5, 3.0])
    tried = []

    def validate() -> float:
        single = RP3beta(graph.num_items, *model.chosen_values)
        single.fit(histories)
        assert torch.equal(model.score(histories), single.score(histories))
        tried.append(model.chosen_values)
        return float(model.chosen_values == best)

    assert model.eval().fit(histories, validate) == {"alpha": best[0], "beta": best[1]}
    assert tried == [(alpha, beta) for alpha in (0.3, 1.0) for beta in (0.0, 0.5, 3.0)]
    fewer = histories.select(torch.arange(50))
    assert model.fit(fewer) == {}
    assert model.chosen_values == best
    single = RP3beta(graph.num_items, *best)
    single.fit(fewer)
    loaded = RP3beta(graph.num_items)
    loaded.load_state_dict(model.state_dict())
    for other in (single, loaded):
        assert torch.equal(other.eval().score(histories), model.score(histories))


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 0.0), ("alpha", []), ("alpha", [0.5, -1.0]), ("beta", -0.1), ("beta", []), ("beta", float("nan"))],
)
def test_values_outside_their_range_are_named(name, value):
    with pytest.raises(ArgumentError, match=f"{name} must be a number .* or several of them, got"):
        RP3beta(num_items=3, **{name: value})
