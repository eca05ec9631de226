"""A run of a model with a head, from files to answers and reasons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases.graphs import with_attributes

from graphrec.errors import ArgumentError
from graphrec.experiment import RunConfig, run
from graphrec.experiment.config import DataConfig, ModelConfig
from graphrec.serving.attribution import AttendedScore, leave_one_out
from graphrec.serving.explain import explain, methods_of
from graphrec.serving.live import LiveRecommender
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import Event, Fact, NewItem, Store
from graphrec.serving.towers import towers_of
from graphrec.training import TrainConfig
from kg_loaders.formats import tables
from kg_loaders.synthetic import planted

OPTIONS = {"dim": 8, "head": "mlp", "head_channels": 12, "rerank": 9, "side_features": ("taste", "hour")}


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> RunRecommender:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("head")
    tables.write(with_attributes(planted(num_users=30, num_items=40, num_cold_items=4)), folder / "films")
    config = RunConfig(
        data=DataConfig(name=str(folder / "films")),
        model=ModelConfig("InductiveKGAT", OPTIONS),
        train=TrainConfig(epochs=3, learning_rate=0.05),
    )
    return RunRecommender.load(run(config, folder / "run", quiet=True).path)


def test_a_run_is_found_again_with_its_head(recommender: RunRecommender) -> None:
    model = recommender.model
    assert model.head is not None
    assert model.head.side.names == ("taste", "hour")
    user = recommender.graph.users.id_of(3)
    known = recommender.recommend(user_id=user, k=9)
    assert len(known) == 9
    assert [item.score for item in known] == sorted((item.score for item in known), reverse=True)
    past = recommender.histories(user_id=user)
    stranger = recommender.recommend_to(past.strangers(), k=9)
    assert [item.score for item in stranger] != [item.score for item in known]  # of a stranger the taste is not known


def test_the_service_knows_what_the_run_knows(recommender: RunRecommender, tmp_path: Path) -> None:
    graph = recommender.graph
    with Store(tmp_path / "live.sqlite") as store:
        live = LiveRecommender(recommender, store)
        users = [graph.users.id_of(user) for user in (3, 8)]
        history = list(graph.items)[:3]
        asked = [live.question(user_id=user, k=5) for user in users] + [live.question(history=history, k=5)]
        told = [recommender.histories(user_id=user) for user in users] + [recommender.histories(history=history)]
        for found, histories in zip(live.answer(asked), told, strict=True):
            expected = recommender.recommend_to(histories, k=5)
            assert [item.item_id for item in found] == [item.item_id for item in expected]
            assert [item.score for item in found] == pytest.approx([item.score for item in expected], abs=1e-5)
        live.add_events([Event("somebody new", graph.items.id_of(0))])
        assert len(live.recommend(user_id="somebody new", k=5)) == 5
        assert live.explain(graph.items.id_of(5), user_id=users[0]).sentences
        facts = [
            Fact(graph.relations.id_of(r), graph.entities.id_of(t)) for h, r, t in graph.triples.tolist() if h == 0
        ]
        live.add_items([NewItem("new", "Like the first", tuple(facts))])
        assert "new" in {item.item_id for item in live.recommend(user_id=users[0], k=live.num_items)}


def test_a_reason_is_what_the_head_makes_of_it(recommender: RunRecommender) -> None:
    model, histories = recommender.model, recommender.histories(user_id=recommender.graph.users.id_of(3))
    (best,) = recommender.recommend_to(histories, k=1)
    why = explain(recommender, histories, best.item_index, k=100)
    assert why.score == pytest.approx(best.score, abs=1e-5)
    assert why.method == "leave-one-out"
    nothing = histories.keep(torch.zeros(histories.items.numel(), dtype=torch.bool))
    with torch.no_grad():
        assert why.base == pytest.approx(float(model.score_item(nothing, best.item_index)), abs=1e-5)
    effects = leave_one_out(model, histories, best.item_index)
    for place in range(histories.items.numel()):
        left = torch.arange(histories.items.numel()) != place
        with torch.no_grad():
            without = model.score_item(histories.keep(left), best.item_index)
        assert float(effects[place]) == pytest.approx(best.score - float(without), abs=1e-4)
    assert why.sentences


def test_attention_is_that_of_the_model_below_the_head(recommender: RunRecommender) -> None:
    model, histories = recommender.model, recommender.histories(user_id=recommender.graph.users.id_of(3))
    why = explain(recommender, histories, 0, k=100, method="attention")
    with torch.no_grad():
        attention = model.history_attention(histories)
    assert sum(past.contribution for past in why.past) == pytest.approx(1.0)
    assert max(past.contribution for past in why.past) == pytest.approx(float(attention.max()), abs=1e-5)


def test_what_cannot_be_with_a_head_says_why(recommender: RunRecommender) -> None:
    model, histories = recommender.model, recommender.histories(user_id=recommender.graph.users.id_of(3))
    assert methods_of(model) == ("leave-one-out", "attention")
    assert model.contributions(histories, 0) is None
    assert AttendedScore.of(model, histories, 0) is None
    with pytest.raises(ArgumentError, match="method for InductiveKGAT must be one of 'leave-one-out', 'attention'"):
        explain(recommender, histories, 0, method="contributions")
    with pytest.raises(ArgumentError, match="no user and item vectors: with a head its score is a network over both"):
        towers_of(model)
