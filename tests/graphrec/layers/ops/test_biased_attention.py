import itertools
import math

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.layers.ops import biased_attention as module
from graphrec.layers.ops.biased_attention import biased_attention, dropout_mask, time_bucket

ROWS, LENGTH, HEADS, WIDTH = 3, 7, 2, 3
LENGTHS = torch.tensor([7, 3, 1])
VARIANTS = list(itertools.product((True, False), ("softmax", "silu")))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """More than one block of queries, the last one shorter."""
    monkeypatch.setattr(module, "BLOCK", 4)


def inputs(causal, requires_grad=False):
    torch.manual_seed(0)
    qkv = torch.randn(ROWS, LENGTH, 3, HEADS, WIDTH, dtype=torch.float64)
    position = torch.randn(4 if causal else 7, HEADS, dtype=torch.float64)  # places 4 and more away share a bias
    time = torch.randn(9, HEADS, dtype=torch.float64)
    seconds = (torch.rand(ROWS, LENGTH, dtype=torch.float64) * 9).cumsum(dim=1)  # intervals beyond the table too
    for tensor in (qkv, position, time):
        tensor.requires_grad_(requires_grad)
    return qkv, position, time, (seconds + 2, seconds)


def naive(qkv, position, time, times, causal, activation):
    """One query, head and key at a time, by the formula."""
    out = torch.zeros(ROWS, LENGTH, HEADS, WIDTH, dtype=torch.float64)
    for row, head in itertools.product(range(ROWS), range(HEADS)):
        length = int(LENGTHS[row])
        for i in range(length):
            keys = range(i + 1) if causal else range(length)
            scores = []
            for j in keys:
                score = qkv[row, i, 0, head] @ qkv[row, j, 1, head] / math.sqrt(WIDTH)
                score = score + position[min(i - j, 3) if causal else max(-3, min(i - j, 3)) + 3, head]
                interval = abs(float(times[0][row, i] - times[1][row, j]))
                bucket = min(math.floor(math.log(max(interval, 1)) / 0.301), 8)
                scores.append(score + time[bucket, head])
            scores = torch.stack(scores)
            weights = (
                scores.softmax(dim=0) if activation == "softmax" else torch.nn.functional.silu(scores) / len(scores)
            )
            out[row, i, head] = weights @ qkv[row, list(keys), 2, head]
    return out


def real(out):
    return out[torch.arange(LENGTH) < LENGTHS.unsqueeze(1)]


@pytest.mark.parametrize(("causal", "activation"), VARIANTS)
def test_equals_a_naive_loop(causal, activation):
    qkv, position, time, times = inputs(causal)
    lengths = None if causal else LENGTHS
    out = biased_attention(qkv, causal, lengths, position, time, times, activation)
    torch.testing.assert_close(real(out), real(naive(qkv, position, time, times, causal, activation)))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("causal", "activation"), VARIANTS)
def test_gradients_are_exact(causal, activation, dropout):
    qkv, position, time, times = inputs(causal, requires_grad=True)
    lengths = None if causal else LENGTHS

    def attend(*tensors):
        torch.manual_seed(1)  # the same weights are dropped each time
        return real(biased_attention(tensors[0], causal, lengths, *tensors[1:], times, activation, dropout))

    assert torch.autograd.gradcheck(attend, (qkv, position, time), fast_mode=True)


@pytest.mark.parametrize(("causal", "activation"), VARIANTS)
def test_half_precision_trains_with_dropout(causal, activation):
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        qkv = inputs(causal)[0].to(dtype).requires_grad_()
        torch.manual_seed(1)  # the same weights are dropped each time
        biased_attention(qkv, causal, activation=activation, dropout=0.4).float().square().sum().backward()
        gradients.append(qkv.grad.float())
    torch.testing.assert_close(*gradients, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("activation", ["softmax", "silu"])
def test_rows_without_places_leave_the_gradients_of_others_alone(activation):
    gradients = []
    for rows in (2, 3):  # the third is empty
        qkv, *tables, times = inputs(False, requires_grad=True)
        given = torch.tensor([7, 3, 0])[:rows]
        seconds = tuple(part[:rows] for part in times)
        biased_attention(qkv[:rows], False, given, *tables, seconds, activation)[:2].sum().backward()
        gradients.append([qkv.grad, *(table.grad for table in tables)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_keeps_the_mean_and_drops_as_often_as_told():
    torch.manual_seed(0)
    for probability in (0.0, 0.001, 0.3, 0.9):
        mask, scale = dropout_mask(torch.empty(300, 1001), probability)
        assert mask.dtype == torch.uint8
        assert abs(float(mask.float().mean()) - (1 - probability)) < 0.003
        assert abs(scale - 1 / (1 - probability)) < 1e-3
    first = dropout_mask(torch.empty(5, 5), 0.5)[0]
    assert not torch.equal(dropout_mask(torch.empty(5, 5), 0.5)[0], first)
    qkv = inputs(True)[0]
    mean = torch.stack([biased_attention(qkv, dropout=0.3) for _ in range(3000)]).mean(dim=0)
    torch.testing.assert_close(mean, biased_attention(qkv), atol=0.08, rtol=0)


def test_intervals_fall_into_growing_buckets():
    seconds = torch.tensor([0.0, 1.0, 1.36, 60.0, 86_400.0, 3e8, 1e15])
    assert time_bucket(seconds, 64).tolist() == [0, 0, 1, 13, 37, 63, 63]
    assert torch.equal(time_bucket(-seconds, 64), time_bucket(seconds, 64))


def test_what_does_not_fit_is_refused():
    qkv, _, time, _ = inputs(True)
    with pytest.raises(
        ArgumentError, match="activation must be one of 'softmax', 'silu', got 'silo'; did you mean 'silu'"
    ):
        biased_attention(qkv, activation="silo")
    with pytest.raises(ArgumentError, match="time_bias needs times, got None"):
        biased_attention(qkv, time_bias=time)
