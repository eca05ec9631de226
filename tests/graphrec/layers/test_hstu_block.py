from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from graphrec.errors import ArgumentError
from graphrec.layers import HSTUBlock
from graphrec.layers.ops.sequences import SequenceLayout

LENGTHS = [5, 0, 1, 14, 3]
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)
TOTAL, CHANNELS, HEADS = sum(LENGTHS), 6, 2
BIASES = {"num_distances": 4, "num_time_buckets": 20}


def make(dtype=torch.float64, **options):
    torch.manual_seed(0)
    block = HSTUBlock(CHANNELS, HEADS, **options)
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_(std=0.7)
    return block.to(dtype)


def data(dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(TOTAL, CHANNELS, dtype=dtype), torch.rand(TOTAL, dtype=torch.float64).mul(500).cumsum(0)


def naive(block, x, times, query_times):
    """Entry by entry, as the paper writes it."""
    out = torch.zeros_like(x)
    for start, stop in pairwise(OFFSETS.tolist()):
        parts = F.silu(block.lin_in(block.norm_in(x[start:stop])))
        u, q, k, v = (part.view(-1, HEADS, CHANNELS // HEADS) for part in parts.chunk(4, dim=1))
        for i in range(stop - start):
            found = torch.zeros(HEADS, CHANNELS // HEADS, dtype=x.dtype)
            for j in range(i + 1):
                score = (q[i] * k[j]).sum(dim=1) / (CHANNELS // HEADS) ** 0.5
                if block.position_bias is not None:
                    score = score + block.position_bias[min(i - j, 3)]
                if block.time_bias is not None:
                    interval = max(float(query_times[start + i] - times[start + j]), 1.0)
                    score = score + block.time_bias[min(int(torch.tensor(interval).log() / 0.301), 19)]
                found = found + (F.silu(score) / (i + 1)).unsqueeze(1) * v[j]
            out[start + i] = x[start + i] + block.lin_out(block.norm_out(found.flatten()) * u[i].flatten())
    return out


@pytest.mark.parametrize("options", [{}, BIASES])
def test_equals_a_naive_loop(options):
    block, (x, times) = make(**options), data()
    torch.testing.assert_close(block(x, OFFSETS, times), naive(block, x, times, times))
    torch.testing.assert_close(block(x, OFFSETS, times, times + 900), naive(block, x, times, times + 900))
    assert torch.equal(block(x, SequenceLayout.from_offsets(OFFSETS), times), block(x, OFFSETS, times))


@pytest.mark.parametrize("options", [{}, BIASES])
def test_every_weight_gets_an_exact_gradient(options):
    block, (x, times) = make(**options), data()
    x.requires_grad_()
    weights = tuple(block.parameters())
    call = lambda *_: block(x, OFFSETS, times)  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, *weights), fast_mode=True)
    call().square().sum().backward()
    assert min(float(weight.grad.abs().max()) for weight in weights) > 1e-9


def test_it_does_not_look_ahead_nor_at_neighbours():
    block, (x, times) = make(**BIASES), data()
    out = block(x, OFFSETS, times)
    changed = x.clone()
    changed[OFFSETS[3] + 7, 0] += 1  # within the sequence of fourteen
    same = torch.ones(TOTAL, dtype=torch.bool)
    same[OFFSETS[3] + 7 : OFFSETS[4]] = False
    again = block(changed, OFFSETS, times)
    torch.testing.assert_close(again[same], out[same])
    assert (again[~same] != out[~same]).any(dim=1).all()
    assert not torch.allclose(block(x, OFFSETS, times * 3), out)


def test_dropout_is_for_training_alone():
    block, (x, _) = make(dropout=0.5), data()
    assert not torch.equal(block(x, OFFSETS), block(x, OFFSETS))
    torch.testing.assert_close(block.eval()(x, OFFSETS), make()(x, OFFSETS))


def test_nothing_gives_nothing():
    assert make()(torch.zeros(0, CHANNELS, dtype=torch.float64), torch.tensor([0, 0])).shape == (0, CHANNELS)


def test_a_state_dict_goes_round_and_a_reset_draws_anew():
    block, other = make(**BIASES), HSTUBlock(CHANNELS, HEADS, **BIASES).double()
    other.load_state_dict(block.state_dict())
    x, times = data()
    assert torch.equal(block(x, OFFSETS, times), other(x, OFFSETS, times))
    other.reset_parameters()
    assert not torch.equal(block(x, OFFSETS, times), other(x, OFFSETS, times))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4}, "heads must divide channels, got 4 heads and 6 channels"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"num_distances": -1}, "num_distances must be >= 0"),
        ({"num_time_buckets": -1}, "num_time_buckets must be >= 0"),
    ],
)
def test_values_outside_their_range_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        HSTUBlock(CHANNELS, **options)


def test_shapes_and_times_are_checked():
    x, times = data()
    with pytest.raises(ArgumentError, match=r"x must have shape \[total, 6\]"):
        make()(torch.zeros(3, 5), torch.tensor([0, 3]))
    with pytest.raises(ArgumentError, match=r"num_time_buckets=20 needs times \[23\], got None"):
        make(**BIASES)(x, OFFSETS)
    with pytest.raises(ArgumentError, match=r"times must have shape \[23\], got \[2\]"):
        make(**BIASES)(x, OFFSETS, times[:2])
    with pytest.raises(ArgumentError, match=r"query_times must have shape \[23\], got \[2\]"):
        make(**BIASES)(x, OFFSETS, times, times[:2])
    times[4] = torch.nan
    with pytest.raises(ArgumentError, match="times must be finite, got nan at entry 4"):
        make(**BIASES)(x, OFFSETS, times)
