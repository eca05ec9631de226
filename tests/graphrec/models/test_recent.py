import torch
from cases.graphs import planted_graph

from graphrec.histories import Histories
from graphrec.models import EASE, InductiveKGAT
from graphrec.models.base import RECENT_BYTES
from graphrec.models.blend import Blend
from graphrec.models.recent import Recent


def test_what_was_asked_for_longest_ago_makes_room():
    recent = Recent(12)
    for key in "abc":
        recent.put(key, b"", torch.zeros(1))
    assert recent.get("a", b"") is not None
    recent.put("d", b"", torch.zeros(1))
    assert [key for key in "abcd" if recent.get(key, b"") is None] == ["b"]
    assert recent.used_bytes == 12


def test_a_value_that_comes_again_takes_its_room_once():
    recent = Recent(12)
    recent.put("a", b"", torch.zeros(1))
    recent.put("a", b"", (torch.zeros(1), torch.zeros(1)))
    assert recent.used_bytes == 8
    assert len(recent.get("a", b"")) == 2


def test_another_version_is_unknown_and_takes_the_place_of_the_one_before():
    recent = Recent(12)
    recent.put("a", b"1", torch.zeros(1))
    assert recent.get("a", b"2") is None
    recent.put("a", b"2", torch.zeros(2))
    assert recent.get("a", b"1") is None
    assert recent.get("a", b"2").shape == (2,)
    assert recent.used_bytes == 8


def test_what_is_larger_than_the_room_is_not_kept_and_drops_nothing():
    recent = Recent(8)
    recent.put("a", b"", torch.zeros(2))
    recent.put("b", b"", torch.zeros(3))
    assert recent.get("a", b"") is not None
    assert recent.get("b", b"") is None
    assert recent.used_bytes == 8


def test_a_view_counts_with_all_that_it_keeps_in_memory():
    recent = Recent(100)
    recent.put("a", b"", torch.zeros(20)[:1])
    assert recent.used_bytes == 80


def test_a_model_and_those_in_it_remember_as_much_as_they_are_told_to():
    graph = planted_graph()
    model = Blend(InductiveKGAT.from_graph(graph, dim=8), EASE.from_graph(graph)).eval()
    asked = []

    def ask(number):
        def compute():
            asked.append(number)
            return torch.zeros(10)

        with torch.no_grad():
            model.first.cached_of("key", Histories.from_lists([[number]]), compute)

    model.remember(80)
    for number in (0, 1, 2, 2, 0):
        ask(number)
    assert asked == [0, 1, 2, 0]
    assert model.remembered_bytes == 80
    model.remember(RECENT_BYTES)
    assert model.remembered_bytes == 0
    for number in (0, 1, 2, 2, 0):
        ask(number)
    assert asked == [0, 1, 2, 0, 0, 1, 2]
    assert model.remembered_bytes == 120
    model.train()
    assert model.remembered_bytes == 0


def test_of_a_known_user_what_they_took_is_remembered_as_it_is_now():
    model = EASE.from_graph(planted_graph()).eval()
    asked = []
    for items, user in (([1], 5), ([1, 2], 5), ([1], 6), ([1, 2], 5), ([1], 5), ([1], None), ([1], None)):
        histories = Histories.from_lists([items], None if user is None else [user])
        model.cached_of("key", histories, lambda asked=asked, of=(items, user): asked.append(of) or torch.zeros(1))
    assert asked == [([1], 5), ([1, 2], 5), ([1], 6), ([1], 5), ([1], None)]
    assert model.remembered_bytes == 12
