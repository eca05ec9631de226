import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ArgumentError
from graphrec.layers.ops.segments import check_offsets, segment_entmax15, segment_sparsemax, segment_topk_softmax

OFFSETS = torch.tensor([0, 3, 3, 4, 9])  # the second segment is empty, the third holds one


def top3(scores, offsets):
    return segment_topk_softmax(scores, offsets, k=3)


NORMALISERS = {"sparsemax": segment_sparsemax, "entmax15": segment_entmax15, "topk": top3}


def bisect(z, power):
    """The threshold by halving: what any entmax is defined by, and no sort."""
    z = z / power
    low, high = z.max() - 1, z.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if ((z - middle).clamp(min=0) ** power).sum() > 1 else (low, middle)
    return (z - low).clamp(min=0) ** power


def naive(name, z):
    if name != "topk":
        return bisect(z, 1 if name == "sparsemax" else 2)
    best = sorted(range(len(z)), key=lambda i: (-float(z[i]), i))[:3]
    out = torch.zeros_like(z)
    out[best] = z[best].softmax(dim=0)
    return out


@pytest.mark.parametrize("name", NORMALISERS)
@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 7), max_size=6), seed=st.integers(0, 10**6), spread=st.sampled_from([0.1, 1, 50])
)
def test_equals_a_naive_loop(name, lengths, seed, spread):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(sum(lengths), 2, dtype=torch.float64, generator=generator) * spread
    scores[::3] = scores[::3].round()  # some ties
    out = NORMALISERS[name](scores, offsets)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for head in range(2):
            if stop > start:
                torch.testing.assert_close(out[start:stop, head], naive(name, scores[start:stop, head]))
    torch.testing.assert_close(NORMALISERS[name](scores[:, 0], offsets), out[:, 0])


@pytest.mark.parametrize("name", NORMALISERS)
def test_gradients_are_exact(name):
    torch.manual_seed(0)
    scores = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: NORMALISERS[name](s, OFFSETS), scores)


@pytest.mark.parametrize("name", NORMALISERS)
def test_weights_are_a_distribution_and_often_zero(name):
    torch.manual_seed(0)
    offsets = torch.tensor([0, 400, 1000])
    weights = NORMALISERS[name](4 * torch.randn(1000, 3), offsets)
    assert (weights >= 0).all()
    for start, stop in ((0, 400), (400, 1000)):
        torch.testing.assert_close(weights[start:stop].sum(dim=0), torch.ones(3))
    assert (weights == 0).float().mean() > 0.9


@pytest.mark.parametrize("name", NORMALISERS)
def test_a_shift_changes_nothing_and_huge_scores_stay_finite(name):
    torch.manual_seed(0)
    scores = torch.randn(9, dtype=torch.float64)
    shift = torch.tensor([5.0, -7.0, 3.0]).double().repeat_interleave(torch.tensor([3, 1, 5]))
    torch.testing.assert_close(NORMALISERS[name](scores + shift, OFFSETS), NORMALISERS[name](scores, OFFSETS))
    huge = NORMALISERS[name](torch.tensor([1e30, -1e30, 0.0, 5.0]), torch.tensor([0, 3, 4]))
    torch.testing.assert_close(huge, torch.tensor([1.0, 0.0, 0.0, 1.0]))


@pytest.mark.parametrize("name", NORMALISERS)
def test_half_precision_keeps_its_type(name):
    torch.manual_seed(0)
    scores = torch.randn(9, 2)
    half = NORMALISERS[name](scores.bfloat16(), OFFSETS)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), NORMALISERS[name](scores.bfloat16().float(), OFFSETS), atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", NORMALISERS)
def test_nothing_at_all(name):
    scores = torch.zeros(0, 2, requires_grad=True)
    out = NORMALISERS[name](scores, torch.tensor([0, 0, 0]))
    out.sum().backward()
    assert out.shape == scores.grad.shape == (0, 2)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ArgumentError, match=r"scores must be float \[total\] or \[total, heads\], got torch.int64 \[4\]"
    ):
        segment_sparsemax(torch.arange(4), torch.tensor([0, 4]))
    with pytest.raises(ArgumentError, match="k must be >= 1, got 0"):
        segment_topk_softmax(torch.zeros(4), torch.tensor([0, 4]), k=0)
    with pytest.raises(ArgumentError, match=r"offsets must rise from 0 to 4, got 0\.\.3"):
        segment_entmax15(torch.zeros(4), torch.tensor([0, 3]))
    with pytest.raises(ArgumentError, match="offsets must not fall, got 3 and then 2 at 1"):
        check_offsets(torch.tensor([0, 3, 2, 4]))
    with pytest.raises(ArgumentError, match=r"offsets must be integers \[batch_size \+ 1\], got torch.float32 \[2\]"):
        check_offsets(torch.tensor([0.0, 4.0]))
    with pytest.raises(ArgumentError, match=r"got torch.int64 \[0\]"):
        check_offsets(torch.tensor([], dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NORMALISERS)
def test_a_gpu_agrees(name):
    torch.manual_seed(0)
    scores = torch.randn(9, 2)
    there = NORMALISERS[name](scores.cuda(), OFFSETS.cuda())
    torch.testing.assert_close(there.cpu(), NORMALISERS[name](scores, OFFSETS))
