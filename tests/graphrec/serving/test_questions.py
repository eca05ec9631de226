import copy
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.evaluation.ranking import best
from graphrec.histories import Histories
from graphrec.models import EASE, Blend, InductiveKGAT
from graphrec.serving.live import LiveRecommender
from graphrec.serving.questions import Question, UserLists, UserVectors, asked
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import Event, Store


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(planted_graph(), dim=8)
    model.prepare(histories_of(planted_graph()))
    return model.eval()


@pytest.fixture
def noted(model, monkeypatch):
    """How many users the model was asked about, call by call."""
    plain, sizes = model.product, []
    monkeypatch.setattr(model, "product", lambda histories: sizes.append(len(histories)) or plain(histories))
    return sizes


def question(items, user_index, times=None):
    nothing = np.empty(0, dtype=np.int64)
    return Question(np.array(items, dtype=np.int64), times, nothing, user_index, 5)


@torch.no_grad()
def test_vectors_are_those_of_the_model(model):
    questions = [question([0, 4], 3), question([1], None), question([7, 2, 5], 1)]
    vectors = UserVectors(model)
    expected = model.product(asked(questions)).users
    torch.testing.assert_close(vectors.of(questions), expected)
    torch.testing.assert_close(vectors.of(questions[::-1]), expected.flip(0))


@torch.no_grad()
def test_a_known_user_costs_the_model_once_until_something_changes(model, noted):
    vectors, before = UserVectors(model), question([0, 4], 3)
    for asking in ([before], [before, before], [question([0, 4], 3)], [question([0, 4, 9], 3)], [before]):
        vectors.of(asking)
    assert noted == [1, 1, 1]  # a past that comes back is found out again: only what is so now is kept
    vectors.of([before, question([0, 4], 2)])  # somebody else with the same past
    assert noted == [1, 1, 1, 1]
    vectors.of([question([0, 4], 3, np.array([1.0, 2.0])), question([0, 4], 3, np.array([1.0, 3.0]))])
    assert noted == [1, 1, 1, 1, 2]


@torch.no_grad()
def test_nothing_is_kept_of_strangers(model, noted):
    vectors = UserVectors(model)
    for _ in range(2):
        vectors.of([question([0, 4], None)])
    assert noted == [1, 1]


@torch.no_grad()
def test_whoever_asked_longest_ago_makes_room(model, noted):
    vectors = UserVectors(model, most=2)
    for user in (0, 1, 0, 2, 0, 1):
        vectors.of([question([3], user)])
    assert len(noted) == 4  # 0, 1, 2, and 1 again
    vectors.of([question([3], user) for user in range(5)])  # more at once than are kept
    torch.testing.assert_close(vectors.of([question([3], 4)]), model.product(asked([question([3], 4)])).users)


def test_many_threads_get_the_vectors_of_their_own_questions(model):
    vectors = UserVectors(model, most=5)
    questions = [question([user, user + 1], user) for user in range(12)]
    with torch.no_grad():
        expected = model.product(asked(questions)).users

    def ask(number):
        with torch.no_grad():
            mine = [(number + step) % len(questions) for step in range(3)]
            return mine, vectors.of([questions[user] for user in mine])

    with ThreadPoolExecutor(8) as threads:
        for mine, found in threads.map(ask, range(200)):
            torch.testing.assert_close(found, expected[mine])


def test_a_like_changes_the_list_of_a_user_whose_vector_was_kept(model, tmp_path):
    graph = planted_graph()
    user = graph.users.id_of(0)
    with Store(tmp_path / "live.sqlite") as store:
        live = LiveRecommender(RunRecommender(copy.deepcopy(model), graph), store)
        before = live.recommend(user_id=user)
        assert live.recommend(user_id=user) == before
        liked = before[0].item_id
        live.add_events([Event(user, liked)])
        after = live.recommend(user_id=user)
        assert liked not in [item.item_id for item in after]
        stranger = live.recommend(history=[graph.items.id_of(item) for item in live.past(user)])
        scores = {item.item_id: item.score for item in stranger}
        assert {item.item_id: pytest.approx(item.score, rel=1e-4) for item in after} == scores


@pytest.fixture(scope="module")
def ease():
    model = EASE.from_graph(planted_graph())
    model.fit(histories_of(planted_graph()))
    return model


@pytest.mark.parametrize(("which", "call"), [("model", "product"), ("ease", "score")])
def test_what_is_prepared_is_not_asked_of_the_model_again(which, call, request, monkeypatch):
    graph, fitted = planted_graph(), copy.deepcopy(request.getfixturevalue(which))
    monkeypatch.setattr("graphrec.serving.live.PREPARED_AT_ONCE", 7)
    live = LiveRecommender(RunRecommender(fitted, graph))
    expected = [item.item_id for item in live.recommend(user_id=graph.users.id_of(3))]
    steps = list(live.prepare())
    assert steps[:2] == [(7, graph.num_users), (14, graph.num_users)]
    assert steps[-1] == (graph.num_users, graph.num_users)
    monkeypatch.setattr(fitted, call, None)
    assert [item.item_id for item in live.recommend(user_id=graph.users.id_of(3))] == expected
    for user in graph.users:
        live.recommend(user_id=user)
    with pytest.raises(TypeError, match="not callable"):
        live.recommend(history=[graph.items.id_of(0)])


@pytest.fixture
def ordered(monkeypatch):
    """A live blend of a model that reads order and EASE, and how often the former was asked without each entry."""
    torch.manual_seed(0)
    graph = planted_graph()
    model = Blend.from_graph(graph, dim=8, sequence=2)
    model.prepare(histories_of(graph))
    model.complete(histories_of(graph))
    live = LiveRecommender(RunRecommender(model.eval(), graph))
    plain, calls = model.first.sequence.without_each, []
    monkeypatch.setattr(model.first.sequence, "without_each", lambda *given: calls.append(1) or plain(*given))
    return live, calls


def test_explanations_that_are_prepared_ask_the_model_no_more(ordered):
    live, calls = ordered
    user, other = (live.graph.users.id_of(index) for index in (3, 4))
    items = [found.item_id for found in live.recommend(user_id=user, k=2)]
    expected = [live.explain(item, user_id=user) for item in items]
    steps = list(live.prepare_explanations())
    assert steps[0] == (8, live.graph.num_users)
    assert steps[-1] == (live.graph.num_users, live.graph.num_users)
    calls.clear()
    assert [live.explain(item, user_id=user) for item in items] == expected
    for one in live.graph.users:
        live.explain(items[0], user_id=one)
    assert not calls
    live.on_events([Event(user, items[0])])
    live.explain(items[1], user_id=user)
    live.explain(items[1], user_id=other)
    assert len(calls) == 1


def test_no_more_explanations_are_prepared_than_there_is_room_for(ordered):
    live, calls = ordered
    list(live.prepare_explanations())
    room = live.base.model.remembered_bytes // 2
    steps = list(live.prepare_explanations(room))
    num_done = steps[-1][0]
    assert steps[-1] == (num_done, num_done)
    assert 0 < num_done < live.graph.num_users
    assert live.base.model.remembered_bytes <= room
    calls.clear()
    for index in range(num_done):
        live.explain(live.graph.items.id_of(0), user_id=live.graph.users.id_of(index))
    assert not calls


def test_explanations_are_made_ahead_and_anew_when_items_have_joined(ordered):
    live, calls = ordered
    done = queue.Queue()
    live.explain_ahead(lambda users, seconds: done.put((users, seconds)))
    assert done.get(timeout=60)[0] == live.graph.num_users
    calls.clear()
    live.explain(live.graph.items.id_of(0), user_id=live.graph.users.id_of(5))
    assert not calls
    live._items = live._items.grown(RunRecommender(copy.deepcopy(live.base.model), live.graph), ())
    live._changed.set()
    assert done.get(timeout=60)[0] == live.graph.num_users
    live.close()
    assert not live._ahead.is_alive()


def test_explaining_ahead_ends_when_it_is_closed(ordered, monkeypatch):
    live, _ = ordered
    begun, done, until = threading.Event(), [], time.monotonic() + 20

    def long():
        while time.monotonic() < until:
            begun.set()
            yield 8, 16

    monkeypatch.setattr(live, "prepare_explanations", long)
    live.explain_ahead(lambda users, seconds: done.append(users))
    assert begun.wait(60)
    live.close()
    assert not live._ahead.is_alive()
    assert not done


def test_a_model_told_when_it_is_asked_has_nothing_to_prepare():
    graph = planted_graph()
    model = InductiveKGAT.from_graph(graph, dim=8, sequence=1, num_time_buckets=8, request_time=True)
    model.prepare(histories_of(graph))
    live = LiveRecommender(RunRecommender(model.eval(), graph))
    assert not list(live.prepare_explanations())  # its explanations ask it anew without each item


def test_explaining_ahead_leaves_a_model_that_items_have_outgrown(ordered, monkeypatch):
    live, calls = ordered
    steps = live.prepare_explanations()
    assert next(steps) == (8, live.graph.num_users)
    calls.clear()
    live._items = live._items.grown(RunRecommender(copy.deepcopy(live.base.model), live.graph), ())
    assert not list(steps)
    assert not calls


@pytest.mark.parametrize("which", ["model", "ease"])
def test_explanations_that_need_nothing_are_not_prepared(which, request):
    live = LiveRecommender(RunRecommender(copy.deepcopy(request.getfixturevalue(which)), planted_graph()))
    assert not list(live.prepare_explanations())


def test_no_more_is_prepared_than_is_kept(ease, scored, monkeypatch):
    live = LiveRecommender(RunRecommender(ease, planted_graph()))
    monkeypatch.setattr(live._items.user_lists._kept, "most", 5)
    scored.clear()
    assert list(live.prepare()) == [(5, 5)]
    assert scored == [5]


@pytest.fixture
def scored(ease, monkeypatch):
    """How many users EASE was asked about, call by call."""
    plain, sizes = ease.score, []
    monkeypatch.setattr(ease, "score", lambda histories: sizes.append(len(histories)) or plain(histories))
    return sizes


def wanting(items, user_index, left_out=(), k=5):
    return replace(question(items, user_index), left_out=np.array(left_out, dtype=np.int64), k=k)


def listed(model, asking):
    """The best items by all scores at once."""
    seen = Histories.from_lists([[*asking.history, *asking.left_out]], [asking.user_index or 0])
    items, scores = best(model, model.score(asked([asking])), asking.k, seen, seed=0)
    return items[0][items[0] >= 0].tolist(), scores[0][items[0] >= 0].tolist()


@pytest.mark.parametrize("length", [3, 8, 256])
def test_lists_are_those_of_all_scores_whatever_is_kept(ease, length):
    lists = UserLists(ease, seed=0, length=length)
    questions = [
        wanting([0, 4], 3),
        wanting([0, 4], 3, left_out=[7, 9, 11], k=2),
        wanting([1], None, k=4),
        wanting([2, 6], 5, left_out=range(10, 70)),
        wanting([2, 6], 5, k=200),  # more than there are
        wanting([79], 1, k=1),
    ]
    with torch.no_grad():
        for asking in (questions, questions[::-1], questions[1:2], [wanting([0, 4], 3, left_out=[0])]):
            for one, (items, scores) in zip(asking, lists.of(asking), strict=True):
                wanted, values = listed(ease, one)
                assert items.tolist() == wanted
                assert scores.tolist() == pytest.approx(values)
        assert lists.of([]) == []


@torch.no_grad()
def test_a_list_is_made_once_until_something_changes(ease, scored):
    lists = UserLists(ease, seed=0, length=20)
    for asking in (wanting([0, 4], 3), wanting([0, 4], 3, left_out=[8], k=2), wanting([0, 4, 9], 3)):
        lists.of([asking])
    assert scored == [1, 1]
    for _ in range(2):
        lists.of([wanting([0, 4], None)])  # nothing is kept of strangers
        lists.of([wanting([0, 4], 3, k=21)])  # nor more than the length
    assert scored == [1] * 6


def test_a_like_changes_the_list_that_was_kept(ease, scored, tmp_path):
    graph = planted_graph()
    user = graph.users.id_of(0)
    with Store(tmp_path / "live.sqlite") as store:
        live = LiveRecommender(RunRecommender(ease, graph), store)
        live.recommend(user_id=graph.users.id_of(1))
        scored.clear()
        before = live.recommend(user_id=user, k=3)
        assert live.recommend(user_id=user, k=3) == before
        assert live.recommend(user_id=user, k=3, exclude=[before[0].item_id])[:2] == [
            replace(item, rank=item.rank - 1) for item in before[1:]
        ]
        assert len(scored) == 1
        live.add_events([Event(user, before[0].item_id)])
        assert before[0].item_id not in [item.item_id for item in live.recommend(user_id=user)]
        live.add_events([Event(user, before[1].item_id, "dislike")])
        assert not {item.item_id for item in before[:2]} & {item.item_id for item in live.recommend(user_id=user)}
