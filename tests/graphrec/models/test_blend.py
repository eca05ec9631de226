import copy
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph, with_content
from cases.model_case import GradientCase
from cases.tiny_training import (
    NUM_ITEMS,
    ScriptedEvaluator,
    StoppingEvaluator,
    TinyClosedForm,
    TinyModel,
    fit_tiny,
    outcome,
    tiny_graph,
)

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import EASE, SLIST, Blend, ContentEASE, DualEASE, InductiveKGAT, SoftmaxMF
from graphrec.models import blend as blend_module
from graphrec.training import Interrupted, TrainConfig, Trainer
from kg_loaders.synthetic import planted


class TestBlend(GradientCase):
    model_class = Blend
    options: ClassVar = {"dim": 16, "num_negatives": 60, "l2": 10.0}

    def relabelled(self, model, relabelling):
        other = self.make(relabelling.graph)
        other.prepare(histories_of(relabelling.graph))
        with torch.no_grad():
            for name, value in other.state_dict().items():
                if name not in other.prepared_names():
                    value.copy_(self.relabelled_weight(name, model, other, relabelling))
        other.complete(histories_of(relabelling.graph))
        return other.eval()

    def relabelled_weight(self, name, model, other, relabelling):
        if name == "first.kg.entity":
            old_of_new = torch.from_numpy(relabelling.entities).argsort()
            old_rows = {int(entity): row for row, entity in enumerate(model.first.kg.entities)}
            rows = [old_rows[int(old_of_new[entity])] for entity in other.first.kg.entities]
            return model.first.kg.entity[:, rows]
        return super().relabelled_weight(name, model, other, relabelling)


class TestBlendOfThree(TestBlend):
    options: ClassVar = {"dim": 16, "num_negatives": 60, "l2": 10.0, "match_temperature": 0.1, "co_neighbors": 3}

    def make(self, graph, seed=0):
        model = super().make(graph, seed)
        model.prepare(histories_of(graph))
        return model

    def relabelled_weight(self, name, model, other, relabelling):
        for part in ("first.first", "first.second"):
            if name == f"{part}.kg.entity":
                mine, theirs = model.get_submodule(part), other.get_submodule(part)
                old_of_new = torch.from_numpy(relabelling.entities).argsort()
                old_rows = {int(entity): row for row, entity in enumerate(mine.kg.entities)}
                return mine.kg.entity[:, [old_rows[int(old_of_new[entity])] for entity in theirs.kg.entities]]
        value = GradientCase.relabelled_weight(self, name, model, other, relabelling)
        return torch.from_numpy(relabelling.items)[value] if name.endswith("co.neighbor") else value


class TestBlendWithContent(TestBlend):
    options: ClassVar = {**TestBlend.options, "content_weight": 5.0, "modalities": ["image", "audio"]}

    def make(self, graph, seed=0):
        return super().make(with_content(graph), seed)


class TestBlendWithOrder(TestBlend):
    options: ClassVar = {**TestBlend.options, "recency": 3.0, "alpha": 0.4, "sequence": 1}


def test_the_closed_form_reads_order_too():
    model = TestBlendWithOrder().make(planted_graph())
    assert isinstance(model.second, SLIST)
    assert model.second.chosen_values == (10.0, 3.0, 0.4)


@pytest.mark.parametrize("name", ["content_weight", "input_dropout", "relax", "kg_weight"])
def test_no_closed_form_reads_order_and_is_an_autoencoder(name):
    with pytest.raises(ArgumentError, match=f"{name} and recency must not both be above 0"):
        Blend.from_graph(planted_graph(), recency=2.0, **{name: 0.5})


@pytest.mark.parametrize("case", [TestBlend, TestBlendWithContent])
def test_the_closed_form_may_be_relaxed(case):
    closed = case.model_class.from_graph(with_content(planted_graph()), **case.options, input_dropout=0.2, relax=0.3)
    assert (closed.second.input_dropout, closed.second.relax) == (0.2, 0.3)


@pytest.mark.parametrize("num_users", [30, 60])
def test_the_closed_form_may_know_the_kg(num_users):
    graph = planted(num_users=num_users, num_items=50)
    relation = graph.relations.ids[0]
    told = Blend.from_graph(graph, l2=5.0, dim=8, kg_weight=2.0, kg_relations=[relation]).second
    assert told.kg_weight == 2.0
    assert len(told.entities) == len(type(told).from_graph(graph, kg_weight=1.0, kg_relations=[relation]).entities) > 0


def test_the_kg_counts_once():
    graph = with_content(planted_graph())
    with pytest.raises(ArgumentError, match="kg_weight and content_weight must not both be above 0"):
        Blend.from_graph(graph, content_weight=1.0, kg_weight=1.0)
    with pytest.raises(ArgumentError, match=r"kg_relations must be empty without kg_weight, got \['genre'\]"):
        Blend.from_graph(graph, kg_relations=["genre"])


def test_the_closed_form_reads_the_modalities_too():
    model = TestBlendWithContent().make(planted_graph())
    assert isinstance(model.second, ContentEASE)
    assert model.second.similarity.names == ("image", "audio", "kg")
    assert model.first.modalities.names == ("id", "graph", "image", "audio")


@pytest.fixture(scope="module")
def fitted():
    return TestBlend().fit(planted_graph())


def scores_at(model, weight, histories):
    model.weight.fill_(weight)
    with torch.no_grad():
        return model.score(histories)


def test_scores_are_the_weighted_z_scores_of_both_models(fitted):
    histories = histories_of(planted_graph())
    with torch.no_grad():
        first, second = (part.score(histories).double().numpy() for part in (fitted.first, fitted.second))
    z = [(s - s.mean(1, keepdims=True)) / s.std(1, keepdims=True) for s in (first, second)]
    blended = scores_at(copy.deepcopy(fitted), 0.3, histories).numpy()
    np.testing.assert_allclose(blended, 0.7 * z[0] + 0.3 * z[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("weight", "part"), [(0.0, "first"), (1.0, "second")])
def test_at_its_ends_it_ranks_as_one_model_alone(fitted, weight, part):
    histories = histories_of(planted_graph())
    with torch.no_grad():
        alone = getattr(fitted, part).score(histories).double()
    blended = scores_at(copy.deepcopy(fitted), weight, histories).double()
    z = (alone - alone.mean(1, keepdim=True)) / alone.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(blended, z, rtol=1e-4, atol=1e-4)


def test_equal_scores_say_nothing(fitted):
    with torch.no_grad():
        empty = Histories.from_lists([[]])
        assert not fitted.second.score(empty).any()
        assert scores_at(copy.deepcopy(fitted), 1.0, empty).count_nonzero() == 0


@pytest.mark.parametrize("best", range(5))
def test_the_weight_is_found_by_going_up(best):
    model = Blend(TinyModel(), TinyClosedForm(), weights=(0.0, 0.2, 0.4, 0.6, 1.0))
    asked = []

    def validate():
        asked.append(model.weights.index(round(float(model.weight), 6)))
        return -abs(asked[-1] - best)

    chosen = model.choose(validate)
    assert chosen == {"weight": model.weights[best]}
    assert float(model.weight) == pytest.approx(model.weights[best])
    assert len(asked) == len(set(asked))  # nothing is asked twice


def test_one_weight_is_asked_about_once():
    asked = []
    model = Blend(TinyModel(), TinyClosedForm(), weights=[0.3])
    assert model.choose(lambda: asked.append(1) or 0.5) == {"weight": 0.3}
    assert len(asked) == 1


def tiny_blend():
    return Blend(TinyModel(), TinyClosedForm(powers=()), weights=(0.0, 0.5, 1.0))


def test_training_chooses_on_validation_with_the_weights_of_the_best_epoch_and_keeps_the_choice(tmp_path):
    # Three epochs at the middle, the second best; then the middle, 0 and 1.
    evaluator = ScriptedEvaluator([0.1, 0.3, 0.2, 0.3, 0.2, 0.4, 0.0])
    model = tiny_blend()
    config = TrainConfig(epochs=3, batch_size=11, select_by="mrr", device="cpu", patience=0)
    result = Trainer(config, seed=3, quiet=True).fit(model, tiny_graph(), evaluator)
    assert result.best_epoch == 2
    assert result.chosen == {"weight": 1.0}
    assert result.valid == {"mrr": 0.4}
    assert result.best_value == 0.4
    assert float(model.weight) == 1.0  # after a refit that drew the weights anew
    epochs, asked = evaluator.weights[:3], evaluator.weights[3:]
    for weights in asked:
        assert torch.equal(weights["first.inputs.weight"], epochs[1]["first.inputs.weight"])
    assert [float(weights["weight"]) for weights in asked[:3]] == [0.5, 0.0, 1.0]


def test_the_second_model_is_fitted_to_train_and_then_to_both_parts():
    model = tiny_blend()
    fit_tiny(None, model)
    train, both = (tiny_graph().part(*parts).user.size for parts in (("train",), ("train", "valid")))
    assert [fitted.items.numel() for fitted in model.second.fitted] == [train, both]


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("step", [1, 6, 17, 23])
def test_an_interrupted_run_ends_bit_equal(tmp_path, monkeypatch, step, refit):
    settings = {"refit": refit, "checkpoint_minutes": 1e-9}
    expected = outcome(*fit_tiny(tmp_path / "whole", tiny_blend(), **settings))
    model = tiny_blend()

    def stop(number):
        if number == step:
            raise KeyboardInterrupt

    model.first.before_loss = stop
    try:
        fit_tiny(tmp_path / "cut", model, **settings)
    except KeyboardInterrupt:
        pass
    else:
        assert not refit or step > 20
    resumed, result = fit_tiny(tmp_path / "cut", tiny_blend(), **settings)
    assert outcome(resumed, result) == expected
    assert result.chosen == fit_tiny(None, tiny_blend(), **settings)[1].chosen


def test_an_interrupt_while_choosing_is_heard_and_the_run_resumes(tmp_path, monkeypatch):
    expected = outcome(*fit_tiny(None, tiny_blend()))
    model = tiny_blend()
    own = model.choose

    def choose(validate):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)
        return own(validate)

    monkeypatch.setattr(model, "choose", choose)
    with pytest.raises(Interrupted):
        fit_tiny(tmp_path, model)
    assert outcome(*fit_tiny(tmp_path, tiny_blend())) == expected


@pytest.mark.parametrize("stop_at", range(2, 9))
def test_a_blend_of_three_stopped_while_choosing_chooses_the_same(tmp_path, stop_at):
    graph = planted(num_users=60, noise=0.5, activity=0.5)
    trainer = Trainer(TrainConfig(epochs=1, batch_size=32, select_by="ndcg@10", device="cpu"), seed=3, quiet=True)
    whole, stopped, resumed = (Blend.from_graph(graph, dim=8, l2=5.0, match_temperature=0.2) for _ in range(3))
    expected = trainer.fit(whole, graph, StoppingEvaluator())
    with pytest.raises(Interrupted):
        trainer.fit(stopped, graph, StoppingEvaluator(stop_at), tmp_path)
    result = trainer.fit(resumed, graph, StoppingEvaluator(), tmp_path)
    assert (result.chosen, result.valid) == (expected.chosen, expected.valid)


def test_checkpoints_do_not_hold_the_closed_form(tmp_path):
    from safetensors import safe_open

    fit_tiny(tmp_path, tiny_blend())
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        names = list(file.keys())
    assert any(name.startswith("model/first.") for name in names)
    assert not any("second." in name for name in names)


def test_a_finished_model_holds_all_of_both():
    model = TestBlend().fit(planted_graph())
    assert model.state_dict()["second.weight"].numel() == planted_graph().num_items ** 2


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="same items, got 30 and 31"):
        Blend(TinyModel(), EASE(NUM_ITEMS + 1))
    for weights in ([], [0.5, 0.2], [0.1, 0.1]):
        with pytest.raises(ArgumentError, match="increasing"):
            Blend(TinyModel(), TinyClosedForm(), weights=weights)
    with pytest.raises(ArgumentError, match="weights must be"):
        Blend(TinyModel(), TinyClosedForm(), weights=[0.5, 1.5])


def test_two_trained_models_add_their_losses():
    graph = planted_graph()
    model = Blend.from_graph(graph, l2=0.0, match_temperature=0.1, dim=8, num_negatives=50)
    batch = histories_of(graph).select(torch.arange(9))
    both = model.loss(batch, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    parts = [part.loss(batch, generator) for part in (model.first, model.second)]
    torch.testing.assert_close(both, parts[0] + parts[1])
    assert model.second.match is not None
    assert model.first.match is None


def test_a_blend_within_a_blend_chooses_first_and_keeps_its_choice():
    graph = planted_graph()
    model = Blend.from_graph(graph, match_temperature=0.1, weights=[0.0, 0.5], match_weights=[0.2, 0.4], dim=8)
    seen = []

    def validate():
        seen.append((round(float(model.first.weight), 3), round(float(model.weight), 3)))
        return -sum(seen[-1])

    assert model.choose(validate) == {"first.weight": 0.2, "weight": 0.0}
    assert seen == [(0.4, 0.5), (0.2, 0.5), (0.2, 0.5), (0.2, 0.0)]
    model.reset_parameters()
    assert (float(model.first.weight), float(model.weight)) == (pytest.approx(0.4), 0.5)
    model.set_chosen({"first.weight": 0.2, "weight": 0.0})
    assert (float(model.first.weight), float(model.weight)) == (pytest.approx(0.2), 0.0)


def test_members_are_drawn_apart_and_count_alike():
    graph = planted_graph()
    torch.manual_seed(0)
    model = Blend.from_graph(graph, l2=0.0, members=3, dim=8).eval()
    members = [model.first.first, model.first.second, model.second]
    assert not torch.equal(members[0].item, members[1].item)
    assert not torch.equal(members[1].item, members[2].item)
    batch = histories_of(graph).select(torch.arange(9))
    for member in members:
        member.prepare(histories_of(graph))
    with torch.no_grad():
        standard = [blend_module._standardise(member.score(batch)) for member in members]
        found = model.score(batch)
    # But for the scale of the first two's mean.
    two = blend_module._standardise(standard[0] + standard[1])
    torch.testing.assert_close(found, (2 * two + standard[2]) / 3)


def test_members_that_match_are_drawn_apart_and_count_alike():
    graph = planted_graph()
    options = {"l2": 5.0, "match_temperature": 0.1, "members": 2, "match_members": 3, "sequence": 1, "dim": 8}
    model = Blend.from_graph(graph, weights=[0.5], match_weights=[0.4], **options)
    plain, matched = model.first.first, model.first.second
    weights = [float(blend.weight) for blend in (model, model.first, plain, matched, matched.first)]
    assert weights == pytest.approx([0.5, 0.4, 1 / 2, 1 / 3, 1 / 2])
    members = [plain.first, plain.second, matched.first.first, matched.first.second, matched.second]
    assert [member.match is not None for member in members] == [False, False, True, True, True]
    assert [member.sequence is not None for member in members] == [True, True, False, False, False]
    assert len({float(member.item.detach().sum()) for member in members}) == 5


def test_members_have_no_weight_to_choose():
    model = Blend.from_graph(planted_graph(), l2=5.0, members=3, weights=[0.2, 0.4], dim=8)
    asked = []
    chosen = model.choose(lambda: asked.append(float(model.weight)) or -asked[-1])
    assert chosen == {"weight": 0.2}
    assert asked == pytest.approx([0.4, 0.2])
    model.reset_parameters()
    model.set_chosen(chosen)
    weights = [float(blend.weight) for blend in model.modules() if isinstance(blend, Blend)]
    assert weights == pytest.approx([0.2, 1 / 3, 1 / 2])


def test_the_weight_beside_members_is_chosen_all_the_same():
    shares = {"weights": [0.0, 0.5], "match_weights": [0.2, 0.4]}
    model = Blend.from_graph(planted_graph(), match_temperature=0.1, members=2, dim=8, **shares)
    chosen = model.choose(lambda: -float(model.weight) - float(model.first.weight))
    assert chosen == {"first.weight": 0.2, "weight": 0.0}
    model.reset_parameters()
    model.set_chosen(chosen)
    assert float(model.first.weight) == pytest.approx(0.2)
    assert float(model.first.first.weight) == 0.5


@pytest.mark.parametrize("options", [{"match_temperature": 0.1}, {"recency": 2.0, "sequence": 1}])
def test_members_stand_beside_other_models(options):
    model = Blend.from_graph(planted_graph(), l2=5.0, members=2, dim=8, **options)
    kinds = [type(part).__name__ for part in model.modules() if isinstance(part, InductiveKGAT | SLIST | EASE)]
    closed = "SLIST" if "recency" in options else "EASE"
    assert kinds == ["InductiveKGAT"] * (3 if "match_temperature" in options else 2) + [closed]


@pytest.mark.parametrize(("num_users", "form"), [(30, DualEASE), (60, EASE)])
def test_the_closed_form_is_the_one_that_inverts_the_smaller_matrix(num_users, form):
    graph = planted(num_users=num_users, num_items=50)
    assert type(Blend.from_graph(graph, l2=5.0, dim=8).second) is form


def test_one_model_alone_is_no_blend():
    with pytest.raises(ArgumentError, match="must not both be 0"):
        Blend.from_graph(planted_graph(), l2=0.0)
    with pytest.raises(ArgumentError, match="members must be >= 1, got 0"):
        Blend.from_graph(planted_graph(), members=0)
    with pytest.raises(ArgumentError, match="match_members must be >= 1, got 0"):
        Blend.from_graph(planted_graph(), match_temperature=0.1, match_members=0)
    with pytest.raises(ArgumentError, match="match_members must be 1 without a match_temperature, got 2"):
        Blend.from_graph(planted_graph(), match_members=2)


def test_it_serves_strangers_only_if_both_models_do():
    graph = planted_graph()
    assert Blend.from_graph(graph).inductive
    assert not Blend(SoftmaxMF.from_graph(graph), EASE(graph.num_items)).inductive


def test_scores_can_be_differentiated_and_are_those_without_gradients():
    blend = Blend(SoftmaxMF(3, 4, dim=5), SoftmaxMF(3, 4, dim=5)).eval()
    asked = Histories.from_lists([[], []], [0, 2])
    scores = blend.score(asked)
    scores.square().sum().backward()
    assert all(weight.grad.any() for weight in blend.parameters())
    with torch.no_grad():
        assert torch.equal(blend.score(asked), scores)


@pytest.mark.parametrize("size", [1e-30, 0.0, 0.1, -7e5])
def test_equal_scores_become_zeros(size):
    scores = torch.full((2, 1000), size)
    scores[1, 3] += 0.5
    standard = blend_module._standardise(scores)
    assert not standard[0].any()
    assert standard[1, 3] > 1


def test_a_closed_form_in_single_precision_joins_a_model_in_double_precision():
    first = SoftmaxMF(2, 3, dim=5).double()
    blend = Blend(first, EASE(3, 1.0)).eval()
    histories = Histories.from_lists([[0, 1], [2]], [0, 1])
    blend.prepare(histories)
    blend.complete(histories)
    with torch.no_grad():
        assert blend.score(Histories.from_lists([[0], []], [1, 0])).isfinite().all()


def test_the_closed_form_is_fitted_when_training_is_over_and_its_moments_gone(monkeypatch):
    optimizers, moments = [], []

    class Watched(torch.optim.AdamW):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            optimizers.append(self)

    class Watching(EASE):
        def fit(self, histories, validate=None):
            moments.append(len(optimizers[-1].state))
            return super().fit(histories, validate)

    first, second = TinyModel(), Watching(NUM_ITEMS, 1.0)
    sizes = []
    first.before_loss = lambda number: sizes.append(second.weight.numel())
    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    config = TrainConfig(epochs=2, batch_size=11, select_by="mrr", device="cpu", patience=0, eval_every=2)
    Trainer(config, quiet=True).fit(Blend(first, second), tiny_graph(), ScriptedEvaluator([0.1] * 8))
    assert moments == [0, 0]  # once in each phase
    assert not any(sizes)
    assert second.weight.numel() == NUM_ITEMS**2


def test_what_is_fitted_stays_until_other_histories_are_prepared():
    blend, histories = Blend(TinyModel(), EASE(NUM_ITEMS, 1.0)), Histories.from_lists([[0, 1], [1, 2]])
    blend.complete(histories)
    weight = blend.second.weight
    blend.complete(histories)
    assert blend.second.weight is weight
    blend.prepare(histories)
    assert not blend.second.weight.numel()


def test_a_blend_chooses_where_it_or_one_within_it_has_several_weights():
    graph = planted_graph()
    options = {"l2": 5.0, "match_temperature": 0.1, "members": 2, "dim": 8}
    for weights, match_weights, chooses in (
        ([0.2], [0.3], False),
        ([0.2], [0.3, 0.4], True),
        ([0.1, 0.2], [0.3], True),
    ):
        assert Blend.from_graph(graph, weights=weights, match_weights=match_weights, **options).chooses == chooses


@pytest.mark.parametrize("match_temperature", [0.0, 0.1])
def test_a_blend_shares_work_where_one_of_its_models_does(match_temperature):
    blend = Blend.from_graph(planted_graph(), dim=4, match_temperature=match_temperature)
    assert blend.shares_work == (match_temperature > 0)
    assert blend.first.shares_work == blend.shares_work
