import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from graphrec.errors import ArgumentError
from graphrec.evaluation import topk
from graphrec.evaluation.topk import top_k
from graphrec.histories import Histories


def naive_top_k(scores, k, seen, users, seed):
    """Sort everything by score, then by the key of ties."""
    batch_size, num_items = scores.shape
    keys = topk._tie_keys(torch.tensor(users)[:, None], torch.arange(num_items)[None], num_items, seed)
    lists = []
    for row in range(batch_size):
        left = [i for i in range(num_items) if i not in seen[row] and scores[row, i] > -math.inf]
        left.sort(key=lambda i: (-float(scores[row, i]), -int(keys[row, i])))
        lists.append((left + [-1] * k)[:k])
    return lists


def draw_scores(seed, batch_size, num_items, kind):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch_size, num_items, generator=generator)
    if kind == "distinct":
        return scores
    if kind == "rounded":  # small ties everywhere
        return (scores * 10).round() / 10
    if kind == "floor":  # one large tie through the cut-off of most rows
        return scores.clamp(min=3.2)
    if kind == "excluded":
        return scores.masked_fill(scores < 1.0, -math.inf)
    return torch.zeros_like(scores)


@pytest.mark.parametrize("kind", ["distinct", "rounded", "floor", "constant", "excluded"])
@pytest.mark.parametrize(("num_items", "k"), [(1, 1), (7, 3), (40, 40), (40, 60), (500, 1), (3001, 5), (6007, 20)])
def test_equals_a_full_sort(num_items, k, kind):
    batch_size = 3
    scores = draw_scores(num_items + k, batch_size, num_items, kind)
    rng = np.random.default_rng(0)
    seen = [sorted(rng.choice(num_items, size=size, replace=False).tolist()) for size in (0, num_items // 3, num_items)]
    users = [5, 0, 9]
    items, values = top_k(scores, k, Histories.from_lists(seen, users), seed=3)
    assert items.tolist() == naive_top_k(scores, k, seen, users, seed=3)
    chosen = scores.gather(1, items.clamp(min=0)).masked_fill(items < 0, -math.inf)
    assert torch.equal(values, chosen)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(data=st.data(), k=st.integers(1, 9), seed=st.integers(0, 5))
def test_equals_a_full_sort_on_any_small_scores(data, k, seed):
    num_items = data.draw(st.sampled_from([2, 5, 130]))
    value = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0, math.inf])
    row = st.lists(value, min_size=num_items, max_size=num_items)
    scores = torch.tensor(data.draw(st.lists(row, min_size=1, max_size=3)))
    some = st.lists(st.integers(0, num_items - 1), max_size=num_items)
    seen = [data.draw(some) for _ in scores]  # repeated items too
    users = list(range(len(scores)))
    items, _ = top_k(scores, k, Histories.from_lists(seen), seed)
    assert items.tolist() == naive_top_k(scores, k, seen, users, seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_keeps_any_float_type(dtype):
    scores = draw_scores(0, 4, 3001, "distinct").to(dtype)
    items, values = top_k(scores, 10, None)
    assert values.dtype == dtype
    assert torch.equal(values, scores.double().sort(dim=1, descending=True).values[:, :10].to(dtype))
    assert items.tolist() == naive_top_k(scores, 10, [[]] * 4, range(4), seed=0)


def test_scores_stay_as_they_were_even_where_rows_share_memory():
    row = draw_scores(0, 1, 3001, "floor")[0]
    before = row.clone()
    shared = row.expand(4, -1)
    items, _ = top_k(shared, 10, Histories.from_lists([[0], [1], [2], [3]]))
    assert torch.equal(row, before)
    assert items.tolist() == top_k(shared.clone(), 10, Histories.from_lists([[0], [1], [2], [3]]))[0].tolist()


def test_works_on_scores_with_a_gradient_and_inside_inference_mode():
    scores = draw_scores(0, 2, 50, "distinct")
    seen = Histories.from_lists([[1], [2]])
    expected = top_k(scores, 3, seen)[0]
    leaf = scores.clone().requires_grad_()
    assert torch.equal(top_k(leaf * 1.0, 3, seen)[0], expected)
    with torch.inference_mode():
        made_inside = scores.clone()
        assert torch.equal(top_k(made_inside, 3, seen)[0], expected)
    assert torch.equal(top_k(made_inside, 3, seen)[0], expected)


def test_an_empty_batch_has_no_lists():
    items, values = top_k(torch.empty(0, 3001), 5, Histories.from_lists([]))
    assert items.shape == values.shape == (0, 5)


def uniform(counts):
    """Whether counts are as even as chance makes them (fails one time in a hundred thousand)."""
    expected = counts.sum() / counts.numel()
    return float((counts - expected).square().sum() / expected) < chi2.ppf(1 - 1e-5, counts.numel() - 1)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_ties_are_drawn_evenly_over_users_and_places(seed):
    num_items, k = 60, 5
    items, _ = top_k(torch.zeros(6000, num_items), k, None, seed)
    for place in range(k):
        assert uniform(torch.bincount(items[:, place], minlength=num_items).double())


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_which_items_stand_together_is_drawn_evenly_too(seed):
    num_items, k = 300, 8
    items, _ = top_k(torch.zeros(20_000, num_items), k, None, seed)
    pairs = (items[:, :, None] * num_items + items[:, None, :])[:, ~torch.eye(k, dtype=torch.bool)]
    counts = torch.bincount(pairs.flatten(), minlength=num_items**2).view(num_items, num_items)
    counts = counts[~torch.eye(num_items, dtype=torch.bool)].double()
    dispersion = float((counts - counts.mean()).square().mean() / counts.mean())
    assert dispersion == pytest.approx(1.0, abs=0.03)  # a weaker mixing of user and item gives 1.06


def test_ties_are_drawn_evenly_over_seeds():
    drawn = [top_k(torch.zeros(1, 40), 4, None, seed)[0] for seed in range(1500)]
    assert uniform(torch.bincount(torch.cat(drawn).flatten(), minlength=40).double())


def test_a_tie_through_the_cut_off_is_drawn_evenly_in_a_large_catalogue():
    scores = torch.zeros(3000, 4000)
    tied = torch.arange(0, 4000, 100)
    scores[:, tied] = 1.0
    scores[:, 17] = 2.0
    items, _ = top_k(scores, 4, None, seed=2)
    assert (items[:, 0] == 17).all()
    rest = items[:, 1:].flatten()
    assert torch.isin(rest, tied).all()
    assert uniform(torch.bincount(rest // 100, minlength=40).double())


def test_a_list_depends_on_the_user_and_not_on_the_batch():
    scores = draw_scores(0, 9, 3001, "floor")
    users = [4, 8, 15, 16, 23, 42, 99, 100, 7]
    empty = [[]] * 9
    whole = top_k(scores, 12, Histories.from_lists(empty, users), seed=1)[0]
    for row, user in enumerate(users):
        alone = top_k(scores[row : row + 1], 12, Histories.from_lists([[]], [user]), seed=1)[0]
        assert torch.equal(alone[0], whole[row])
    assert not torch.equal(top_k(scores, 12, Histories.from_lists(empty, users), seed=2)[0], whole)


def test_keys_of_ties_are_distinct_for_a_user():
    keys = topk._tie_keys(torch.tensor([[0], [123456]]), torch.arange(100_000)[None], 100_000, seed=4)
    assert (keys >= 0).all()
    assert [row.unique().numel() for row in keys] == [100_000, 100_000]


@pytest.mark.parametrize("num_items", [4, 3001])
def test_nan_raises_and_names_the_row(num_items):
    scores = torch.zeros(3, num_items)
    scores[2, 1] = math.nan
    with pytest.raises(ArgumentError, match="scores hold NaN in row 2"):
        top_k(scores, 2, None)
    with pytest.raises(ArgumentError, match="scores hold NaN in row 2"):
        top_k(scores, 2, Histories.from_lists([[], [], [1]]))  # hidden behind a seen item


@pytest.mark.parametrize(
    ("scores", "k", "seen", "message"),
    [
        (torch.zeros(2, 3), 0, None, "k must be >= 1, got 0"),
        (torch.zeros(3), 1, None, r"scores must be float \[batch_size, num_items\], got torch.float32 \[3\]"),
        (torch.zeros(2, 3, dtype=torch.int64), 1, None, "scores must be float"),
        (torch.zeros(2, 3), 1, [[]], "seen must have a row for each of 2 rows of scores, got 1"),
        (torch.zeros(2, 3), 1, [[], [3]], r"seen must hold items within 0\.\.2, got 3\.\.3"),
        (torch.zeros(2, 3), 1, [[-1], []], r"seen must hold items within 0\.\.2, got -1\.\.-1"),
    ],
)
def test_wrong_arguments_are_named(scores, k, seen, message):
    with pytest.raises(ArgumentError, match=message):
        top_k(scores, k, None if seen is None else Histories.from_lists(seen))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["distinct", "rounded", "floor", "constant", "excluded"])
def test_lists_are_the_same_on_a_gpu(kind):
    scores = draw_scores(0, 5, 3001, kind)
    seen = Histories.from_lists([[1, 2], [], [3], [], [5]], [4, 3, 2, 1, 0])
    there = top_k(scores.cuda(), 12, seen.to("cuda"), seed=1)
    assert torch.equal(there[0].cpu(), top_k(scores, 12, seen, seed=1)[0])
