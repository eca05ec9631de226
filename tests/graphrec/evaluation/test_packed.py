import numpy as np
import pytest
import torch

from graphrec.evaluation import packed as packed_module
from graphrec.evaluation.packed import GROUP, PackedItems
from graphrec.layers.ops.compiled.build import library

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler")
NOTHING = np.empty(0, dtype=np.int64)


def vectors(num_items, dim, num_users, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Channels of very different size: each has a step of its own.
    size = torch.rand(dim, generator=generator) * 100
    return torch.randn(num_items, dim, generator=generator) * size, torch.randn(num_users, dim, generator=generator)


@pytest.mark.parametrize("dim", [1, 9, 64])
@pytest.mark.parametrize("num_users", [*range(1, 10), 17])
@pytest.mark.parametrize("num_items", [1, 16, 50, 16 * 300 + 5])  # less than a block of groups, and several
def test_maxima_are_those_of_the_scores_but_for_the_error_it_names(num_items, num_users, dim):
    items, users = vectors(num_items, dim, num_users)
    bias = torch.linspace(-3, 3, num_items)
    packed = PackedItems(items, bias)
    found = packed.maxima(users, np.zeros(num_users + 1, dtype=np.int64), NOTHING)
    scores = users.double() @ items.double().t() + bias
    padded = torch.nn.functional.pad(scores, (0, -num_items % GROUP), value=-torch.inf)
    exact = padded.view(num_users, -1, GROUP).amax(dim=2)
    assert ((found - exact).abs() <= packed.error(users).unsqueeze(1) + 1e-5 * exact.abs() + 1e-3).all()
    assert (packed.error(users) < 0.01 * users.norm(dim=1) * items.norm(dim=1).max()).all()


def test_what_is_hidden_does_not_count():
    items, users = vectors(16 * 200, 8, 11)
    scores = users @ items.t()
    rng = np.random.default_rng(0)
    hidden = [np.sort(rng.choice(len(items), size, replace=False)) for size in rng.integers(0, 600, len(users))]
    hidden[3], hidden[4] = NOTHING, np.arange(len(items))  # nobody's, everybody's
    hidden[5] = np.repeat(hidden[5], 2)  # twice
    for row, own in enumerate(hidden):
        scores[row, own] = -torch.inf
    offsets = np.cumsum([0, *map(len, hidden)])
    found = PackedItems(items).maxima(users, offsets, np.concatenate(hidden))
    exact = scores.view(len(users), -1, GROUP).amax(dim=2)
    assert torch.equal(found.isinf(), exact.isinf())
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0.05)


def test_a_channel_of_zeros_is_no_division_by_zero():
    items = torch.zeros(20, 3)
    items[:, 1] = torch.arange(20.0)
    found = PackedItems(items).maxima(torch.ones(1, 3), np.zeros(2, dtype=np.int64), NOTHING)
    torch.testing.assert_close(found, torch.tensor([[15.0, 19.0]]), rtol=1e-4, atol=0.0)
    alone = PackedItems(items[:, 1:2])
    assert torch.equal(PackedItems(items).error(torch.ones(1, 3)), alone.error(torch.ones(1, 1)))  # nor in doubt


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_not_packed(value):
    items, bias = torch.ones(20, 3), torch.ones(20)
    assert PackedItems.of(items, bias) is not None
    items[3, 1] = value
    assert PackedItems.of(items, None) is None
    bias[0] = value
    assert PackedItems.of(torch.ones(20, 3), bias) is None


def test_without_a_compiler_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(packed_module, "library", lambda: None)
    assert PackedItems.of(torch.ones(20, 3), None) is None
