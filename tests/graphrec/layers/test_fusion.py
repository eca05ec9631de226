"""ModalityTokens, and the three layers that make one vector of its tokens."""

import io

import pytest
import torch
from torch import nn

from graphrec.errors import ArgumentError
from graphrec.layers import ConcatFusion, CrossModalAttention, GatedFusion, ModalityTokens

ROWS, TOKENS, CHANNELS = 5, 3, 4
MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]]).bool()  # the fourth has nothing
FUSIONS = {
    "attention": lambda: CrossModalAttention(CHANNELS, heads=2),
    "gated": lambda: GatedFusion(CHANNELS),
    "concat": lambda: ConcatFusion(CHANNELS, TOKENS),
}
every_fusion = pytest.mark.parametrize("name", FUSIONS)


def filled(module, dtype=torch.float64):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_()
    return module.to(dtype)


def tokens(dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(ROWS, TOKENS, CHANNELS, dtype=dtype)


def naive(fusion, x):
    out = torch.zeros(ROWS, CHANNELS, dtype=x.dtype)
    for row in range(ROWS):
        there = MASK[row].nonzero()[:, 0]
        if not len(there):
            continue
        t = x[row, there]
        if isinstance(fusion, GatedFusion):
            out[row] = ((t @ fusion.lin_gate.weight.t()).softmax(dim=0) * t).sum(dim=0)
        elif isinstance(fusion, ConcatFusion):
            stand_in = fusion.missing.clone()
            stand_in[there] = t
            out[row] = fusion.lin(stand_in.flatten())
        else:
            parts = []
            for head in range(2):
                part = slice(2 * head, 2 * head + 2)
                query = fusion.lin_query(fusion.query)[part]
                alpha = (fusion.lin_key(t)[:, part] @ query / 2**0.5).softmax(dim=0)
                parts.append(alpha @ fusion.lin_value(t)[:, part])
            out[row] = fusion.lin_out(torch.cat(parts))
    return out


@every_fusion
def test_equals_a_naive_loop(name):
    fusion, x = filled(FUSIONS[name]()), tokens()
    torch.testing.assert_close(fusion(x, MASK), naive(fusion, x))
    torch.testing.assert_close(fusion(x[:1]), fusion(x[:1], MASK[:1]))  # no mask: all are there


@every_fusion
def test_what_is_missing_has_no_say_whatever_it_holds(name):
    fusion, x = filled(FUSIONS[name]()), tokens()
    broken = torch.where(MASK.unsqueeze(2), x, torch.nan).requires_grad_()
    out = fusion(broken, MASK)
    torch.testing.assert_close(out, fusion(x, MASK))
    assert torch.equal(out[3], torch.zeros(CHANNELS, dtype=torch.float64))
    out.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in fusion.parameters())
    assert (broken.grad[MASK] != 0).any(dim=1).all() or name == "gated"
    assert (broken.grad[~MASK] == 0).all()
    changed = x.clone()
    changed[1, 0] += 1
    assert not torch.allclose(fusion(changed, MASK)[1], out[1])


@every_fusion
def test_every_weight_gets_an_exact_gradient(name):
    fusion, x = filled(FUSIONS[name]()), tokens().requires_grad_()
    weights = tuple(fusion.parameters())
    assert torch.autograd.gradcheck(lambda v, *_: fusion(v, MASK), (x, *weights))
    fusion(x, MASK).square().sum().backward()
    assert all(weight.grad.abs().sum() > 1e-9 for weight in weights)


@every_fusion
def test_permuting_rows_permutes_the_output(name):
    fusion, x = filled(FUSIONS[name]()), tokens()
    order = torch.tensor([2, 0, 4, 1, 3])
    torch.testing.assert_close(fusion(x[order], MASK[order]), fusion(x, MASK)[order])
    if name != "concat":  # a set has no order
        torch.testing.assert_close(fusion(x.flip(1), MASK.flip(1)), fusion(x, MASK))


@every_fusion
def test_state_dict_no_rows_compile_and_autocast(name):
    fusion, x = filled(FUSIONS[name]()), tokens()
    file = io.BytesIO()
    torch.save(fusion.state_dict(), file)
    file.seek(0)
    other = FUSIONS[name]().double()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x, MASK), fusion(x, MASK))
    assert fusion(x[:0], MASK[:0]).shape == (0, CHANNELS)
    torch.testing.assert_close(torch.compile(fusion, backend="aot_eager")(x, MASK), fusion(x, MASK))
    fusion.float()
    expected = fusion(x.float(), MASK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fusion(x.float(), MASK)
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_equals_multihead_attention(heads):
    fusion, x = filled(CrossModalAttention(CHANNELS, heads, learned_query=False), torch.float32), tokens(torch.float32)
    peer = nn.MultiheadAttention(CHANNELS, heads, batch_first=True)
    bias = torch.cat([fusion.lin_query.bias, torch.randn(CHANNELS), fusion.lin_value.bias])  # a key's bias: no effect
    weight = torch.cat([fusion.lin_query.weight, fusion.lin_key.weight, fusion.lin_value.weight])
    peer.load_state_dict(
        {
            "in_proj_weight": weight,
            "in_proj_bias": bias,
            "out_proj.weight": fusion.lin_out.weight,
            "out_proj.bias": fusion.lin_out.bias,
        }
    )
    query, some = torch.randn(ROWS, CHANNELS), [0, 1, 2, 4]
    expected, alpha = peer(
        query[some].unsqueeze(1), x[some], x[some], key_padding_mask=~MASK[some], average_attn_weights=False
    )
    out, found = fusion(x, MASK, query, return_attention_weights=True)
    torch.testing.assert_close(out[some], expected[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[some], alpha[:, :, 0].transpose(1, 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.sum(dim=1), MASK.any(dim=1, keepdim=True).float().expand(-1, heads))


def test_attention_drops_in_training_alone():
    fusion, x = filled(CrossModalAttention(CHANNELS, dropout=0.5)), tokens()
    torch.manual_seed(0)
    first = fusion(x, MASK)
    torch.manual_seed(0)
    assert torch.equal(fusion(x, MASK), first)
    assert not torch.equal(fusion(x, MASK), first)
    fusion.eval()
    torch.testing.assert_close(fusion(x, MASK), filled(CrossModalAttention(CHANNELS))(x, MASK))


def test_tokens_are_projections_in_the_order_of_the_names():
    layer = filled(ModalityTokens({"graph": 4, "text": 6, "image": 2}, CHANNELS))
    graph, text = torch.randn(ROWS, 4).double(), torch.randn(ROWS, 2, 6).double()
    words = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 1], [0, 1]]).bool()
    out, mask = layer({"text": text, "graph": graph}, {"text": words})
    assert out.shape == (ROWS, 4, CHANNELS)
    torch.testing.assert_close(out[:, 0], layer.lins[0](graph))
    torch.testing.assert_close(out[:, 1:3], layer.lins[1](text) * words.unsqueeze(2))
    assert torch.equal(mask, torch.cat([torch.ones(ROWS, 1, dtype=torch.bool), words, torch.zeros(ROWS, 1).bool()], 1))
    whole = torch.tensor([True, False, True, True, True])
    assert torch.equal(layer({"text": text}, {"text": whole})[1][:, 1:3], whole.unsqueeze(1).expand(-1, 2))


def test_missing_values_do_not_reach_the_weights():
    layer = filled(ModalityTokens({"text": 6, "image": 2}, CHANNELS))
    text = torch.randn(ROWS, 6).double()
    text[1] = torch.nan
    there = ~text.isnan().any(dim=1)
    out, mask = layer({"text": text, "image": torch.randn(ROWS, 2).double()}, {"text": there})
    assert torch.equal(mask[:, 0], there)
    fused = GatedFusion(CHANNELS).double()(out, mask)
    fused.square().sum().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.abs().sum() > 0 for weight in layer.parameters())


def test_what_does_not_fit_the_fusions_is_refused():
    x = tokens(torch.float32)
    for name, make in FUSIONS.items():
        fusion = make()
        with pytest.raises(ArgumentError, match=r"tokens must have shape \[num_rows, num_tokens, 4\], got \[5, 3, 2\]"):
            fusion(x[:, :, :2], MASK)
        with pytest.raises(ArgumentError, match=r"mask must be bool \[5, 3\], got torch.float32 \[5, 3\]"):
            fusion(x, MASK.float())
        with pytest.raises(ArgumentError, match=r"mask must be bool \[5, 3\], got torch.bool \[4, 3\]"):
            fusion(x, MASK[:4])
        with pytest.raises(ArgumentError, match="channels must be >= 1, got 0"):
            {"attention": CrossModalAttention, "gated": GatedFusion, "concat": lambda c: ConcatFusion(c, 3)}[name](0)
    with pytest.raises(ArgumentError, match="tokens must hold 3 a row, got 2"):
        ConcatFusion(CHANNELS, 3)(x[:, :2])
    with pytest.raises(ArgumentError, match="a learned query takes none, got"):
        CrossModalAttention(CHANNELS)(x, MASK, torch.zeros(ROWS, CHANNELS))
    with pytest.raises(ArgumentError, match="learned_query=False needs one, got None"):
        CrossModalAttention(CHANNELS, learned_query=False)(x, MASK)
    with pytest.raises(ArgumentError, match=r"query must have shape \[5, 4\], got \[4, 4\]"):
        CrossModalAttention(CHANNELS, learned_query=False)(x, MASK, torch.zeros(4, CHANNELS))
    with pytest.raises(ArgumentError, match="heads must divide channels, got 3 heads and 4 channels"):
        CrossModalAttention(CHANNELS, heads=3)
    with pytest.raises(ArgumentError, match="dropout must be at least 0 and below 1, got -0.1"):
        CrossModalAttention(CHANNELS, dropout=-0.1)


def test_what_does_not_fit_the_tokens_is_refused():
    layer = ModalityTokens({"text": 6, "image": 2}, CHANNELS)
    text = torch.randn(ROWS, 6)
    for inputs, masks, message in (
        ({"txt": text}, None, "inputs must be named among 'text', 'image', got 'txt'"),
        ({"text": text}, {"image": MASK[:, 0]}, "masks must be named among 'text', got 'image'"),
        ({}, None, "inputs must hold at least one of 'text', 'image', got none"),
        (
            {"text": text[:, :5]},
            None,
            r"inputs\['text'\] must have shape \[5, 6\] or \[5, num_tokens, 6\], got \[5, 5\]",
        ),
        (
            {"text": text, "image": text[:4, :2]},
            None,
            r"inputs\['image'\] must have shape \[5, 2\] or .*, got \[4, 2\]",
        ),
        (
            {"text": text},
            {"text": MASK[:, 0].int()},
            r"masks\['text'\] must be bool \[5\] or \[5, 1\], got torch.int32",
        ),
        ({"text": text / 0}, None, r"inputs\['text'\] must be finite where it is there, got NaN or infinity in 5 rows"),
    ):
        with pytest.raises(ArgumentError, match=message):
            layer(inputs, masks)
    with pytest.raises(ArgumentError, match="modalities must name at least one, got none"):
        ModalityTokens({}, CHANNELS)
    with pytest.raises(ArgumentError, match=r"modalities\['text'\] must be >= 1, got 0"):
        ModalityTokens({"text": 0}, CHANNELS)
