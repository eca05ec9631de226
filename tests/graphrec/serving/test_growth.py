from __future__ import annotations

import dataclasses

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import EASE, SLIST, Blend, DualEASE, InductiveKGAT
from graphrec.serving.explain import explain
from graphrec.serving.growth import can_grow, grow
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import Fact, NewItem
from kg_loaders import Feature, RecGraph
from kg_loaders.synthetic import planted


@pytest.fixture(scope="module")
def graph() -> RecGraph:
    torch.set_num_threads(1)
    return planted(num_users=30, num_items=40, num_cold_items=4)


def fitted(graph: RecGraph, **options: object) -> InductiveKGAT:
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, **options)
    with torch.no_grad():  # as after training: all taken items differ in all they have
        model.item_bias.normal_()
        if model.attention_bias is not None:
            model.attention_bias.normal_()
    model.prepare(Histories.from_interactions(graph.part("train"), graph.num_users))
    return model.eval()


def facts_of(graph: RecGraph, item: int) -> tuple[Fact, ...]:
    facts = []
    for head, relation, tail in graph.triples.tolist():
        if item in (head, tail):
            other = tail if head == item else head
            facts.append(Fact(graph.relations.id_of(relation), graph.entities.id_of(other), head == item))
    return tuple(facts)


def cold(graph: RecGraph, model: InductiveKGAT) -> int:
    """Return an item that nobody took: all that the model has of it is its facts."""
    return int((~model.taken).nonzero()[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hops": 2},
        {"untied": False},
        {"co_neighbors": 3},
        {"match_temperature": 0.1},
        {"attend_candidates": False},
        {"attend_history": False, "heads": 2},
        {"popularity_prior": 5.0},
    ],
)
def test_item_with_the_facts_of_a_cold_item_is_its_twin(graph: RecGraph, options: dict[str, object]) -> None:
    model = fitted(graph, **options)
    item = cold(graph, model)
    grown, more = grow(model, graph, [NewItem("new", "New", facts_of(graph, item))])
    assert (grown.num_items, more.num_items, model.num_items) == (41, 41, 40)
    past = Histories.from_lists([[0, 3, 5], [40, 2], [item]])
    scores = grown.score(past)
    torch.testing.assert_close(scores[:, 40], scores[:, item])
    twins = grown.score(Histories.from_lists([[40], [item]]))
    torch.testing.assert_close(twins[0], twins[1])


@pytest.mark.parametrize("options", [{}, {"popularity_prior": 5.0}, {"content_popularity": True}])
def test_items_that_were_there_keep_their_scores_to_the_last_bit(graph: RecGraph, options: dict[str, object]) -> None:
    model = fitted(graph, **options)
    past = Histories.from_interactions(graph.part("train"), graph.num_users)
    before = model.score(past).clone()
    news = [NewItem(f"new-{item}", "", facts_of(graph, item)) for item in range(3)]
    grown, _ = grow(model, graph, news)
    assert torch.equal(grown.score(past)[:, :40], before)
    assert torch.equal(model.score(past), before)
    assert grown.kg is not model.kg
    assert grown.kg.entity is model.kg.entity  # the weights are shared


def test_grown_graph_says_the_same_and_names_the_new(graph: RecGraph) -> None:
    facts = facts_of(graph, 0)
    _, grown = grow(fitted(graph), graph, [NewItem("new", "A new one", facts), NewItem("newer", "", facts)])
    assert grown.items.ids[:40] == graph.items.ids
    assert grown.item_labels[40:] == ["A new one", "newer"]
    assert grown.item_labels[:40] == graph.item_labels
    assert grown.entity_labels[42:] == graph.entity_labels[40:]

    def named(graph: RecGraph) -> set[tuple[str, ...]]:
        return {
            (graph.entities.id_of(head), graph.relations.id_of(relation), graph.entities.id_of(tail))
            for head, relation, tail in graph.triples.tolist()
        }

    new = {
        (item, fact.relation_id, fact.entity_id) if fact.item_is_head else (fact.entity_id, fact.relation_id, item)
        for item in ("new", "newer")
        for fact in facts
    }
    assert named(grown) == named(graph) | new


def test_new_item_is_explained_by_its_own_paths(graph: RecGraph) -> None:
    model = fitted(graph)
    twin = cold(graph, model)
    past = Histories.from_interactions(graph.part("train"), graph.num_users).select(torch.tensor([4]))
    grown, more = grow(model, graph, [NewItem("new", "New", facts_of(graph, twin))])
    new, old = (explain(RunRecommender(grown, more), past, item, k=50) for item in (40, twin))
    assert new.title == "New"
    assert [dataclasses.replace(path, known_from=()) for path in new.paths] == [
        dataclasses.replace(path, known_from=()) for path in old.paths
    ]


def test_blend_of_two_grows_and_other_models_say_why_not(graph: RecGraph) -> None:
    facts = facts_of(graph, 1)
    blend = Blend(fitted(graph), fitted(graph, match_temperature=0.1)).eval()
    grown, _ = grow(blend, graph, [NewItem("new", "", facts)])
    assert grown.score(Histories.from_lists([[0, 1]])).shape == (1, 41)
    for model in (EASE.from_graph(graph), Blend(fitted(graph), DualEASE.from_graph(graph)), fitted(graph.without_kg())):
        assert not can_grow(model)
        with pytest.raises(ArgumentError, match="cannot rank items that it was not trained with"):
            grow(model, graph, [NewItem("new", "", facts)])


@pytest.mark.parametrize("closed", [EASE, SLIST])
def test_a_closed_form_of_a_blend_is_what_a_fit_would_be(graph: RecGraph, closed: type[EASE | SLIST]) -> None:
    histories = Histories.from_interactions(graph.part("train"), graph.num_users)
    blend = Blend(fitted(graph), closed(graph.num_items, l2=3.0), weights=[0.4])
    blend.second.fit(histories)
    known = cold(graph, blend.first)
    grown, grown_graph = grow(blend.eval(), graph, [NewItem("new", "", facts_of(graph, known))])
    refitted = closed(grown_graph.num_items, l2=3.0)
    refitted.fit(histories)
    torch.testing.assert_close(grown.second.weight, refitted.weight)
    for past in ([0, 1, 2], [5, 40, 3]):  # the new one can be in a history, too
        asked = Histories.from_lists([past])
        torch.testing.assert_close(grown.second.score(asked), refitted.score(asked))
        scores = grown.score(asked)[0]
        assert scores[40].item() == pytest.approx(scores[known].item(), abs=1e-5)  # its twin
    assert blend.second.weight.shape == (40, 40)
    assert blend.num_items == 40


def test_a_model_of_modalities_takes_no_items_without_them(graph: RecGraph) -> None:
    image = Feature.vectors(torch.randn(graph.num_items, 3).numpy())
    pictured = dataclasses.replace(graph, item_features={"image": image})
    model = fitted(pictured, modalities=["image"])
    assert not can_grow(model)
    with pytest.raises(ArgumentError, match="and no modalities can"):
        grow(model, pictured, [NewItem("new", "New", facts_of(graph, 0))])


def test_items_that_cannot_join_are_refused(graph: RecGraph) -> None:
    model, good = fitted(graph), facts_of(graph, 1)
    entity, relation = good[0].entity_id, good[0].relation_id
    for item, message in (
        (NewItem(graph.items.id_of(0), "", good), "is there already"),
        (NewItem(entity, "", good), "is there already"),
        (NewItem("new", "", (Fact("no such", entity),)), "has no relation 'no such'"),
        (NewItem("new", "", (Fact(relation, "nowhere"),)), "has no entity 'nowhere'"),
        (NewItem("new", "", ()), "nothing can be said of it"),
    ):
        with pytest.raises(ArgumentError, match=message):
            grow(model, graph, [item])
    twice = NewItem("new", "", good)
    with pytest.raises(ArgumentError, match="'new' is there already"):
        grow(model, graph, [twice, twice])
