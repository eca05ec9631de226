from itertools import pairwise

import pytest
import torch
from torch import nn

from graphrec.errors import ArgumentError
from graphrec.layers import SelfAttentionBlock
from graphrec.layers.ops.sequences import SequenceLayout

LENGTHS = [5, 0, 1, 14, 3]
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)
TOTAL, CHANNELS = sum(LENGTHS), 6
VARIANTS = [
    {},
    {"norm": "post", "causal": False},
    {"activation": "relu", "hidden_channels": 9},
    {"num_distances": 4, "num_time_buckets": 20},
]


def make(heads=2, dtype=torch.float64, **options):
    torch.manual_seed(0)
    block = SelfAttentionBlock(CHANNELS, heads, **options)
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_(std=0.7)
    return block.to(dtype)


def data(dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(TOTAL, CHANNELS, dtype=dtype), torch.rand(TOTAL, dtype=torch.float64).mul(500).cumsum(0)


@pytest.mark.parametrize("options", VARIANTS)
def test_without_gradients_many_entries_go_through_in_parts_and_come_out_the_same(options, monkeypatch):
    block, (x, times) = make(**options), data()
    whole = block(x, OFFSETS, times)
    monkeypatch.setattr("graphrec.layers.self_attention_block.ENTRIES_AT_ONCE", 4)
    with torch.no_grad():
        torch.testing.assert_close(block(x, OFFSETS, times), whole)
    assert block(x, OFFSETS, times).requires_grad


@pytest.mark.parametrize("options", VARIANTS[:3])
def test_equals_a_transformer_layer_of_torch(options):
    block, (x, _) = make(**options), data()
    peer = nn.TransformerEncoderLayer(
        CHANNELS,
        2,
        options.get("hidden_channels", 4 * CHANNELS),
        dropout=0.0,
        activation=options.get("activation", "gelu"),
        batch_first=True,
        norm_first=block.norm == "pre",
    ).double()
    own = {
        "self_attn.in_proj": block.attention.lin_qkv,
        "self_attn.out_proj": block.attention.lin_out,
        "linear1": block.lin_in,
        "linear2": block.lin_out,
        "norm1": block.norm_attention,
        "norm2": block.norm_forward,
    }
    state = {}
    for name, module in own.items():
        separator = "_" if name.endswith("in_proj") else "."
        state |= {f"{name}{separator}{part}": value for part, value in module.state_dict().items()}
    peer.load_state_dict(state)
    out = block(x, OFFSETS)
    last = block(x, OFFSETS, last_only=True)
    for row, (start, stop) in enumerate(pairwise(OFFSETS.tolist())):
        if stop == start:
            assert not last[row].any()
            continue
        future = nn.Transformer.generate_square_subsequent_mask(stop - start, dtype=torch.float64)
        expected = peer(x[None, start:stop], src_mask=future if options.get("causal", True) else None)[0]
        torch.testing.assert_close(out[start:stop], expected)
        torch.testing.assert_close(last[row], expected[-1])


@pytest.mark.parametrize("options", VARIANTS)
def test_every_weight_gets_an_exact_gradient(options):
    block, (x, times) = make(**options), data()
    weights = tuple(block.parameters())
    for last_only in (False, True):
        call = lambda *_: block(x, OFFSETS, times, last_only=last_only)  # noqa: B023, E731
        assert torch.autograd.gradcheck(call, weights, fast_mode=True)
        block.zero_grad()
        call().square().sum().backward()
        assert min(float(weight.grad.abs().max()) for weight in weights) > 1e-9


@pytest.mark.parametrize("options", VARIANTS)
def test_a_shared_layout_gives_the_same(options):
    block, (x, times) = make(**options), data()
    layout = SequenceLayout.from_offsets(OFFSETS)
    assert torch.equal(block(x, layout, times), block(x, OFFSETS, times))
    out, alpha = block(x, layout, times, last_only=True, return_attention_weights=True)
    assert torch.equal(out, block(x, layout, times, last_only=True))
    assert alpha.shape == (TOTAL, 2)


def test_nothing_gives_nothing():
    block, nothing = make(), torch.zeros(0, CHANNELS, dtype=torch.float64)
    assert block(nothing, torch.tensor([0, 0])).shape == (0, CHANNELS)
    assert torch.equal(block(nothing, torch.tensor([0, 0]), last_only=True), torch.zeros(1, CHANNELS).double())


def test_dropout_is_for_training_alone():
    block, (x, _) = make(dropout=0.5), data()
    assert not torch.equal(block(x, OFFSETS), block(x, OFFSETS))
    assert torch.equal(block.eval()(x, OFFSETS), block(x, OFFSETS))


def test_a_state_dict_goes_round_and_a_reset_draws_anew():
    block, other = make(), SelfAttentionBlock(CHANNELS, 2).double()
    other.load_state_dict(block.state_dict())
    x, _ = data()
    assert torch.equal(block(x, OFFSETS), other(x, OFFSETS))
    other.reset_parameters()
    assert not torch.equal(block(x, OFFSETS), other(x, OFFSETS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "before"}, "norm must be one of 'pre', 'post', got 'before'"),
        ({"activation": "silu"}, "activation must be one of 'gelu', 'relu'"),
        ({"hidden_channels": -1}, "hidden_channels must be >= 0, got -1"),
        ({"heads": 4}, "heads must divide channels"),
    ],
)
def test_values_outside_their_range_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        SelfAttentionBlock(CHANNELS, **options)


def test_shapes_are_checked():
    with pytest.raises(ArgumentError, match=r"x must have shape \[total, 6\]"):
        make()(torch.zeros(3, 5), torch.tensor([0, 3]))
    with pytest.raises(ArgumentError, match="return_attention_weights needs last_only=True"):
        make()(data()[0], OFFSETS, return_attention_weights=True)
