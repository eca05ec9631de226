import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.layers import HistorySelfAttention

LENGTHS = [5, 0, 1, 14, 3]
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)
TOTAL, CHANNELS = sum(LENGTHS), 6
VARIANTS = [
    {"num_positions": 4},
    {"norm": "post", "causal": False},
    {"num_distances": 4, "num_time_buckets": 20, "num_blocks": 1},
]


def make(**options):
    torch.manual_seed(0)
    encoder = HistorySelfAttention(CHANNELS, heads=2, **{"num_blocks": 2, **options})
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(std=0.7)
    return encoder.double()


def data():
    torch.manual_seed(1)
    return torch.randn(TOTAL, CHANNELS, dtype=torch.float64), torch.rand(TOTAL, dtype=torch.float64).mul(500).cumsum(0)


@pytest.mark.parametrize("options", VARIANTS)
def test_it_is_its_blocks_one_after_the_other(options):
    encoder, (x, times) = make(**options), data()
    expected = x
    if encoder.position is not None:
        place = torch.cat([torch.arange(length).flip(0) for length in LENGTHS]).clamp(max=3)
        expected = expected + encoder.position[place]
    for block in encoder.blocks:
        expected = block(expected, OFFSETS, times)
    if encoder.norm is not None:
        expected = encoder.norm(expected)
    torch.testing.assert_close(encoder(x, OFFSETS, times), expected)
    last = encoder(x, OFFSETS, times, last_only=True)
    filled = torch.tensor(LENGTHS) > 0
    torch.testing.assert_close(last[filled], expected[OFFSETS[1:][filled] - 1])
    assert not last[~filled].any()


@pytest.mark.parametrize("options", VARIANTS)
def test_every_weight_gets_a_gradient(options):
    encoder, (x, times) = make(**options), data()
    encoder(x, OFFSETS, times).square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in encoder.parameters())


@pytest.mark.parametrize("options", VARIANTS)
def test_attention_of_the_last_block_sums_to_one(options):
    encoder, (x, times) = make(**options), data()
    out, alpha = encoder(x, OFFSETS, times, last_only=True, return_attention_weights=True)
    assert torch.equal(out, encoder(x, OFFSETS, times, last_only=True))
    sums = torch.zeros(5, 2, dtype=alpha.dtype).index_add(
        0, torch.repeat_interleave(torch.arange(5), torch.tensor(LENGTHS)), alpha
    )
    torch.testing.assert_close(sums, (torch.tensor(LENGTHS) > 0).double().unsqueeze(1).expand(5, 2))


def test_nothing_gives_nothing():
    nothing = torch.zeros(0, CHANNELS, dtype=torch.float64)
    assert make(num_positions=3)(nothing, torch.tensor([0, 0])).shape == (0, CHANNELS)
    assert not make(num_positions=3)(nothing, torch.tensor([0, 0]), last_only=True).any()


def test_reset_draws_anew_and_dropout_is_for_training_alone():
    encoder, (x, _) = make(dropout=0.5), data()
    assert not torch.equal(encoder(x, OFFSETS), encoder(x, OFFSETS))
    before = encoder.eval()(x, OFFSETS)
    assert torch.equal(before, encoder(x, OFFSETS))
    encoder.reset_parameters()
    assert not torch.equal(before, encoder(x, OFFSETS))


def test_values_and_shapes_are_checked():
    with pytest.raises(ArgumentError, match="num_blocks must be >= 1, got 0"):
        HistorySelfAttention(CHANNELS, num_blocks=0)
    with pytest.raises(ArgumentError, match="num_positions must be >= 0, got -1"):
        HistorySelfAttention(CHANNELS, num_positions=-1)
    with pytest.raises(ArgumentError, match=r"x must have shape \[total, 6\], got \[3, 5\]"):
        make()(torch.zeros(3, 5), torch.tensor([0, 3]))
