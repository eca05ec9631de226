"""The published models: each does all that a recommender must, and what its paper's equations say."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, other_history, planted_graph
from cases.model_case import ClosedFormCase, GradientCase, score

from graphrec.encoders import TransR
from graphrec.errors import ArgumentError, NotFittedError
from graphrec.histories import Histories
from graphrec.models import BPRMF, CKE, IALS, KGAT, KGCN, KGIN, LightGCN, RippleNet, kgin


class PreparedCase(GradientCase):
    """Models that need the training histories' edges before anything else."""

    reads_history = False

    def make(self, graph, seed=0):
        model = super().make(graph, seed)
        model.prepare(histories_of(graph))
        return model

    def relabelled_weight(self, name, model, other, relabelling):
        if name in other.prepared_names():
            return other.state_dict()[name]
        return super().relabelled_weight(name, model, other, relabelling)

    def test_without_the_histories_there_is_no_score(self):
        graph = planted_graph()
        model = self.model_class.from_graph(graph, **self.options)
        with pytest.raises(NotFittedError, match="needs the training histories first"):
            model.score(histories_of(graph))


class TestBPRMF(GradientCase):
    model_class = BPRMF
    options: ClassVar = {"dim": 16, "l2": 1e-4}
    reads_history = False
    learning_rate = 0.05


class TestLightGCN(PreparedCase):
    model_class = LightGCN
    options: ClassVar = {"dim": 16}
    learning_rate = 0.05


class TestCKE(GradientCase):
    model_class = CKE
    options: ClassVar = {"dim": 16, "relation_dim": 8, "triples_per_step": 64}
    reads_history = False
    learning_rate = 0.05


class TestKGAT(PreparedCase):
    model_class = KGAT
    options: ClassVar = {"dim": 16, "layer_dims": (16, 8), "triples_per_step": 64}
    learning_rate = 0.02


class TestKGIN(PreparedCase):
    model_class = KGIN
    options: ClassVar = {"dim": 16, "num_intents": 2, "num_hops": 2}
    learning_rate = 0.05


class TestKGCN(GradientCase):
    model_class = KGCN
    options: ClassVar = {"dim": 16, "num_hops": 2}
    reads_history = False
    learning_rate = 0.05

    def relabelled_weight(self, name, model, other, relabelling):
        value = super().relabelled_weight(name, model, other, relabelling)
        if name == "neighbor":  # its entries are entities too
            return torch.from_numpy(relabelling.entities)[value]
        return value


class TestRippleNet(GradientCase):
    model_class = RippleNet
    options: ClassVar = {"dim": 16}
    learning_rate = 0.05

    def relabelled_weight(self, name, model, other, relabelling):
        if name == "priority":  # one for each triple, found again by its new names
            moved = model.triples.clone()
            for column in (0, 2):
                moved[:, column] = torch.from_numpy(relabelling.entities)[moved[:, column]]
            rank = {tuple(triple): float(value) for triple, value in zip(moved.tolist(), model.priority, strict=True)}
            return torch.tensor([rank[tuple(triple)] for triple in other.triples.tolist()])
        return super().relabelled_weight(name, model, other, relabelling)


def test_ials_counts_an_item_once_and_ranks_alike_in_double_precision():
    graph = planted_graph()
    model = TestIALS().fit(graph)
    scores = score(model, Histories.from_lists([[3, 1, 3], [1, 3]]))
    torch.testing.assert_close(scores[0], scores[1])
    found = score(model.double(), Histories.from_lists([[3, 1]]))
    torch.testing.assert_close(found[0].float(), scores[0])


class TestIALS(ClosedFormCase):
    model_class = IALS
    options: ClassVar = {"dim": 16, "l2": 1.0, "confidence": 5.0}

    def fit(self, graph, seed=0):
        torch.manual_seed(seed)  # the start of the alternation is drawn
        return super().fit(graph, seed)

    def relabelled(self, model, relabelling):
        other = self.make(relabelling.graph)
        moved = model.factors[torch.from_numpy(np.argsort(relabelling.items))]
        other.load_state_dict({"factors": moved, "chosen": model.chosen})
        return other.eval()

    def test_fitting_again_forgets_the_first_fit(self, fitted):
        graph = planted_graph()
        model = self.fit(other_history())
        score(model, histories_of(graph))
        torch.manual_seed(0)
        model.fit(histories_of(graph))
        assert torch.equal(score(model, histories_of(graph)), score(fitted, histories_of(graph)))


# What the equations say


def test_bpr_loss_is_its_formula():
    model = BPRMF(num_users=2, num_items=3, dim=4, l2=0.5)
    # Each user took all items but one, so there is one negative to draw.
    loss = model.loss(Histories.from_lists([[0, 1], [2, 1]], [1, 0]), torch.Generator())
    terms = []
    for user, taken, other in ((1, 0, 2), (1, 1, 2), (0, 2, 0), (0, 1, 0)):
        p, q, n = model.user[user], model.item[taken], model.item[other]
        squares = p.square().sum() + q.square().sum() + n.square().sum()
        terms.append(-torch.nn.functional.logsigmoid(p @ q - p @ n) + 0.25 * squares)
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_a_user_who_took_everything_teaches_nothing():
    model = BPRMF(num_users=1, num_items=2, dim=4, l2=0.5)
    assert model.loss(Histories.from_lists([[0, 1]], [0]), torch.Generator()) == 0


def test_lightgcn_is_the_average_of_powers_of_the_normalised_adjacency():
    histories = Histories.from_lists([[0, 1], [1], []], [0, 1, 2])
    model = LightGCN(num_users=3, num_items=2, dim=4, num_layers=2).eval()
    model.prepare(histories)
    adjacency = torch.zeros(5, 5)
    for user, item in ((0, 0), (0, 1), (1, 1)):
        adjacency[user, 3 + item] = adjacency[3 + item, user] = 1.0
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    step = scale[:, None] * adjacency * scale
    x = torch.cat([model.user, model.item])
    mean = (x + step @ x + step @ step @ x) / 3
    torch.testing.assert_close(model.score(histories), mean[:3] @ mean[3:].t())


def test_cke_adds_the_entity_to_the_item():
    model = CKE(2, 3, 5, 1, torch.tensor([[0, 0, 4]]), dim=4).eval()
    expected = model.user @ (model.item + model.entity[:3]).t()
    torch.testing.assert_close(model.score(Histories.from_lists([[], []], [0, 1])), expected)


def test_trans_r_projects_each_triple_by_its_relation():
    trans_r = TransR(num_relations=2, dim=3, relation_dim=2)
    entity = torch.randn(4, 3)
    triples = torch.tensor([[0, 1, 2], [3, 0, 1], [2, 1, 2]])
    expected = torch.stack([
        (entity[h] @ trans_r.projection[r] + trans_r.relation[r] - entity[t] @ trans_r.projection[r]).square().sum()
        for h, r, t in triples.tolist()
    ])  # fmt: skip
    torch.testing.assert_close(trans_r.distance(entity, triples), expected)
    assert trans_r.loss(entity, triples[:0], torch.Generator()) == 0


def test_kgat_joins_interactions_to_the_triples_both_ways():
    model = KGAT(2, 2, 4, 1, torch.tensor([[0, 0, 3]]), dim=4, layer_dims=(4,))
    model.prepare(Histories.from_lists([[1], []], [1, 0]))
    # Nodes 0..3 are entities, 4 and 5 users; relation 1 is "was taken by", and 2 and 3 are the inverses.
    edges = set(zip(*model.edges.tolist(), model.edge_type.tolist(), strict=True))
    assert edges == {(3, 0, 0), (0, 3, 2), (5, 1, 1), (1, 5, 3)}


def test_kgat_scores_all_layers_side_by_side():
    graph = planted_graph()
    model = KGAT.from_graph(graph, dim=8, layer_dims=(6, 4)).eval()
    model.prepare(histories_of(graph))
    users, items = model.vectors()
    assert users.shape == (graph.num_users, 18)
    assert items.shape == (graph.num_items, 18)
    for start, end in ((8, 14), (14, 18)):
        torch.testing.assert_close(items[:, start:end].norm(dim=1), torch.ones(graph.num_items))


def test_distance_correlation_is_one_of_a_line_with_itself_and_small_of_strangers():
    line = torch.linspace(0, 1, 200)
    strangers = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    assert kgin._distance_correlations(torch.stack([line, 3 * line + 1])).item() == pytest.approx(1, abs=1e-4)
    assert kgin._distance_correlations(strangers).item() < 0.2
    assert kgin._distance_correlations(torch.stack([line, line.roll(7), line])).item() > 1


def test_kgcn_scores_a_tree_by_hand():
    # Entity 3 is the only neighbour of item 0, and item 0 of entity 3; item 1 has none and is its own.
    model = KGCN(1, 2, 4, 1, torch.tensor([[0, 0, 3]]), dim=4, num_neighbors=2).eval()
    user, (conv,) = model.user[0], model.convs
    scores = [
        user @ torch.tanh(conv.lin(model.entity[item] + model.entity[neighbor])) for item, neighbor in ((0, 3), (1, 1))
    ]
    torch.testing.assert_close(model.score(Histories.from_lists([[]], [0]))[0], torch.stack(scores))


def test_kgcn_weighs_relations_by_the_user():
    triples = torch.tensor([[0, 0, 2], [0, 1, 3]])
    torch.manual_seed(1)
    model = KGCN(1, 2, 4, 2, triples, dim=4, num_neighbors=8).eval()
    conv, user = model.convs[0], model.user[0]
    alpha = (conv.relation[model.neighbor_type[0]] @ user).softmax(0)
    gathered = (alpha[:, None] * model.entity[model.neighbor[0]]).sum(0)
    assert {2, 3} == set(model.neighbor[0].tolist())
    expected = user @ torch.tanh(conv.lin(model.entity[0] + gathered))
    torch.testing.assert_close(model.score(Histories.from_lists([[]], [0]))[0, 0], expected)


@pytest.mark.parametrize("num_hops", [1, 2, 3])
def test_kgcn_ranks_by_the_trees_that_it_was_trained_on(num_hops):
    graph = planted_graph()
    torch.manual_seed(0)
    model = KGCN.from_graph(graph, dim=8, num_hops=num_hops, num_neighbors=2, aggregator="concat").eval()
    histories = histories_of(graph).select(torch.tensor([7, 2, 11]))
    items = torch.arange(graph.num_items)
    for row, user in zip(model.score(histories), model.user[[7, 2, 11]], strict=True):
        vectors = model.item_vectors(user.expand(graph.num_items, -1), items)
        torch.testing.assert_close(row, vectors @ user)


def test_ripplenet_spreads_from_the_history():
    triples = torch.tensor([[0, 0, 2], [2, 0, 3], [1, 1, 4]])
    model = RippleNet(2, 5, 2, triples, dim=3, num_hops=2, num_memories=2).eval()
    first, second = model.ripples(Histories.from_lists([[0], [], [1, 0]]))
    assert [set(row) for row in first.tolist()] == [{0}, {-1}, {0, 1}]  # triples are kept by their head
    assert [set(row) for row in second.tolist()] == [{2}, {-1}, {2}]
    entity, turned = model.entity, model.relation[0] @ model.entity[0]
    for item in range(2):  # one triple a hop: the softmax is 1
        moved = model.update(model.update(entity[item] + entity[2]) + entity[3])  # after each hop, the last one too
        score = model.score(Histories.from_lists([[0]]))[0, item]
        torch.testing.assert_close(score, (entity[2] + entity[3]) @ moved)
    assert turned.shape == (3,)


def test_ripplenet_keeps_the_same_triples_of_a_crowded_hop():
    graph = planted_graph()
    model = RippleNet.from_graph(graph, num_memories=2)
    histories = histories_of(graph)
    all_rows = model.ripples(histories)
    some = model.ripples(histories.select(torch.tensor([5, 3])))
    for whole, part in zip(all_rows, some, strict=True):
        assert torch.equal(whole[[5, 3]], part)


def test_ials_folds_a_history_in_as_the_minimum_of_its_loss():
    graph = planted_graph()
    model = TestIALS().fit(graph)
    taken = [0, 4, 9]
    user = model.user_vectors(Histories.from_lists([taken]))[0].clone().requires_grad_()
    wanted = torch.zeros(graph.num_items)
    wanted[taken] = 1.0
    weight = torch.where(wanted > 0, 5.0, 1.0)
    loss = (weight * (wanted - model.factors @ user).square()).sum() + user.square().sum()
    (slope,) = torch.autograd.grad(loss, user)
    assert slope.abs().max() < 1e-3


def test_ials_chooses_on_validation():
    graph = planted_graph()
    model = IALS.from_graph(graph, dim=8, l2=[1.0, 50.0], confidence=[2.0, 10.0])
    values = iter([0.1, 0.3, 0.4, 0.2])
    assert model.fit(histories_of(graph), lambda: next(values)) == {"l2": 50.0, "confidence": 2.0}
    assert model.chosen.tolist() == [50.0, 2.0]


@pytest.mark.parametrize("model", [CKE, KGAT, KGCN, KGIN, RippleNet])
def test_models_of_a_kg_refuse_to_work_without_one(model):
    with pytest.raises(ArgumentError, match=f"{model.__name__} needs a knowledge graph"):
        model.from_graph(planted_graph().without_kg())


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        ([[0, 0, 9]], r"name each entity within 0\.\.4, got 9\.\.9"),
        ([[0, 2, 1]], r"name each relation within 0\.\.1, got 2\.\.2"),
        ([0, 1, 2], r"must be int64 \[num_triples, 3\]"),
    ],
)
def test_triples_that_do_not_fit_are_named(triples, message):
    with pytest.raises(ArgumentError, match=message):
        CKE(2, 3, 5, 2, torch.tensor(triples))
