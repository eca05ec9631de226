from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.model_case import GradientCase

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import HSTU


class TestHSTU(GradientCase):
    model_class = HSTU
    options: ClassVar = {"dim": 16, "dropout": 0.0, "max_length": 20, "num_negatives": 40, "temperature": 0.2}
    epochs = 40


def make(**options):
    torch.manual_seed(0)
    model = HSTU(7, **{"dim": 8, "dropout": 0.0, "max_length": 4, "num_negatives": 100, **options})
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5)
    return model.eval()


def history(items, times):
    return Histories(torch.tensor(items), torch.tensor([0, len(items)]), times=torch.tensor(times, dtype=torch.float64))


def test_softmax_over_all_items_asks_for_the_next_item_at_every_place():
    model = make()
    states = model.states(Histories.from_lists([[1, 2, 3, 4], [5]]))
    logits = F.normalize(states, dim=1) @ F.normalize(model.item, dim=1).t() / 0.05
    expected = F.cross_entropy(logits, torch.tensor([2, 3, 4, 5, 2]))
    batch = Histories.from_lists([[0, 1, 2, 3, 4, 5], [6], [5, 2]], [0, 1, 2])
    torch.testing.assert_close(model.loss(batch, torch.Generator()), expected)


def test_a_state_knows_nothing_of_what_comes_later():
    model = make(num_time_buckets=20)
    states, others = (model.states(history(items, [0, 5, 9, 20])) for items in ([1, 2, 3, 4], [1, 2, 5, 6]))
    torch.testing.assert_close(states[:2], others[:2])
    assert not torch.allclose(states[2:], others[2:])


def test_time_matters_where_it_has_a_bias_and_only_the_most_recent_are_read():
    model, timeless = make(num_time_buckets=20), make()
    near, far = history([1, 2, 3], [0, 5, 9]), history([1, 2, 3], [0, 5, 9000])
    assert not torch.allclose(model.score(near), model.score(far))
    torch.testing.assert_close(timeless.score(near), timeless.score(far))
    longer = history([6, 0, 1, 2, 3], [-9, -8, -7, 5, 9])
    torch.testing.assert_close(model.score(longer), model.score(history([0, 1, 2, 3], [-8, -7, 5, 9])))
    torch.testing.assert_close(model.score(near), model.score(history([3, 1, 2], [9, 0, 5])))


def test_the_moment_of_the_request_matters_where_it_is_read():
    told, other = make(num_time_buckets=20, request_time=True), make(num_time_buckets=20)
    unsaid = history([1, 2, 3], [0, 5, 9])
    soon, late = (replace(unsaid, asked_at=torch.tensor([moment]).double()) for moment in (9, 9000))
    torch.testing.assert_close(told.score(soon), told.score(unsaid))
    assert not torch.allclose(told.score(late), told.score(unsaid))
    torch.testing.assert_close(other.score(late), other.score(unsaid))
    states = told.states(replace(history([1, 2], [0, 5]), asked_at=torch.tensor([9.0]).double()))
    torch.testing.assert_close(states, told.states(late)[:2])  # in training each item is asked for when it was taken
    with pytest.raises(ArgumentError, match="request_time needs num_time_buckets above 0, got 0"):
        make(request_time=True)


def test_missing_times_are_named():
    with pytest.raises(ArgumentError, match=r"num_time_buckets=20 needs times \[2\], got None"):
        make(num_time_buckets=20).score(Histories.from_lists([[0, 1]]))


def test_values_outside_their_range_are_named():
    for name in ("num_blocks", "dim", "max_length"):
        with pytest.raises(ArgumentError, match=f"{name} must be >= 1, got 0"):
            HSTU(5, **{name: 0})
    with pytest.raises(ArgumentError, match="num_time_buckets must be >= 0"):
        HSTU(5, num_time_buckets=-1)
