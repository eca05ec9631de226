import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.losses import weighted_mean


def test_mean_is_weighted():
    losses = torch.tensor([1.0, 2.0, 4.0])
    assert weighted_mean(losses).item() == losses.mean().item()
    assert weighted_mean(losses, torch.tensor([1.0, 0.0, 0.5])).item() == 2.0
    # The scale of the weights means nothing.
    assert weighted_mean(losses, torch.tensor([1e-3, 0.0, 5e-4])).item() == 2.0


def test_nothing_to_average_is_zero_with_a_gradient_of_zero():
    for losses, weights in ((torch.ones(3), torch.zeros(3)), (torch.empty(0), None)):
        losses.requires_grad_()
        loss = weighted_mean(losses, weights)
        loss.backward()
        assert loss.item() == 0
        assert not losses.grad.any()


def test_weights_of_another_shape_do_not_broadcast():
    for weights in (torch.ones(1), torch.ones(3, 1), torch.ones(())):
        with pytest.raises(ArgumentError, match=r"weights must have shape \[3\], got"):
            weighted_mean(torch.ones(3), weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_beyond_its_largest_number(dtype):
    losses = torch.full((100_000,), 0.5, dtype=dtype)
    assert weighted_mean(losses).item() == 0.5
    assert weighted_mean(losses, torch.ones(100_000, dtype=dtype)).item() == 0.5
