from itertools import pairwise

import torch

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
