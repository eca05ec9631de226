"""The models that carry users from one domain to another by a bridge between two factorisations."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, other_history, planted_graph
from cases.model_case import GradientCase, score
from cases.tiny_training import StoppingEvaluator

import kg_loaders
from graphrec.errors import ArgumentError, NotFittedError
from graphrec.histories import Histories
from graphrec.models import EMCDR, PTUPCDR
from graphrec.training import Interrupted, TrainConfig, Trainer
from kg_loaders.joining import DOMAIN
from kg_loaders.synthetic import planted

pytest.importorskip("implicit", reason="the baselines extra is not installed")

SMALL = {"dim": 8, "l2": 1.0, "iterations": 5}


def with_domains(graph):
    """Every second four items of the planted graph are the source's, whatever their indices."""
    number = np.array([int(item_id.removeprefix("item-")) for item_id in graph.items])
    marks = np.where(number // 4 % 2, "source", "target").astype(object)
    return replace(graph, item_features={**graph.item_features, DOMAIN: kg_loaders.Feature.text(marks)})


class BridgedCase(GradientCase):
    def make(self, graph, seed=0):
        model = super().make(with_domains(graph), seed)
        model.prepare(histories_of(graph))
        return model

    def relabelled(self, model, relabelling):
        other = self.make(relabelling.graph)
        items = torch.from_numpy(np.argsort(relabelling.items))
        state = model.state_dict()
        factors = {name: value[items] for name, value in state.items() if name.endswith("factors")}
        other.load_state_dict(state | factors)
        return other.eval()

    def test_fitting_on_other_histories_gives_other_factors(self, fitted):
        other = self.fit(other_history())
        assert not torch.equal(other.target.factors, fitted.target.factors)

    def test_without_the_histories_there_is_no_score(self):
        graph = planted_graph()
        model = self.model_class.from_graph(with_domains(graph), **self.options)
        with pytest.raises(NotFittedError, match="IALS has not been fitted"):
            model.score(histories_of(graph))

    def test_each_domain_has_a_factorisation_of_its_own(self, fitted):
        assert not fitted.source.factors[fitted.in_target].any()
        assert not fitted.target.factors[~fitted.in_target].any()
        histories = histories_of(planted_graph())
        here = fitted.in_target[histories.items]
        expected = fitted.target.score(histories.keep(here)) + fitted.source.score(histories.keep(~here))
        torch.testing.assert_close(score(fitted, histories), expected, rtol=1e-4, atol=1e-5)

    def test_users_of_one_domain_alone_teach_the_bridge_nothing(self, fitted):
        here, there = (torch.where(mask)[0].tolist() for mask in (fitted.in_target, ~fitted.in_target))
        alone = Histories.from_lists([here[:3], there[:2]])
        assert fitted.loss(alone, torch.Generator()).item() == 0
        both = Histories.from_lists([[*here[:3], *there[:2]]])
        among = Histories.from_lists([here[:3], [*here[:3], *there[:2]], there[:2]])
        torch.testing.assert_close(fitted.loss(among, torch.Generator()), fitted.loss(both, torch.Generator()))

    def test_preparing_leaves_the_global_generator_alone(self):
        model = self.make(planted_graph())
        torch.manual_seed(7)
        model.prepare(histories_of(planted_graph()))
        after = torch.rand(3)
        torch.manual_seed(7)
        assert torch.equal(after, torch.rand(3))

    def test_cold_users_are_carried_to_what_they_like(self):
        """Trained on the users of both domains, it finds the genre of users who took nothing in the target."""
        source, target = planted(num_users=120, seed=1), planted(num_users=120, num_items=100, seed=2)
        own = [f"source-{id_}" for id_ in source.items]
        entities = kg_loaders.Vocabulary([*own, *source.entities.ids[source.num_items :]], "entity")
        pair = kg_loaders.link(replace(source, entities=entities, name="far"), target, on="user")
        cold = np.arange(0, 120, 3)
        union = pair.without_history(cold).union
        histories = Histories.from_interactions(union.part("train"), union.num_users)
        torch.manual_seed(0)
        model = self.model_class.from_graph(union, **SMALL)
        model.prepare(histories)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            model.loss(histories, torch.Generator()).backward()
            optimizer.step()
        past = histories.select(torch.from_numpy(cold))
        best = score(model.eval(), past)[:, : target.num_items].topk(5).indices
        right = best % 4 == torch.from_numpy(cold)[:, None] % 4  # the genre of an item, the taste of a user
        assert right.float().mean() > 0.75  # chance is 0.25


class TestEMCDR(BridgedCase):
    model_class = EMCDR
    options: ClassVar = {**SMALL, "hidden": 16}


class TestLinearEMCDR(BridgedCase):
    model_class = EMCDR
    options: ClassVar = {**SMALL, "hidden": 0}


class TestPTUPCDR(BridgedCase):
    model_class = PTUPCDR
    options: ClassVar = {**SMALL, "meta_dim": 12}


def two_domains(model_class, **options):
    torch.manual_seed(0)
    in_target = torch.tensor([True, True, True, False, False, False])
    model = model_class(6, in_target, dim=3, iterations=3, **options)
    model.prepare(Histories.from_lists([[0, 1, 3], [2, 4, 5], [0, 3], [1, 2, 5]]))
    return model


def test_emcdr_is_the_squared_distance_to_the_vectors_there():
    model = two_domains(EMCDR, hidden=5)
    histories = Histories.from_lists([[0, 3, 4], [1, 2, 5]])
    total = 0.0
    for here, there in (([0], [3, 4]), ([1, 2], [5])):
        wanted = model.target.user_vectors(Histories.from_lists([here]))[0]
        given = model.source.user_vectors(Histories.from_lists([there]))[0]
        first, _, second = model.mapping
        mapped = second.weight @ torch.tanh(first.weight @ given + first.bias) + second.bias
        total += (mapped - wanted).square().sum()
    torch.testing.assert_close(model.loss(histories, torch.Generator()), total / 2)


def test_ptupcdr_writes_a_bridge_for_each_user_and_is_judged_by_all_items():
    model = two_domains(PTUPCDR, meta_dim=5, confidence=7.0)
    total = 0.0
    for here, there in (([0], [3, 4]), ([1, 2], [5])):
        entries = model.source.factors[there]
        hidden = torch.relu(entries @ model.importance[0].weight.t() + model.importance[0].bias)
        weights = torch.softmax((hidden @ model.importance[2].weight.t())[:, 0], dim=0)
        own = model.meta((weights @ entries)[None]).view(3, 3)
        carried = own @ model.source.user_vectors(Histories.from_lists([there]))[0]
        for item in range(6):
            guess = carried @ model.target.factors[item]
            total += 7.0 * (1 - guess).square() if item in here else guess.square()
    found = model.loss(Histories.from_lists([[0, 3, 4], [1, 2, 5]]), torch.Generator())
    torch.testing.assert_close(found, total / 2)


def test_wrong_domains_and_options_are_refused():
    both = torch.tensor([True, False, True])
    with pytest.raises(ArgumentError, match=r"in_target must be bool \[3\], got torch.int64 \[3\]"):
        EMCDR(3, both.long())
    for one in (torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(ArgumentError, match="in_target must leave items to both domains"):
            PTUPCDR(3, one)
    with pytest.raises(ArgumentError, match="hidden must be >= 0"):
        EMCDR(3, both, hidden=-1)
    with pytest.raises(ArgumentError, match="meta_dim must be >= 1"):
        PTUPCDR(3, both, meta_dim=0)
    with pytest.raises(ArgumentError, match="EMCDR needs a linked graph, whose items have the feature 'domain'"):
        EMCDR.from_graph(planted_graph())


def test_a_bridge_goes_on_between_the_factors_it_began_with(tmp_path):
    graph = with_domains(planted_graph())
    trainer = Trainer(TrainConfig(epochs=3, batch_size=32, select_by="ndcg@10", device="cpu"), seed=3, quiet=True)
    whole, stopped, resumed = (EMCDR.from_graph(graph, **SMALL) for _ in range(3))
    trainer.fit(whole, graph, StoppingEvaluator())
    with pytest.raises(Interrupted):
        trainer.fit(stopped, graph, StoppingEvaluator(stop_at=2), tmp_path)
    trainer.fit(resumed, graph, StoppingEvaluator(), tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
