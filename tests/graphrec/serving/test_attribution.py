import warnings
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import (
    EASE,
    HSTU,
    IALS,
    SLIST,
    BERT4Rec,
    Blend,
    InductiveKGAT,
    ItemKNN,
    Popularity,
    RippleNet,
    SASRec,
)
from graphrec.serving.attribution import AttendedScore, kept_scores, leave_one_out
from graphrec.serving.held_prior import with_held_prior

HISTORY = Histories.from_lists([[2, 5, 7, 11]])
OPTIONS = [
    {},
    {"heads": 3, "gate": 2.0},
    {"match_temperature": 0.1},
    {"untied": False},
    {"untied": False, "match_temperature": 0.3},
    {"attend_candidates": False},
    {"attend_history": False, "hops": 2},
    {"co_neighbors": 3},
    {"popularity_prior": 5.0},
    {"popularity_prior": 5.0, "match_temperature": 0.1},
]


def trained_like(graph, **options):
    """A model whose every weight matters, as after training."""
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, min_entity_items=1, **options)
    model.prepare(histories_of(graph))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return model.eval()


@pytest.fixture(params=OPTIONS, ids=str)
def model(request):
    return trained_like(planted_graph(), **request.param)


def score_of(model, items, item=3):
    with torch.no_grad():
        return float(model.score(Histories.from_lists([items]))[0, item])


def test_leaving_an_entry_out_is_the_score_without_it(model):
    items = HISTORY.items.tolist()
    effects = leave_one_out(model, HISTORY, item=3)
    louder = 0.0  # what the charts gain as one item fewer is known, whichever
    if model.prior is not None:
        louder = float(model.prior.popularity()[3]) * (5.0 / 4 * 13 / 16 - 5.0 / 5 * 12 / 16)
        assert abs(louder) > 0.01
    wanted = [score_of(model, items) - score_of(model, items[:i] + items[i + 1 :]) for i in range(len(items))]
    assert effects.tolist() == pytest.approx([fall + louder for fall in wanted], abs=2e-5)


def test_the_score_of_any_part_is_the_models(model):
    keep = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    parts = AttendedScore.of(model, HISTORY, 3)
    assert parts is not None
    wanted = [score_of(model, HISTORY.items[row].tolist()) for row in keep]
    assert parts.kept(keep).tolist() == pytest.approx(wanted, abs=2e-5)
    assert kept_scores(model, HISTORY, 3, keep).tolist() == pytest.approx(wanted, abs=2e-5)


def without_triples(model, graph, gone):
    """The same weights on a graph that lacks some triples."""
    left = replace(graph, triples=np.array([t for t in graph.triples.tolist() if t not in gone]))
    fewer = InductiveKGAT.from_graph(left, dim=8, min_entity_items=1, heads=model.kg.sides[0].heads)
    fewer.match, fewer.attend_candidates = model.match, model.attend_candidates
    state = model.state_dict()
    rows = torch.searchsorted(model.kg.entities, fewer.kg.entities)
    state["kg.entity"] = state["kg.entity"][:, rows]
    fewer.load_state_dict(state)
    return fewer.eval()


@pytest.mark.parametrize("options", [{}, {"heads": 3, "gate": 2.0}, {"match_temperature": 0.1}], ids=str)
def test_leaving_edges_out_is_the_score_on_the_graph_without_them(options):
    graph = planted_graph()
    model = trained_like(graph, **options)
    parts = AttendedScore.of(model, HISTORY, 3)
    # Items are heads only here, so an edge into an item is one triple and changes nothing else.
    assert not np.isin(graph.triples[:, 2], np.arange(graph.num_items)).any()

    def triple(edges, number, items):
        relation = int(edges.relation[number]) - graph.num_relations
        return [int(items[edges.row[number]]), relation, int(edges.entity[number])]

    past = [triple(parts.past, number, HISTORY.items) for number in range(parts.num_past_edges)]
    candidate = [triple(parts.candidate, number, [3]) for number in range(parts.num_candidate_edges)]
    assert sorted(past + candidate) == sorted(t for t in graph.triples.tolist() if t[0] in (2, 3, 5, 7, 11))
    pairs = [(i, -1) for i in range(len(past))] + [(-1, i) for i in range(len(candidate))] + [(0, 1), (3, 0)]
    found = parts.without(*torch.tensor(pairs).T)
    for (near, far), score in zip(pairs, found.tolist(), strict=True):
        gone = [past[near]] * (near >= 0) + [candidate[far]] * (far >= 0)
        assert score == pytest.approx(score_of(without_triples(model, graph, gone), HISTORY.items.tolist()), abs=2e-5)
        edges = torch.ones(1, len(past) + len(candidate), dtype=torch.bool)
        edges[0, [near] * (near >= 0) + [len(past) + far] * (far >= 0)] = False
        assert parts.kept_edges(edges).item() == pytest.approx(score, abs=1e-9)


def test_edges_into_several_past_items_can_be_left_out_together(model):
    parts = AttendedScore.of(model, HISTORY, 3)
    first_of = [int((parts.past.row == entry).nonzero()[0]) for entry in range(4)]
    groups = [([0, 2, 3], 0), ([1], -1), ([], 0), ([], -1)]
    candidate = torch.tensor([far if parts.num_candidate_edges else -1 for _, far in groups])
    past = torch.tensor([first_of[entry] for entries, _ in groups for entry in entries])
    group = torch.tensor([number for number, (entries, _) in enumerate(groups) for _ in entries])
    keep = torch.ones(len(groups), parts.num_past_edges + parts.num_candidate_edges, dtype=torch.bool)
    keep[group, past] = False
    for number, far in enumerate(candidate.tolist()):
        if far >= 0:
            keep[number, parts.num_past_edges + far] = False
    wanted = parts.kept_edges(keep)
    assert parts.without(past, candidate, group).tolist() == pytest.approx(wanted.tolist(), abs=1e-9)


def test_edges_that_hold_all_of_the_attention_can_be_left_out(model):
    """Against the sums over what is left, without any subtraction."""
    with torch.no_grad():
        for side in model.kg.sides:
            side.relation_score.add_(60.0 * torch.arange(len(side.relation_score)).unsqueeze(1))
    model.forget()
    parts = AttendedScore.of(model, HISTORY, 3)
    assert parts.past.alpha.max() > 0.99999
    both = parts.num_past_edges + parts.num_candidate_edges
    one_by_one = parts.kept_edges(~torch.eye(both, dtype=torch.bool))
    none = torch.full((both,), -1)
    past, candidate = none.clone(), none.clone()
    past[: parts.num_past_edges] = torch.arange(parts.num_past_edges)
    candidate[parts.num_past_edges :] = torch.arange(parts.num_candidate_edges)
    assert parts.without(past, candidate).tolist() == pytest.approx(one_by_one.tolist(), abs=1e-9)
    assert parts.without(none[:1], none[:1]).item() == pytest.approx(parts.full)


def test_a_model_without_a_graph_has_no_edges():
    model = trained_like(planted_graph().without_kg())
    parts = AttendedScore.of(model, HISTORY, 3)
    assert (parts.num_past_edges, parts.num_candidate_edges) == (0, 0)
    assert parts.without(torch.tensor([-1]), torch.tensor([-1])).item() == pytest.approx(parts.full)
    assert parts.kept_edges(torch.ones(2, 0, dtype=torch.bool)).tolist() == [pytest.approx(parts.full)] * 2


def test_an_empty_history(model):
    empty = Histories.from_lists([[]])
    assert leave_one_out(model, empty, 3).shape == (0,)
    parts = AttendedScore.of(model, empty, 3)
    assert parts.full == pytest.approx(score_of(model, []), abs=1e-5)
    edges = torch.zeros(parts.num_candidate_edges, dtype=torch.int64)
    assert parts.without(edges - 1, edges).tolist() == pytest.approx([parts.full] * len(edges))


def test_a_model_that_reads_a_history_otherwise_is_not_taken_apart():
    class Last(InductiveKGAT):
        """Reads the last item alone."""

        def score(self, histories):
            return super().score(histories.keep(torch.arange(histories.items.numel()) == histories.items.numel() - 1))

    model = Last.from_graph(planted_graph(), dim=8).eval()
    torch.nn.init.normal_(model.item_bias)
    assert AttendedScore.of(model, HISTORY, 3) is None
    effects = leave_one_out(model, HISTORY, 3)
    assert effects[:3].abs().max() < 1e-6
    assert effects[3].abs() > 1e-3


@pytest.mark.parametrize("name", ["EASE", "ItemKNN", "IALS", "Popularity", "Blend", "RippleNet"])
def test_every_model_can_be_asked(name):
    graph = planted_graph()
    if name == "IALS":
        pytest.importorskip("implicit")
    torch.manual_seed(0)
    kind = {"EASE": EASE, "ItemKNN": ItemKNN, "IALS": IALS, "Popularity": Popularity, "RippleNet": RippleNet}.get(name)
    if kind is None:
        made = Blend.from_graph(graph, dim=8)
        made.prepare(histories_of(graph))
        made.complete(histories_of(graph))
    else:
        made = kind.from_graph(graph)
    if hasattr(made, "fit"):
        made.fit(histories_of(graph))
    made = made.eval()
    items = HISTORY.items.tolist()
    effects = leave_one_out(made, HISTORY, 3)
    wanted = [score_of(made, items) - score_of(made, items[:i] + items[i + 1 :]) for i in range(len(items))]
    assert effects.tolist() == pytest.approx(wanted, abs=1e-4)
    summands = made.contributions(HISTORY, 3)
    if name in ("EASE", "ItemKNN"):
        assert float(summands.sum()) == pytest.approx(score_of(made, items), abs=1e-5)
        several = Histories.from_lists([[1, 2], items])
        assert made.contributions(several, 3)[2:].tolist() == pytest.approx(summands.tolist())
    else:
        assert summands is None


def test_entries_of_itemknn_that_name_one_item_share_what_it_gives():
    graph = planted_graph()
    model = ItemKNN.from_graph(graph)
    model.fit(histories_of(graph))
    twice = Histories.from_lists([[2, 5, 2]])
    once = Histories.from_lists([[2, 5]])
    item = int(model.score(once)[0].argmax())
    assert float(model.contributions(twice, item).sum()) == pytest.approx(float(model.score(twice)[0, item]))
    assert model.contributions(twice, item)[0] == model.contributions(once, item)[0] / 2


def test_times_stay_with_their_items():
    class Newest(Popularity):
        """The newest item of the history first."""

        def score(self, histories):
            scores = torch.zeros(len(histories), self.num_items)
            scores[:, 3] = torch.tensor(
                [float(histories.times[histories.rows == row].sum()) for row in range(len(histories))]
            )
            return scores

    histories = replace(HISTORY, times=torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64))
    assert leave_one_out(Newest(80), histories, 3).tolist() == [1.0, 2.0, 4.0, 8.0]


def test_wrong_questions_are_refused():
    model = trained_like(planted_graph())
    with pytest.raises(ArgumentError, match="must hold one row, got 2"):
        kept_scores(model, Histories.from_lists([[1], [2]]), 3, torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ArgumentError, match=r"keep must have shape \[num_parts, 4\], got \[1, 3\]"):
        kept_scores(model, HISTORY, 3, torch.ones(1, 3, dtype=torch.bool))


READERS = {
    "InductiveKGAT": (InductiveKGAT, {"sequence": 2, "sequence_heads": 2}),
    "one block": (InductiveKGAT, {"sequence": 1}),
    "with times": (InductiveKGAT, {"sequence": 2, "num_time_buckets": 20}),
    "with a prior": (InductiveKGAT, {"sequence": 2, "popularity_prior": 3.0, "prior_length": 7}),
    "with a head": (InductiveKGAT, {"sequence": 2, "head": "mlp"}),
    "with a head and a prior": (InductiveKGAT, {"sequence": 2, "head": "mlp", "popularity_prior": 3.0}),
    "with a head told of the hour": (InductiveKGAT, {"sequence": 2, "head": "mlp", "side_features": ["hour"]}),
    "SASRec": (SASRec, {}),
    "SASRec of cosines": (SASRec, {"temperature": 0.2, "loss": "softmax"}),
    "BERT4Rec": (BERT4Rec, {}),
    "HSTU": (HSTU, {"num_time_buckets": 20}),
}


@pytest.mark.parametrize("items", [[4], [4, 9], [2, 5, 7, 11, 13], [2, 5, 7, 11, 13, 17], list(range(4, 24))], ids=len)
@pytest.mark.parametrize("name", READERS)
def test_models_of_order_share_what_histories_without_an_entry_have_in_common(name, items):
    kind, options = READERS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # histories are longer
        model = kind.from_graph(planted_graph(), dim=8, max_length=5, **options)
        model.prepare(histories_of(planted_graph()))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    model.eval()
    torch.manual_seed(1)
    times = torch.randint(6, (len(items),)).double() * 4000  # out of order, some equal
    histories = replace(Histories.from_lists([items], [0]), times=times)
    everything, without = torch.ones(1, len(items), dtype=torch.bool), ~torch.eye(len(items), dtype=torch.bool)
    scores = kept_scores(model, histories, 3, torch.cat([everything, without]))
    effects = leave_one_out(model, histories, 3)
    if (prior := getattr(model, "prior", None)) is not None:  # one item fewer, whichever, makes the charts louder
        before, after = prior(torch.tensor([len(items), len(items) - 1])).tolist()
        effects = effects - (after - before) * float(prior.popularity()[3])
    with torch.no_grad():
        alone = model.score_without_each(histories, 3)
        assert alone.shape == (len(items),)
        if getattr(model, "head", None) is None:
            torch.testing.assert_close(model.scores_without_each(histories)[:, 3], alone)
        else:
            assert model.scores_without_each(histories) is None
    assert effects.dtype == torch.float64
    assert effects.tolist() == pytest.approx(
        (scores[0] - scores[1:]).tolist(), abs=1e-5 * (1 + float(scores.abs().max()))
    )
    assert effects.abs().max() > 1e-3


WITHOUT_EACH = {  # whether the model knows a short way to what is left without an entry, and the model
    "EASE": (True, EASE, {}),
    "SLIST": (True, SLIST, {"recency": 2.0}),
    "order and EASE": (True, Blend, {"sequence": 2}),
    "order and a closed form of order": (True, Blend, {"sequence": 2, "recency": 2.0}),
    "with a prior": (True, Blend, {"sequence": 1, "recency": 2.0, "popularity_prior": 3.0}),
    "of three": (False, Blend, {"sequence": 1, "recency": 2.0, "match_temperature": 0.2}),
    "with a head": (False, Blend, {"sequence": 1, "head": "mlp"}),
}


def test_a_blend_that_would_need_too_many_scores_is_asked_in_parts(monkeypatch):
    model = named("order and EASE")
    histories = Histories.from_lists([[2, 5, 7]], [0])
    with torch.no_grad():
        short = leave_one_out(model, histories, 3)
        monkeypatch.setattr("graphrec.models.blend.MOST_SCORES", 3 * 80)
        assert model.score_without_each(histories, 3) is not None
        monkeypatch.setattr("graphrec.models.blend.MOST_SCORES", 3 * 80 - 1)
        assert model.score_without_each(histories, 3) is None
        torch.testing.assert_close(leave_one_out(model, histories, 3), short, rtol=1e-4, atol=1e-4)


REACHES = {"SLIST": 32, "order and a closed form of order": 32}  # 2 ln(2^23), and 5 that are read


@lru_cache
def named(name):
    graph, (_, kind, options) = planted_graph(), WITHOUT_EACH[name]
    if kind is not Blend:
        model = kind(graph.num_items, l2=5.0, **options)
        model.fit(histories_of(graph))
        return model
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # histories are longer
        model = Blend.from_graph(graph, l2=5.0, dim=8, max_length=5, **options)
        model.prepare(histories_of(graph))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    model.complete(histories_of(graph))
    return model.eval()


@pytest.mark.parametrize(
    "items", [[4], [4, 9], [2, 5, 7, 11, 13], [2, 5, 2, 7, 2], list(range(4, 24)), list(range(70))], ids=str
)
@pytest.mark.parametrize("name", WITHOUT_EACH)
def test_what_is_left_without_an_entry_is_the_score_of_the_others(name, items):
    model = named(name)
    torch.manual_seed(1)
    times = torch.randint(6, (len(items),)).double() * 4000  # out of order, some equal
    histories = replace(Histories.from_lists([items], [0]), times=times)
    without_each = ~torch.eye(len(items), dtype=torch.bool)
    wanted = kept_scores(model, histories, 3, without_each)
    with torch.no_grad():
        assert model.reach == REACHES.get(name)
        found = model.scores_without_each(histories)
        assert (found is not None) == WITHOUT_EACH[name][0]
        if found is not None:
            assert found.shape == (len(items), 80)
            torch.testing.assert_close(found[:, 3].double(), wanted, rtol=1e-4, atol=1e-4)
        whole = float(model.score_item(histories, 3))
    if len(set(items)) == len(items) or not isinstance(model, EASE):  # EASE's entries share what a repeated item gives
        wanted = kept_scores(with_held_prior(model, len(items)), histories, 3, without_each)
        torch.testing.assert_close(leave_one_out(model, histories, 3), whole - wanted, rtol=1e-4, atol=1e-4)


def test_histories_held_at_once_are_few_where_they_are_long(monkeypatch):
    asked = []

    class Counts(Popularity):
        def score(self, histories):
            asked.append(histories.items.numel())
            return super().score(histories)

    monkeypatch.setattr("graphrec.serving.attribution.BLOCK_BYTES", 2**20)
    model = Counts(80)
    model.fit(histories_of(planted_graph()))
    histories = Histories.from_lists([list(range(60))])
    assert leave_one_out(model, histories, 3).tolist() == [0.0] * 60
    assert sum(asked) == 60 + 60 * 59
    assert max(asked) <= 2**10
