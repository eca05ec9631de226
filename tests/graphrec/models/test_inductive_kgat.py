from typing import ClassVar

import pytest
import torch
from cases.graphs import histories_of, planted_graph, with_content
from cases.model_case import KGATCase

from graphrec.errors import ArgumentError
from graphrec.evaluation.topk import top_k
from graphrec.histories import Histories
from graphrec.layers import HistoryAttentionPooling
from graphrec.models import InductiveKGAT, inductive_kgat
from kg_loaders.synthetic import cold_items


class TestInductiveKGAT(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = {"dim": 16, "num_negatives": 60}


class TestMatched(TestInductiveKGAT):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "match_temperature": 0.1, "hidden_only": True}


class TestPopularNegatives(TestInductiveKGAT):
    options: ClassVar = {"dim": 16, "num_negatives": 20, "negative_power": 0.5}


class TestWithPrior(TestInductiveKGAT):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "popularity_prior": 4.0, "prior_length": 12}


class TestWithCooccurrences(TestInductiveKGAT):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "co_neighbors": 5}

    def make(self, graph, seed=0):
        model = super().make(graph, seed)
        model.prepare(histories_of(graph))
        return model

    def relabelled_weight(self, name, model, other, relabelling):
        value = super().relabelled_weight(name, model, other, relabelling)
        return torch.from_numpy(relabelling.items)[value] if name == "co.neighbor" else value


class TestForetoldPopularity(TestInductiveKGAT):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "content_popularity": True}


class TestWithModalities(TestInductiveKGAT):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "modalities": ["image", "audio"]}

    def make(self, graph, seed=0):
        return super().make(with_content(graph), seed)


class TestGatedModalities(TestWithModalities):
    options: ClassVar = {**TestWithModalities.options, "fusion": "gated", "drop_id": 0.2}


class TestAlikeInContent(TestWithCooccurrences):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "modalities": ["image", "audio"], "like_neighbors": 4}

    def make(self, graph, seed=0):
        return super().make(with_content(graph), seed)

    def relabelled_weight(self, name, model, other, relabelling):
        value = super().relabelled_weight(name, model, other, relabelling)
        return torch.from_numpy(relabelling.items)[value] if name == "like.neighbor" else value


class TestConcatenatedModalities(TestWithModalities):
    options: ClassVar = {**TestWithModalities.options, "fusion": "concat", "untied": False}


def fitted(graph, seed=0, **options):
    case = TestInductiveKGAT()
    case.options = {**TestInductiveKGAT.options, **options}
    return case.fit(graph, seed)


def cold_recall(model, graph):
    cold = torch.from_numpy(cold_items(graph))
    wanted = Histories.from_interactions(graph.part("test"), graph.num_users)
    wanted = wanted.keep(torch.isin(wanted.items, cold))
    scores = torch.full((graph.num_users, graph.num_items), -torch.inf)
    with torch.no_grad():
        scores[:, cold] = model.score(histories_of(graph))[:, cold]
    found, _ = top_k(scores, 2, None)
    hits = [int(item) in found[int(user)].tolist() for user, item in zip(wanted.rows, wanted.items, strict=True)]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("seed", range(3))
def test_the_kg_carries_tastes_to_cold_items_and_nothing_else_does(seed):
    graph, without = planted_graph(), planted_graph().without_kg()
    assert cold_recall(fitted(graph, seed), graph) >= 0.9
    assert cold_recall(fitted(without, seed), without) < 0.5


@pytest.mark.parametrize("fusion", ["attention", "gated", "concat"])
def test_pictures_carry_tastes_to_cold_items_and_sounds_do_not(fusion):
    graph = with_content(planted_graph().without_kg())
    seen = fitted(graph, modalities=["image"], fusion=fusion, drop_id=0.3)
    heard = fitted(graph, modalities=["audio"], fusion=fusion, drop_id=0.3)
    assert cold_recall(seen, graph) >= 0.7  # two of the eight cold items lack a picture
    assert cold_recall(heard, graph) < 0.5


@pytest.mark.parametrize("options", [{}, {"untied": False}, {"match_temperature": 0.1}, {"attend_candidates": False}])
def test_the_effect_of_a_modality_is_what_the_score_loses_without_it(options):
    graph = with_content(planted_graph())
    torch.manual_seed(0)
    options = {"dim": 8, "fusion_gate": 1.0, "modalities": ["image", "audio"], **options}
    model = InductiveKGAT.from_graph(graph, **options).eval()
    history = Histories.from_lists([[2, 7]])
    with torch.no_grad():
        effects = model.modality_effects(history, 3)
        assert effects.keys() == {"image", "audio"}
        assert model.modality_effects(history, 5).keys() == {"audio"}  # every fifth item lacks a picture
        before = model.score(history)[0, 3]
        model.modalities.present0[3] = False
        model.forget()
        without = model.score(history)[0, 3]
    assert effects["image"] == pytest.approx(float(before - without), abs=1e-5)
    assert InductiveKGAT.from_graph(graph, dim=8).modality_effects(history, 3) == {}


def test_attention_over_modalities_is_shared_out_among_what_an_item_has():
    graph = with_content(planted_graph())
    model = fitted(graph, modalities=["image", "audio"])
    assert model.modalities.names == ("id", "graph", "image", "audio")
    cold = torch.from_numpy(cold_items(graph))
    for alpha in model.modality_attention():
        torch.testing.assert_close(alpha.sum(dim=1), torch.ones(graph.num_items))
        assert not alpha[cold, 0].any()
        assert not alpha[::5, 2].any()
    assert InductiveKGAT.from_graph(graph, dim=4).modality_attention() is None
    with pytest.raises(ArgumentError, match="fusion 'concat' has no attention"):
        fitted(graph, modalities=["image"], fusion="concat").modality_attention()


def test_content_starts_as_if_it_were_not_there():
    graph = with_content(planted_graph())
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, modalities=["image"], fusion_gate=0.0).eval()
    plain = InductiveKGAT.from_graph(graph, dim=8).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("modalities.")})
    assert torch.equal(model.score(histories_of(graph)), plain.score(histories_of(graph)))


def test_by_default_content_starts_low_so_that_it_drowns_nothing():
    graph = with_content(planted_graph())
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=64, modalities=["image"]).eval()
    plain = InductiveKGAT.from_graph(graph, dim=64).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("modalities.")})
    with torch.no_grad():
        told, h = model.item_vectors()[0], plain.item_vectors()[0]
    assert 0 < (told - h).norm() < 0.02 * h.norm()


def test_an_item_that_nobody_took_is_where_its_likes_are():
    graph = with_content(planted_graph().without_kg())
    model = fitted(graph, modalities=["image"], like_neighbors=4, fusion_gate=0.0)
    taken = set(histories_of(graph).items.tolist())
    assert set(model.like.neighbor[model.like.attention > 0].tolist()) <= taken
    assert cold_recall(model, graph) >= 0.7  # two of the eight cold items lack a picture
    with pytest.raises(ArgumentError, match="like_neighbors=4 needs content to be like; name modalities"):
        fitted(graph, like_neighbors=4)


def test_content_of_another_catalogue_is_refused():
    graph = with_content(planted_graph())
    triples = torch.empty(0, 3, dtype=torch.int64)
    with pytest.raises(ArgumentError, match=r"content\['image'\] must have a row for each of 79 items, got 80"):
        InductiveKGAT(79, 1, triples, content={"image": graph.item_features["image"]})


@pytest.mark.parametrize("options", [{}, {"match_temperature": 0.1}, {"sequence": 1}])
def test_popular_items_are_drawn_more_often_and_the_loss_corrected_for_it(options):
    graph = planted_graph()
    histories = histories_of(graph)
    losses = {}
    for power in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        model = InductiveKGAT.from_graph(graph, dim=8, num_negatives=20, negative_power=power, dropout=0.0, **options)
        model.prepare(histories)
        drawn = model.negatives(20, torch.Generator().manual_seed(0))
        counts = torch.bincount(histories.items, minlength=graph.num_items)
        assert bool((counts[drawn.items] > 0).all())
        weights = counts.double().pow(power) * (counts > 0)
        torch.testing.assert_close(drawn.log_q, (weights / weights.sum())[drawn.items].log().float())
        with torch.no_grad():
            batch = histories.select(torch.arange(20))
            drawn_losses = [model.loss(batch, torch.Generator().manual_seed(seed)) for seed in range(300)]
            losses[power] = torch.stack(drawn_losses).mean()
            if power == 0.0:
                model.num_negatives = graph.num_items
                everything = [model.loss(batch, torch.Generator().manual_seed(seed)) for seed in range(300)]
                losses["all items"] = torch.stack(everything).mean()
    # The logarithm of a mean of draws is a little below that of the sum over all.
    for power in (0.0, 0.5, 1.0):
        assert float(losses[power]) == pytest.approx(float(losses["all items"]), rel=0.03)


def test_items_that_nobody_took_are_never_negatives_and_keep_no_vector_of_their_own():
    graph = planted_graph()
    cold = torch.from_numpy(cold_items(graph))
    model = fitted(graph)
    assert not model.item[cold].any()
    assert not model.candidate[cold].any()
    drawn = model.negatives(10_000, torch.Generator()).items
    assert not torch.isin(drawn, cold).any()
    assert len(drawn) == graph.num_items - len(cold)
    warm = ~torch.isin(torch.arange(graph.num_items), cold)
    assert torch.equal(model.bias()[warm], model.item_bias[warm])
    torch.testing.assert_close(model.bias()[cold], (model.item_bias[warm].min() - 1).expand(len(cold)))


def test_scores_change_with_the_graph():
    graph = planted_graph()
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8).eval()
    state = model.state_dict()
    other = InductiveKGAT.from_graph(graph.without_kg(), dim=8).eval()
    other.load_state_dict({name: value for name, value in state.items() if not name.startswith("kg.")})
    assert not torch.allclose(model.score(histories_of(graph)), other.score(histories_of(graph)))


def test_scores_are_cosines_over_the_temperature_plus_bias():
    torch.manual_seed(0)
    model = InductiveKGAT(4, 1, torch.empty(0, 3, dtype=torch.int64), dim=5, temperature=0.5).eval()
    with torch.no_grad():
        model.item_bias.normal_()
    scores = model.score(Histories.from_lists([[1, 3], []]))
    pooled = model.item[[1, 3]].mean(dim=0)
    expected = torch.nn.functional.cosine_similarity(pooled, model.candidate) / 0.5 + model.item_bias
    torch.testing.assert_close(scores[0], expected)
    torch.testing.assert_close(scores[1], model.item_bias)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"untied": False},
        {"attend_candidates": False},
        {"hops": 2},
        {"heads": 3},
        {"match_temperature": 0.1},
        {"popularity_prior": 5.0},
        {"popularity_prior": 5.0, "match_temperature": 0.1},
    ],
)
def test_contributions_add_up_to_the_score(options):
    graph = planted_graph()
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, **options)
    model.prepare(histories_of(graph))
    model.eval()
    history = Histories.from_lists([[2, 5, 7]])
    with torch.no_grad():
        parts = model.contributions(history, item=3)
        rest = model.item_bias[3]
        if model.prior is not None:
            rest = rest + model.prior(torch.tensor(3)) * model.prior.popularity()[3]
        assert torch.isclose(parts.sum() + rest, model.score(history)[0, 3], atol=1e-5)


def test_training_shows_a_part_of_each_history_and_asks_for_all_of_it(monkeypatch):
    model = InductiveKGAT.from_graph(planted_graph(), dim=8, keep=0.5)
    histories = histories_of(planted_graph())
    shown, asked = [], []
    pool, softmax = HistoryAttentionPooling.forward, inductive_kgat.sampled_softmax

    def spy(self, x, items, offsets, bias=None):
        shown.append(Histories(items, offsets))
        return pool(self, x, items, offsets, bias)

    monkeypatch.setattr(HistoryAttentionPooling, "forward", spy)
    monkeypatch.setattr(
        inductive_kgat, "sampled_softmax", lambda *a, **k: asked.append(k["positive_items"]) or softmax(*a, **k)
    )
    model.loss(histories, torch.Generator().manual_seed(0))
    assert torch.equal(asked[0], histories.items)
    share = shown[0].items.numel() / histories.items.numel()
    assert 0.4 < share < 0.6
    assert set(zip(shown[0].rows.tolist(), shown[0].items.tolist(), strict=True)) < set(
        zip(histories.rows.tolist(), histories.items.tolist(), strict=True)
    )


def test_training_may_ask_for_the_hidden_part_alone(monkeypatch):
    model = InductiveKGAT.from_graph(planted_graph(), dim=8, keep=0.5, hidden_only=True, target_power=0.0)
    histories = histories_of(planted_graph())
    asked, softmax = [], inductive_kgat.sampled_softmax
    monkeypatch.setattr(inductive_kgat, "sampled_softmax", lambda *a, **k: asked.append(k) or softmax(*a, **k))
    model.loss(histories, torch.Generator().manual_seed(0))
    (given,) = asked
    shown = torch.rand(histories.items.numel(), generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(given["weights"], (~shown).float())
    assert torch.equal(given["positive_items"], histories.items)  # what is shown does not compete


def test_without_learned_attention_every_past_item_counts_alike():
    graph = planted_graph()
    model = fitted(graph, attend_history=False)
    attention = model.history_attention(Histories.from_lists([[2, 5, 7, 9]]))
    torch.testing.assert_close(attention, torch.full((4,), 0.25))


def test_without_gradients_users_are_the_same_however_far_apart_attention_is():
    torch.manual_seed(0)
    graph = planted_graph()
    model = InductiveKGAT.from_graph(graph, dim=8).eval()
    torch.nn.init.normal_(model.pool.att)  # attention hangs on the vectors too
    past = Histories.from_lists([[3, 1, 3], [], [0, 2, 4, 5], [7]])
    for spread in (1.0, 20.0, 30.0, 200.0):  # from 30 on the smallest are too small to remember
        with torch.no_grad():
            model.attention_bias.copy_(torch.linspace(-spread, spread, graph.num_items))
        model.forget()
        with torch.no_grad():
            h, _ = model.cached("vectors", model.item_vectors)
            expected = model.pool(h, past.items, past.offsets, model.attention_bias)
            assert expected[0].abs().sum() > 0
            assert (model._history_weights(h) is None) == (spread >= 30.0)
            torch.testing.assert_close(model.user_vectors(past, h), expected)
            others = h.flip(0)
            expected_of_others = model.pool(others, past.items, past.offsets, model.attention_bias)
            torch.testing.assert_close(model.user_vectors(past, others), expected_of_others)
        assert torch.equal(model.user_vectors(past, h), expected)  # as in training


def test_kg_attention_sums_to_one_for_every_item_that_has_edges():
    graph = planted_graph()
    model = fitted(graph)
    for side in model.kg_attention():
        total = torch.zeros(graph.num_items).index_add(0, side.item, side.alpha)
        torch.testing.assert_close(total[side.item.unique()], torch.ones(side.item.unique().numel()))
    assert InductiveKGAT.from_graph(graph.without_kg(), dim=4).kg_attention() is None


@pytest.mark.parametrize("options", [{}, {"match_temperature": 0.1}, {"sequence": 1}, {"head": "mlp", "rerank": 500}])
def test_the_charts_weigh_less_the_more_is_known_and_nothing_from_a_length_on(options):
    graph = planted_graph()
    past = histories_of(graph)
    plain, prior = (
        fitted(graph, **options, **of_prior) for of_prior in ({}, {"popularity_prior": 6.0, "prior_length": 4})
    )
    state = prior.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())  # training is the same
    taken = torch.bincount(past.items, minlength=graph.num_items)
    log_popularity = ((1 + taken) / (1 + taken[taken > 0].float().mean())).log()
    asked = Histories.from_lists([[], [7], [7, 2], [7, 2, 11], [7, 2, 11, 30], [7, 2, 11, 30, 5]])
    with torch.no_grad():
        added = prior.score(asked) - plain.score(asked)
        alone = torch.stack([prior.score_item(asked, item) for item in range(graph.num_items)], dim=1)
        torch.testing.assert_close(alone, prior.score(asked))
    for n, weight in enumerate((6.0, 3.0 * 3 / 4, 2.0 * 2 / 4, 1.5 * 1 / 4)):
        torch.testing.assert_close(added[n], weight * log_popularity, atol=1e-5, rtol=1e-4)
    assert not added[4:].any()
    torch.testing.assert_close(prior.prior(torch.tensor([0, 1, 4, 400])), torch.tensor([6.0, 2.25, 0.0, 0.0]))


def test_a_stranger_of_whom_nothing_is_known_gets_the_charts():
    graph = planted_graph()
    counts = torch.bincount(histories_of(graph).items, minlength=graph.num_items)
    model = fitted(graph, popularity_prior=1000.0)
    with torch.no_grad():
        best = model.score(Histories.from_lists([[]]))[0].argsort(descending=True)
    assert counts[best].tolist() == counts.sort(descending=True).values.tolist()


def test_weights_from_before_the_prior_score_as_they_did():
    graph = planted_graph()
    model = fitted(graph)
    assert "prior.num_takers" not in model.state_dict()
    again = InductiveKGAT.from_graph(graph, dim=model.dim)
    again.load_state_dict(model.state_dict())
    asked = Histories.from_lists([[], [3], [3, 8]])
    assert torch.equal(again.eval().score(asked), model.score(asked))


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"hops": 4},
        {"temperature": 0.0},
        {"keep": 0.0},
        {"target_power": 2},
        {"popularity_prior": -1.0},
        {"prior_length": 0},
    ],
)
def test_values_outside_their_range_are_refused(options):
    with pytest.raises(ArgumentError, match=f"{next(iter(options))} must be"):
        InductiveKGAT.from_graph(planted_graph(), **options)


def test_triples_with_an_unknown_relation_are_refused():
    with pytest.raises(ArgumentError, match="num_relations is 1"):
        InductiveKGAT(3, 1, torch.tensor([[0, 1, 3]]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hops": 2},
        {"attend_candidates": False},
        {"attend_history": False},
        {"modalities": ["image", "audio"]},
        {"modalities": ["image"], "fusion": "concat"},
    ],
)
def test_a_step_that_makes_few_rows_equals_one_that_makes_all(options, monkeypatch):
    graph = with_content(planted_graph())
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, num_negatives=20, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()  # relations start without effect
    histories = histories_of(graph).select(torch.tensor([3, 50, 7]))
    results = []
    for rows_of in (InductiveKGAT._rows_of, lambda self, items: (None, items)):
        monkeypatch.setattr(InductiveKGAT, "_rows_of", rows_of)
        model.zero_grad()
        loss = model.loss(histories, torch.Generator().manual_seed(1))
        loss.backward()
        results.append((loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (few_loss, few), (all_loss, every) = results
    torch.testing.assert_close(few_loss, all_loss)
    assert few.keys() == every.keys()
    for name, gradient in every.items():
        torch.testing.assert_close(few[name], gradient, msg=name)


@pytest.mark.parametrize("untied", [True, False])
def test_in_training_alone_a_share_of_the_items_lacks_a_vector_of_its_own(untied):
    no_triples = torch.empty(0, 3, dtype=torch.int64)
    model = InductiveKGAT(2_000, 1, no_triples, dim=4, drop_id=0.25, untied=untied)
    own = [model.item, model.item if model.candidate is None else model.candidate]
    torch.manual_seed(0)
    for vectors, table in zip(model.train().item_vectors(), own, strict=True):
        dropped = ~vectors.any(dim=1)
        assert 0.2 < dropped.float().mean() < 0.3
        torch.testing.assert_close(vectors[~dropped], table[~dropped])
    for vectors, table in zip(model.eval().item_vectors(), own, strict=True):
        torch.testing.assert_close(vectors, table)


def test_an_item_without_a_vector_of_its_own_has_no_neighbours_either():
    graph = planted_graph()
    no_triples = torch.empty(0, 3, dtype=torch.int64)
    model = InductiveKGAT(graph.num_items, 1, no_triples, dim=4, co_neighbors=5, drop_id=1.0, untied=False)
    model.prepare(histories_of(graph))
    assert not model.train().item_vectors()[0].any()
    assert model.eval().item_vectors()[0].any(dim=1).sum() > graph.num_items / 2
