from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from cases.busy_changes import BusyChanges
from cases.toy_models import ToyTable

from graphrec.errors import ArgumentError, StoreError, StrangerError
from graphrec.evaluation.metrics.base import Ranking
from graphrec.evaluation.metrics.novelty import novelty
from graphrec.models import InductiveKGAT
from graphrec.serving.live import LiveRecommender
from graphrec.serving.live_users import Change
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import Event, Fact, NewItem, Store
from kg_loaders import UnknownIdError
from kg_loaders.synthetic import planted


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "live.sqlite") as store:
        yield store


@pytest.fixture(scope="module")
def run(runs: tuple[Path, Path]) -> RunRecommender:
    return RunRecommender.load(runs[0])


@pytest.fixture
def live(run: RunRecommender, store: Store) -> LiveRecommender:
    return LiveRecommender(run, store)


def new_item(live: LiveRecommender, item: int = 0, id_: str = "new") -> NewItem:
    """An item with the facts of another."""
    graph = live.base.graph
    facts = [Fact(graph.relations.id_of(r), graph.entities.id_of(t)) for h, r, t in graph.triples.tolist() if h == item]
    return NewItem(id_, f"Like {item}", tuple(facts))


def ids(found: list[object]) -> list[str]:
    return [item.item_id for item in found]  # type: ignore[attr-defined]


def test_without_events_all_lists_are_those_of_the_run(live: LiveRecommender, run: RunRecommender) -> None:
    users = list(run.graph.users)
    together = live.answer([live.question(user_id=user, k=10) for user in users])
    for user, found in zip(users, together, strict=True):
        assert ids(found) == ids(run.recommend(user_id=user, k=10))
        # A batch is another product of matrices: its last digits are free.
        alone = live.recommend(user_id=user, k=10)
        assert ids(alone) == ids(found)
        assert [item.score for item in alone] == pytest.approx([item.score for item in found], abs=1e-5)
    history = list(run.graph.items)[:3]
    assert live.recommend(history=history, k=5) == run.recommend(history=history, k=5)


def test_like_joins_the_history_at_once_as_if_it_had_been_given(live: LiveRecommender, run: RunRecommender) -> None:
    user = run.graph.users.id_of(3)
    liked = live.recommend(user_id=user, k=1)[0]
    past = [run.graph.items.id_of(item) for item in live.past(user)]
    assert live.add_events([Event(user, liked.item_id)]) == 1
    found = live.recommend(user_id=user, k=8)
    assert liked.item_id not in ids(found)
    assert ids(found) == ids(run.recommend(history=[*past, liked.item_id], k=8))


def test_dislike_leaves_past_and_lists_and_undo_brings_it_back(live: LiveRecommender, run: RunRecommender) -> None:
    user = run.graph.users.id_of(3)
    before = live.recommend(user_id=user, k=8)
    taken = run.graph.items.id_of(int(live.past(user)[0]))
    live.add_events([Event(user, before[0].item_id, "dislike"), Event(user, taken, "dislike")])
    assert {before[0].item_id, taken}.isdisjoint(ids(live.recommend(user_id=user, k=run.graph.num_items)))
    assert run.graph.items.index_of(taken) not in live.past(user)
    live.add_events([Event(user, before[0].item_id, "undo"), Event(user, taken, "undo")])
    assert live.recommend(user_id=user, k=8) == before
    other = run.graph.users.id_of(4)
    assert ids(live.recommend(user_id=other)) == ids(run.recommend(user_id=other))  # nobody else is touched


def test_somebody_new_is_served_under_an_id_of_their_own(live: LiveRecommender, run: RunRecommender) -> None:
    new = live.new_user_id()
    assert new != live.new_user_id()
    with pytest.raises(UnknownIdError, match="neither in the data set nor in the events"):
        live.recommend(user_id=new)
    items = list(run.graph.items)[2:5]
    live.add_events([Event(new, item) for item in items])
    assert live.recommend(user_id=new, k=6) == run.recommend(history=items, k=6)
    live.add_events([Event(new, items[1], "dislike")])
    expected = run.recommend(history=[items[0], items[2]], k=7)
    assert ids(live.recommend(user_id=new, k=6)) == [id_ for id_ in ids(expected) if id_ != items[1]][:6]


def test_item_joins_is_recommended_liked_explained_and_survives(
    live: LiveRecommender, run: RunRecommender, store: Store
) -> None:
    item = new_item(live)
    assert live.add_items([item]) == 1
    assert live.add_items([item]) == 0
    assert live.num_items == run.graph.num_items + 1
    everything = live.recommend(user_id=run.graph.users.id_of(0), k=live.num_items)
    assert "new" in ids(everything)
    assert live.search_items("like 0") == [40]
    live.add_events([Event("ann", "new"), Event("ann", run.graph.items.id_of(7))])
    assert live.explain("new", user_id=run.graph.users.id_of(0)).title == "Like 0"
    lists = [live.recommend(user_id="ann", k=5), live.similar("new", 5)]
    live.close()
    again = LiveRecommender(run, store)
    assert [again.recommend(user_id="ann", k=5), again.similar("new", 5)] == lists


def test_item_that_cannot_join_leaves_nothing_behind(live: LiveRecommender, store: Store) -> None:
    live.add_items([new_item(live)])
    bad = NewItem("bad", "", (Fact("no such relation", "x"),))
    with pytest.raises(ArgumentError, match="no relation 'no such relation'"):
        live.add_items([new_item(live, id_="good"), bad])
    with pytest.raises(ArgumentError, match="'new' has joined already, with another title or other facts"):
        live.add_items([new_item(live, 1)])
    assert store.count()["items"] == 1


def test_model_that_cannot_grow_goes_on_without_the_new(runs: tuple[Path, Path], live: LiveRecommender) -> None:
    live.add_items([new_item(live)])
    live.add_events([Event("ann", "new"), Event("ann", live.graph.items.id_of(1))])
    ease = LiveRecommender.load(runs[1], live.store)
    assert ease.num_items == live.num_items - 1
    assert list(ease.left_out) == ["new"]
    assert "cannot rank items that it was not trained with" in ease.left_out["new"]
    assert ease.num_unplaced == 1
    assert ease.past("ann").tolist() == [1]
    assert len(ease.recommend(user_id="ann", k=3)) == 3
    with pytest.raises(ArgumentError, match="cannot rank items"):
        ease.add_items([new_item(live, id_="newer")])


def test_item_that_the_run_left_out_is_not_corrected_in_silence(runs: tuple[Path, Path], live: LiveRecommender) -> None:
    item = new_item(live)
    live._writable().add_items([NewItem("new", "", (Fact("no such relation", "x"),))]).result()
    assert "new" in live.left_out
    with pytest.raises(
        ArgumentError, match="'new' is in the store already, and this run cannot rank it: .*no such rel"
    ):
        live.add_items([item])


def test_model_with_a_user_table_leaves_out_and_refuses_the_new(run: RunRecommender, store: Store) -> None:
    torch.manual_seed(0)
    table = LiveRecommender(RunRecommender(ToyTable.from_graph(run.graph), run.graph), store)
    user, other = run.graph.users.id_of(0), run.graph.users.id_of(1)
    before, others = table.recommend(user_id=user, k=10), table.recommend(user_id=other, k=10)
    table.add_events([Event(user, before[0].item_id), Event(user, before[3].item_id, "dislike")])
    table.add_events([Event("ann", run.graph.items.id_of(0))])
    after = table.recommend(user_id=user, k=8)
    assert ids(after) == [id_ for id_ in ids(before) if id_ not in (before[0].item_id, before[3].item_id)]
    assert table.recommend(user_id=other, k=10) == others
    for who in ({"user_id": "ann"}, {"history": [run.graph.items.id_of(0)]}):
        with pytest.raises(StrangerError, match="ToyTable keeps a table of its users"):
            table.recommend(**who)  # type: ignore[arg-type]


def test_questions_that_cannot_be_answered_say_why(live: LiveRecommender, run: RunRecommender) -> None:
    first = run.graph.items.id_of(0)
    for arguments, error, message in (
        ({}, ArgumentError, "give either user_id or history"),
        ({"user_id": "1", "history": [first]}, ArgumentError, "give either user_id or history"),
        ({"history": []}, ArgumentError, "at least one item"),
        ({"history": [first, first]}, ArgumentError, "names an item twice"),
        ({"history": ["no such film"]}, UnknownIdError, "no item has the id or title 'no such film'"),
        ({"history": [first], "exclude": ["no such film"]}, UnknownIdError, "no item has"),
        ({"history": [first], "k": 0}, ArgumentError, "k must be >= 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            live.recommend(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UnknownIdError, match="there is no item 'no such film'"):
        live.add_events([Event("u", first), Event("u", "no such film")])
    assert not live.knows("u")


def test_exclude_leaves_items_out(live: LiveRecommender, run: RunRecommender) -> None:
    user = run.graph.users.id_of(2)
    before = live.recommend(user_id=user, k=6)
    left = live.recommend(user_id=user, k=5, exclude=[before[1].item_id])
    assert ids(left) == [id_ for id_ in ids(before) if id_ != before[1].item_id]


def test_without_a_store_it_only_answers(run: RunRecommender) -> None:
    live = LiveRecommender(run)
    assert len(live.recommend(user_id=run.graph.users.id_of(0), k=3)) == 3
    with pytest.raises(StoreError, match="read-only"):
        live.add_events([Event("u", run.graph.items.id_of(0))])
    live.close()


def test_similar_items_are_those_of_the_smallest_angle(live: LiveRecommender) -> None:
    _, g = live.base.model.item_vectors()
    unit = torch.nn.functional.normalize(g.detach(), dim=1).numpy()
    cosine = unit @ unit[5]
    expected = [int(i) for i in np.argsort(-cosine) if i != 5][:4]
    found = live.similar(live.graph.items.id_of(5), 4)
    assert [item.item_index for item in found] == expected
    assert [item.score for item in found] == pytest.approx(cosine[expected], abs=1e-6)


def test_who_has_sent_an_event_is_found(live: LiveRecommender) -> None:
    live.add_events([Event("zoe", live.graph.items.id_of(0))])
    assert live.search_users("zo") == ["zoe"]


def test_novelty_is_the_metric_of_that_name(live: LiveRecommender, run: RunRecommender) -> None:
    items = [item.item_index for item in live.recommend(user_id=run.graph.users.id_of(0), k=5)]
    counts = torch.bincount(run.known.items, minlength=run.graph.num_items)
    ranking = Ranking(torch.tensor([items]), torch.zeros(1, 5, dtype=torch.bool), torch.ones(1), counts)
    assert live.novelty(items) == pytest.approx(float(novelty(ranking, 5)))
    assert live.novelty([]) == 0


def test_many_threads_ask_while_events_and_items_come(live: LiveRecommender, run: RunRecommender) -> None:
    users = list(run.graph.users)

    def ask(number: int) -> int:
        user = users[number % len(users)]
        if number % 7 == 0:
            live.add_items([new_item(live, number % 40, f"new-{number}")])
        live.add_events([Event(user, run.graph.items.id_of(number % 40))])
        found = live.recommend(user_id=user, k=5)
        assert run.graph.items.id_of(number % 40) not in ids(found)  # who reads after an answer sees the write
        return len(found)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(60))) == [5] * 60
    assert live.num_items == run.graph.num_items + 9


def test_a_question_is_of_one_moment_whatever_its_user_likes_meanwhile(run: RunRecommender) -> None:
    live = LiveRecommender(run)
    user = run.graph.users.id_of(3)
    before = set(live.past(user).tolist())
    live._users._changes = BusyChanges({user: Change()})
    for turn in range(5):
        question = live.question(user_id=user)
        assert question.times is not None
        assert len(question.times) == len(question.history)
        assert question.left_out.tolist() == list(range(turn))
        assert set(question.history.tolist()) == before | set(range(turn))
    assert len(live.recommend(user_id=user, k=5)) == 5


def test_a_model_that_reads_times_is_told_of_them():
    graph = planted()
    model = InductiveKGAT.from_graph(graph, dim=8, sequence=2, num_time_buckets=20).eval().requires_grad_(False)
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    run = RunRecommender(model, graph)
    live = LiveRecommender(run)
    user = graph.users.id_of(3)
    assert [found.item_id for found in live.recommend(user)] == [found.item_id for found in run.recommend(user)]
    titles = [graph.items.id_of(item) for item in (4, 1, 7)]
    assert [found.item_id for found in live.recommend(history=titles)] == [
        found.item_id for found in run.recommend(history=titles)
    ]
    assert live.explain(graph.items.id_of(9), user_id=user).score == pytest.approx(
        float(model.score(run.histories(user))[0, 9]), abs=1e-4
    )
