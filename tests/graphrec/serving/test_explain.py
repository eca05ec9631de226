import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.encoders.knowledge_graph import ItemEdges
from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import EASE, Blend, InductiveKGAT, Popularity, SoftmaxMF
from graphrec.serving import paths
from graphrec.serving.attribution import AttendedScore
from graphrec.serving.explain import METHODS, NO_HISTORY, explain, methods_of, percent
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
    why = explain(flagship, HISTORY, item=3, method="contributions")
    with torch.no_grad():
        assert why.score == pytest.approx(float(flagship.model.score(HISTORY)[0, 3]))
    assert why.base == pytest.approx(flagship.model.item_bias[3].item(), abs=1e-5)
    assert why.base + sum(p.contribution for p in why.past) == pytest.approx(why.score, abs=1e-5)
    assert [p.contribution for p in why.past] == sorted((p.contribution for p in why.past), reverse=True)


def test_the_graph_is_indexed_once_for_all_requests(flagship, monkeypatch):
    asked = []
    monkeypatch.setattr(paths, "_index", lambda *args, index=paths._index: (asked.append(args), index(*args))[1])
    flagship.model.forget()
    for item in (3, 4):
        explain(flagship, HISTORY, item)
    assert len(asked) == 1


def test_shares_are_parts_of_what_speaks_for_the_item(flagship):
    with torch.no_grad():
        from_history = flagship.model.score(HISTORY)[0] - flagship.model.item_bias
    wanted = explain(flagship, HISTORY, int(from_history.argmax()), method="contributions")
    assert sum(p.share for p in wanted.past) == pytest.approx(1)
    for past in wanted.past:
        assert (past.share > 0) == (past.contribution > 0)
    disliked = explain(flagship, HISTORY, int(from_history.argmin()), method="contributions")
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
    why = explain(flagship, HISTORY, item, method="attention")
    assert why.paths
    linked = {(h, t) for h, _, t in graph.triples.tolist()}
    linked |= {(t, h) for h, t in linked}
    for path in why.paths:
        past, entity = graph.item_labels.index(path.past_title), graph.entities.index_of(path.entity_id)
        assert past in HISTORY.items.tolist()
        assert {(past, entity), (entity, item)} <= linked
        assert path.entity == graph.entity_labels[entity]
        sharing = [i for i in range(graph.num_items) if (i, entity) in linked]
        assert path.specificity == pytest.approx(math.log(graph.num_items / len(sharing)) / math.log(graph.num_items))
        assert path.more_past == len(set(sharing) & set(HISTORY.items.tolist()) - {item}) - 1
    assert len({path.entity_id for path in why.paths}) == len(why.paths)


def test_attention_along_a_path_is_the_models(flagship):
    item = item_sharing_an_entity(flagship.graph, past=2)
    (path, *_) = explain(flagship, HISTORY, item, method="attention").paths
    with torch.no_grad():
        past_side, candidate_side = flagship.model.kg_attention()
        of_past = dict(zip(HISTORY.items.tolist(), flagship.model.history_attention(HISTORY).tolist(), strict=True))
    entity, past = flagship.graph.entities.index_of(path.entity_id), flagship.graph.item_labels.index(path.past_title)
    near = past_side.alpha[(past_side.item == past) & (past_side.entity == entity)]
    far = candidate_side.alpha[(candidate_side.item == item) & (candidate_side.entity == entity)]
    assert path.attention == pytest.approx(of_past[past] * near.item() * far.item())


FILMS = ["Heat", "Alien", "Jaws", "Fargo", "Speed", "Ghost"]


def films(relations, entities, triples, attention=None, taken=(2,)):
    """A model of six films that are items 0..5; the attention on each triple is the same unless it is given."""
    graph = RecGraph(
        users=Vocabulary(["u"], "user"),
        entities=Vocabulary([*FILMS, *entities], "entity"),
        num_items=6,
        interactions=Interactions(np.zeros(len(taken), dtype=np.int64), np.array(taken)),
        relations=Vocabulary(relations, "relation"),
        triples=np.array(triples),
    )
    model = InductiveKGAT.from_graph(graph, dim=4)
    edges = ItemEdges(*(torch.tensor(column) for column in zip(*[(t, r, h) for h, r, t in triples], strict=True)), None)
    if attention is None:
        attention = [0.5] * len(triples)
    # Types of edges into the head of a triple are those of inverses.
    edges = replace(edges, relation=edges.relation + len(relations), alpha=torch.tensor(attention))
    model.kg_attention = lambda: (edges, edges)
    return RunRecommender(model.eval(), graph)


def attended(recommender, history=(0,), item=1, k=5):
    return explain(recommender, Histories.from_lists([list(history)]), item, k, method="attention")


def reasons(recommender, history=(0,), item=1, k=5):
    return [str(path) for path in attended(recommender, history, item, k).paths]


def test_an_entity_without_a_name_is_known_from_the_most_taken_other_items():
    genre = [[i, 0, 6] for i in range(5)]
    recommender = films(["film.film.genre"], ["m.01"], genre, taken=(3, 4))
    assert reasons(recommender) == ["same genre as Heat (also Fargo, Speed)"]
    assert attended(recommender).sentences[-1].endswith("Heat (also Fargo, Speed)")


def test_a_blend_has_the_paths_of_its_first_model_and_the_summands_of_both():
    recommender = films(["director"], ["m.1"], [[0, 0, 6], [1, 0, 6]])
    histories = Histories.from_lists([[0, 3]])
    ease = EASE(6, l2=1.0)
    ease.fit(Histories.from_lists([[0, 1], [0, 1], [3, 4]]))
    blend = Blend(recommender.model, ease).eval()
    told = explain(RunRecommender(blend, recommender.graph), histories, 1)
    assert [str(path) for path in told.paths] == ["same director as Heat"]
    assert told.past[0].title == "Heat"
    with torch.no_grad():
        without = blend.score(Histories.from_lists([[3]]))[0, 1]
        assert told.past[0].contribution == pytest.approx(float(blend.score(histories)[0, 1] - without), abs=1e-5)


def test_a_rare_entity_comes_before_one_that_nearly_all_items_share_though_less_attended():
    triples = [[0, 0, 6], [1, 0, 6], *([i, 1, 7] for i in range(5))]
    recommender = films(["director", "language"], ["m.1", "m.2"], triples, [0.3, 0.3] + [0.5] * 5)
    assert reasons(recommender) == ["same director as Heat", "same language as Heat (also Jaws, Fargo)"]
    rare, common = attended(recommender).paths
    assert rare.attention < common.attention
    assert rare.attention == pytest.approx(0.3 * 0.3)
    assert reasons(recommender, k=1) == ["same director as Heat"]


def test_attention_decides_between_entities_that_tell_as_much():
    triples = [[0, 0, 6], [1, 0, 6], [0, 1, 7], [1, 1, 7]]
    assert reasons(films(["a", "b"], ["m.1", "m.2"], triples, [0.1, 0.1, 0.2, 0.2])) == [
        "same b as Heat",
        "same a as Heat",
    ]


def test_what_words_can_tell_comes_first():
    triples = [[0, 0, 6], [1, 0, 6], [0, 1, 7], [1, 1, 7], [0, 0, 8], [1, 0, 8]]
    found = reasons(films(["17", "director"], ["m.1", "m.2", "Crime"], triples, [0.9, 0.9, 0.1, 0.1, 0.2, 0.2]))
    assert found == ["shares Crime with Heat", "same director as Heat", "shares an entity with Heat"]


def test_paths_over_one_entity_are_told_once_with_the_same_part_in_both_films():
    triples = [[0, 0, 6], [0, 1, 6], [1, 0, 6], [1, 1, 6], [3, 0, 6], [4, 1, 6]]
    recommender = films(["directed_by", "written_by"], ["Joel_Coen"], triples, [0.1, 0.9, 0.8, 0.2, 0.1, 0.1])
    assert reasons(recommender, history=(0, 3, 5)) == ["same writer as Heat and 1 more you took: Joel Coen"]
    assert reasons(recommender, history=(4,), item=3) == ["its director, Joel Coen, is also a writer of Speed"]


def test_paths_that_read_alike_are_told_once():
    triples = [[0, 0, 6], [1, 0, 6], [0, 0, 7], [1, 0, 7]]
    recommender = films(["actor"], ["m.1", "m.2"], triples, [0.1, 0.1, 0.2, 0.2])
    (path,) = attended(recommender).paths
    assert path.entity_id == "m.2"


def test_an_item_of_the_history_does_not_explain_itself():
    recommender = films(["actor"], ["m.1"], [[0, 0, 6], [1, 0, 6]])
    assert reasons(recommender, history=(0, 1)) == ["same actor as Heat"]
    assert reasons(recommender, history=(1,)) == []


def test_shares_in_words():
    assert [percent(share) for share in (0, 0.00001, 0.001, 0.0123, 0.0994, 0.0996, 0.256, 1)] == (
        ["0 %", "<0.1 %", "0.1 %", "1.2 %", "9.9 %", "10 %", "26 %", "100 %"]
    )


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


# Methods


@pytest.mark.parametrize("method", ["contributions", "leave-one-out", "attention"])
def test_json_and_words_say_how_it_was_found(flagship, method):
    why = explain(flagship, HISTORY, item_sharing_an_entity(flagship.graph, past=2), method=method)
    told = json.loads(json.dumps(why.to_dict()))
    assert told["method"] == why.method == method
    assert told["how"].startswith(METHODS[method])
    assert sum(past.share for past in why.past) == pytest.approx(1)
    assert why.base == pytest.approx(
        flagship.model.item_bias[flagship.graph.items.index_of(why.item_id)].item(), abs=1e-5
    )
    assert all((path.effect is not None) == (method == "leave-one-out") for path in why.paths)


def test_left_out_paths_are_ordered_by_how_far_the_score_falls_without_both_edges(flagship):
    graph, model = flagship.graph, flagship.model
    item = item_sharing_an_entity(graph, past=2)
    why = explain(flagship, HISTORY, item, method="leave-one-out", k=50)
    effects = [path.effect for path in why.paths]
    assert effects == sorted(effects, reverse=True)
    assert all(effect > 0 for effect in effects)
    score = AttendedScore.of(model, HISTORY, item)
    keep = torch.ones(len(why.paths), score.num_past_edges + score.num_candidate_edges, dtype=torch.bool)
    for row, path in zip(keep, why.paths, strict=True):
        entity = graph.entities.index_of(path.entity_id)  # each item is linked to it once
        row[:] = torch.cat([score.past.entity, score.candidate.entity]) != entity
        assert path.more_past == int((score.past.entity == entity).sum()) - 1
    assert effects == pytest.approx((score.full - score.kept_edges(keep)).tolist(), abs=1e-9)
    assert why.how.endswith("paths by how far it falls without them")


def test_a_past_item_that_the_graph_links_to_the_item_is_a_path():
    # Entities are kept where two items are linked to them: Alien (1) is a sequel of Heat (0), as is Jaws (2).
    triples = [[1, 0, 0], [2, 0, 0], [1, 1, 6], [3, 1, 6]]
    recommender = films(["sequel_of", "actor"], ["Al Pacino"], triples)
    (path,) = attended(recommender).paths
    assert path.direct
    assert (path.past_title, path.entity, str(path)) == ("Heat", "Heat", "Heat is its sequel of")
    assert path.attention == pytest.approx(0.5)
    numbered = films(["17", "actor"], ["Al Pacino"], triples)
    assert reasons(numbered, history=(0,)) == ["is linked to Heat"]
    assert reasons(numbered, history=(0, 3)) == ["is linked to Heat", "same actor as Fargo: Al Pacino"]


def test_a_direct_path_is_left_out_by_its_edge():
    torch.manual_seed(1)
    graph = films(["sequel_of"], [], [[1, 0, 0], [2, 0, 0]]).graph
    model = InductiveKGAT.from_graph(graph, dim=4).eval()
    found = [
        explain(RunRecommender(model, graph), Histories.from_lists([[0]]), i, method="leave-one-out") for i in (1, 2)
    ]
    for item, why in zip((1, 2), found, strict=True):
        score = AttendedScore.of(model, Histories.from_lists([[0]]), item)
        effect = score.full - score.without(torch.tensor([-1]), torch.tensor([0])).item()
        assert [path.effect for path in why.paths] == ([pytest.approx(effect)] if effect > 0 else [])
    assert any(why.paths for why in found)


def test_a_model_with_a_table_of_users_says_that_it_cannot_tell():
    graph = planted_graph()
    recommender = RunRecommender(SoftmaxMF.from_graph(graph), graph)
    why = explain(recommender, recommender.known.select(torch.tensor([3])), item=2)
    assert (why.method, why.past, why.paths) == ("none", (), ())
    assert why.sentences == [NO_HISTORY]
    assert why.how == "the score does not depend on the history"


def test_a_sum_is_explained_by_its_terms_and_popularity_by_nothing():
    graph = planted_graph()
    model = EASE.from_graph(graph, l2=10.0)
    model.fit(histories_of(graph))
    why = explain(RunRecommender(model, graph), HISTORY, item=3)
    assert (why.method, why.base) == ("leave-one-out", 0.0)
    assert [p.contribution for p in why.past] == pytest.approx(
        sorted(model.weight[HISTORY.items, 3].tolist(), reverse=True)
    )
    why = explain(RunRecommender(model, graph), Histories.from_lists([[]]), item=3)
    assert (why.base, why.sentences) == (0.0, ["nothing in the history speaks for it"])
    popular = Popularity.from_graph(graph)
    popular.fit(histories_of(graph))
    why = explain(RunRecommender(popular, graph), HISTORY, item=3)
    assert why.sentences == ["it is popular; nothing in the history speaks for it"]
    assert why.method == "leave-one-out"


def test_methods_that_do_not_fit_are_refused(flagship):
    assert methods_of(flagship.model) == ("leave-one-out", "contributions", "attention")
    assert methods_of(Popularity(3)) == ("leave-one-out",)
    with pytest.raises(ArgumentError, match="method for Popularity must be one of 'leave-one-out', got 'attention'"):
        explain(RunRecommender(Popularity(80), flagship.graph), HISTORY, item=3, method="attention")
    with pytest.raises(ArgumentError, match="did you mean 'leave-one-out'"):
        explain(flagship, HISTORY, item=3, method="leave_one_out")


@pytest.mark.parametrize("options", [{}, {"head": "mlp"}, {"max_length": 2}], ids=str)
def test_a_model_of_order_shows_what_its_last_entry_attends_to(options):
    graph = planted_graph()
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, sequence=2, sequence_heads=2, **options)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    histories = replace(HISTORY, times=torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    why = explain(RunRecommender(model, graph), histories, item_sharing_an_entity(graph, past=2), method="attention")
    told = {graph.items.index_of(past.item_id): past.contribution for past in why.past}
    with torch.no_grad():
        ours = model.history_attention(histories).tolist()
    assert [told[item] for item in HISTORY.items.tolist()] == pytest.approx(ours)
    assert sum(told.values()) == pytest.approx(1, abs=1e-5)
    assert len(set(told.values())) == 3
    assert (told[5] == 0) == ("max_length" in options)  # the oldest
    assert why.method == "attention"
    assert why.paths
    assert "by the model's attention" in why.how


@pytest.mark.parametrize("options", [{}, {"sequence": 2}, {"head": "mlp"}], ids=str)
def test_what_past_items_add_does_not_hang_on_how_loud_the_charts_are(options):
    graph = planted_graph()
    told = []
    for weight in (0.0, 50.0):
        torch.manual_seed(0)
        model = InductiveKGAT.from_graph(graph, dim=8, popularity_prior=weight, **options)
        model.prepare(histories_of(graph))
        most_taken = int(torch.bincount(histories_of(graph).items, minlength=graph.num_items).argmax())
        past = [item for item in (2, 5, 7) if item != most_taken]
        told.append(explain(RunRecommender(model, graph), Histories.from_lists([past]), most_taken))
    plain, loud = told
    assert loud.score > plain.score + 1  # the charts say much
    assert [item.item_id for item in loud.past] == [item.item_id for item in plain.past]
    assert [item.contribution for item in loud.past] == pytest.approx(
        [item.contribution for item in plain.past], abs=1e-4
    )
    assert loud.score - loud.base == pytest.approx(plain.score - plain.base, abs=1e-4)
