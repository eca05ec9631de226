"""Weights of users and items, and what a linked graph makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kg_loaders
from graphrec.errors import ArgumentError
from graphrec.experiment.config import ModelConfig, reads_kg
from graphrec.histories import Histories
from graphrec.models import EASE, ContentEASE, DualEASE
from kg_loaders.synthetic import planted

KINDS = pytest.mark.parametrize("kind", [EASE, DualEASE])


@KINDS
def test_a_user_of_weight_three_is_three_users(kind):
    rows = [[0, 1], [1, 2], [0, 2, 3], [3]]
    weighted = kind(4, 2.0, 0.2, 0.1, user_weights=torch.tensor([3.0, 1.0, 1.0, 2.0]))
    plain = kind(4, 2.0, 0.2, 0.1)
    weighted.fit(Histories.from_lists(rows))
    plain.fit(Histories.from_lists([rows[0], *rows, rows[0], rows[3]]))
    asked = Histories.from_lists([*rows, [1], [0, 3]])
    torch.testing.assert_close(weighted.score(asked), plain.score(asked), rtol=1e-4, atol=1e-5)


@KINDS
def test_an_item_of_small_weight_says_little(kind):
    rows = [[0, 1, 2]] * 5 + [[0, 2]] * 5
    told = []
    for weight in (1.0, 0.01):
        model = kind(3, 1.0, item_weights=torch.tensor([1.0, weight, 1.0]))
        model.fit(Histories.from_lists(rows))
        told.append(model.score(Histories.from_lists([[1], [0]]))[:, 2].tolist())
    assert abs(told[1][0]) < 0.1 * abs(told[0][0])  # by item 1
    assert told[1][1] > 0.9 * told[0][1]  # by item 0


@KINDS
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"user_weights": torch.tensor([1.0, 0.0])}, "user_weights must be above 0 and finite, got 0"),
        ({"item_weights": torch.tensor([1.0, -1.0, 1.0])}, "item_weights must be above 0 and finite, got -1"),
        ({"item_weights": torch.tensor([1.0, np.inf, 1.0])}, "item_weights must be above 0 and finite, got inf"),
        ({"item_weights": torch.ones(2)}, r"item_weights must be \[3\], got \[2\]"),
    ],
)
def test_weights_that_are_none(kind, wrong, told):
    with pytest.raises(ArgumentError, match=told):
        kind(3, 1.0, **wrong)


@KINDS
def test_histories_of_other_users(kind):
    model = kind(3, 1.0, user_weights=torch.ones(2))
    with pytest.raises(ArgumentError, match="histories must be of all 2 users that user_weights are of, got 1"):
        model.fit(Histories.from_lists([[0, 1]]))


@KINDS
@pytest.mark.parametrize("on", ["user", "item"])
def test_what_is_of_the_source_alone_has_its_weight(kind, on):
    union = kg_loaders.link(
        planted(num_users=50, num_items=80, seed=1), planted(num_users=30, num_items=60), on=on
    ).union
    model, plain = (kind.from_graph(union, source_weight=weight, l2=7.0) for weight in (0.25, 1.0))
    for weights, features in ((model.user_weights, union.user_features), (model.item_weights, union.item_features)):
        assert (weights == 0.25).tolist() == (features["domain"].values == "source").tolist()
        assert weights.unique().tolist() == [0.25, 1.0]
    assert model.l2 == (7.0,)
    assert plain.user_weights is None
    assert plain.item_weights is None
    histories = Histories.from_interactions(union.part("train"), union.num_users)
    for one in (model, plain):
        one.fit(histories)
    assert not torch.allclose(model.score(histories), plain.score(histories), atol=1e-2)
    assert model.state_dict().keys() == plain.state_dict().keys()


@KINDS
@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_source_weight_outside_its_range(kind, weight):
    with pytest.raises(ArgumentError, match="source_weight must be above 0 and finite"):
        kind.from_graph(planted(), source_weight=weight)


def test_a_graph_of_one_domain_has_no_source():
    with pytest.raises(ArgumentError, match="source_weight must be 1, got 0.5: 'planted' is not made of two domains"):
        EASE.from_graph(planted(), source_weight=0.5)
    with pytest.raises(TypeError, match="source_weight"):
        ContentEASE.from_graph(planted(), source_weight=0.5)


TRIPLES = torch.tensor([[0, 0, 4], [1, 0, 4], [4, 0, 3], [0, 1, 5], [2, 1, 5], [3, 1, 5], [1, 0, 6], [2, 0, 6]])


@KINDS
@pytest.mark.parametrize("of_users", [None, torch.tensor([3.0, 1.0, 1.0, 1.0])])
def test_an_entity_of_weight_two_is_two_users_who_took_its_items(kind, of_users):
    rows = [[0, 1], [1, 2], [0, 2, 3], [3]]
    entities = [[0, 1, 3], [0, 2, 3]]  # by relation; the last links but two items
    told = kind(4, 2.0, 0.2, 0.1, user_weights=of_users, triples=TRIPLES, kg_weight=2.0)
    plain = kind(4, 2.0, 0.2, 0.1)
    told.fit(Histories.from_lists(rows))
    plain.fit(Histories.from_lists([*rows, *([rows[0]] * (0 if of_users is None else 2)), *entities, *entities]))
    asked = Histories.from_lists([*rows, *entities, [1], [0, 3]])
    torch.testing.assert_close(told.score(asked), plain.score(asked), rtol=1e-4, atol=1e-5)
    again = kind(4, 2.0, 0.2, 0.1, user_weights=of_users, triples=TRIPLES, kg_weight=2.0)
    again.load_state_dict(told.state_dict())
    torch.testing.assert_close(again.score(asked), told.score(asked))


@KINDS
def test_relations_that_count_are_named(kind):
    graph = planted(num_users=40, num_items=60)
    first = graph.relations.ids[0]
    whole, one = (kind.from_graph(graph, kg_weight=1.0, kg_relations=named) for named in ([], [first]))
    assert 0 < len(one.entities) < len(whole.entities)
    assert kind.from_graph(graph.without_kg(), kg_weight=1.0, kg_relations=[first]).entities is None
    assert kind.from_graph(graph).entities is None
    with pytest.raises(ArgumentError, match=rf"kg_relations must be among those of .* \('{first}'.*\), got 'mood'"):
        kind.from_graph(graph, kg_weight=1.0, kg_relations=["mood"])
    with pytest.raises(ArgumentError, match=r"kg_relations must be empty without kg_weight, got \['mood'\]"):
        kind.from_graph(graph, kg_relations=["mood"])
    with pytest.raises(ArgumentError, match="kg_weight"):
        kind.from_graph(graph, kg_weight=-1.0)


def test_a_comparison_has_rows_without_the_kg_for_models_that_count_its_entities():
    for name in ("EASE", "DualEASE"):
        assert not reads_kg(ModelConfig(name))
        assert not reads_kg(ModelConfig(name, {"kg_weight": 0.0}))
        assert reads_kg(ModelConfig(name, {"kg_weight": 1.0}))
    assert reads_kg(ModelConfig("Blend", {"kg_weight": 0.0}))
    assert reads_kg(ModelConfig("ContentEASE"))
