import math
from itertools import combinations_with_replacement

import pytest
import torch
from torch.nn.functional import cross_entropy

from graphrec.errors import ArgumentError
from graphrec.losses import sampled_softmax

NUM_ROWS, NUM_ITEMS, DIM = 3, 11, 5
ROWS = torch.tensor([0, 0, 2, 2, 2])
TARGETS = torch.tensor([4, 9, 0, 4, 10])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0], dtype=torch.float64)


def vectors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, items and biases in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((NUM_ROWS, DIM), (NUM_ITEMS, DIM), (NUM_ITEMS,))
    return tuple(torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes)


def naive(queries, items, bias, negatives, log_q, temperature, masked=True):
    """The formula target by target, in loops."""
    total = 0.0
    for row, target, weight in zip(ROWS.tolist(), TARGETS.tolist(), WEIGHTS.tolist(), strict=True):
        own = {t for r, t in zip(ROWS.tolist(), TARGETS.tolist(), strict=True) if r == row}
        positive = float(queries[row] @ items[target]) / temperature + float(bias[target])
        others = 0.0
        for n, lq in zip(negatives.tolist(), log_q.tolist(), strict=True):
            if not (masked and n in own):
                s = float(queries[row] @ items[n]) / temperature + float(bias[n])
                others += math.exp(s) / (len(negatives) * math.exp(lq))
        total += weight * (math.log(math.exp(positive) + others) - positive)
    return total / float(WEIGHTS.sum())


def call(queries, items, bias, negatives, log_q, temperature, masked=True, **changes):
    arguments = {
        "rows": ROWS,
        "weights": WEIGHTS,
        "positive_bias": bias[TARGETS],
        "negative_bias": bias[negatives],
        "positive_items": TARGETS if masked else None,
        "negative_items": negatives if masked else None,
        "temperature": temperature,
    }
    return sampled_softmax(queries, items[TARGETS], items[negatives], log_q, **{**arguments, **changes})


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_equals_naive_loops(temperature, masked):
    queries, items, bias = vectors()
    negatives = torch.tensor([4, 1, 9, 4, 7, 4, 2])  # 4 three times: of two rows a target
    log_q = torch.linspace(-3, -1, len(negatives), dtype=torch.float64)
    loss = call(queries, items, bias, negatives, log_q, temperature, masked)
    assert loss.item() == pytest.approx(naive(queries, items, bias, negatives, log_q, temperature, masked), rel=1e-12)


def test_whole_catalogue_with_single_targets_is_cross_entropy():
    queries, items, _ = vectors()
    targets, everything = torch.tensor([7, 0, 7]), torch.arange(NUM_ITEMS)
    loss = sampled_softmax(
        queries,
        items[targets],
        items,
        -math.log(NUM_ITEMS),
        positive_items=targets,
        negative_items=everything,
    )
    torch.testing.assert_close(loss, cross_entropy(queries @ items.T, targets))


def test_the_sum_over_negatives_is_unbiased_whatever_the_probabilities():
    # All samples of two negatives, weighted by their probability: the mean of the estimated sum is the sum itself.
    queries, items, _ = vectors()
    q = torch.rand(NUM_ITEMS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q /= q.sum()
    expected = (queries[:1] @ items.T).exp().sum()
    mean = 0.0
    for a, b in combinations_with_replacement(range(NUM_ITEMS), 2):
        negatives = torch.tensor([a, b])
        loss = sampled_softmax(queries[:1], items[:1], items[negatives], q[negatives].log())
        positive = (queries[0] @ items[0]).exp()
        estimate = positive * loss.exp() - positive  # the loss is log(1 + sum / positive)
        mean += float(q[a] * q[b]) * (1 if a == b else 2) * float(estimate)
    assert mean == pytest.approx(float(expected), rel=1e-9)


def test_one_log_q_serves_uniform_negatives():
    queries, items, bias = vectors()
    negatives = torch.tensor([3, 8, 3])
    each = torch.full((3,), -math.log(NUM_ITEMS), dtype=torch.float64)
    torch.testing.assert_close(
        call(queries, items, bias, negatives, -math.log(NUM_ITEMS), 1.0),
        call(queries, items, bias, negatives, each, 1.0),
    )


def test_gradients_are_exact():
    queries, items, bias = (tensor.requires_grad_() for tensor in vectors())
    negatives = torch.tensor([4, 1, 9, 4])
    log_q = torch.linspace(-3, -1, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q, v, b: call(q, v, b, negatives, log_q, 0.5), (queries, items, bias))


def test_a_row_whose_negatives_are_all_its_own_targets_costs_nothing():
    queries, items, bias = (tensor.requires_grad_() for tensor in vectors())
    loss = call(queries, items, bias, torch.tensor([4, 4]), -1.0, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    for tensor in (queries, items, bias):
        assert not tensor.grad.any()


def test_targets_of_weight_zero_and_no_targets_cost_nothing():
    queries, items, bias = (tensor.requires_grad_() for tensor in vectors())
    none = torch.empty(0, dtype=torch.int64)
    for loss in (
        call(queries, items, bias, torch.tensor([1, 2]), -1.0, 1.0, weights=torch.zeros(5, dtype=torch.float64)),
        sampled_softmax(queries, items[none], items[:2], -1.0, rows=none),
    ):
        loss.backward()
        assert loss.item() == 0
    for tensor in (queries, items, bias):
        assert tensor.grad is None or not tensor.grad.any()


def test_inputs_are_left_as_they_were():
    queries, items, bias = vectors()
    before = [tensor.clone() for tensor in (queries, items, bias)]
    call(queries, items, bias, torch.tensor([4, 9, 1]), -1.0, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, (queries, items, bias), strict=True))


def test_bfloat16_scores_are_summed_in_float32():
    queries, items, _ = (tensor.float() for tensor in vectors())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sampled_softmax(queries, items[:3], items, -math.log(NUM_ITEMS))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, sampled_softmax(queries, items[:3], items, -math.log(NUM_ITEMS)), rtol=0.05, atol=0
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": None}, "rows must be given for 5 targets of 3 rows"),
        ({"rows": ROWS[:4]}, r"rows must have shape \[5\], got \[4\]"),
        ({"weights": WEIGHTS[None]}, r"weights must have shape \[5\], got \[1, 5\]"),
        ({"positive_bias": torch.zeros(2)}, r"positive_bias must have shape \[5\], got \[2\]"),
        ({"negative_bias": torch.zeros(5)}, r"negative_bias must have shape \[2\], got \[5\]"),
        ({"positive_items": TARGETS[1:]}, r"positive_items must have shape \[5\], got \[4\]"),
        ({"negative_items": TARGETS}, r"negative_items must have shape \[2\], got \[5\]"),
        ({"negative_items": None}, "positive_items and negative_items go together"),
        ({"temperature": 0.0}, "temperature must be >= .*, got 0.0"),
        ({"log_q": torch.zeros(3)}, r"log_q must have shape \[2\], got \[3\]"),
    ],
)
def test_shapes_that_contradict_each_other_are_named(changes, message):
    queries, items, bias = vectors()
    options = {"log_q": -1.0, "temperature": 1.0, **changes}
    with pytest.raises(ArgumentError, match=message):
        call(queries, items, bias, torch.tensor([1, 2]), **options)


@pytest.mark.parametrize("which", ["queries", "positives", "negatives"])
def test_vectors_of_another_width_do_not_broadcast(which):
    given = {"queries": torch.ones(3, DIM), "positives": torch.ones(3, DIM), "negatives": torch.ones(4, DIM)}
    given[which] = given[which][:, :1]
    with pytest.raises(ArgumentError, match=r"(queries|positives|negatives) must have shape \[rows, \d\], got"):
        sampled_softmax(**given, log_q=-1.0)
