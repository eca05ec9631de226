from __future__ import annotations

import numpy as np
import pytest
import torch
from cases.toy_models import ToyEASE, ToyKGAT, ToyPopularity, ToyTable

from graphrec.errors import ArgumentError, StrangerError
from graphrec.histories import Histories
from graphrec.serving.recommender import RunRecommender
from kg_loaders import Feature, Interactions, RecGraph, UnknownIdError, Vocabulary

TITLES = ["Alien", "Heat", "alien", "Toy Story (1995)", "Toy Story 2", "Heat", "7", "", "Solaris"]
ITEM_IDS = ["1", "2", "3", "4", "5", "6", "8", "7", "9"]


@pytest.fixture
def graph() -> RecGraph:
    """Four users (one without a past), nine items with awkward titles, ten entities; item 8 is in test only."""
    torch.set_num_threads(1)
    rows = [(0, 0, 0), (0, 1, 1), (0, 4, 2), (1, 3, 0), (1, 5, 0), (3, 2, 0), (3, 8, 2)]
    user, item, split = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return RecGraph(
        users=Vocabulary(["10", "20", "30", "40"], "user"),
        entities=Vocabulary([*ITEM_IDS, "Scott"], "entity"),
        num_items=9,
        interactions=Interactions(user, item, split=split.astype(np.int8)),
        relations=Vocabulary(["director"], "relation"),
        triples=np.array([[0, 0, 9]]),
        item_features={"title": Feature.text(TITLES)},
        name="films",
    )


@pytest.fixture
def recommender(graph: RecGraph) -> RunRecommender:
    model = ToyEASE.from_graph(graph)
    model.fit(Histories.from_interactions(graph.part("train", "valid"), graph.num_users))
    return RunRecommender(model, graph, batch_size=3)


def test_user_gets_what_is_new_to_them_best_first(recommender: RunRecommender) -> None:
    found = recommender.recommend(user_id="10", k=20)
    assert [item.rank for item in found] == list(range(1, 8))
    assert {item.item_index for item in found} == set(range(9)) - {0, 1}  # train and valid are known, test is not
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    assert all(item.item_id == ITEM_IDS[item.item_index] for item in found)
    assert next(item for item in found if item.item_id == "7").title == "7"  # no title: the id


def test_stranger_is_served_from_titles_and_ids(recommender: RunRecommender) -> None:
    found = recommender.recommend(history=["Toy Story (1995)", "2"], k=3)
    assert len(found) == 3
    assert {3, 1}.isdisjoint(item.item_index for item in found)
    again = recommender.recommend_to(Histories.from_lists([[3, 1]]), k=3)
    assert again == found


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("Alien", 0),
        ("alien", 2),
        ("9", 8),
        ("SOLARIS", 8),
        ("toy story 2", 4),
        ("1995", 3),
        (" solaris ", 8),
        ("lari", 8),
    ],
)
def test_item_is_found_by_id_title_and_part_of_a_title(recommender: RunRecommender, text: str, item: int) -> None:
    assert recommender.find_item(text) == item


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Heat", r"'Heat' fits 2 items: 'Heat' \(id 2\), 'Heat' \(id 6\); give the id of one"),
        ("ALIEN", r"fits 2 items: 'Alien' \(id 1\), 'alien' \(id 3\)"),
        ("toy", r"fits 2 items: 'Toy Story \(1995\)' \(id 4\), 'Toy Story 2' \(id 5\)"),
        ("7", r"'7' fits 2 items"),  # the id of one, the title of another
        ("Solarris", r"no item has the id or title 'Solarris'; nearest: 'Solaris' \(id 9\)"),
        ("zzzz", r"no item has the id or title 'zzzz'$"),
        ("", r"no item has the id or title ''"),
    ],
)
def test_unclear_items_are_refused(recommender: RunRecommender, text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        recommender.find_item(text)


def test_questions_must_be_complete(recommender: RunRecommender) -> None:
    with pytest.raises(ArgumentError, match="either user_id or history"):
        recommender.recommend()
    with pytest.raises(ArgumentError, match="either user_id or history"):
        recommender.recommend(user_id="10", history=["2"])
    with pytest.raises(ArgumentError, match="at least one item"):
        recommender.recommend(history=[])
    with pytest.raises(ArgumentError, match=r"'Heat' \(id 2\) twice: '2' and '2'"):
        recommender.recommend(history=["2", "2"])
    with pytest.raises(ArgumentError, match="k must be >= 1, got 0"):
        recommender.recommend(user_id="10", k=0)
    with pytest.raises(UnknownIdError, match="unknown user '11'"):
        recommender.recommend(user_id="11")


def test_model_with_a_user_table_refuses_strangers(graph: RecGraph) -> None:
    recommender = RunRecommender(ToyTable.from_graph(graph), graph)
    assert len(recommender.recommend(user_id="10", k=2)) == 2
    with pytest.raises(StrangerError):
        recommender.recommend(history=["Alien"])


def test_all_users_get_what_each_would_get_alone(graph: RecGraph) -> None:
    recommender = RunRecommender(ToyKGAT.from_graph(graph), graph, batch_size=3)
    table = recommender.recommend_all(k=8)
    assert list(table.columns) == ["user_id", "item_id", "rank", "score"]
    for user_id in graph.users:
        alone = recommender.recommend(user_id=user_id, k=8)
        rows = table[table["user_id"] == int(user_id)]
        assert rows["item_id"].tolist() == [int(item.item_id) for item in alone]
        assert rows["rank"].tolist() == list(range(1, len(alone) + 1))
        assert np.allclose(rows["score"], [item.score for item in alone])
    assert len(table[table["user_id"] == 10]) == 7  # nothing is left after seven
    assert len(table[table["user_id"] == 30]) == 8  # a user without a past is served too


def test_ids_are_integers_only_where_all_are(graph: RecGraph) -> None:
    recommender = RunRecommender(ToyKGAT.from_graph(graph), graph)
    table = recommender.recommend_all(k=1)
    assert table["user_id"].dtype == np.int64
    assert table["item_id"].dtype == np.int64
    from dataclasses import replace

    named = replace(graph, users=Vocabulary(["ann", "20", "30", "40"], "user"))
    table = RunRecommender(ToyKGAT.from_graph(named), named).recommend_all(k=1)
    assert table["user_id"].tolist() == ["ann", "20", "30", "40"]


def test_ties_do_not_follow_the_index(graph: RecGraph) -> None:
    model = ToyPopularity.from_graph(graph)
    lists = [
        [item.item_index for item in RunRecommender(model, graph, seed=seed).recommend(user_id="30", k=9)]
        for seed in range(5)
    ]
    assert len({tuple(items) for items in lists}) > 1


def test_batch_size_must_be_positive(graph: RecGraph) -> None:
    with pytest.raises(ArgumentError, match="batch_size must be >= 1"):
        RunRecommender(ToyPopularity.from_graph(graph), graph, batch_size=0)
