import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.layers import HistoryAttentionPooling
from graphrec.layers.ops import segment_softmax
from graphrec.layers.ops.segments import segment_entmax15, segment_sparsemax, segment_topk_softmax

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
    falling = OFFSETS.clone()
    falling[1] = len(ITEMS)
    message = rf"offsets must rise from 0 to {len(ITEMS)}, got 0\.\.{len(ITEMS)}, with {len(ITEMS)} and then \d+ at 1"
    with pytest.raises(ArgumentError, match=message):
        pool(x, ITEMS, falling)


ADAPTED = [{"normalizer": "entmax15"}, {"normalizer": "sparsemax"}, {"normalizer": "topk", "k": 2}]


@pytest.mark.parametrize("options", [*ADAPTED, {"temperature": "head"}, {**ADAPTED[0], "temperature": "length"}])
def test_adaptive_attention_equals_a_naive_loop_and_every_weight_learns(options):
    torch.manual_seed(0)
    pool = HistoryAttentionPooling(3, 2, **options).double()
    with torch.no_grad():
        for weight in pool.parameters():
            weight.normal_()
    x, bias = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), torch.randn(6, dtype=torch.float64)
    out, alpha = pool(x, ITEMS, OFFSETS, bias, return_attention_weights=True)
    normalise = {
        "softmax": segment_softmax,
        "entmax15": segment_entmax15,
        "sparsemax": segment_sparsemax,
        "topk": lambda scores, offsets: segment_topk_softmax(scores, offsets, 2),
    }[pool.normalizer]
    for user, (start, end) in enumerate([(0, 2), (2, 2), (2, 5)]):
        items, length = ITEMS[start:end], end - start
        scores = x[items] @ pool.att.t() + bias[items, None]
        if pool.log_temperature is not None:
            scores = scores / pool.log_temperature.exp()
        if pool.length_power is not None and length:
            scores = scores / length**pool.length_power
        weights = normalise(scores, torch.tensor([0, length]))
        torch.testing.assert_close(alpha[start:end], weights)
        torch.testing.assert_close(out[user], (weights.t() @ x[items]).flatten())
    assert torch.autograd.gradcheck(lambda v, *_: pool(v, ITEMS, OFFSETS, bias), (x, *pool.parameters()))
    out.square().sum().backward()
    assert all(weight.grad.abs().sum() > 1e-9 for weight in pool.parameters())


@pytest.mark.parametrize("options", [{}, *ADAPTED, {"temperature": "length"}])
def test_compiled_and_under_autocast_it_does_the_same(options):
    torch.manual_seed(0)
    pool, x = HistoryAttentionPooling(3, 2, **options), torch.randn(6, 3)
    expected = pool(x, ITEMS, OFFSETS)
    torch.testing.assert_close(torch.compile(pool, backend="aot_eager")(x, ITEMS, OFFSETS), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pool(x, ITEMS, OFFSETS)
        half.float().square().sum().backward()  # inside of it, as some trainers do
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert pool.att.grad.isfinite().all()


def test_what_adapts_starts_as_plain_attention_and_is_checked():
    x = torch.randn(6, 3)
    torch.manual_seed(0)
    plain = HistoryAttentionPooling(3, 2)
    adapted = HistoryAttentionPooling(3, 2, temperature="length")
    adapted.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(adapted(x, ITEMS, OFFSETS), plain(x, ITEMS, OFFSETS))
    with pytest.raises(ArgumentError, match="normalizer must be one of .*, got 'entmax'; did you mean 'entmax15'"):
        HistoryAttentionPooling(3, normalizer="entmax")
    with pytest.raises(ArgumentError, match="temperature must be one of 'fixed', 'head', 'length', got 'user'"):
        HistoryAttentionPooling(3, temperature="user")
    with pytest.raises(ArgumentError, match="k must be >= 1, got 0"):
        HistoryAttentionPooling(3, normalizer="topk", k=0)


def test_half_precision_stays():
    pool, x = make(2).bfloat16(), torch.randn(6, 3, dtype=torch.bfloat16)
    assert pool(x, ITEMS, OFFSETS).dtype == torch.bfloat16
