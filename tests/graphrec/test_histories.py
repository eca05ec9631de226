import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.histories import Histories


def batch(times=None):
    return Histories(
        torch.tensor([5, 3, 8, 1, 4, 7]),
        torch.tensor([0, 4, 4, 6]),
        torch.tensor([2, 0, 1]),
        None if times is None else torch.tensor(times, dtype=torch.float64),
        torch.arange(6.0),
    )


def lists(histories):
    return [histories.items[start:stop].tolist() for start, stop in pairwise(histories.offsets.tolist())]


def test_places_count_from_the_end():
    assert batch().from_end.tolist() == [3, 2, 1, 0, 1, 0]


def test_repeated_items_are_counted_and_kept_once():
    named = Histories.from_lists([[3, 1, 3, 3], [], [3]], [4, 5, 6])
    assert named.repeats.tolist() == [3, 1, 3, 3, 1]
    assert lists(named.distinct()) == [[3, 1], [], [3]]
    assert named.distinct().user_index.tolist() == [4, 5, 6]
    assert batch().distinct().items.equal(batch().items)
    assert Histories.from_lists([[]]).distinct().repeats.tolist() == []


def test_the_most_recent_are_kept():
    assert lists(batch().recent(3)) == [[3, 8, 1], [], [4, 7]]
    assert batch().recent(4).items.equal(batch().items)
    assert batch().recent(1).weights.tolist() == [3.0, 5.0]
    assert batch().recent(1).user_index.tolist() == [2, 0, 1]


def test_each_item_asks_for_the_next():
    for length, read, follows in ((9, [[5, 3, 8], [], [4]], [3, 8, 1, 7]), (2, [[3, 8], [], [4]], [8, 1, 7])):
        histories, mask = batch().next_items(length)
        assert lists(histories) == read
        assert batch().items[mask].tolist() == follows


def test_when_a_question_is_asked_goes_with_its_user():
    asked = replace(batch([4, 2, 4, 2, 9, 1]), asked_at=torch.tensor([30.0, 20.0, 10.0]).double())
    assert asked.select(torch.tensor([2, 0])).asked_at.tolist() == [10, 30]
    assert asked.endings().asked_at.tolist() == [30] * 4 + [10] * 2
    assert asked.entries(torch.tensor([4, 1])).asked_at.tolist() == [10, 30]
    for same in (asked.in_order(), asked.recent(2), asked.strangers(), asked.to("cpu"), asked.distinct()):
        assert same.asked_at.tolist() == [30, 20, 10]
    assert asked.in_order().followed_at.tolist() == [2, 4, 4, 30, 9, 10]
    assert asked.recent(1).followed_at.tolist() == [30, 10]
    assert batch([4, 2, 4, 2, 9, 1]).in_order().followed_at.tolist() == [2, 4, 4, 4, 9, 9]  # asked with the last
    assert batch().followed_at is None
    assert asked.fingerprint() != batch([4, 2, 4, 2, 9, 1]).fingerprint()
    with pytest.raises(ArgumentError, match=r"histories.asked_at must have shape \[3\], got \[2\]"):
        replace(asked, asked_at=torch.zeros(2))


def test_the_next_item_is_asked_for_when_it_was_taken():
    histories, mask = batch([1, 2, 3, 5, 8, 13]).next_items(2)
    assert histories.asked_at[[0, 2]].tolist() == [5, 13]  # the second user has no item
    assert histories.followed_at.tolist() == batch([1, 2, 3, 5, 8, 13]).times[mask].tolist() == [3, 5, 13]
    nothing = Histories.from_lists([[]])
    assert replace(nothing, times=torch.empty(0)).next_items(2)[0].followed_at.tolist() == []


def test_order_of_time_is_stable_and_stays_within_a_user():
    histories = batch([4, 2, 4, 2, 9, 1])
    assert lists(histories.in_order()) == [[3, 1, 5, 8], [], [7, 4]]
    assert histories.in_order().times.tolist() == [2, 2, 4, 4, 1, 9]
    assert histories.in_order().weights.tolist() == [1.0, 3.0, 0.0, 2.0, 5.0, 4.0]
    in_order = batch([1, 2, 2, 3, 0, 0])
    assert in_order.order().tolist() == list(range(6))
    assert lists(batch().in_order()) == lists(batch())


def test_endings_keep_who_and_when():
    endings = batch([1, 2, 3, 4, 5, 6]).endings()
    assert lists(endings) == [[5, 3, 8, 1], [3, 8, 1], [8, 1], [1], [4, 7], [7]]
    assert endings.user_index.tolist() == [2, 2, 2, 2, 1, 1]
    assert endings.times.tolist() == [1, 2, 3, 4, 2, 3, 4, 3, 4, 4, 5, 6, 6]
    assert len(Histories.from_lists([[]]).endings()) == 0


def test_histories_without_each_item():
    history = Histories(torch.tensor([3, 1, 4]), torch.tensor([0, 3]), torch.tensor([7]), torch.tensor([0.0, 1.0, 2.0]))
    left = history.without_each()
    assert left.offsets.tolist() == [0, 2, 4, 6]
    assert left.items.tolist() == [1, 4, 3, 4, 3, 1]
    assert left.times.tolist() == [1, 2, 0, 2, 0, 1]
    assert left.user_index.tolist() == [7, 7, 7]
    assert Histories.from_lists([[5]]).without_each().lengths.tolist() == [0]
    assert len(Histories.from_lists([[]]).without_each()) == 0


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
def test_what_is_read_without_each_item_is_known_from_its_place(length):
    times = torch.tensor([3.0, 9.0, 7.0, 5.0, 5.0])
    history = Histories(torch.tensor([10, 11, 12, 13, 14]), torch.tensor([0, 5]), times=times)
    read, place = history.recent_without_each(length)
    assert read.items.numel() <= length + 1
    for item in range(5):
        wanted = history.keep(torch.arange(5) != item).in_order().recent(length)
        found = read.keep(torch.arange(read.items.numel()) != place[item]).recent(length)
        assert found.items.tolist() == wanted.items.tolist()


def test_only_one_history_is_read_without_each_item():
    two = Histories.from_lists([[1], [2]])
    for ask in (two.without_each, lambda: two.recent_without_each(3)):
        with pytest.raises(ArgumentError, match="histories must hold one row, got 2"):
            ask()


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_times_that_have_no_order_are_refused(unknown):
    times = torch.tensor([5.0, unknown, 3.0], dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"histories\.times must be finite"):
        Histories(torch.tensor([0, 1, 2]), torch.tensor([0, 3]), times=times)
