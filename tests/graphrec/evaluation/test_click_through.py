"""The click-through protocol: what is asked, and what the evaluator makes of it."""

import pytest
import torch
from cases.scoring_models import FixedScores
from reference import metrics as naive

from graphrec.errors import ArgumentError
from graphrec.evaluation import Evaluator
from graphrec.evaluation.click_through import with_untaken
from graphrec.histories import Histories
from kg_loaders.synthetic import planted

METRICS = ["ctr_auc", "ctr_f1"]


def parts(graph, split):
    told = graph.part("train") if split == "valid" else graph.part("train", "valid")
    return [Histories.from_interactions(part, graph.num_users) for part in (told, graph.part(split))]


def pairs_of(histories):
    return set(zip(histories.rows.tolist(), histories.items.tolist(), strict=True))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_every_held_out_item_has_one_beside_it_that_the_user_did_not_take(split):
    graph = planted()
    told, relevant = parts(graph, split)
    kept, untaken = with_untaken(told, relevant, graph.num_items)
    assert torch.equal(kept.items, relevant.items)
    assert torch.equal(untaken.lengths, relevant.lengths)
    assert not pairs_of(untaken) & (pairs_of(told) | pairs_of(relevant))


def test_all_untaken_items_are_equally_likely():
    told, relevant = Histories.from_lists([[5, 1]] * 4000), Histories.from_lists([[3]] * 4000)
    _, untaken = with_untaken(told, relevant, num_items=8)
    counts = torch.bincount(untaken.items, minlength=8)
    assert counts[[1, 3, 5]].tolist() == [0, 0, 0]
    assert counts[[0, 2, 4, 6, 7]].tolist() == pytest.approx([800] * 5, abs=110)  # four standard deviations


def test_the_seed_decides_the_draw():
    graph = planted()
    first, again, other = (with_untaken(*parts(graph, "test"), graph.num_items, seed)[1].items for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_user_who_took_everything_is_asked_nothing():
    told, relevant = Histories.from_lists([[0, 1], [0]]), Histories.from_lists([[2], [2]])
    kept, untaken = with_untaken(told, relevant, num_items=3)
    assert (kept.lengths.tolist(), untaken.lengths.tolist()) == ([0, 1], [0, 1])
    assert untaken.items.tolist() == [1]


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_evaluator_equals_plain_loops(split, batch_size, logits):
    graph = planted()
    model = FixedScores.from_graph(graph)
    model.logits = logits
    kept, untaken = with_untaken(*parts(graph, split), graph.num_items)
    relevant, others = (model.table[side.rows, side.items].tolist() for side in (kept, untaken))
    evaluation = Evaluator([*METRICS, "recall@5"], batch_size=batch_size).evaluate(model, graph, split)
    assert evaluation.metrics["ctr_auc"] == pytest.approx(naive.ctr_auc(relevant, others), abs=1e-12)
    expected = naive.ctr_f1(relevant, others, 0.0 if logits else None)
    assert evaluation.metrics["ctr_f1"] == pytest.approx(expected, abs=1e-12)
    assert set(evaluation.per_user) == {"recall@5"}


def test_all_models_and_seeds_are_asked_the_same():
    graph = planted()
    asked = [Evaluator(METRICS, seed=seed).evaluate(FixedScores.from_graph(graph), graph).metrics for seed in (0, 1)]
    assert asked[0] == asked[1]


def test_a_model_that_knows_the_answers_has_1_and_a_constant_one_a_half():
    graph = planted()
    answers = torch.zeros(graph.num_users, graph.num_items)
    answers[graph.interactions.user, graph.interactions.item] = 1.0
    assert Evaluator(METRICS).evaluate(FixedScores(answers), graph).metrics == {"ctr_auc": 1.0, "ctr_f1": 1.0}
    constant = Evaluator(METRICS).evaluate(FixedScores(torch.zeros_like(answers)), graph).metrics
    assert constant == {"ctr_auc": 0.5, "ctr_f1": pytest.approx(2 / 3)}


def test_scores_above_one_half_of_a_probability_count_as_taken_only_where_scores_are_logits():
    graph = planted()
    answers = torch.full((graph.num_users, graph.num_items), 1.0)
    answers[graph.interactions.user, graph.interactions.item] = 2.0
    model = FixedScores(answers)
    model.logits = True
    assert Evaluator(["ctr_f1"]).evaluate(model, graph).metrics["ctr_f1"] == pytest.approx(2 / 3)


def test_it_does_not_go_with_candidates():
    with pytest.raises(ArgumentError, match="ctr_auc"):
        Evaluator(["ctr_auc"], candidates=10)
