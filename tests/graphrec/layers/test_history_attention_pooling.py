import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.layers import HistoryAttentionPooling

ITEMS, OFFSETS = torch.tensor([4, 1, 1, 0, 2]), torch.tensor([0, 2, 2, 5])  # the second user has no past


def make(heads):
    torch.manual_seed(0)
    pool = HistoryAttentionPooling(3, heads).double()
    torch.nn.init.normal_(pool.att)
    return pool


@pytest.mark.parametrize("heads", [1, 2])
def test_equals_a_naive_loop(heads):
    pool = make(heads)
    x, bias = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    out, alpha = pool(x, ITEMS, OFFSETS, bias, return_attention_weights=True)
    for user, (start, end) in enumerate([(0, 2), (2, 2), (2, 5)]):
        items = ITEMS[start:end]
        weights = (x[items] @ pool.att.t() + bias[items, None]).softmax(dim=0)
        torch.testing.assert_close(alpha[start:end], weights)
        torch.testing.assert_close(out[user], (weights.t() @ x[items]).flatten())


def test_one_head_starts_as_the_mean():
    x = torch.randn(6, 3)
    torch.testing.assert_close(HistoryAttentionPooling(3)(x, ITEMS, OFFSETS)[0], x[[4, 1]].mean(dim=0))


def test_gradients_are_exact():
    pool, x = make(2), torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, a: pool(v, ITEMS, OFFSETS), (x, pool.att))


def test_what_does_not_fit_is_refused():
    pool, x = make(1), torch.randn(6, 3, dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"x must have shape \[num_items, 3\]"):
        pool(x[:, :2], ITEMS, OFFSETS)
    with pytest.raises(ArgumentError, match=r"bias must have shape \[6\]"):
        pool(x, ITEMS, OFFSETS, torch.zeros(5, dtype=torch.float64))
    with pytest.raises(ArgumentError, match=r"sources must be within 0\.\.5, got"):
        pool(x, ITEMS + 4, OFFSETS)
