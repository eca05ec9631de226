import math

import pytest
import torch
from cases.tiny_training import NUM_USERS, TinyModel, tiny_config, tiny_graph

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.training.learner import Learner

CPU = torch.device("cpu")
BATCH = Histories.from_interactions(tiny_graph().part("train"), NUM_USERS)


def make_learner(**settings):
    torch.manual_seed(0)
    return Learner(TinyModel(dropout=0.0), tiny_config(**settings), CPU)


def take_steps(learner, numbers, rate=0.05):
    return [learner.step(BATCH, torch.Generator().manual_seed(number), rate, number) for number in numbers]


def weights(learner):
    return {name: weight.detach().clone() for name, weight in learner.weights.items()}


def test_steps_are_those_of_adamw_with_clipping_and_averaging():
    learner = make_learner(clip_norm=0.02, weight_decay=0.1, ema_decay=0.5)
    torch.manual_seed(0)
    model = TinyModel(dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1)
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for number, rate in enumerate([0.05, 0.1, 0.01]):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = model.loss(BATCH, torch.Generator().manual_seed(number))
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.02) > 0.02
        optimizer.step()
        decay = min(0.5, (1 + number) / (10 + number))
        for name, weight in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * weight.detach()
        assert take_steps(learner, [number], rate) == [pytest.approx(loss.item())]
    for name, weight in model.named_parameters():
        torch.testing.assert_close(learner.weights[name], weight)
        torch.testing.assert_close(learner.average[name], average[name])


def test_short_gradients_are_not_scaled():
    one, two = make_learner(clip_norm=0.0), make_learner(clip_norm=1e6)
    take_steps(one, range(2))
    take_steps(two, range(2))
    assert all(torch.equal(one.weights[name], weight) for name, weight in two.weights.items())


def test_restoring_continues_bit_by_bit():
    learner = make_learner()
    take_steps(learner, range(3))
    saved = {name: value.clone() for name, value in learner.tensors().items()}
    losses = take_steps(learner, range(3, 6))
    other = make_learner()
    take_steps(other, [17])
    other.restore(saved)
    assert take_steps(other, range(3, 6)) == losses
    for name, value in learner.tensors().items():
        assert torch.equal(other.tensors()[name], value), name
    assert {"optimizer/step/inputs.weight", "optimizer/exp_avg_sq/inputs.weight", "average/unused"} <= set(saved)
    assert "optimizer/step/unused" not in saved


def test_evaluating_sees_the_average_and_gives_the_weights_back():
    learner = make_learner()
    learner.model.train()
    take_steps(learner, range(3))
    trained = weights(learner)
    with learner.evaluating():
        assert not learner.model.training
        assert all(torch.equal(learner.weights[name], value) for name, value in learner.average.items())
        assert not torch.equal(learner.weights["inputs.weight"], trained["inputs.weight"])
    assert learner.model.training
    assert all(torch.equal(learner.weights[name], value) for name, value in trained.items())
    learner.use_average()
    assert all(torch.equal(learner.weights[name], value) for name, value in learner.average.items())


def test_a_loss_that_is_not_finite_changes_no_weight():
    learner = make_learner()
    before = weights(learner)
    learner.model.loss = lambda batch, generator: learner.weights["inputs.weight"].sum() * math.inf
    with pytest.raises(FloatingPointError, match="the loss is"):
        take_steps(learner, [0])
    assert all(torch.equal(learner.weights[name], value) for name, value in before.items())


def test_a_gradient_that_is_not_finite_changes_no_weight():
    learner = make_learner(clip_norm=0.0)
    before = weights(learner)
    learner.model.loss = lambda batch, generator: (learner.weights["inputs.weight"] * 0).sum().sqrt()
    with pytest.raises(FloatingPointError, match="gradient is nan"):
        take_steps(learner, [0])
    assert all(torch.equal(learner.weights[name], value) for name, value in before.items())


def test_a_loss_must_be_a_scalar():
    learner = make_learner()
    learner.model.loss = lambda batch, generator: torch.ones(3, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"TinyModel.*scalar.*\[3\]"):
        take_steps(learner, [0])


def test_a_model_without_trainable_weights_is_refused():
    with pytest.raises(ArgumentError, match="TinyModel has no trainable weights"):
        Learner(TinyModel().requires_grad_(False), tiny_config(), CPU)


def test_frozen_weights_stay():
    torch.manual_seed(0)
    model = TinyModel(dropout=0.0)
    model.outputs.requires_grad_(False)
    before = model.outputs.weight.clone()
    learner = Learner(model, tiny_config(), CPU)
    take_steps(learner, range(2))
    assert torch.equal(model.outputs.weight, before)
    assert "outputs.weight" not in learner.weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_run_on_the_gpu_in_bfloat16():
    device = torch.device("cuda")
    learner = Learner(TinyModel().to(device), tiny_config(), device)
    losses = [learner.step(BATCH.to(device), torch.Generator().manual_seed(i), 0.05, i) for i in range(30)]
    assert losses[-1] < losses[0]
    assert all(weight.dtype == torch.float32 for weight in learner.weights.values())
