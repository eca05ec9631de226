from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.graphs import histories_of, planted_graph
from cases.model_case import GradientCase

from graphrec.errors import ArgumentError, LongHistoryWarning
from graphrec.histories import Histories
from graphrec.losses import gbce_power
from graphrec.models import SASRec


class TestSASRec(GradientCase):
    model_class = SASRec
    options: ClassVar = {"dim": 16, "dropout": 0.0, "max_length": 20}
    epochs = 40


class TestWithSoftmax(TestSASRec):
    options: ClassVar = {**TestSASRec.options, "loss": "softmax", "num_negatives": 40, "temperature": 0.2}


def make(**options):
    torch.manual_seed(0)
    model = SASRec(7, **{"dim": 8, "dropout": 0.0, "max_length": 4, **options})
    with torch.no_grad():
        model.item.normal_()
    return model


HISTORIES = Histories.from_lists([[0, 1, 2, 3, 4, 5], [6], [], [5, 2]], user_index=[0, 1, 2, 3])
ASKED = [([1, 2, 3, 4], 5), ([1, 2, 3], 4), ([1, 2], 3), ([1], 2), ([5], 2)]  # what is read, and what follows


def scores_at_each_place(model):
    """The scores from which each target of ``HISTORIES`` is predicted, a row a target."""
    states = model.states(Histories.from_lists([[1, 2, 3, 4], [], [], [5]]))
    return model.scaled(states) @ model.unit(model.item).t()


def test_a_state_knows_nothing_of_what_comes_later():
    model = make()
    states, others = (model.states(Histories.from_lists([items])) for items in ([1, 2, 3, 4], [1, 2, 5, 6]))
    torch.testing.assert_close(states[:2], others[:2])
    assert not torch.allclose(states[2:], others[2:])


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_softmax_over_all_items_asks_for_the_next_item_at_every_place(temperature):
    model = make(loss="softmax", num_negatives=100, temperature=temperature)
    expected = F.cross_entropy(scores_at_each_place(model), torch.tensor([2, 3, 4, 5, 2]))
    torch.testing.assert_close(model.loss(HISTORIES, torch.Generator()), expected)


def test_gbce_over_all_items_is_its_formula():
    model = make(loss="gbce", num_negatives=100, calibration=0.75)
    scores, losses = scores_at_each_place(model), []
    for row, target in zip(scores, (2, 3, 4, 5, 2), strict=True):
        others = torch.cat([row[:target], row[target + 1 :]])
        losses.append((F.softplus(-row[target]) * gbce_power(7, 7, 0.75) + F.softplus(others).sum()) / 8)
    torch.testing.assert_close(model.loss(HISTORIES, torch.Generator()), torch.stack(losses).mean())


def test_bce_draws_one_item_that_the_user_did_not_take():
    model = make()
    scores, generator = scores_at_each_place(model), torch.Generator()
    seen = set()
    for seed in range(60):
        loss = model.loss(HISTORIES, generator.manual_seed(seed))
        # The first user took all but item 6; the last all but 0, 1, 3, 4 and 6.
        possible = []
        for other in (0, 1, 3, 4, 6):
            pairs = [(row, target, 6) for row, target in enumerate((2, 3, 4, 5))] + [(4, 2, other)]
            terms = [F.softplus(-scores[row, t]) + F.softplus(scores[row, n]) for row, t, n in pairs]
            possible.append(torch.stack(terms).mean() / 2)
        near = [index for index, value in enumerate(possible) if torch.isclose(loss, value, atol=1e-6)]
        assert len(near) == 1
        seen.add(near[0])
    assert seen == {0, 1, 2, 3, 4}


def test_who_took_everything_has_no_negative():
    model = make(max_length=9)
    loss = model.loss(Histories.from_lists([[0, 1, 2, 3, 4, 5, 6]], [0]), torch.Generator())
    loss.backward()
    assert loss.isfinite()
    assert model.item.grad.isfinite().all()


def test_the_order_of_items_matters_and_only_the_most_recent_are_read():
    model = make().eval()
    first, swapped, longer = (Histories.from_lists([row]) for row in ([1, 2, 3, 4], [2, 1, 3, 4], [6, 0, 1, 2, 3, 4]))
    assert not torch.allclose(model.score(first), model.score(swapped))
    torch.testing.assert_close(model.score(longer), model.score(first))


def test_times_out_of_order_are_sorted_and_equal_ones_stay():
    model = make().eval()
    given = Histories(torch.tensor([4, 1, 2, 3]), torch.tensor([0, 4]), times=torch.tensor([9.0, 5.0, 5.0, 7.0]))
    torch.testing.assert_close(model.score(given), model.score(Histories.from_lists([[1, 2, 3, 4]])))


def test_histories_that_are_cut_are_told_once():
    model = make(max_length=5)
    with pytest.warns(
        LongHistoryWarning, match=r"SASRec reads the 5 most recent items of a history; 1 of 4 are longer"
    ):
        model.prepare(HISTORIES)
    model.prepare(HISTORIES)  # a second warning would be an error


def test_a_graph_without_times_is_refused():
    graph = planted_graph()
    timeless = replace(graph, interactions=replace(graph.interactions, time=None))
    with pytest.raises(
        ArgumentError, match="SASRec reads histories in order of time, and graph 'planted' has no times"
    ):
        SASRec.from_graph(timeless)


def test_training_follows_the_generator():
    model = SASRec.from_graph(planted_graph(), loss="softmax", num_negatives=10, dropout=0.0)
    first, again, other = (
        model.loss(histories_of(planted_graph()), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"max_length": 0}, "max_length must be >= 1, got 0"),
        ({"num_negatives": 0}, "num_negatives must be >= 1, got 0"),
        ({"num_blocks": 0}, "num_blocks must be >= 1, got 0"),
        ({"loss": "gbse"}, "loss must be one of 'bce', 'gbce', 'softmax', got 'gbse'; did you mean 'gbce'"),
        ({"calibration": 2.0}, "calibration must be within"),
        ({"temperature": 1e-4}, "temperature must be >= 0.001"),
        ({"heads": 3}, "heads must divide channels"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_values_outside_their_range_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        SASRec(5, **{"dim": 8, **options})
