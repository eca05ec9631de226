"""InductiveKGAT with self-attention over the history in order."""

import warnings
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.graphs import histories_of, planted_graph
from cases.model_case import KGATCase, recall

from graphrec.errors import ArgumentError, LongHistoryWarning, UnorderedHistoryWarning
from graphrec.evaluation import Evaluator
from graphrec.evaluation.sampled import evaluate_sampled
from graphrec.histories import Histories
from graphrec.models import EASE, Blend, InductiveKGAT
from graphrec.serving.attribution import leave_one_out
from graphrec.serving.explain import explain
from graphrec.serving.recommender import RunRecommender
from kg_loaders.synthetic import cold_items

NO_TRIPLES = torch.empty(0, 3, dtype=torch.int64)


class TestSequence(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = {"dim": 16, "num_negatives": 60, "sequence": 1, "dropout": 0.0, "max_length": 20}


def make(**options):
    torch.manual_seed(0)
    options = {"dim": 8, "sequence": 2, "sequence_heads": 2, "max_length": 4, "dropout": 0.0, **options}
    model = InductiveKGAT(7, 0, NO_TRIPLES, **options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5)
    return model.eval()


def timed(items, times):
    return Histories(torch.tensor(items), torch.tensor([0, len(items)]), times=torch.tensor(times, dtype=torch.float64))


def test_a_state_knows_nothing_of_what_comes_later():
    model = make()
    states, others = (
        model.sequence(model.item[items], Histories.from_lists([items])) for items in ([1, 2, 3, 4], [1, 2, 5, 6])
    )
    torch.testing.assert_close(states[:2], others[:2])
    assert not torch.allclose(states[2:], others[2:])


def test_the_loss_asks_for_the_next_item_at_every_place():
    model = make(num_negatives=100, temperature=0.5, target_power=0.5)
    read = Histories.from_lists([[1, 2, 3, 4], [5]])
    states = model.sequence(model.item[read.items], read)
    logits = F.normalize(states, dim=1) @ F.normalize(model.candidate, dim=1).t() / 0.5 + model.item_bias
    losses = F.cross_entropy(logits, torch.tensor([2, 3, 4, 5, 2]), reduction="none")
    weights = torch.tensor([6.0, 6.0, 6.0, 6.0, 2.0]).rsqrt()  # of histories of six and two items
    batch = Histories.from_lists([[0, 1, 2, 3, 4, 5], [6], [], [5, 2]], [0, 1, 2, 3])
    torch.testing.assert_close(model.loss(batch, torch.Generator()), (losses * weights).sum() / weights.sum())


def test_order_matters_and_the_most_recent_are_read():
    model = make()
    first, swapped, longer = (Histories.from_lists([row]) for row in ([1, 2, 3, 4], [2, 1, 3, 4], [6, 0, 1, 2, 3, 4]))
    assert not torch.allclose(model.score(first), model.score(swapped))
    torch.testing.assert_close(model.score(longer), model.score(first))
    torch.testing.assert_close(model.score(timed([4, 1, 2, 3], [9, 5, 5, 7])), model.score(first))


def test_time_matters_where_it_has_a_bias():
    model = make(num_time_buckets=20)
    assert not torch.allclose(model.score(timed([1, 2], [0, 1])), model.score(timed([1, 2], [0, 10**6])))
    with pytest.raises(ArgumentError, match=r"num_time_buckets=20 needs times \[2\], got None"):
        model.score(Histories.from_lists([[1, 2]]))


def asked(items, times, asked_at):
    return replace(timed(items, times), asked_at=torch.tensor([asked_at], dtype=torch.float64))


def test_the_moment_of_the_request_matters_where_it_is_read():
    told, other = make(num_time_buckets=20, request_time=True), make(num_time_buckets=20)
    soon, late, unsaid = asked([1, 2], [0, 5], 5), asked([1, 2], [0, 5], 10**6), timed([1, 2], [0, 5])
    torch.testing.assert_close(told.score(soon), told.score(unsaid))
    assert not torch.allclose(told.score(late), told.score(unsaid))
    torch.testing.assert_close(other.score(late), other.score(unsaid))
    assert (told.request_time, other.request_time) == (True, False)
    assert make(request_time=True, sequence=0).request_time is False  # as all that is of self-attention alone
    with pytest.raises(ArgumentError, match="request_time needs num_time_buckets above 0, got 0"):
        make(request_time=True)


def test_training_asks_for_each_item_when_it_was_taken():
    model = make(num_time_buckets=20, request_time=True, num_negatives=100, max_length=9)
    items, times = [1, 2, 3, 4], [0, 10, 10**4, 10**6]
    losses = []
    for place in (1, 2, 3):
        score = model.score(asked(items[:place], times[:place], times[place]))
        losses.append(F.cross_entropy(score, torch.tensor([items[place]])))
    batch = replace(timed(items, times), user_index=torch.tensor([0]))
    torch.testing.assert_close(model.loss(batch, torch.Generator()), torch.stack(losses).mean())


def test_what_reads_the_moment_is_explained_by_asking_without_each_item():
    model = make(num_time_buckets=20, request_time=True, max_length=9)
    history = asked([6, 0, 1, 2], [0, 1, 50, 99], 9999)
    with torch.no_grad():
        score = model.score(history)[0, 5]
        parts = model.contributions(history, item=5)
        torch.testing.assert_close(parts.sum() + model.item_bias[5], score)
        falls = leave_one_out(model, history, 5)
        assert model.score_without_each(history, 5) is None
        assert model.scores_without_each(history) is None
        rest = torch.cat([model.score(history.keep(torch.arange(4) != place))[:, 5] for place in range(4)])
    torch.testing.assert_close(falls, (score - rest).double(), atol=1e-5, rtol=0)


def test_evaluation_says_when_the_first_item_asked_for_was_taken(monkeypatch):
    graph = planted_graph()
    told = []
    for request_time in (False, True):
        model = InductiveKGAT.from_graph(graph, dim=8, sequence=1, num_time_buckets=20, request_time=request_time)
        blend = Blend(model, EASE.from_graph(graph))
        assert blend.request_time is request_time
        blend.complete(histories_of(graph))
        monkeypatch.setattr(model, "score", partial(_noting, model.score, told))
        Evaluator(["ndcg@5"], batch_size=500).evaluate(blend, graph, "valid")
        evaluate_sampled(blend, graph, "valid", num_sampled=20)
    held_out = graph.part("valid")
    first = [held_out.time[held_out.user == user].min() for user in range(graph.num_users)]
    assert told[:2] == [None, None]
    for asked_at in told[2:]:
        assert asked_at.tolist() == first


def _noting(score, told, histories):
    told.append(histories.asked_at)
    return score(histories)


@pytest.mark.parametrize("times", [[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
def test_contributions_add_up_and_fall_on_the_entries_that_are_read(times):
    model, history = make(), timed([6, 0, 1, 2, 3, 4], times)
    with torch.no_grad():
        parts, attention = model.contributions(history, item=5), model.history_attention(history)
        assert torch.isclose(parts.sum() + model.item_bias[5], model.score(history)[0, 5], atol=1e-5)
    unread = [place for place, time in enumerate(times) if time <= 2]
    assert parts[unread].tolist() == attention[unread].tolist() == [0.0, 0.0]
    assert torch.isclose(attention.sum(), torch.tensor(1.0))


def test_a_summand_is_what_the_score_gains_by_reaching_back():
    model, items = make(max_length=9), [6, 0, 1, 2]
    with torch.no_grad():
        scores = [float(model.score(Histories.from_lists([items[n:]]))[0, 5]) for n in range(5)]
        parts = model.contributions(Histories.from_lists([items]), item=5).tolist()
    assert parts == pytest.approx([longer - shorter for longer, shorter in pairwise(scores)], abs=1e-5)


def test_a_graph_without_times_is_pooled():
    graph = planted_graph()
    timeless = replace(graph, interactions=replace(graph.interactions, time=None))
    torch.manual_seed(0)
    with pytest.warns(
        UnorderedHistoryWarning, match="graph 'planted' has no times, so histories are pooled; sequence=2"
    ):
        pooled = InductiveKGAT.from_graph(timeless, dim=8, sequence=2)
    torch.manual_seed(0)
    plain = InductiveKGAT.from_graph(timeless, dim=8)
    assert pooled.sequence is None
    assert pooled.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(pooled.state_dict()[name], value), name


def test_the_kg_reaches_cold_items():
    graph = planted_graph()
    cold = torch.from_numpy(cold_items(graph))
    model = TestSequence().fit(graph)
    wanted = Histories.from_interactions(graph.part("test"), graph.num_users)
    wanted = wanted.keep(torch.isin(wanted.items, cold))
    with torch.no_grad():
        found = cold[model.score(histories_of(graph))[:, cold].topk(2).indices]
    hits = [int(item) in found[int(user)].tolist() for user, item in zip(wanted.rows, wanted.items, strict=True)]
    assert sum(hits) / len(hits) >= 0.9


def test_histories_that_are_cut_are_told_once():
    model = InductiveKGAT.from_graph(planted_graph(), dim=8, sequence=1, max_length=5)
    with pytest.warns(LongHistoryWarning, match=r"InductiveKGAT reads the 5 most recent items .* of 120 are longer"):
        model.prepare(histories_of(planted_graph()))
    model.prepare(histories_of(planted_graph()))  # a second warning would be an error


def test_members_of_a_blend_tell_of_cut_histories_once():
    model = Blend.from_graph(planted_graph(), l2=0.0, members=2, dim=8, sequence=1, max_length=5)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        model.prepare(histories_of(planted_graph()))
    assert len(told) == 1


def test_a_blend_reads_order_with_its_first_model_alone():
    graph = planted_graph()
    torch.manual_seed(0)
    model = Blend.from_graph(graph, l2=10.0, match_temperature=0.1, dim=8, sequence=1, max_length=20)
    assert model.first.first.sequence is not None
    assert model.first.second.sequence is None
    model.prepare(histories_of(graph))
    model.complete(histories_of(graph))
    assert recall(model.eval().score(histories_of(graph)).detach(), graph) > 0


def test_values_that_do_not_fit_are_named():
    with pytest.raises(ArgumentError, match=r"match_temperature must be 0 with sequence=2, got 0\.1"):
        make(match_temperature=0.1)
    for name, value in (("sequence", -1), ("max_length", 0)):
        with pytest.raises(ArgumentError, match=f"{name} must be >= .*, got {value}"):
            make(**{name: value})
    with pytest.raises(ArgumentError, match="heads must divide channels"):
        make(sequence_heads=3)


def test_an_answer_in_order_can_be_explained():
    graph = planted_graph()
    recommender = RunRecommender(TestSequence().fit(graph), graph)
    histories = recommender.histories(user_id=graph.users.id_of(3))
    (best,) = recommender.recommend_to(histories, k=1)
    explanation = explain(recommender, histories, best.item_index, k=100)
    assert explanation.score == pytest.approx(best.score, abs=1e-5)
    assert {past.item_id for past in explanation.past} == set(graph.items.ids_of(histories.items.tolist()))
    assert explanation.sentences


def test_a_history_without_each_of_its_items_is_read_once_for_any_number_of_items(monkeypatch):
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(planted_graph(), dim=8, sequence=2).eval()
    plain, calls = model.sequence.without_each, []
    monkeypatch.setattr(model.sequence, "without_each", lambda *given: calls.append(1) or plain(*given))
    histories = Histories.from_lists([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        first = [model.score_without_each(histories, item) for item in (2, 7, 2)]
        assert len(calls) == 1
        assert torch.equal(first[0], first[2])
        model.score_without_each(Histories.from_lists([[3, 1, 4, 1, 6]]), 2)
        assert len(calls) == 2
        model.forget()
        assert torch.equal(model.score_without_each(histories, 2), first[0])
    assert len(calls) == 3


def test_one_history_is_read_once_for_its_score_and_its_attention(monkeypatch):
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(planted_graph(), dim=8, sequence=2).eval()
    plain, calls = model.sequence.forward, []
    monkeypatch.setattr(model.sequence, "forward", lambda *given, **how: calls.append(1) or plain(*given, **how))
    one, other = (Histories.from_lists([items]) for items in ([3, 1, 4], [3, 1, 5]))
    score = model.score(one)
    calls.clear()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(model.score(one), score.detach())
            assert model.history_attention(one).sum() == pytest.approx(1.0)
        assert len(calls) == 1
        assert not torch.equal(model.score(other), score)
        strange = model.item_vectors()[0] + 1.0  # not the model's own
        assert not torch.allclose(model.user_vectors(one, strange), model.user_vectors(one, model.item_vectors()[0]))
        both = model.score(Histories.from_lists([[3, 1, 4], [3, 1, 5]]))
        torch.testing.assert_close(both, torch.cat([score.detach(), model.score(other)]))
