import pytest
import torch
import torch.nn.functional as F

from graphrec.errors import ArgumentError
from graphrec.layers import HistoryMatch, history_match

OFFSETS = torch.tensor([0, 3, 3, 4, 8])


def parts(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, v = (F.normalize(torch.randn(n, 5, generator=generator, dtype=dtype), dim=1) for n in (8, 6))
    return x.requires_grad_(), torch.randn(8, generator=generator, dtype=dtype).requires_grad_(), v.requires_grad_()


def by_hand(x, scores, v, temperature):
    rows = []
    for start, end in zip(OFFSETS[:-1].tolist(), OFFSETS[1:].tolist(), strict=True):
        if start == end:
            rows.append(torch.zeros(len(v), dtype=x.dtype))
            continue
        a = scores[start:end].softmax(0)
        rows.append(temperature * (a.log()[:, None] + x[start:end] @ v.t() / temperature).logsumexp(0))
    return torch.stack(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 5.0])
def test_matches_are_the_formula_and_so_are_the_gradients(temperature):
    x, scores, v = parts()
    match = HistoryMatch(temperature)
    torch.testing.assert_close(match(x, OFFSETS, scores, v), by_hand(x, scores, v, temperature))
    assert torch.autograd.gradcheck(lambda *p: match(p[0], OFFSETS, p[1], p[2]), (x, scores, v))


@pytest.mark.parametrize("at_once", [1, 7, 12, 20, 10**6])
def test_without_a_gradient_candidates_go_a_few_at_a_time_and_nothing_changes(at_once, monkeypatch):
    monkeypatch.setattr(history_match, "MATCHES_AT_ONCE", at_once)
    x, scores, v = parts()
    with torch.no_grad():
        out = HistoryMatch(0.1)(x, OFFSETS, scores, v)
    torch.testing.assert_close(out, by_hand(x, scores, v, 0.1))


def test_vectors_that_several_entries_name_are_given_once():
    x, scores, v = parts()
    index = torch.tensor([2, 0, 2, 1, 0, 2, 2, 1])
    match = HistoryMatch(0.1)
    few = x.detach()[:3].requires_grad_()
    written_out = match(few[index], OFFSETS, scores, v)
    torch.testing.assert_close(match(few, OFFSETS, scores, v, index), written_out)
    assert torch.autograd.gradcheck(lambda *p: match(p[0], OFFSETS, p[1], p[2], index), (few, scores, v))
    with torch.no_grad():
        torch.testing.assert_close(match(few, OFFSETS, scores, v, index), written_out)
    user, candidate = torch.tensor([3, 0, 1, 3, 2]), torch.tensor([5, 0, 2, 1, 1])
    pairs = match.match_pairs(few, OFFSETS, scores, v[candidate], user, index)
    torch.testing.assert_close(pairs, written_out[user, candidate])
    with pytest.raises(ArgumentError, match="source"):
        match(few, OFFSETS, scores, v, index + 1)


def test_pairs_are_entries_of_the_whole():
    x, scores, v = parts()
    match = HistoryMatch(0.1)
    user, candidate = torch.tensor([3, 0, 1, 3, 2]), torch.tensor([5, 0, 2, 1, 1])
    pairs = match.match_pairs(x, OFFSETS, scores, v[candidate], user)
    torch.testing.assert_close(pairs, match(x, OFFSETS, scores, v)[user, candidate])
    assert torch.autograd.gradcheck(
        lambda *p: match.match_pairs(p[0], OFFSETS, p[1], p[2][candidate], user), (x, scores, v)
    )


def test_large_temperatures_average_and_small_ones_take_the_best():
    x, scores, v = (part.detach() for part in parts())
    cosine = x[:3] @ v.t()
    mean = (scores[:3].softmax(0)[:, None] * cosine).sum(0)
    torch.testing.assert_close(HistoryMatch(1e4)(x, OFFSETS, scores, v)[0], mean, rtol=1e-3, atol=1e-3)
    best = cosine.max(0).values
    assert ((HistoryMatch(0.025)(x, OFFSETS, scores, v)[0] - best).abs() < 0.08).all()


def test_opposite_vectors_at_the_lowest_temperature_stay_finite_in_single_precision():
    x = torch.tensor([[1.0, 0.0]]).requires_grad_()
    out = HistoryMatch(0.025)(x, torch.tensor([0, 1]), torch.zeros(1), torch.tensor([[-1.0, 0.0]]))
    out.sum().backward()
    assert out.item() == pytest.approx(-1, abs=1e-3)
    assert x.grad.isfinite().all()


def test_half_precision_is_close_and_so_are_the_gradients():
    x, scores, v = parts(torch.float32)
    expected = HistoryMatch(0.3)(x, OFFSETS, scores, v)
    gradients = torch.autograd.grad(expected.square().sum(), (x, scores, v))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mapped = x @ torch.eye(5)  # as from a linear map: in half precision
        assert mapped.dtype == torch.bfloat16
        half = HistoryMatch(0.3)(mapped, OFFSETS, scores, v)
        found = torch.autograd.grad(half.square().sum(), (x, scores, v))  # inside of it, as some trainers do
        with torch.no_grad():
            torch.testing.assert_close(HistoryMatch(0.3)(mapped, OFFSETS, scores, v), half)
    for ours, wanted in zip((half, *found), (expected, *gradients), strict=True):
        torch.testing.assert_close(ours.float(), wanted, atol=0.05, rtol=0.05)


def test_sizes_that_do_not_fit_are_named():
    x, scores, v = parts()
    match = HistoryMatch(0.1)
    with pytest.raises(ArgumentError, match="matrices of one width"):
        match(x, OFFSETS, scores, v[:, :3])
    with pytest.raises(ArgumentError, match=r"scores must have shape \[8\]"):
        match(x, OFFSETS, scores[:3], v)
    with pytest.raises(ArgumentError, match="offsets must rise from 0 to 8"):
        match(x, OFFSETS[:-1], scores, v)
    with pytest.raises(ArgumentError, match="temperature must be >= 0.025, got 0.01"):
        HistoryMatch(0.01)


@pytest.mark.parametrize("num_pairs", [4, 40_000])  # of so many the compiled loops would read past the candidates
def test_pairs_that_do_not_fit_are_refused(num_pairs):
    x, scores, v = (part.detach().float() for part in parts())
    wide = torch.nn.functional.pad(x, (0, 27)), torch.nn.functional.pad(v, (0, 27))
    match, user = HistoryMatch(0.1), torch.zeros(num_pairs, dtype=torch.int64)
    with pytest.raises(ArgumentError, match=r"user must have shape \[3\], one a candidate"):
        match.match_pairs(wide[0], OFFSETS, scores, wide[1][:3], user)
    for outside in (-1, 4):
        with pytest.raises(ArgumentError, match=r"user must be within 0\.\.3, got "):
            match.match_pairs(x, OFFSETS, scores, v[:2], torch.tensor([0, outside]))
