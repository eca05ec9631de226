import copy
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import GradientCase, assert_close, score

import kg_loaders
from graphrec.errors import ArgumentError
from graphrec.evaluation import Evaluator
from graphrec.histories import Histories
from graphrec.models import CrossDomainKGAT, InductiveKGAT
from graphrec.training import TrainConfig, Trainer
from kg_loaders.splits import carve_valid
from kg_loaders.synthetic import planted


def pair(on="entity"):
    """Two planted domains with the same genres and no common user or item (or common users)."""
    source, target = planted(num_users=90, seed=1), planted(num_users=60, num_items=100, seed=2)
    own = [f"source-{id_}" for id_ in source.items]
    source = replace(source, entities=kg_loaders.Vocabulary([*own, *source.entities.ids[source.num_items :]], "entity"))
    return kg_loaders.link(source, target, on=on)


def train_histories(graph):
    return Histories.from_interactions(graph.part("train"), graph.num_users)


# CrossDomainKGAT


class TestCrossDomainKGAT(GradientCase):
    model_class = CrossDomainKGAT
    options: ClassVar = {"dim": 16, "num_negatives": 60, "user_prior": True}

    def relabelled_weight(self, name, model, other, relabelling):
        if name == "kg.entity":  # its rows follow the encoder's own list of entities
            old_of_new = torch.from_numpy(relabelling.entities).argsort()
            old_rows = {int(entity): row for row, entity in enumerate(model.kg.entities)}
            return model.kg.entity[:, [old_rows[int(old_of_new[entity])] for entity in other.kg.entities]]
        return super().relabelled_weight(name, model, other, relabelling)


def linked_graph():
    """Half of the users and items of a planted graph are the source's."""
    graph = planted(num_users=40, num_items=48, num_cold_items=4)
    marks = np.where(np.arange(graph.num_items) // 4 % 2, "source", "target").astype(object)
    return replace(graph, item_features={**graph.item_features, "domain": kg_loaders.Feature.text(marks)})


def test_without_domains_it_is_the_inductive_model():
    graph = planted_graph()
    options = {"dim": 8, "num_negatives": 60}
    torch.manual_seed(0)
    ours = CrossDomainKGAT.from_graph(graph, **options)
    torch.manual_seed(0)
    theirs = InductiveKGAT.from_graph(graph, **options)
    histories = histories_of(graph)
    for model in (ours, theirs):
        torch.manual_seed(1)
        model.reset_parameters()
        model.prepare(histories)
    losses = [model.loss(histories, torch.Generator().manual_seed(3)) for model in (ours, theirs)]
    assert_close(losses[0], losses[1])
    assert_close(score(ours.eval(), histories), score(theirs.eval(), histories))


def test_each_domain_competes_with_itself_and_the_source_weighs_as_told():
    graph = linked_graph()
    histories = train_histories(graph)
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        model = CrossDomainKGAT.from_graph(graph, dim=8, source_weight=weight, num_negatives=10)
        model.prepare(histories)
        losses[weight] = model.loss(histories, torch.Generator().manual_seed(1)).item()
    assert losses[3.0] - losses[1.0] == pytest.approx(2 * (losses[1.0] - losses[0.0]), rel=1e-4)
    model = CrossDomainKGAT.from_graph(graph, dim=8, source_weight=0.0)
    model.prepare(histories)
    model.loss(histories, torch.Generator().manual_seed(1)).backward()
    of_source = ~model.in_target
    assert not model.candidate.grad[of_source].any()  # a source item is no rival of a target item
    assert model.item.grad[of_source & model.taken].any()  # but is read in histories


def test_the_gate_of_a_domain_scales_its_items_alone():
    graph = linked_graph()
    model = CrossDomainKGAT.from_graph(graph, dim=8).eval()
    before, g = model.item_vectors()
    with torch.no_grad():
        model.domain_gate[1] = 2.0
    after, same = model.item_vectors()
    assert_close(after[~model.in_target], 2 * before[~model.in_target])
    assert_close(after[model.in_target], before[model.in_target])
    assert torch.equal(g, same)


def test_domain_attention_sums_the_pooling_weights_by_domain():
    graph = linked_graph()
    torch.manual_seed(0)
    model = CrossDomainKGAT.from_graph(graph, dim=8).eval()
    with torch.no_grad():
        model.attention_bias.normal_()
    histories = Histories.from_lists([[0, 4, 1], [5, 6], [], [3]])  # 0 to 3 are the target's, 4 to 7 the source's
    attention = model.history_attention(histories).tolist()
    shares = model.domain_attention(histories)
    assert shares[0].tolist() == pytest.approx([attention[0] + attention[2], attention[1]])
    assert shares[1:].tolist() == [pytest.approx([0.0, 1.0]), [0.0, 0.0], [1.0, 0.0]]


def test_everybody_starts_from_the_prior():
    graph = linked_graph()
    histories = train_histories(graph)
    model = CrossDomainKGAT.from_graph(graph, dim=8, user_prior=True, num_negatives=10)
    model.prepare(histories)
    with torch.no_grad():
        model.user_prior.copy_(torch.arange(8.0))
    h, g = model.eval().item_vectors()
    past = Histories.from_lists([histories.items[:2].tolist(), []])
    pooled = model.pool(h, past.items, past.offsets, model.attention_bias)
    unit = torch.nn.functional.normalize(pooled + torch.arange(8.0), dim=1)
    candidates = torch.nn.functional.normalize(g, dim=1)
    assert_close(score(model, past), unit @ candidates.t() / model.temperature + model.bias())
    assert not pooled[1].any()
    assert model.contributions(past, item=1) is None  # what is left of the score would hang on the entries
    without = CrossDomainKGAT.from_graph(graph, dim=8, num_negatives=10)
    assert not without.user_prior.requires_grad


def test_users_of_both_domains_alone_lose_their_target_items_in_training():
    graph = linked_graph()
    model = CrossDomainKGAT.from_graph(graph, dim=8, target_dropout=1.0)
    source, target = (torch.where(mask)[0] for mask in (~model.in_target, model.in_target))
    histories = Histories.from_lists([[int(source[0]), int(target[0])], [int(target[1])], [int(source[2])]])
    assert model._hidden(histories, torch.Generator()).tolist() == [False, True, False, False]
    model.target_dropout = 0.0
    assert not model._hidden(histories, torch.Generator()).any()


def test_a_trained_start_is_kept_and_a_frozen_encoder_stays():
    linked = pair(on="user")
    union = linked.union
    options = {"dim": 8, "num_negatives": 60}
    before = CrossDomainKGAT.from_graph(union, **options)
    before.prepare(train_histories(linked.source_only()))
    state = copy.deepcopy(before.state_dict())
    model = CrossDomainKGAT.from_graph(union, **options)
    model.start_from(state, frozen=True)
    Trainer(TrainConfig(epochs=2, batch_size=32, refit=False), quiet=True).fit(model, union, NoEvaluation())
    for name, value in model.state_dict().items():
        moved = not torch.equal(value, state[name])
        assert moved == (name in ("attention_bias", "domain_gate", "pool.att", "taken")), name
    warm = CrossDomainKGAT.from_graph(union, **options)
    warm.start_from(state)
    warm.prepare(train_histories(union))
    assert warm.starting_weights().keys() == state.keys()
    assert not before.starting_weights()
    known = state["taken"]
    assert torch.equal(warm.item[known], state["item"][known])
    assert warm.taken[known].all()
    with pytest.raises(ArgumentError, match="state must be that of a CrossDomainKGAT of the same graph"):
        CrossDomainKGAT.from_graph(linked.target, **options).start_from(state)


class NoEvaluation:
    """Selects nothing: every epoch is as good as the last."""

    metrics: ClassVar = {"ndcg@20": None}

    def evaluate(self, model, graph, split):
        return Evaluator(["ndcg@20"]).evaluate(model, graph, split)


def test_knowledge_crosses_over_shared_entities():
    """Zero-shot: trained on the source alone, it finds target items by their genre, and guesses without the KG."""
    linked = pair()

    def genre_hits(graph):
        torch.manual_seed(0)
        model = CrossDomainKGAT.from_graph(graph, dim=16, num_negatives=60)
        Trainer(TrainConfig(epochs=30, batch_size=32, learning_rate=0.01, refit=False), quiet=True).fit(
            model, carve_valid(graph), NoEvaluation()
        )
        target = linked.target
        scores = score(model, train_histories(target))[:, : target.num_items]
        best = scores.topk(5).indices
        return (best % 4 == torch.arange(target.num_users)[:, None] % 4).float().mean().item()

    before = linked.source_only()
    assert genre_hits(before) > 0.75  # chance is 0.25
    assert genre_hits(before.without_kg()) < 0.5


def test_wrong_domains_and_options_are_refused():
    triples = torch.empty(0, 3, dtype=torch.int64)
    with pytest.raises(ArgumentError, match=r"in_target must be bool \[3\] with at least one True"):
        CrossDomainKGAT(3, 0, triples, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ArgumentError, match="match_temperature must be 0"):
        CrossDomainKGAT(3, 0, triples, torch.ones(3, dtype=torch.bool), match_temperature=0.1)
    with pytest.raises(ArgumentError, match=r"popularity_prior must be 0 in CrossDomainKGAT, got 1\.5"):
        CrossDomainKGAT.from_graph(planted(), popularity_prior=1.5)
    with pytest.raises(ArgumentError, match=r"negative_power must be 0 in CrossDomainKGAT, got 0\.5"):
        CrossDomainKGAT.from_graph(planted(), negative_power=0.5)
    with pytest.raises(ArgumentError, match="sequence must be 0 in CrossDomainKGAT, got 2"):
        CrossDomainKGAT(3, 0, triples, torch.ones(3, dtype=torch.bool), sequence=2)
    with pytest.raises(ArgumentError, match="side_features must be empty in CrossDomainKGAT"):
        CrossDomainKGAT.from_graph(planted(), side_features=["age"])
    with pytest.raises(ArgumentError, match="source_weight"):
        CrossDomainKGAT(3, 0, triples, torch.ones(3, dtype=torch.bool), source_weight=-1.0)
