import json

import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import EASE, InductiveKGAT
from graphrec.serving.explain import explain, relation_name
from graphrec.serving.picture import draw_explanation
from graphrec.serving.recommender import RunRecommender
from kg_loaders import Interactions, RecGraph, Vocabulary

HISTORY = Histories.from_lists([[2, 5, 7]])


@pytest.fixture(scope="module")
def flagship():
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(planted_graph(), dim=8)
    torch.nn.init.normal_(model.item_bias)
    return RunRecommender(model, planted_graph())


def item_sharing_an_entity(graph, past):
    """Return an item with the same (relation, tail) as ``past``."""
    tails = {(r, t) for h, r, t in graph.triples.tolist() if h == past}
    return next(h for h, r, t in graph.triples.tolist() if (r, t) in tails and h not in HISTORY.items.tolist())


def test_what_past_items_add_is_the_whole_score_but_the_base(flagship):
    why = explain(flagship, HISTORY, item=3)
    with torch.no_grad():
        assert why.score == pytest.approx(float(flagship.model.score(HISTORY)[0, 3]))
    assert why.base == pytest.approx(flagship.model.item_bias[3].item(), abs=1e-5)
    assert why.base + sum(p.contribution for p in why.past) == pytest.approx(why.score, abs=1e-5)
    assert [p.contribution for p in why.past] == sorted((p.contribution for p in why.past), reverse=True)


def test_shares_are_parts_of_what_speaks_for_the_item(flagship):
    with torch.no_grad():
        from_history = flagship.model.score(HISTORY)[0] - flagship.model.item_bias
    wanted = explain(flagship, HISTORY, int(from_history.argmax()))
    assert sum(p.share for p in wanted.past) == pytest.approx(1)
    for past in wanted.past:
        assert (past.share > 0) == (past.contribution > 0)
    disliked = explain(flagship, HISTORY, int(from_history.argmin()))
    assert all(p.contribution < 0 and p.share == 0 for p in disliked.past)
    assert not any(sentence.startswith("you took") for sentence in disliked.sentences)


def test_other_models_are_explained_by_leaving_items_out():
    graph = planted_graph()
    model = EASE.from_graph(graph, l2=10.0)
    model.fit(histories_of(graph))
    why = explain(RunRecommender(model, graph), HISTORY, item=3)
    full = float(model.score(HISTORY)[0, 3])
    for past in why.past:
        index = graph.items.index_of(past.item_id)
        rest = Histories.from_lists([[i for i in HISTORY.items.tolist() if i != index]])
        assert past.contribution == pytest.approx(full - float(model.score(rest)[0, 3]), abs=1e-5)
    assert why.paths == ()


def test_paths_are_facts_of_the_graph(flagship):
    graph = flagship.graph
    item = item_sharing_an_entity(graph, past=2)
    why = explain(flagship, HISTORY, item)
    assert why.paths
    linked = {(graph.entity_labels[h], graph.entity_labels[t]) for h, _, t in graph.triples.tolist()}
    linked |= {(t, h) for h, t in linked}
    for path in why.paths:
        assert path.past_title in {graph.item_labels[i] for i in HISTORY.items.tolist()}
        assert (path.past_title, path.entity) in linked
        assert (path.entity, graph.item_labels[item]) in linked
        assert 0 < path.attention <= 1
    assert [p.attention for p in why.paths] == sorted((p.attention for p in why.paths), reverse=True)


def test_an_entity_without_a_name_is_known_from_other_items():
    triples = torch.tensor([[0, 0, 3], [1, 0, 3], [2, 0, 3]]).numpy()
    graph = RecGraph(
        users=Vocabulary(["u", "v"], "user"),
        entities=Vocabulary(["Heat", "Alien", "Jaws", "m.01"], "entity"),
        num_items=3,
        interactions=Interactions(torch.tensor([0, 1]).numpy(), torch.tensor([2, 2]).numpy()),
        relations=Vocabulary(["film.film.genre"], "relation"),
        triples=triples,
    )
    recommender = RunRecommender(InductiveKGAT.from_graph(graph, dim=4), graph)
    why = explain(recommender, Histories.from_lists([[0]]), item=1)
    assert [str(path) for path in why.paths] == ["same genre as Heat: m.01 (also: Jaws)"]
    assert why.sentences[-1] == "same genre as Heat: m.01 (also: Jaws)"


def test_relations_are_named_for_people():
    names = ["film.director.film", "http://dbpedia.org/ontology/starring"]
    graph = RecGraph(
        users=Vocabulary((), "user"),
        entities=Vocabulary(["a"], "entity"),
        num_items=1,
        interactions=Interactions(torch.empty(0).long().numpy(), torch.empty(0).long().numpy()),
        relations=Vocabulary(names, "relation"),
    )
    assert [relation_name(graph, edge_type) for edge_type in range(4)] == ["director", "starring", "film", "starring"]


def test_an_empty_history_leaves_popularity(flagship):
    why = explain(flagship, Histories.from_lists([[]]), item=3)
    assert why.past == why.paths == ()
    assert why.sentences == ["it is popular; nothing in the history speaks for it"]


def test_it_becomes_json_and_a_picture(flagship, tmp_path):
    why = explain(flagship, HISTORY, item_sharing_an_entity(flagship.graph, past=2))
    assert json.loads(json.dumps(why.to_dict()))["sentences"] == why.sentences
    draw_explanation(why, tmp_path / "why.svg", "a stranger")
    assert "<svg" in (tmp_path / "why.svg").read_text()


def test_more_than_one_row_or_an_unknown_item_is_refused(flagship):
    with pytest.raises(ArgumentError, match="must hold one row, got 2"):
        explain(flagship, Histories.from_lists([[1], [2]]), item=3)
    with pytest.raises(ArgumentError, match=r"item must be within 0\.\.79, got 80"):
        explain(flagship, HISTORY, item=80)
