import math

import pytest
import torch
import torch.nn.functional as F

from graphrec.errors import ArgumentError
from graphrec.losses import gbce, gbce_power

POSITIVE = torch.tensor([1.0, -0.5, 3.0], dtype=torch.float64)
NEGATIVE = torch.tensor([[0.0, 2.0], [1.0, -1.0], [-4.0, 8.0]], dtype=torch.float64)


def test_equals_a_naive_loop():
    losses = []
    for p, row in zip(POSITIVE.tolist(), NEGATIVE.tolist(), strict=True):
        taken = -0.3 * math.log(1 / (1 + math.exp(-p)))
        losses.append((taken - sum(math.log(1 - 1 / (1 + math.exp(-n))) for n in row)) / 3)
    assert gbce(POSITIVE, NEGATIVE, 0.3).item() == pytest.approx(sum(losses) / 3)
    weights = torch.tensor([2.0, 0.0, 1.0])
    assert gbce(POSITIVE, NEGATIVE, 0.3, weights).item() == pytest.approx((2 * losses[0] + losses[2]) / 3)


def test_with_a_power_of_one_it_is_binary_cross_entropy():
    logits = torch.cat([POSITIVE.unsqueeze(1), NEGATIVE], dim=1)
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    torch.testing.assert_close(gbce(POSITIVE, NEGATIVE), F.binary_cross_entropy_with_logits(logits, labels))


def test_gradients_are_exact_also_where_a_negative_is_ruled_out():
    positive, negative = POSITIVE.clone().requires_grad_(), NEGATIVE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, n: gbce(p, n, 0.4), (positive, negative))
    ruled_out = torch.tensor([[True, False], [False, False], [False, True]])
    gbce(positive, negative.masked_fill(ruled_out, -torch.inf)).backward()
    assert negative.grad.isfinite().all()
    assert not negative.grad[ruled_out].any()


def test_no_targets_cost_nothing():
    positive = torch.empty(0, requires_grad=True)
    loss = gbce(positive, torch.empty(0, 4))
    loss.backward()
    assert loss.item() == 0


def test_the_power_goes_from_one_to_the_sampling_rate():
    assert gbce_power(25, 101, calibration=0.0) == 1.0
    assert gbce_power(25, 101, calibration=1.0) == pytest.approx(0.25)
    assert gbce_power(25, 101, calibration=0.5) == pytest.approx(0.25 * (0.5 * (1 - 4) + 4))
    assert gbce_power(100, 101, calibration=1.0) == gbce_power(500, 101, calibration=0.7) == 1.0
    assert gbce_power(1, 1, calibration=0.7) == 1.0


def test_the_calibrated_loss_is_least_at_the_true_probabilities():
    # One user, five items taken with these probabilities, two negatives of four a target: full calibration (t = 1)
    # has its minimum where sigmoid(s_i) is p_i.
    chance = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
    scores = (chance / (1 - chance)).log().requires_grad_()
    beta = gbce_power(2, 5, calibration=1.0)
    # An item is the target with p_i, and else a negative with a chance of one half.
    loss = sum(
        p * gbce(scores[i : i + 1], scores[[j for j in range(5) if j != i]].unsqueeze(0), beta=0.0) * 5 * 0.5
        + p * beta * F.softplus(-scores[i])
        for i, p in enumerate(chance)
    )
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(gradient, torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: gbce(POSITIVE, NEGATIVE, 1.5), "beta must be within"),
        (lambda: gbce_power(0, 5, 0.5), "num_negatives must be >= 1"),
        (lambda: gbce_power(1, 0, 0.5), "num_items must be >= 1"),
        (lambda: gbce_power(1, 5, 1.5), "calibration must be within"),
    ],
)
def test_values_outside_their_range_are_named(call, name):
    with pytest.raises(ArgumentError, match=name):
        call()


def test_shapes_that_only_broadcast_are_refused():
    with pytest.raises(ArgumentError, match=r"negative must have shape \[3, num_negatives\], got \[1, 2\]"):
        gbce(POSITIVE, NEGATIVE[:1])
    with pytest.raises(ArgumentError, match=r"weights must have shape \[3\], got \[1\]"):
        gbce(POSITIVE, NEGATIVE, weights=torch.ones(1))
