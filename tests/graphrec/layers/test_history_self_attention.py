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
    encoder = HistorySelfAttention(CHANNELS, **{"num_blocks": 2, "heads": 2, **options})
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


def without(x, times, entry):
    left = torch.arange(len(x)) != entry
    return x[left], torch.tensor([0, len(x) - 1]), times[left]


@pytest.mark.parametrize("length", [1, 2, 3, 40])
@pytest.mark.parametrize("num_blocks", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_positions": 4},
        {"num_distances": 4, "heads": 1},
        {"num_distances": 50, "num_positions": 50, "num_time_buckets": 20},
        {"num_time_buckets": 20, "norm": "post", "activation": "relu"},
        {"causal": False, "num_positions": 4, "num_distances": 4},
    ],
    ids=str,
)
def test_the_last_state_without_each_entry_is_that_of_the_history_without_it(options, num_blocks, length):
    encoder = make(**options, num_blocks=num_blocks).float().eval()
    torch.manual_seed(2)
    x, times = torch.randn(length, CHANNELS), torch.rand(length, dtype=torch.float64).mul(900).cumsum(0)
    times[length // 2 :] = times[length // 2]
    found = encoder.last_without_each(x, times)
    wanted = [encoder(*without(x, times, entry), last_only=True) for entry in range(length)]
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-5, rtol=1e-5)
    # An entry may be another once the one before it is gone.
    closer = torch.randn(length, CHANNELS)
    found = encoder.last_without_each(x, times, closer)
    for entry in range(length):
        changed = torch.cat([x[: entry + 1], closer[entry + 1 : entry + 2], x[entry + 2 :]])
        wanted = encoder(*without(changed, times, entry), last_only=True)[0]
        torch.testing.assert_close(found[entry], wanted, atol=1e-5, rtol=1e-5)


def test_an_entry_that_holds_all_of_the_attention_can_be_left_out():
    """What is left is added up by itself: of a sum less nearly all of it, little would be true."""
    encoder = make(num_distances=4).float().eval()
    with torch.no_grad():
        for block in encoder.blocks:
            block.attention.lin_qkv.weight.mul_(40.0)
    torch.manual_seed(2)
    x, times = torch.randn(30, CHANNELS), torch.zeros(30, dtype=torch.float64)
    wanted = [encoder(*without(x, times, entry), last_only=True) for entry in range(30)]
    torch.testing.assert_close(encoder.last_without_each(x, times), torch.cat(wanted), atol=1e-4, rtol=1e-4)


def test_what_leaves_entries_out_is_checked():
    encoder = make(num_time_buckets=20)
    with pytest.raises(ArgumentError, match="last_without_each needs evaluation mode, got training mode"):
        encoder.last_without_each(torch.zeros(3, CHANNELS, dtype=torch.float64))
    with pytest.raises(ArgumentError, match=r"x must have shape \[length, 6\], got \[3, 5\]"):
        encoder.eval().last_without_each(torch.zeros(3, 5, dtype=torch.float64))
    with pytest.raises(ArgumentError, match=r"num_time_buckets=20 needs times \[2\], got None"):
        encoder.last_without_each(torch.zeros(3, CHANNELS, dtype=torch.float64))
    x, times = torch.zeros(3, CHANNELS, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"closer must have shape \[3, 6\], got \[2, 6\]"):
        encoder.last_without_each(x, times, x[:2])
    assert encoder.last_without_each(torch.zeros(0, CHANNELS, dtype=torch.float64)).shape == (0, CHANNELS)
