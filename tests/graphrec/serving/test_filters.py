from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.toy_models import ToyEASE

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import BPRMF, EASE, Blend, InductiveKGAT, SoftmaxMF
from graphrec.serving.filters import Filters, diversify, items_with, similarity_of
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.towers import item_vectors_of
from kg_loaders import Feature, Interactions, RecGraph, Vocabulary

FILMS = ["Heat", "Alien", "Jaws", "Fargo", "Speed", "Ghost"]
GENRES = ["http://dbpedia.org/resource/Crime_film", "m.02", "http://dbpedia.org/resource/Action_film"]
# Heat, Fargo: crime. Alien, Ghost: m.02, written the other way round. Heat, Speed: action.
TRIPLES = [[0, 0, 6], [3, 0, 6], [7, 1, 1], [7, 1, 5], [0, 0, 8], [4, 0, 8], [2, 2, 6]]


@pytest.fixture
def graph():
    return RecGraph(
        users=Vocabulary(["u", "v"], "user"),
        entities=Vocabulary([*"abcdef", *GENRES], "entity"),
        num_items=6,
        interactions=Interactions(np.array([0, 1, 1]), np.array([2, 1, 3]), split=np.zeros(3, dtype=np.int8)),
        relations=Vocabulary(["film.film.genre", "film.genre.films", "set_in"], "relation"),
        triples=np.array(TRIPLES),
        item_features={"title": Feature.text(FILMS)},
        name="films",
    )


class ByIndex(ToyEASE):
    """Alien, then Fargo, Ghost; Heat, Jaws, Speed."""

    def score(self, histories):
        return torch.tensor([[2.0, 9.0, 1.0, 8.0, 0.0, 7.0]]).expand(len(histories), -1)


@pytest.fixture
def recommender(graph):
    return RunRecommender(ByIndex.from_graph(graph), graph)


def titles(recommender, k=6, **filters):
    found = recommender.recommend(user_id="u", k=k, filters=Filters(**filters))
    assert [item.rank for item in found] == list(range(1, len(found) + 1))
    return [item.title for item in found]


def test_no_filter_changes_nothing(recommender):
    assert titles(recommender) == ["Alien", "Fargo", "Ghost", "Heat", "Speed"]  # Jaws was taken
    plain = recommender.recommend(user_id="u", k=3)
    assert recommender.recommend(user_id="u", k=3, filters=Filters()) == plain


def test_only_and_exclude_by_id_or_title(recommender):
    assert titles(recommender, exclude=["alien", "f"]) == ["Fargo", "Heat", "Speed"]
    assert titles(recommender, only=["Heat", "b", "Jaws"]) == ["Alien", "Heat"]
    assert titles(recommender, only=["Heat", "b"], exclude=["b"]) == ["Heat"]
    assert titles(recommender, only=["Jaws"]) == []
    assert titles(recommender, k=1, exclude=["Alien"]) == ["Fargo"]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"genre": "crime film"}, ["Fargo", "Heat"]),
        ({"film.film.genre": GENRES[0]}, ["Fargo", "Heat"]),
        ({"Genre": "M.02"}, ["Alien", "Ghost"]),
        ([("genre", "Crime film"), ("genre", "Action film")], ["Heat"]),
        ({"genre": "Crime film", "set in": "Crime film"}, []),
    ],
)
def test_attributes(recommender, where, wanted):
    assert titles(recommender, where=where) == wanted


def test_attributes_of_items_that_are_entities_themselves(graph):
    sequels = replace(graph, triples=np.array([[1, 2, 0]]))
    assert items_with(sequels, "set_in", "Heat").tolist() == [False, True, False, False, False, False]
    assert items_with(sequels, "set_in", "b").tolist() == [True, False, False, False, False, False]


def test_rules_see_what_is_left_and_come_one_after_the_other(recommender):
    seen = []

    def no_ghosts(candidates, scores):
        seen.append(candidates.tolist())
        return scores.masked_fill(candidates == 5, -torch.inf)

    def sponsored(candidates, scores):
        seen.append(candidates.tolist())
        return scores + 100.0 * (candidates == 4)

    assert titles(recommender, exclude=["Alien"], rules=[no_ghosts, sponsored]) == ["Speed", "Fargo", "Heat"]
    assert seen == [[0, 3, 4, 5], [0, 3, 4]]
    assert recommender.recommend(user_id="u", k=1, filters=Filters(rules=[sponsored]))[0].score == 100.0


def test_rules_must_answer_for_every_candidate(recommender):
    def short(candidates, scores):
        return scores[1:]

    with pytest.raises(ArgumentError, match=r"rule short must return scores \[5\], got \[4\]"):
        titles(recommender, rules=[short])
    with pytest.raises(ArgumentError, match=r"must return scores \[5\], got list"):
        titles(recommender, rules=[lambda candidates, scores: scores.tolist()])
    with pytest.raises(ArgumentError, match="rule <lambda> returned NaN"):
        titles(recommender, rules=[lambda candidates, scores: scores * torch.nan])


def test_diversity_over_the_graph(recommender):
    # Relevance 1, .89, .78, .22, 0. After Alien and Fargo, half of: Ghost .78 - 1, Heat .22 - .5, Speed 0 - 0.
    assert titles(recommender, diversity=0.0) == ["Alien", "Fargo", "Ghost", "Heat", "Speed"]
    assert titles(recommender, k=4, diversity=0.5) == ["Alien", "Fargo", "Speed", "Ghost"]
    assert titles(recommender, k=3, diversity=1.0)[:2] == ["Alien", "Fargo"]
    assert titles(recommender, k=9, diversity=0.5, only=["Jaws"]) == []
    scores = [item.score for item in recommender.recommend(user_id="u", k=4, filters=Filters(diversity=0.5))]
    assert scores == [9.0, 8.0, 0.0, 7.0]  # the model's own, in the new order


def test_diversity_needs_something_to_compare(graph):
    bare = graph.without_kg()
    with pytest.raises(ArgumentError, match="diversity needs a model with item vectors, or a knowledge graph"):
        titles(RunRecommender(ByIndex.from_graph(bare), bare), diversity=0.5)


def test_similarity_by_hand(graph):
    items = torch.tensor([0, 3, 1, 2])
    shared = similarity_of(items, None, graph)
    assert shared[0].tolist() == pytest.approx([1, 0.5, 0, 0.5])  # Heat: crime and action; Fargo and Jaws: crime
    assert shared[2].tolist() == [0, 0, 1, 0]
    vectors = torch.tensor([[1.0, 0], [0, 2], [3, 3], [-1, 0], [0, 0], [0, 0]])
    cosines = similarity_of(torch.tensor([0, 1, 2, 3]), vectors, graph)
    assert cosines[0].tolist() == pytest.approx([1, 0, 0.5**0.5, -1])


def test_mmr_against_its_formula():
    generator = torch.Generator().manual_seed(0)
    relevance = torch.rand(12, generator=generator).sort(descending=True).values
    vectors = torch.nn.functional.normalize(torch.randn(12, 3, generator=generator), dim=1)
    similarity = vectors @ vectors.T
    value = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    for diversity in (0.1, 0.5, 0.9):
        chosen = [0]
        while len(chosen) < 5:
            rest = [j for j in range(12) if j not in chosen]
            chosen.append(
                max(rest, key=lambda j: (1 - diversity) * value[j] - diversity * max(similarity[i, j] for i in chosen))
            )
        assert diversify(relevance, similarity, 5, diversity) == chosen
    assert diversify(torch.ones(3), torch.eye(3), 9, 0.5) == [0, 1, 2]


@pytest.mark.parametrize("kind", [InductiveKGAT, SoftmaxMF, BPRMF, Blend])
def test_item_vectors_for_diversity(graph, kind):
    assert item_vectors_of(kind.from_graph(graph).eval()).shape[0] == 6
    assert item_vectors_of(EASE(6)) is None


def test_a_model_with_vectors_is_diverse_by_them(graph):
    model = InductiveKGAT.from_graph(graph.without_kg(), dim=2).eval()
    with torch.no_grad():
        model.item.copy_(torch.tensor([1.0, 0.1]))  # whatever the history, the user looks the same way
        model.candidate.copy_(torch.tensor([[1.0, 0], [1, 0.1], [1, 0], [0, 1], [0.6, 0.6], [1, 0.05]]))
        model.item_bias.copy_(torch.tensor([9.0, 8, 0, 5, 6, 7]))
    recommender = RunRecommender(model, graph.without_kg())
    assert titles(recommender, k=2) == ["Heat", "Alien"]
    assert titles(recommender, k=2, diversity=0.7) == ["Heat", "Fargo"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"diversity": 1.5}, r"diversity must be within 0.0\.\.1.0, got 1.5"),
        ({"only": []}, "only must name at least one item"),
        ({"only": "Heat"}, "only must be a list, got the text 'Heat'"),
        ({"exclude": ["Heet"]}, r"no item has the id or title 'Heet'; nearest: 'Heat'"),
        ({"where": {"gendre": "Crime film"}}, "no relation 'gendre' of items in 'films'; there are 'genre', ..."),
        ({"where": {"genre": "Crime"}}, r"no genre 'Crime' of items in 'films'; there are 'Crime film', ..."),
    ],
)
def test_unclear_filters_are_refused(recommender, filters, message):
    with pytest.raises(ArgumentError, match=message):
        titles(recommender, **filters)


def test_strangers_are_filtered_too(recommender):
    found = recommender.recommend(history=["Alien"], k=2, filters=Filters(where={"genre": "m.02"}))
    assert [item.title for item in found] == ["Ghost"]
    with pytest.raises(ArgumentError, match="k must be >= 1"):
        recommender.recommend_to(Histories.from_lists([[1]]), 0, Filters())
