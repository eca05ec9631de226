from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from cases.toy_models import ToyTable

from graphrec.errors import ArgumentError
from graphrec.models import Popularity
from graphrec.serving import live_users
from graphrec.serving.live_users import Change, LiveUsers
from graphrec.serving.recommender import RunRecommender
from kg_loaders.synthetic import planted


@pytest.fixture
def run() -> RunRecommender:
    graph = planted()
    return RunRecommender(Popularity.from_graph(graph), graph)


def test_the_last_event_about_an_item_counts() -> None:
    change = Change().after(4, "like").after(2, "like").after(4, "like")
    assert change == Change(liked=(2, 4))  # in the order of the last likes
    assert change.after(2, "dislike") == Change(liked=(4,), disliked=frozenset([2]))
    assert change.after(2, "dislike").after(2, "like") == Change(liked=(4, 2))
    assert change.after(2, "dislike").after(2, "undo") == Change(liked=(4,))


def test_a_past_is_the_datas_without_dislikes_then_likes(run: RunRecommender) -> None:
    users = LiveUsers(run)
    user = run.graph.users.id_of(3)
    past = run.known.select(torch.tensor([3])).items.tolist()
    other = next(item for item in range(run.graph.num_items) if item not in past)
    assert users.past(user).tolist() == past
    users.take(user, other, "like")
    users.take(user, past[1], "like")  # it is in the past already
    users.take(user, past[0], "dislike")
    assert users.past(user).tolist() == [*past[1:], other]
    assert users.past(run.graph.users.id_of(4)).tolist() == run.known.select(torch.tensor([4])).items.tolist()


def test_who_sends_an_event_is_a_user_without_an_index(run: RunRecommender) -> None:
    users = LiveUsers(run)
    assert "ann" not in users
    assert users.past("ann").tolist() == []
    users.take("ann", 5, "like")
    assert "ann" in users
    assert users.index_of("ann") is None
    assert users.index_of(run.graph.users.id_of(2)) == 2
    assert users.past("ann").tolist() == [5]


def test_a_model_with_a_user_table_keeps_the_datas_past(run: RunRecommender) -> None:
    users = LiveUsers(RunRecommender(ToyTable.from_graph(run.graph), run.graph))
    user = run.graph.users.id_of(3)
    past = users.past(user).tolist()
    users.take(user, past[0], "dislike")
    assert users.past(user).tolist() == past
    assert users.change(user).disliked == {past[0]}


def test_search_offers_the_shortest_ids_first_and_those_of_events(run: RunRecommender) -> None:
    users = LiveUsers(run)
    users.take("zoe", 0, "like")
    users.take(run.graph.users.id_of(0), 0, "like")
    assert users.search("zo", 10) == ["zoe"]
    assert users.search("", 3) == ["zoe", *sorted(run.graph.users)[:2]]


def test_one_user_may_not_change_without_end(run: RunRecommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_users, "MOST_CHANGES", 2)
    users = LiveUsers(run)
    users.take("ann", 0, "like")
    users.check_room("ann", 1, "dislike")
    users.take("ann", 1, "dislike")
    for kind in ("like", "dislike"):
        with pytest.raises(ArgumentError, match="a user may like and dislike 2 items"):
            users.check_room("ann", 2, kind)
        for item in (0, 1):  # they may change their mind
            users.check_room("ann", item, kind)
    users.check_room("ann", 1, "undo")


def test_likes_count_as_taken_with_the_last_of_the_data(run: RunRecommender) -> None:
    users = LiveUsers(run)
    known = run.known.select(torch.tensor([3]))
    user, past = run.graph.users.id_of(3), known.items.tolist()
    times = known.times.tolist()
    other = next(item for item in range(run.graph.num_items) if item not in past)
    assert users.times(user).tolist() == times
    users.take(user, other, "like")
    users.take(user, past[0], "dislike")
    assert users.times(user).tolist() == [*times[1:], max(times)]
    users.take("ann", 5, "like")
    users.take("ann", 6, "like")
    before = time.time()
    first, second = users.times("ann").tolist()
    assert before <= first == second <= time.time()


def test_data_without_times_have_none() -> None:
    graph = planted()
    timeless = replace(graph, interactions=replace(graph.interactions, time=None))
    users = LiveUsers(RunRecommender(Popularity.from_graph(timeless), timeless))
    assert users.times(graph.users.id_of(3)) is None
