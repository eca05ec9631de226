import json
import math
import weakref
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.tiny_training import (
    NUM_ITEMS,
    NUM_USERS,
    TEST,
    TRAIN,
    VALID,
    ScriptedEvaluator,
    StubEvaluator,
    TinyClosedForm,
    TinyModel,
    equal_weights,
    fit_tiny,
    outcome,
    snapshot,
    tiny_config,
    tiny_graph,
)

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import ItemKNN
from graphrec.models.base import Recommender
from graphrec.training import TrainConfig, Trainer
from graphrec.training.result import few_valid_users
from graphrec.training.trainer import resolve_device

NUM_STEPS = 4  # 39 users with train items, 11 a step


def fit(model, evaluator, graph=None, seed=3, on_record=None, **settings):
    trainer = Trainer(tiny_config(**settings), seed=seed, quiet=True)
    return trainer.fit(model, graph or tiny_graph(), evaluator, on_record=on_record)


def test_it_learns():
    torch.manual_seed(0)
    model = TinyModel()
    before = StubEvaluator().evaluate(model, tiny_graph()).metrics["mrr"]
    result = fit(model, StubEvaluator(), epochs=12, refit=False, patience=0)
    assert result.best_value > 1.5 * before
    assert StubEvaluator().evaluate(model, tiny_graph()).metrics["mrr"] == result.best_value


def test_selecting_trains_on_train_and_refitting_on_both_for_the_best_number_of_epochs():
    model, values = TinyModel(), [0.1, 0.3, 0.2, 0.25, 0.29]
    result = fit(model, ScriptedEvaluator(values), patience=2)
    assert (result.best_epoch, result.best_value, result.num_epochs) == (2, 0.3, 4)
    assert result.valid == {"mrr": 0.3}
    assert [(r["phase"], r["epoch"]) for r in result.history] == [
        *(("select", epoch) for epoch in (1, 2, 3, 4)),
        *(("refit", epoch) for epoch in (1, 2)),
    ]
    graph = tiny_graph()
    for batches, splits, num_epochs in (
        (model.seen[: 4 * NUM_STEPS], ("train",), 4),
        (model.seen[4 * NUM_STEPS :], ("train", "valid"), 2),
    ):
        assert len(batches) == num_epochs * NUM_STEPS
        histories = Histories.from_interactions(graph.part(*splits), NUM_USERS)
        some = histories.lengths.nonzero().squeeze(1).tolist()
        for epoch in range(num_epochs):
            of_epoch = batches[epoch * NUM_STEPS : (epoch + 1) * NUM_STEPS]
            # Every user with a history once an epoch, and nobody else; with the whole history.
            assert sorted(user for b in of_epoch for user in b.user_index.tolist()) == some
            for batch in of_epoch:
                assert torch.equal(batch.items, histories.select(batch.user_index).items)
    orders = [tuple(b.user_index.tolist()) for b in model.seen]
    assert len(set(orders)) == len(orders)


def test_refitting_is_a_run_from_the_seed_on_both_parts_on_the_same_schedule():
    model = TinyModel()
    result = fit(model, ScriptedEvaluator([0.1, 0.3, 0.2, 0.2, 0.2]), patience=0)
    rates = {(r["phase"], r["epoch"]): r["lr"] for r in result.history}
    assert rates["refit", 1] == rates["select", 1]
    assert rates["refit", 2] == rates["select", 2]
    # Another model, whatever its weights and its selection were, ends the same after the same two epochs.
    other = TinyModel()
    fit(other, ScriptedEvaluator([0.0, 0.9, 0.1]), patience=1)
    assert equal_weights(snapshot(model), snapshot(other))


def test_a_refit_is_prepared_without_what_selecting_held(monkeypatch):
    optimizers, held = [], []

    class Watched(torch.optim.AdamW):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            optimizers.append(weakref.ref(self))

    class Holder(TinyModel):
        chooses = True

        def choose(self, validate):
            validate()  # which leaves something cached
            return {"power": 1.0}

        def prepare(self, histories):
            super().prepare(histories)
            gradients = sum(weight.grad is not None for weight in self.parameters())
            held.append((gradients, len(self._cache), sum(alive() is not None for alive in optimizers)))

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    fit(Holder(), StubEvaluator(), epochs=2)
    assert held == [(0, 0, 0), (0, 0, 0)]
    assert len(optimizers) == 2


def test_without_refit_the_best_weights_come_back():
    model, evaluator = TinyModel(), ScriptedEvaluator([0.1, 0.3, 0.2, 0.3, 0.1])
    result = fit(model, evaluator, refit=False, patience=0)
    assert result.best_epoch == 2
    assert [r["phase"] for r in result.history] == ["select"] * 5
    matches = [equal_weights(weights, snapshot(model)) for weights in evaluator.weights]
    assert matches == [False, True, False, False, False]


@pytest.mark.parametrize("parts", [(TRAIN, VALID), (TRAIN,)])
def test_without_selecting_a_model_is_trained_on_both_parts_at_once_for_all_epochs(parts):
    model, evaluator = TinyModel(), ScriptedEvaluator([])  # which has no value to give
    result = fit(model, evaluator, tiny_graph(parts=parts), select=False, epochs=3)
    assert [(r["phase"], r["epoch"]) for r in result.history] == [("refit", epoch) for epoch in (1, 2, 3)]
    assert (result.best_epoch, result.num_epochs, result.valid, result.chosen) == (3, 0, {}, {})
    assert result.best_value == -math.inf
    assert not model.training
    # As a run that selects its last epoch ends.
    other = TinyModel()
    fit(other, ScriptedEvaluator([0.1, 0.2, 0.3]), tiny_graph(), epochs=3)
    assert equal_weights(snapshot(model), snapshot(other)) == (VALID in parts)


def test_without_selecting_nothing_can_be_chosen():
    class Chooser(TinyModel):
        chooses = True

    for model in (Chooser(), TinyClosedForm()):
        with pytest.raises(ArgumentError, match=f"select must be true where .* as {type(model).__name__} has here"):
            fit(model, StubEvaluator(), select=False)
    model, evaluator = TinyClosedForm(powers=()), StubEvaluator()
    result = fit(model, evaluator, select=False)
    both = Histories.from_interactions(tiny_graph().part("train", "valid"), NUM_USERS)
    assert [torch.equal(histories.items, both.items) for histories in model.fitted] == [True]
    assert (evaluator.asked, result.valid, result.chosen, result.num_epochs) == ([], {}, {}, 0)
    assert [r["phase"] for r in result.history] == ["refit"]


def test_models_are_evaluated_and_left_in_evaluation_mode():
    for model in (TinyModel(), TinyClosedForm()):
        evaluator = StubEvaluator()
        fit(model, evaluator)
        assert not any(training for _, training, _ in evaluator.asked)
        assert not model.training


@pytest.mark.parametrize("refit", [True, False])
def test_the_averaged_weights_are_evaluated_and_returned(refit):
    evaluator, model = StubEvaluator(), TinyModel()
    fit(model, evaluator, epochs=1, refit=refit, ema_decay=0.9)
    averaged = snapshot(model)
    evaluated = equal_weights(evaluator.asked[-1][2], averaged)
    assert evaluated is not refit  # after a refit nothing is evaluated
    fit(model, evaluator, epochs=1, refit=refit, ema_decay=0.0)
    # The average changes no step, so without it the trained weights themselves come back.
    assert not torch.equal(snapshot(model)["inputs.weight"], averaged["inputs.weight"])
    assert torch.equal(snapshot(model)["level"], averaged["level"])


def test_test_is_never_touched():
    evaluator = StubEvaluator()
    with_test, without = TinyModel(), TinyModel()
    one = fit(with_test, evaluator)
    two = fit(without, evaluator, graph=tiny_graph(parts=(TRAIN, VALID)))
    assert outcome(with_test, one) == outcome(without, two)
    assert {split for split, _, _ in evaluator.asked} == {"valid"}
    test = tiny_graph().part("test")
    pairs = set(zip(test.user.tolist(), test.item.tolist(), strict=True))
    for batch in with_test.seen:
        users = batch.user_index[batch.rows]
        assert not pairs & set(zip(users.tolist(), batch.items.tolist(), strict=True))


def test_evaluates_every_few_epochs_and_after_the_last():
    result = fit(TinyModel(), StubEvaluator(), epochs=5, eval_every=2, patience=0)
    evaluated = [r["epoch"] for r in result.history if r["valid"] is not None]
    assert evaluated == [2, 4, 5]
    assert result.best_epoch in evaluated


def test_one_seed_twice_is_equal_and_another_is_not():
    torch.manual_seed(1)
    one = outcome(*fit_tiny())
    torch.manual_seed(2)
    assert outcome(*fit_tiny()) == one
    assert outcome(*fit_tiny(seed=4)) != one


def test_the_global_generator_and_switches_are_left_alone():
    model, threads = TinyModel(), []
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(
        model,
        StubEvaluator(),
        epochs=1,
        num_threads=2,
        on_record=lambda record: threads.append(torch.get_num_threads()),
    )
    assert threads == [2, 2]
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_records_hold_what_they_promise_and_are_handed_out_as_they_come():
    handed = []
    model = TinyModel()
    result = fit(model, StubEvaluator(), on_record=lambda record: handed.append((len(model.seen), record)))
    assert [record for _, record in handed] == result.history
    assert [steps for steps, _ in handed] == [NUM_STEPS * (i + 1) for i in range(len(handed))]
    assert json.loads(json.dumps(result.history)) == result.history
    for record in result.history:
        assert list(record) == ["phase", "epoch", "loss", "valid", "seconds", "lr"]
        assert (record["valid"] is None) == (record["phase"] == "refit")
    assert result.history[0]["lr"] == tiny_config().learning_rate_at(0, NUM_STEPS - 1, NUM_STEPS)


def test_the_loss_is_the_mean_over_users():
    model, losses = TinyModel(), []
    plain = model.loss

    def noting(batch, generator):
        value = plain(batch, generator)
        losses.append((value.item(), len(batch)))
        return value

    model.loss = noting
    result = fit(model, StubEvaluator(), epochs=1, refit=False)
    assert [size for _, size in losses] == [11, 11, 11, 6]
    expected = sum(value * size for value, size in losses) / 39
    assert result.history[0]["loss"] == pytest.approx(expected)


def test_seconds_are_told_apart(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("graphrec.training.gradient.time.perf_counter", lambda: now[0])
    model, evaluator = TinyModel(), StubEvaluator()

    def spend(seconds):
        now[0] += seconds

    model.before_loss = lambda number: spend(1)
    model.prepare = lambda histories: spend(1000)
    model.complete = lambda histories: spend(10_000)
    plain = evaluator.evaluate
    evaluator.evaluate = lambda *args, **kwargs: spend(100) or plain(*args, **kwargs)
    result = fit(model, evaluator, epochs=2, patience=0)
    assert result.seconds == {
        "select": 2 * NUM_STEPS,
        "refit": result.best_epoch * NUM_STEPS,
        "evaluate": 200,
        "prepare": 32_000,  # before each phase; before each of two evaluations, and after the refit
    }
    assert [r["seconds"] for r in result.history] == [NUM_STEPS] * len(result.history)


# Closed forms


def test_a_closed_form_chooses_on_validation_and_is_fitted_again_to_both():
    model, evaluator = TinyClosedForm(), StubEvaluator()
    result = fit(model, evaluator)
    expected = {}
    for power in model.powers:
        other = TinyClosedForm(powers=(power,))
        fit(other, StubEvaluator(), refit=False)
        expected[power] = StubEvaluator().evaluate(other, tiny_graph()).metrics["mrr"]
    assert len(set(expected.values())) == 3
    assert result.chosen == {"power": max(expected, key=expected.get)}
    assert result.best_value == result.valid["mrr"] == max(expected.values())
    assert (result.best_epoch, result.num_epochs) == (0, 3)
    assert [(r["phase"], r["epoch"]) for r in result.history] == [
        ("select", 1),
        ("select", 2),
        ("select", 3),
        ("refit", 1),
    ]
    assert [r["valid"]["mrr"] for r in result.history[:3]] == list(expected.values())
    train, both = (
        Histories.from_interactions(tiny_graph().part(*s), NUM_USERS) for s in [["train"], ["train", "valid"]]
    )
    assert torch.equal(model.fitted[0].items, train.items)
    assert torch.equal(model.fitted[1].items, both.items)
    assert model.power == result.chosen["power"]
    assert {split for split, _, _ in evaluator.asked} == {"valid"}


@pytest.mark.parametrize("refit", [True, False])
def test_a_closed_form_with_nothing_to_choose_is_evaluated_once(refit):
    model, evaluator = TinyClosedForm(powers=()), StubEvaluator()
    result = fit(model, evaluator, refit=refit)
    assert len(evaluator.asked) == 1
    assert result.chosen == {}
    assert result.best_value == result.valid["mrr"] > 0
    assert len(model.fitted) == 1 + refit


def test_seconds_of_a_closed_form(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("graphrec.training.trainer.time.perf_counter", lambda: now[0])
    model, evaluator = TinyClosedForm(), StubEvaluator()
    evaluate, plain_fit = evaluator.evaluate, model.fit

    def spend(seconds):
        now[0] += seconds

    evaluator.evaluate = lambda *args, **kwargs: spend(10) or evaluate(*args, **kwargs)
    model.fit = lambda histories, validate=None: spend(1) or plain_fit(histories, validate)
    result = fit(model, evaluator)
    assert result.seconds == {"select": 1, "refit": 1, "evaluate": 30}


# What is refused


def test_without_a_validation_part_carve_valid_is_named():
    for model in (TinyModel(), TinyClosedForm()):
        with pytest.raises(ArgumentError, match=r"'tiny'.*carve_valid"):
            fit(model, StubEvaluator(), graph=tiny_graph(parts=(TRAIN, TEST)))


def test_without_a_split_the_splits_are_named():
    with pytest.raises(ArgumentError, match=r"not been split.*random_split"):
        fit(TinyModel(), StubEvaluator(), graph=tiny_graph().with_split(None))


def test_without_a_train_part_there_is_nothing_to_learn():
    with pytest.raises(ArgumentError, match="train part"):
        fit(TinyModel(), StubEvaluator(), graph=tiny_graph(parts=(VALID, TEST)))


@pytest.mark.parametrize("model", [TinyModel, TinyClosedForm])
def test_a_metric_the_evaluator_lacks_is_named(model):
    evaluator = StubEvaluator()
    with pytest.raises(ArgumentError, match=r"'recall@5', 'mrr', got 'ndcg@20'"):
        fit(model(), evaluator, select_by="ndcg@20")
    assert evaluator.asked == []  # known before anything is trained


def test_a_metric_that_is_not_finite_chooses_nothing():
    with pytest.raises(ArgumentError, match=r"finite, got nan in epoch 2"):
        fit(TinyModel(), ScriptedEvaluator([0.1, math.nan]))


@pytest.mark.parametrize("refit", [True, False])
def test_a_loss_gone_astray_is_told_with_its_place(refit):
    model = TinyModel()
    number = 2 * NUM_STEPS + 3

    def poison(count):
        if count == number:
            with torch.no_grad():
                model.inputs.weight.fill_(math.nan)

    model.before_loss = poison
    with pytest.raises(ArgumentError) as caught:
        fit(model, StubEvaluator(), refit=refit, schedule="constant", warmup=0)
    for part in ("TinyModel", "phase select, epoch 3, step 3 of 4", "the loss is nan", "learning rate 0.05"):
        assert part in str(caught.value)


def test_another_kind_of_recommender_is_refused():
    class Neither(Recommender):
        from_graph = score = None

    with pytest.raises(ArgumentError, match="GradientRecommender, got Neither"):
        fit(Neither(3), StubEvaluator())


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ArgumentError, match="seed"):
        Trainer(tiny_config(), seed=seed)


def test_a_missing_gpu_is_named():
    with pytest.raises(ArgumentError, match="cuda:63"):
        resolve_device("cuda:63")


def test_the_repr_tells_the_main_settings():
    assert repr(Trainer(tiny_config(), seed=2)) == (
        "Trainer(epochs=5, batch_size=11, learning_rate=0.05, select_by='mrr', seed=2)"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_learns_on_the_gpu():
    model = TinyModel()
    graph = replace(tiny_graph(), name="gpu")
    evaluator = StubEvaluator()
    plain = evaluator.evaluate
    evaluator.evaluate = lambda m, g, split: plain(m.to("cpu"), g, split)
    result = fit(model, evaluator, graph=graph, device="cuda", epochs=1, refit=False)
    assert result.num_epochs == 1
    assert model.num_items == NUM_ITEMS


def test_a_sample_of_the_validation_users_is_measured_while_selecting():
    graph = tiny_graph()
    few = few_valid_users(graph, 7)
    users = np.unique(few.part("valid").user)
    assert len(users) == 7
    whole, sample = (set(zip(g.part("valid").user, g.part("valid").item, strict=True)) for g in (graph, few))
    assert sample == {pair for pair in whole if pair[0] in users}  # all pairs of those users, and no others
    for name in ("user", "item"):
        assert np.array_equal(getattr(few.part("train"), name), getattr(graph.part("train"), name))
    assert np.array_equal(few_valid_users(graph, 7).interactions.split, few.interactions.split)  # always the same
    for enough in (0, 10**6):
        assert few_valid_users(graph, enough) is graph


def test_training_asks_about_the_sample_and_refits_on_everybody():
    class Asking(ScriptedEvaluator):
        asked: ClassVar = []

        def evaluate(self, model, graph, split="test"):
            self.asked.append(len(np.unique(graph.part("valid").user)))
            return super().evaluate(model, graph, split)

    model, graph = TinyModel(), tiny_graph()
    config = TrainConfig(epochs=2, batch_size=11, select_by="mrr", device="cpu", valid_users=5)
    seen = []
    model.prepare = lambda histories: seen.append(histories.items.numel())
    Trainer(config, seed=3, quiet=True).fit(model, graph, Asking([0.1, 0.2]))
    assert Asking.asked == [5, 5]
    assert seen == [len(graph.part("train")), len(graph.part("train", "valid"))]
    Asking.asked.clear()
    closed = ItemKNN(graph.num_items, [1, 2], [0.0])
    Trainer(config, seed=3, quiet=True).fit(closed, graph, Asking([0.1, 0.2]))
    assert Asking.asked == [5, 5]
