import torch

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
