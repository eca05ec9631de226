from dataclasses import replace

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.evaluation.sampled import evaluate_sampled
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender
from kg_loaders.synthetic import planted


class Given(ClosedFormRecommender):
    """Scores every user alike, as told."""

    def __init__(self, scores):
        super().__init__(len(scores))
        self.register_buffer("scores", scores)

    @classmethod
    def from_graph(cls, graph, **options):
        return cls(torch.zeros(graph.num_items))

    def fit(self, histories, validate=None):
        return {}

    def score(self, histories):
        return self.scores.expand(len(histories), -1).clone()


def test_a_perfect_order_finds_all_and_a_reversed_one_nothing():
    graph = planted()

    class Oracle(Given):
        def score(self, histories):
            held = Histories.from_interactions(graph.part("valid"), graph.num_users)
            scores = torch.zeros(len(histories), graph.num_items)
            mine = held.select(histories.user_index)
            scores[mine.rows, mine.items] = self.scores[0]
            return scores

    best = evaluate_sampled(Oracle(torch.ones(graph.num_items)), graph, "valid", num_sampled=50)
    assert best == {"hr@10 of 51": 1.0, "ndcg@10 of 51": 1.0}
    worst = evaluate_sampled(Oracle(-torch.ones(graph.num_items)), graph, "valid", num_sampled=50)
    assert worst == {"hr@10 of 51": 0.0, "ndcg@10 of 51": 0.0}


def test_ties_are_broken_at_random():
    graph = planted(num_users=400)
    found = evaluate_sampled(Given(torch.zeros(graph.num_items)), graph, "valid", num_sampled=39, seed=1)
    assert found["hr@10 of 40"] == pytest.approx(0.25, abs=0.07)


def test_only_untaken_candidates_are_drawn():
    graph = planted()
    scores = torch.zeros(graph.num_items)
    scores[40:] = 1.0  # better than all candidates, and never drawn
    held = graph.part("valid")
    hits = evaluate_sampled(Given(scores), graph, "valid", num_sampled=200, k=1, candidates=40)["hr@1 of 201"]
    assert hits == pytest.approx((held.item >= 40).mean(), abs=0.05)


def test_one_seed_gives_one_figure():
    graph = planted()
    model = Given(torch.rand(graph.num_items))
    first = evaluate_sampled(model, graph, num_sampled=20, seed=3)
    assert evaluate_sampled(model, graph, num_sampled=20, seed=3) == first


def test_scores_that_are_not_numbers_are_refused_as_in_full_ranking():
    graph = planted()
    scores = torch.zeros(graph.num_items)
    scores[3] = torch.nan
    with pytest.raises(ArgumentError, match="Given scores NaN for user 0"):
        evaluate_sampled(Given(scores), graph)


def test_a_user_who_leaves_nothing_to_draw_is_named():
    graph = planted()
    taken = graph.part("train", "valid")
    user = taken.user[taken.item == 0].min()
    with pytest.raises(ArgumentError, match=rf"user {user} has taken all 1 items that could be drawn"):
        evaluate_sampled(Given(torch.zeros(graph.num_items)), graph, "valid", candidates=1)


def test_what_cannot_be_measured_says_why():
    graph = planted()
    without = replace(graph, interactions=graph.part("train", "test"))
    with pytest.raises(ArgumentError, match="'planted' has no interactions in its valid split"):
        evaluate_sampled(Given(torch.zeros(graph.num_items)), without, "valid")
    with pytest.raises(ArgumentError, match="Given ranks 81 items, graph 'planted' has 80"):
        evaluate_sampled(Given(torch.zeros(81)), graph)


def test_wrong_arguments_are_named():
    graph = planted()
    for options in ({"num_sampled": 0}, {"k": 0}, {"split": "train"}, {"candidates": 81}, {"candidates": 0}):
        with pytest.raises(ArgumentError):
            evaluate_sampled(Given(torch.zeros(graph.num_items)), graph, **options)
