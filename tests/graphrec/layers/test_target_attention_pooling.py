import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphrec.errors import ArgumentError
from graphrec.layers import TargetAttentionPooling

ITEMS, OFFSETS = torch.tensor([4, 1, 1, 0, 2, 5]), torch.tensor([0, 2, 2, 5, 6])  # the second user has no past
ROWS = [(0, 2), (2, 2), (2, 5), (5, 6)]


def make(normalizer="none", dtype=torch.float64):
    torch.manual_seed(0)
    pool = TargetAttentionPooling(3, 5, normalizer)
    with torch.no_grad():
        for weight in pool.parameters():
            weight.normal_()
    return pool.to(dtype)


def data(num_targets=None, dtype=torch.float64):
    torch.manual_seed(1)
    shape = (4, 3) if num_targets is None else (4, num_targets, 3)
    return torch.randn(6, 3, dtype=dtype), torch.randn(shape, dtype=dtype)


def naive(pool, x, target):
    """One user, item and target at a time: one linear map over item, product and target side by side."""
    weight = torch.cat([pool.lin_item.weight, pool.lin_product.weight, pool.lin_target.weight], dim=1)
    out = torch.zeros_like(target)
    for user, (start, stop) in enumerate(ROWS):
        if start == stop:
            continue
        scores = []
        for item in ITEMS[start:stop].tolist():
            pair = torch.cat([x[item], x[item] * target[user], target[user]])
            scores.append(pool.lin_score(F.prelu((weight @ pair + pool.lin_item.bias)[None], pool.slope))[0, 0])
        scores = torch.stack(scores)
        weights = scores.softmax(dim=0) if pool.normalizer == "softmax" else scores
        out[user] = weights @ x[ITEMS[start:stop]]
    return out


@pytest.mark.parametrize("normalizer", ["none", "softmax"])
def test_equals_a_naive_loop(normalizer):
    pool, (x, target) = make(normalizer), data()
    out, weights = pool(x, ITEMS, OFFSETS, target, return_attention_weights=True)
    torch.testing.assert_close(out, naive(pool, x, target))
    torch.testing.assert_close(torch.stack([weights[a:b] @ x[ITEMS[a:b]] for a, b in ROWS]), out)
    assert torch.equal(out[1], torch.zeros(3, dtype=torch.float64))


def test_several_targets_are_one_at_a_time():
    for normalizer in ("none", "softmax"):
        pool, (x, targets) = make(normalizer), data(num_targets=4)
        out, weights = pool(x, ITEMS, OFFSETS, targets, return_attention_weights=True)
        assert weights.shape == (6, 4)
        for number in range(4):
            one, alpha = pool(x, ITEMS, OFFSETS, targets[:, number], return_attention_weights=True)
            torch.testing.assert_close(out[:, number], one)
            torch.testing.assert_close(weights[:, number], alpha)


def test_a_dot_product_is_single_query_attention():
    """With the product alone and no hidden layer, it is torch's attention with the target as query."""
    pool = TargetAttentionPooling(3, 1, "softmax")
    x, target = data(dtype=torch.float32)
    with torch.no_grad():
        for lin in (pool.lin_item, pool.lin_target):
            nn.init.zeros_(lin.weight)
        nn.init.constant_(pool.lin_product.weight, 3**-0.5)
        nn.init.ones_(pool.lin_score.weight)
        nn.init.ones_(pool.slope)  # the identity
    valid = torch.tensor([[True, True, False], [True, False, False], [True] * 3, [True, False, False]])
    padded = torch.zeros(4, 3, 3)
    for user, (start, stop) in enumerate(ROWS):
        padded[user, : stop - start] = x[ITEMS[start:stop]]
    expected = F.scaled_dot_product_attention(target.unsqueeze(1), padded, padded, attn_mask=valid.unsqueeze(1))
    out = pool(x, ITEMS, OFFSETS, target)
    torch.testing.assert_close(out[[0, 2, 3]], expected[[0, 2, 3], 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalizer", ["none", "softmax"])
@pytest.mark.parametrize("num_targets", [None, 2])
def test_every_weight_gets_an_exact_gradient(normalizer, num_targets):
    pool, (x, target) = make(normalizer), data(num_targets)
    x.requires_grad_()
    target.requires_grad_()
    weights = tuple(pool.parameters())
    assert torch.autograd.gradcheck(lambda v, t, *_: pool(v, ITEMS, OFFSETS, t), (x, target, *weights), fast_mode=True)
    pool(x, ITEMS, OFFSETS, target).square().sum().backward()
    assert all(weight.grad.abs().sum() > 1e-9 for weight in weights)


def test_permuting_users_or_entries():
    pool, (x, target) = make(), data()
    out = pool(x, ITEMS, OFFSETS, target)
    order = [2, 3, 0, 1]
    items = torch.cat([ITEMS[slice(*ROWS[user])] for user in order])
    moved = pool(x, items, torch.tensor([0, 3, 4, 6, 6]), target[order])
    torch.testing.assert_close(moved, out[order])
    shuffled = ITEMS[[1, 0, 4, 2, 3, 5]]  # within the users
    torch.testing.assert_close(pool(x, shuffled, OFFSETS, target), out)


def test_history_and_target_matter():
    pool, (x, target) = make(), data()
    out = pool(x, ITEMS, OFFSETS, target)
    assert not torch.allclose(pool(x, ITEMS.flip(0), OFFSETS, target), out)
    assert (pool(x, ITEMS, OFFSETS, target + 1) != out)[[0, 2, 3]].any(dim=1).all()


def test_state_dict_repeats_and_nobody():
    pool, (x, target) = make(), data()
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    other = TargetAttentionPooling(3, 5).double()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x, ITEMS, OFFSETS, target), pool(x, ITEMS, OFFSETS, target))
    assert pool(x, ITEMS[:0], torch.tensor([0]), target[:0]).shape == (0, 3)


def test_compiled_it_does_the_same():
    pool, (x, target) = make("softmax"), data(2)
    compiled = torch.compile(pool, backend="aot_eager")
    torch.testing.assert_close(compiled(x, ITEMS, OFFSETS, target), pool(x, ITEMS, OFFSETS, target))


@pytest.mark.parametrize("normalizer", ["none", "softmax"])
def test_autocast_to_half_precision(normalizer):
    pool, (x, target) = make(normalizer, torch.float32), data(dtype=torch.float32)
    expected = pool(x, ITEMS, OFFSETS, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pool(x, ITEMS, OFFSETS, target)
        half.float().sum().backward()  # inside of it, as some trainers do
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(weight.grad.isfinite().all() for weight in pool.parameters())


def test_what_does_not_fit_is_refused():
    pool, (x, target) = make(), data()
    with pytest.raises(ArgumentError, match=r"x must have shape \[num_items, 3\], got \[6, 2\]"):
        pool(x[:, :2], ITEMS, OFFSETS, target)
    with pytest.raises(ArgumentError, match=r"target must have shape \[4, 3\] or \[4, num_targets, 3\], got \[3, 3\]"):
        pool(x, ITEMS, OFFSETS, target[:3])
    with pytest.raises(ArgumentError, match=r"sources must be within 0\.\.5, got"):
        pool(x, ITEMS + 1, OFFSETS, target)
    with pytest.raises(ArgumentError, match="offsets must rise from 0 to 6"):
        pool(x, ITEMS, OFFSETS[:-1], target[:3])
    with pytest.raises(ArgumentError, match="normalizer must be one of 'none', 'softmax', got 'softmx'; did you mean"):
        TargetAttentionPooling(3, normalizer="softmx")
    with pytest.raises(ArgumentError, match="hidden_channels must be >= 1, got 0"):
        TargetAttentionPooling(3, 0)


@pytest.mark.parametrize("normalizer", ["none", "softmax"])
def test_half_precision_stays(normalizer):
    pool, (x, target) = make(normalizer, torch.bfloat16), data(dtype=torch.bfloat16)
    assert pool(x, ITEMS, OFFSETS, target).dtype == torch.bfloat16
