import math

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.losses import bpr

POSITIVE = torch.tensor([1.0, -0.5, 3.0], dtype=torch.float64)
NEGATIVE = torch.tensor([[0.0, 2.0], [1.0, -1.0], [-40.0, 800.0]], dtype=torch.float64)


def test_equals_naive_loops_also_for_large_differences():
    losses = [
        sum(max(n - p, 0.0) + math.log1p(math.exp(-abs(n - p))) for n in row) / len(row)
        for p, row in zip(POSITIVE.tolist(), NEGATIVE.tolist(), strict=True)
    ]
    assert bpr(POSITIVE, NEGATIVE).item() == pytest.approx(sum(losses) / 3)
    weights = torch.tensor([2.0, 0.0, 1.0])
    assert bpr(POSITIVE, NEGATIVE, weights).item() == pytest.approx((2 * losses[0] + losses[2]) / 3)


def test_one_negative_each_may_come_without_its_dimension():
    torch.testing.assert_close(bpr(POSITIVE, NEGATIVE[:, 0]), bpr(POSITIVE, NEGATIVE[:, :1]))


def test_gradients_are_exact_and_push_apart():
    positive, negative = POSITIVE.clone().requires_grad_(), NEGATIVE[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(bpr, (positive, negative))
    bpr(positive, negative).backward()
    assert (positive.grad < 0).all()
    assert (negative.grad > 0).all()


def test_no_targets_cost_nothing():
    positive = torch.empty(0, requires_grad=True)
    loss = bpr(positive, torch.empty(0, 4))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("positive", "negative", "message"),
    [
        ((3,), (1, 3), r"negative must have shape \[3, num_negatives\], got \[1, 3\]"),
        ((3,), (2,), r"negative must have shape \[3, num_negatives\], got \[2, 1\]"),
        ((3, 1), (3, 1), r"positive must have shape \[3\], got \[3, 1\]"),
        ((3,), (3, 0), "number of negatives must be >= 1, got 0"),
    ],
)
def test_shapes_that_do_not_fit_are_named(positive, negative, message):
    with pytest.raises(ArgumentError, match=message):
        bpr(torch.zeros(positive), torch.zeros(negative))
