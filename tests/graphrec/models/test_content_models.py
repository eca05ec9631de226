"""ContentKNN, ContentEASE and FBSM: what is known of items, in closed form."""

import copy
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph, with_content
from cases.model_case import ClosedFormCase, score

from graphrec.encoders.similarity import ContentSimilarity
from graphrec.errors import ArgumentError
from graphrec.evaluation.topk import top_k
from graphrec.histories import Histories
from graphrec.models import EASE, FBSM, ContentEASE, ContentKNN
from kg_loaders.graph import Feature
from kg_loaders.synthetic import cold_items

NO_KG = planted_graph().without_kg()


class ContentCase(ClosedFormCase):
    options: ClassVar = {"modalities": ["image", "audio"]}

    def make(self, graph, seed=0):
        return super().make(with_content(graph), seed)

    def test_a_state_of_another_catalogue_is_refused(self, fitted):
        more = {"image": Feature.vectors(np.eye(planted_graph().num_items + 1))}
        with pytest.raises(RuntimeError, match="must have shape"):
            self.model_class(planted_graph().num_items + 1, more).load_state_dict(fitted.state_dict())


class TestContentKNN(ContentCase):
    model_class = ContentKNN

    def test_loading_forgets_what_was_cached(self, fitted):
        # Other histories leave content as it is; another number of neighbours does not.
        histories = histories_of(planted_graph())
        model = ContentKNN.from_graph(with_content(planted_graph()), **self.options, num_neighbors=3)
        model.fit(histories)
        stale = score(model.eval(), histories)
        model.load_state_dict(copy.deepcopy(fitted.state_dict()))
        assert torch.equal(score(model, histories), score(fitted, histories))
        assert not torch.equal(stale, score(model, histories))


class TestContentEASE(ContentCase):
    model_class = ContentEASE

    def test_nobody_took_anything(self):
        model = self.make(planted_graph())
        model.fit(Histories.from_lists([[], []]))
        scores = score(model.eval(), Histories.from_lists([[1, 2]]))
        assert scores.isfinite().all()
        assert scores.any()  # what items are is known all the same


class TestFBSM(ContentCase):
    model_class = FBSM


def test_fbsm_solves_its_equation():
    graph = with_content(NO_KG)
    histories = histories_of(graph)
    model = FBSM.from_graph(graph, ["image", "audio"], l2=3.0)
    model.fit(histories)
    x = torch.zeros(len(histories), graph.num_items, dtype=torch.float64)
    x[histories.rows, histories.items] = 1.0
    d, f = 1 / x.sum(dim=1), model.features.double()
    weight = model.weight.double().requires_grad_()
    b = f @ weight @ f.t()
    pairs = (x.t() @ (d.unsqueeze(1) * x)).fill_diagonal_(0.0)
    loss = (d.unsqueeze(1) * (x @ b).square()).sum() - 2 * (pairs * b).sum() + 3.0 * weight.square().sum()
    loss.backward()
    at_zero = 2 * (f.t() @ pairs @ f).abs().max()
    assert float(weight.grad.abs().max()) < 1e-5 * float(at_zero)
    one = Histories.from_lists([[4, 7]])
    torch.testing.assert_close(score(model, one)[0].double(), b.detach()[4] + b.detach()[7], rtol=1e-4, atol=1e-5)
    parts = model.contributions(one, 9)
    torch.testing.assert_close(parts.sum(), score(model, one)[0, 9])


def test_fbsm_takes_the_first_directions_of_wide_content():
    graph = planted_graph()
    narrow = FBSM.from_graph(graph, dim=5)
    narrow.fit(histories_of(graph))
    assert narrow.features.shape == (graph.num_items, 6)
    assert bool((narrow.features[:, -1] == 1).all())
    similarity = ContentSimilarity(graph.num_items, {}, torch.from_numpy(graph.triples))
    whole = similarity.table(10_000)
    likeness = torch.cat([block for _, block in similarity.blocks()])
    torch.testing.assert_close(torch.from_numpy(whole @ whole.T).float(), likeness)
    best = np.linalg.svd(whole)[1][:5]
    np.testing.assert_allclose(np.linalg.norm(similarity.table(5), axis=0), best, rtol=1e-3)


def cold_recall(model, graph):
    """Recall of each user's two cold items among the eight there are."""
    model.fit(histories_of(graph))
    cold = torch.from_numpy(cold_items(graph))
    found, _ = top_k(score(model.eval(), histories_of(graph))[:, cold], 2, None)
    test = graph.part("test")
    taken = {(int(u), int(i)) for u, i in zip(test.user, test.item, strict=True)}
    hits = [(user, int(cold[i])) in taken for user, row in enumerate(found) for i in row.tolist()]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("model", [ContentKNN, ContentEASE, FBSM])
@pytest.mark.parametrize(
    ("graph", "modalities", "known"),
    [
        (planted_graph(), [], True),
        (with_content(NO_KG), ["image"], True),
        (with_content(NO_KG), ["audio"], False),
    ],
)
def test_content_finds_cold_items_where_it_tells_of_tastes(model, graph, modalities, known):
    # Two of the eight cold items lack a picture.
    found = cold_recall(model.from_graph(graph, modalities=modalities), graph)
    assert found > 0.7 if known else found < 0.5


def test_neighbours_are_the_likest_items_that_somebody_took():
    vectors = np.array([[4.0, 0.0], [3.9, 0.1], [3.0, 1.0], [-4.0, 0.0], [3.95, 0.05]])
    model = ContentKNN(5, {"image": Feature.vectors(vectors)}, num_neighbors=1)
    model.fit(Histories.from_lists([[0, 2, 3]]))
    scores = score(model.eval(), Histories.from_lists([[0], [2], [0, 2]]))
    ((_, likeness),) = ContentSimilarity(5, {"image": Feature.vectors(vectors)}).blocks()
    assert scores[0].nonzero().flatten().tolist() == [1, 2, 4]  # 1 and 4 that nobody took are reached
    torch.testing.assert_close(scores[0, 1], likeness[0, 1])
    assert scores[1].nonzero().flatten().tolist() == [0]
    torch.testing.assert_close(scores[2], scores[0] + scores[1])


def test_without_weight_content_ease_is_ease():
    graph = with_content(planted_graph())
    histories = histories_of(graph)
    plain, content = EASE(graph.num_items, 20.0), ContentEASE.from_graph(graph, ["image"], l2=20.0, content_weight=0.0)
    plain.fit(histories)
    content.fit(histories)
    assert torch.equal(plain.weight, content.weight)


def test_content_ease_is_ease_with_features_as_users():
    graph = with_content(NO_KG)
    histories = histories_of(graph)
    model = ContentEASE.from_graph(graph, ["image"], l2=5.0, content_weight=3.0)
    model.fit(histories)
    taken = torch.zeros(graph.num_users, graph.num_items).double()
    taken[histories.rows, histories.items] = 1.0
    ((_, likeness),) = model.similarity.blocks()
    inverse = (taken.t() @ taken + 3.0 * likeness.double() + 5.0 * torch.eye(graph.num_items)).inverse()
    weight = -inverse / inverse.diagonal()
    torch.testing.assert_close(model.weight, weight.fill_diagonal_(0.0).float(), rtol=1e-3, atol=1e-4)


def test_validation_chooses_among_all_pairs_of_values():
    graph = with_content(NO_KG)
    model = ContentEASE.from_graph(graph, ["image"], l2=(1.0, 10.0), content_weight=(0.0, 5.0, 50.0))
    tried = []

    def validate():
        tried.append((model.chosen_content_weight, model.chosen_l2))
        return 1.0 if tried[-1] == (5.0, 1.0) else 0.0

    assert model.fit(histories_of(graph), validate) == {"content_weight": 5.0, "l2": 1.0}
    assert sorted(tried) == [(a, l2) for a in (0.0, 5.0, 50.0) for l2 in (1.0, 10.0)]
    again = ContentEASE.from_graph(graph, ["image"], l2=1.0, content_weight=5.0)
    again.fit(histories_of(graph))
    assert torch.equal(model.weight, again.weight)
    one_l2 = ContentEASE.from_graph(graph, ["image"], l2=1.0, content_weight=(0.0, 5.0))
    assert one_l2.fit(histories_of(graph), lambda: one_l2.chosen_content_weight) == {"content_weight": 5.0, "l2": 1.0}


def test_likeness_is_the_mean_over_what_there_is():
    triples = torch.tensor([[0, 0, 4], [1, 0, 4], [2, 1, 5], [3, 0, 5]])  # items 0..3; all entities are as rare
    image = Feature.vectors(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [-3.0, 0.0]]), np.array([1, 1, 0, 1]) > 0)
    both = ContentSimilarity(4, {"image": image}, triples)
    assert both.names == ("image", "kg")
    ((_, block),) = both.blocks()
    torch.testing.assert_close(block[0], torch.tensor([1.0, 1.0, 0.0, -0.5]))
    torch.testing.assert_close(block[2], torch.tensor([0.0, 0.0, 0.5, 0.5]))  # no picture, and one entity in common
    parts = [rows for rows, _ in both.blocks(block_rows=3)]
    assert parts == [slice(0, 3), slice(3, 4)]
    torch.testing.assert_close(torch.cat([part for _, part in both.blocks(block_rows=3)]), block)
    assert torch.linalg.eigvalsh(block).min() > -1e-6


@pytest.mark.parametrize("model", [ContentKNN, ContentEASE, FBSM])
def test_without_content_there_is_nothing_to_go_by(model):
    with pytest.raises(ArgumentError, match="there must be content: name modalities"):
        model.from_graph(NO_KG)
    with pytest.raises(
        ArgumentError, match=r"modalities must be item features of planted \('text', 'title'\), got 'image'"
    ):
        model.from_graph(NO_KG, modalities=["image"])
    with pytest.raises(ArgumentError, match=r"content\['image'\] must have 3 rows, one an item, got 2"):
        model(3, {"image": Feature.vectors(np.eye(2))})
    with pytest.raises(ArgumentError, match="content must be vectors, got text"):
        model(2, {"title": Feature.text(["a", "b"])})


def test_a_weight_below_zero_is_refused():
    with pytest.raises(ArgumentError, match="content_weight must be a number >= 0 or several of them, got -1"):
        ContentEASE(2, {"image": Feature.vectors(np.eye(2))}, content_weight=-1.0)
