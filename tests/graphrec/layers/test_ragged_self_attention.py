import copy
import io
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphrec.errors import ArgumentError
from graphrec.layers import RaggedSelfAttention
from graphrec.layers.ops.sequences import SequenceLayout

LENGTHS = [5, 0, 1, 14, 3, 13, 1]  # an empty one, two with a single entry, and buckets that are not full
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)
TOTAL, CHANNELS = sum(LENGTHS), 6
BIASES = {"num_distances": 4, "num_time_buckets": 20}
VARIANTS = [
    {},
    {"causal": False},
    {"bias": False},
    {"num_distances": 4},
    {"causal": False, **BIASES},
    BIASES,
    {"activation": "silu", **BIASES},
    {"activation": "silu", "causal": False},
]


def make(dtype=torch.float64, heads=2, **options):
    torch.manual_seed(0)
    layer = RaggedSelfAttention(CHANNELS, heads, **options)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(std=0.7)
    return layer.to(dtype)


def data(dtype=torch.float64):
    torch.manual_seed(1)
    x = torch.randn(TOTAL, CHANNELS, dtype=dtype)
    times = torch.rand(TOTAL, dtype=torch.float64).mul(500).cumsum(0) + 1e9
    return x, times, times + 30


def rows():
    return [(b, start, stop) for b, (start, stop) in enumerate(pairwise(OFFSETS.tolist())) if stop > start]


def naive(layer, x, times, query_times):
    """Each sequence by itself, with all its pairs."""
    out = torch.zeros_like(x)
    for _, start, stop in rows():
        length = stop - start
        query, key, value = layer.lin_qkv(x[start:stop]).view(length, 3, layer.heads, -1).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2) / query.size(2) ** 0.5
        place = torch.arange(length)
        away = place.unsqueeze(1) - place
        if layer.position_bias is not None:
            index = away.clamp(0, 3) if layer.causal else away.clamp(-3, 3) + 3
            scores = scores + layer.position_bias[index].permute(2, 0, 1)
        if layer.time_bias is not None:
            interval = (query_times[start:stop, None] - times[None, start:stop]).abs().clamp(min=1)
            bucket = (interval.log() / 0.301).floor().long().clamp(max=19)
            scores = scores + layer.time_bias[bucket].permute(2, 0, 1)
        seen = away >= 0 if layer.causal else torch.ones_like(away, dtype=torch.bool)
        if layer.activation == "softmax":
            weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=2)
        else:
            weights = F.silu(scores) * seen / seen.sum(dim=1, keepdim=True)
        out[start:stop] = layer.lin_out((weights @ value).transpose(0, 1).flatten(1))
    return out


@pytest.mark.parametrize("options", VARIANTS)
def test_equals_a_naive_loop(options):
    layer, (x, times, query_times) = make(**options), data()
    expected = naive(layer, x, times, query_times)
    torch.testing.assert_close(layer(x, OFFSETS, times, query_times), expected)
    last = layer(x, OFFSETS, times, query_times, last_only=True)
    for row, _, stop in rows():
        torch.testing.assert_close(last[row], expected[stop - 1])
    assert torch.equal(last[1], torch.zeros(CHANNELS, dtype=torch.float64))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_equals_padded_multihead_attention(causal, heads):
    layer, x = make(torch.float32, heads, causal=causal), data(torch.float32)[0]
    peer = nn.MultiheadAttention(CHANNELS, heads, batch_first=True)
    peer.load_state_dict(
        {
            "in_proj_weight": layer.lin_qkv.weight,
            "in_proj_bias": layer.lin_qkv.bias,
            "out_proj.weight": layer.lin_out.weight,
            "out_proj.bias": layer.lin_out.bias,
        }
    )
    valid = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    padded = torch.zeros(*valid.shape, CHANNELS)
    padded[valid] = x
    future = torch.ones(max(LENGTHS), max(LENGTHS), dtype=torch.bool).triu_(1) if causal else None
    expected = peer(padded, padded, padded, key_padding_mask=~valid, attn_mask=future, need_weights=False)[0]
    torch.testing.assert_close(layer(x, OFFSETS), expected[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", VARIANTS)
def test_every_weight_gets_an_exact_gradient(options):
    layer, (x, times, query_times) = make(**options), data()
    x.requires_grad_()
    weights = tuple(layer.parameters())
    for last_only in (False, True):
        call = lambda *_: layer(x, OFFSETS, times, query_times, last_only)  # noqa: B023, E731
        assert torch.autograd.gradcheck(call, (x, *weights), fast_mode=True)
        layer.zero_grad()
        call().square().sum().backward()
        # A softmax does not notice what all its scores have in common.
        found = {name: float(weight.grad.abs().max()) for name, weight in layer.named_parameters()}
        assert min(found.values()) > 1e-9, found


def test_permuting_sequences_permutes_the_output():
    layer, (x, times, _) = make(**BIASES), data()
    order = [3, 6, 0, 1, 5, 2, 4]
    entries = torch.cat([torch.arange(OFFSETS[b], OFFSETS[b + 1]) for b in order])
    offsets = torch.tensor([0, *(LENGTHS[b] for b in order)]).cumsum(0)
    moved = layer(x[entries], offsets, times[entries])
    torch.testing.assert_close(moved, layer(x, OFFSETS, times)[entries])
    last = layer(x[entries], offsets, times[entries], last_only=True)
    torch.testing.assert_close(last, layer(x, OFFSETS, times, last_only=True)[order])


@pytest.mark.parametrize("options", [{}, BIASES, {"activation": "silu"}])
def test_causal_attention_does_not_look_ahead(options):
    layer, (x, times, _) = make(**options), data()
    out = layer(x, OFFSETS, times)
    changed = x.clone()
    changed[OFFSETS[3] + 7] += 1  # within the sequence of fourteen
    same = torch.ones(TOTAL, dtype=torch.bool)
    same[OFFSETS[3] + 7 : OFFSETS[4]] = False
    again = layer(changed, OFFSETS, times)
    torch.testing.assert_close(again[same], out[same])
    assert (again[~same] != out[~same]).any(dim=1).all()
    assert (make(causal=False)(changed, OFFSETS) != make(causal=False)(x, OFFSETS)).any(dim=1).sum() == 14


def test_times_and_places_matter():
    layer, (x, times, query_times) = make(**BIASES), data()
    out = layer(x, OFFSETS, times)
    assert not torch.allclose(layer(x, OFFSETS, times * 3), out)
    assert not torch.allclose(layer(x, OFFSETS, times, query_times), out)
    torch.testing.assert_close(layer(x, OFFSETS, times, times), out)
    plain = make(num_distances=4)
    swapped = x[[1, 0, *range(2, TOTAL)]]
    assert not torch.allclose(plain(swapped, OFFSETS)[2], plain(x, OFFSETS)[2])


@pytest.mark.parametrize("options", VARIANTS)
def test_attention_of_the_last_entries_comes_in_the_order_of_the_entries(options):
    layer, (x, times, _) = make(**options), data()
    out, alpha = layer(x, OFFSETS, times, last_only=True, return_attention_weights=True)
    assert alpha.shape == (TOTAL, 2)
    for row, start, stop in rows():
        weights = alpha[start:stop]
        if layer.activation == "softmax":
            torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, dtype=torch.float64))
        value = layer.lin_qkv(x[start:stop]).view(-1, 3, 2, 3)[:, 2]
        torch.testing.assert_close(out[row], layer.lin_out(torch.einsum("lh,lhd->hd", weights, value).flatten()))


def test_dropout_drops_in_training_alone_and_repeats_with_the_seed():
    layer, (x, _, _) = make(dropout=0.5), data()
    outs = []
    for _ in range(2):
        torch.manual_seed(5)
        outs.append((layer(x, OFFSETS), layer(x, OFFSETS, last_only=True)))
    for first, second in zip(*outs, strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(layer(x, OFFSETS), outs[0][0])
    layer.eval()
    torch.testing.assert_close(layer(x, OFFSETS), make()(x, OFFSETS))
    mean = torch.stack([layer.train()(x, OFFSETS) for _ in range(500)]).mean(dim=0)
    torch.testing.assert_close(mean, make()(x, OFFSETS), atol=0.9, rtol=0)


def test_layers_share_a_layout_and_repeat_themselves():
    layer, (x, times, _) = make(**BIASES), data()
    layout = SequenceLayout.from_offsets(OFFSETS)
    out = layer(x, layout, times)
    assert torch.equal(out, layer(x, OFFSETS, times))
    assert torch.equal(layer(x, layout, times, last_only=True), layer(x, OFFSETS, times, last_only=True))


@pytest.mark.parametrize("options", VARIANTS)
def test_nobody_and_only_empty_sequences(options):
    layer = make(**options)
    for offsets in (torch.tensor([0]), torch.tensor([0, 0, 0])):
        nothing, none = torch.zeros(0, CHANNELS, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        assert layer(nothing, offsets, none).shape == (0, CHANNELS)
        out, alpha = layer(nothing, offsets, none, last_only=True, return_attention_weights=True)
        assert torch.equal(out, torch.zeros(len(offsets) - 1, CHANNELS, dtype=torch.float64))
        assert alpha.shape == (0, 2)


def test_state_dict_and_copies():
    layer, (x, times, _) = make(**BIASES), data()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = RaggedSelfAttention(CHANNELS, 2, **BIASES).double()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x, OFFSETS, times), layer(x, OFFSETS, times))
    assert torch.equal(copy.deepcopy(layer)(x, OFFSETS, times), layer(x, OFFSETS, times))
    torch.manual_seed(3)
    layer.reset_parameters()
    assert not torch.equal(layer.lin_qkv.weight, other.lin_qkv.weight)
    assert layer.time_bias.abs().sum() == 0


@pytest.mark.parametrize("options", [{}, BIASES])
def test_compiled_it_does_the_same(options):
    layer, (x, times, _) = make(**options), data()
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(x, OFFSETS, times), layer(x, OFFSETS, times))
    torch.testing.assert_close(compiled(x, OFFSETS, times, None, True), layer(x, OFFSETS, times, None, True))
    compiled(x, OFFSETS, times).square().sum().backward()
    found = layer.lin_qkv.weight.grad.clone()
    layer.zero_grad()
    layer(x, OFFSETS, times).square().sum().backward()
    torch.testing.assert_close(found, layer.lin_qkv.weight.grad)


@pytest.mark.parametrize("options", VARIANTS)
def test_autocast_to_half_precision(options):
    layer, (x, times, _) = make(torch.float32, **options), data(torch.float32)
    for last_only in (False, True):
        expected = layer(x, OFFSETS, times, None, last_only)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = layer(x, OFFSETS, times, None, last_only)
        assert half.dtype == torch.bfloat16
        assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()
        half.float().square().sum().backward()
        assert all(weight.grad.isfinite().all() for weight in layer.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x, OFFSETS, times).float().square().sum().backward()  # inside of it, as some trainers do
    assert all(weight.grad.isfinite().all() for weight in layer.parameters())


@pytest.mark.parametrize("options", VARIANTS)
def test_weights_in_half_precision_are_close(options):
    layer, (x, times, _) = make(torch.float32, **options), data(torch.float32)
    expected = [layer(x, OFFSETS, times, None, last_only) for last_only in (False, True)]
    layer.bfloat16()
    for last_only in (False, True):
        half = layer(x.bfloat16(), OFFSETS, times, None, last_only)
        assert half.dtype == torch.bfloat16
        assert (half.float() - expected[last_only]).abs().max() < 0.05 * expected[last_only].abs().max()
        half.float().square().sum().backward()
        assert all(weight.grad.isfinite().all() for weight in layer.parameters())


def test_what_does_not_fit_is_refused():
    layer, (x, times, _) = make(**BIASES), data()
    with pytest.raises(ArgumentError, match=r"x must have shape \[total, 6\], got \[37, 5\]"):
        layer(x[:, :5], OFFSETS, times)
    with pytest.raises(ArgumentError, match=r"offsets must rise from 0 to 36, got 0\.\.37"):
        layer(x[:36], OFFSETS, times[:36])
    with pytest.raises(ArgumentError, match="the sequence layout is for 37 entries, x has 36"):
        layer(x[:36], SequenceLayout.from_offsets(OFFSETS), times[:36])
    with pytest.raises(ArgumentError, match=r"num_time_buckets=20 needs times \[37\], got None"):
        layer(x, OFFSETS)
    with pytest.raises(ArgumentError, match=r"query_times must have shape \[37\], got \[36\]"):
        layer(x, OFFSETS, times, times[1:])
    with pytest.raises(ArgumentError, match="times must be finite, got nan at entry 2"):
        layer(x, OFFSETS, torch.where(torch.arange(TOTAL) == 2, torch.nan, times))
    with pytest.raises(ArgumentError, match="return_attention_weights needs last_only=True"):
        layer(x, OFFSETS, times, return_attention_weights=True)
    for options, message in (
        ({"channels": 0}, "channels must be >= 1, got 0"),
        ({"heads": 4}, "heads must divide channels, got 4 heads and 6 channels"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"num_distances": -1}, "num_distances must be >= 0, got -1"),
        ({"num_time_buckets": -1}, "num_time_buckets must be >= 0, got -1"),
        ({"activation": "relu"}, "activation must be one of 'softmax', 'silu', got 'relu'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            RaggedSelfAttention(**{"channels": 6, **options})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", VARIANTS)
def test_a_gpu_agrees(options):
    layer, (x, times, _) = make(torch.float32, **options), data(torch.float32)
    expected = [layer(x, OFFSETS, times), layer(x, OFFSETS, times, last_only=True)]
    layer.cuda()
    there = x.cuda(), OFFSETS.cuda(), times.cuda()
    for out, here in zip([layer(*there), layer(*there, last_only=True)], expected, strict=True):
        torch.testing.assert_close(out.cpu(), here, atol=1e-4, rtol=1e-4)
