import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.histories import Histories
from graphrec.models import EASE, Blend, InductiveKGAT
from graphrec.serving.attribution import leave_one_out
from graphrec.serving.explain import explain
from graphrec.serving.held_prior import with_held_prior
from graphrec.serving.recommender import RunRecommender

MIXED = Histories.from_lists([[], [4], [2, 5, 7], list(range(30))])
PAST = [2, 5, 7]


def fitted(kind, **options):
    graph = planted_graph()
    torch.manual_seed(0)
    model = kind.from_graph(graph, dim=8, **options)
    model.prepare(histories_of(graph))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    model.complete(histories_of(graph))
    return model.eval()


def z_scores(scores):
    std = scores.std(dim=1, keepdim=True, unbiased=False)
    return (scores - scores.mean(dim=1, keepdim=True)) / std.clamp(min=1e-9)  # EASE scores all alike for no history


@torch.no_grad()
def blended(blend, items, known):
    """The scores of a history as they are, but for the charts, which are as loud as for ``known`` items."""
    histories = Histories.from_lists([items])
    prior = blend.first.prior
    before, after = prior(torch.tensor([len(items), known])).double().tolist()
    first = blend.first.score(histories).double() + (after - before) * prior.popularity().double()
    second = blend.second.score(histories).double()
    return torch.lerp(z_scores(first), z_scores(second), blend.weight.double())[0]


@torch.no_grad()
def test_every_history_has_the_charts_of_the_known_length():
    model = fitted(InductiveKGAT, popularity_prior=5.0)
    before = model.score(MIXED)
    held = with_held_prior(model, 3)
    louder = model.prior(torch.tensor(3)) - model.prior(MIXED.lengths)
    assert louder.abs().max() > 0.5
    torch.testing.assert_close(held.score(MIXED), before + louder.unsqueeze(1) * model.prior.popularity())
    assert torch.equal(model.score(MIXED), before)  # the model itself is as it was
    assert type(held) is InductiveKGAT


@torch.no_grad()
def test_what_the_model_remembers_is_not_made_again(monkeypatch):
    model = fitted(InductiveKGAT, popularity_prior=5.0)
    model.score(MIXED)
    monkeypatch.setattr(InductiveKGAT, "item_vectors", lambda _: pytest.fail("made again"))
    assert with_held_prior(model, 3).score(MIXED).isfinite().all()


def test_without_a_prior_it_is_the_model_itself():
    for model in (fitted(InductiveKGAT), fitted(Blend, l2=5.0), EASE(80)):
        assert with_held_prior(model, 3) is model


@pytest.mark.parametrize("options", [{}, {"sequence": 2}], ids=["asked in parts", "short way"])
def test_what_a_blend_without_an_item_says_has_the_charts_of_the_whole_history(options):
    model = fitted(Blend, l2=5.0, popularity_prior=9.0, **options)
    rests = [[left for left in PAST if left != gone] for gone in PAST]
    falls = blended(model, PAST, known=3) - torch.stack([blended(model, rest, known=3) for rest in rests])
    as_loud_as_they_are = blended(model, PAST, known=3) - torch.stack([blended(model, rest, known=2) for rest in rests])
    assert (falls - as_loud_as_they_are).abs().max() > 0.1
    for item in (3, int(model.first.prior.popularity().argmax())):
        found = leave_one_out(model, Histories.from_lists([PAST]), item)
        assert found.tolist() == pytest.approx(falls[:, item].tolist(), abs=1e-4)


def test_the_base_of_a_blend_has_the_charts_of_the_whole_history():
    model = fitted(Blend, l2=5.0, popularity_prior=9.0)
    item = int(model.first.prior.popularity().argmax())
    assert item not in PAST
    why = explain(RunRecommender(model, planted_graph()), Histories.from_lists([PAST]), item)
    assert why.base == pytest.approx(float(blended(model, [], known=3)[item]), abs=1e-4)
    assert why.score == pytest.approx(float(blended(model, PAST, known=3)[item]), abs=1e-4)


def test_a_blend_of_three_is_held_within():
    model = fitted(Blend, l2=5.0, popularity_prior=9.0, match_temperature=0.2)
    held = with_held_prior(model, 4)
    priors = [held.first.first.prior, held.first.second.prior]
    assert [prior(torch.tensor([0, 9])).tolist() for prior in priors] == [pytest.approx([1.35, 1.35])] * 2
    assert held.second is model.second
