import math

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.sampling import PopularityNegatives, UniformNegatives

COUNTS = torch.tensor([100, 0, 25, 1, 9, 4])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frequencies(sampler: UniformNegatives | PopularityNegatives, num_items: int, draws: int = 20_000) -> torch.Tensor:
    """Share of each item in many small samples (a large one would be the whole catalogue)."""
    generator = seeded()
    items = torch.cat([sampler(num_items - 1, generator).items for _ in range(draws // (num_items - 1))])
    return torch.bincount(items, minlength=num_items) / len(items)


def test_uniform_negatives_are_uniform():
    sampler = UniformNegatives(7)
    torch.testing.assert_close(frequencies(sampler, 7), torch.full((7,), 1 / 7), atol=0.01, rtol=0)
    torch.testing.assert_close(sampler(3, seeded()).log_q, torch.full((3,), -math.log(7)))


def test_uniform_negatives_of_a_part_leave_the_rest_alone():
    drawn = torch.tensor([True, False, True, True])
    few = UniformNegatives(4, drawn)(2, torch.Generator())
    every = UniformNegatives(4, drawn)(3, torch.Generator())
    assert set(few.items.tolist()) <= {0, 2, 3}
    assert every.items.tolist() == [0, 2, 3]
    for negatives in (few, every):
        torch.testing.assert_close(negatives.log_q.exp(), torch.full((len(negatives.items),), 1 / 3))


def test_popular_negatives_of_a_part_leave_the_rest_alone():
    drawn = torch.tensor([True, True, False, True, True, False])
    sampler = PopularityNegatives(COUNTS, 0.5, drawn)
    weights = torch.tensor([10.0, 1, 1, 3])
    sample = sampler(3, seeded())
    assert {0, 1, 3, 4} >= set(sample.items.tolist())
    of_items = dict(zip([0, 1, 3, 4], (weights / weights.sum()).tolist(), strict=True))
    torch.testing.assert_close(sample.log_q.exp(), torch.tensor([of_items[item] for item in sample.items.tolist()]))
    many = torch.cat([sampler(3, generator).items for generator in map(seeded, range(5000))])
    shares = torch.bincount(many, minlength=6) / len(many)
    torch.testing.assert_close(shares, torch.tensor([10.0, 1, 0, 1, 3, 0]) / 15, atol=0.02, rtol=0)
    every = sampler(4, seeded())
    assert every.items.tolist() == [0, 1, 3, 4]
    torch.testing.assert_close(every.log_q.exp(), torch.full((4,), 1 / 4))


@pytest.mark.parametrize("drawn", [torch.zeros(4, dtype=torch.bool), torch.ones(3, dtype=torch.bool), torch.ones(4)])
def test_a_part_that_draws_nothing_or_does_not_fit_is_refused(drawn):
    with pytest.raises(ArgumentError, match=r"drawn must be bool \[4\] with at least one True"):
        UniformNegatives(4, drawn)
    with pytest.raises(ArgumentError, match=r"drawn must be bool \[4\] with at least one True"):
        PopularityNegatives(torch.arange(4), 0.5, drawn)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_popular_items_are_drawn_as_often_as_log_q_says(alpha):
    weights = torch.tensor([100.0, 1, 25, 1, 9, 4]).pow(alpha)  # an item that nobody took counts as taken once
    expected = weights / weights.sum()
    sampler = PopularityNegatives(COUNTS, alpha)
    torch.testing.assert_close(frequencies(sampler, 6), expected, atol=0.01, rtol=0)
    sample = sampler(5, seeded())
    torch.testing.assert_close(sample.log_q, expected[sample.items].log())
    assert sample.items.dtype == torch.int64
    assert sample.log_q.dtype == torch.float32


@pytest.mark.parametrize("sampler", [UniformNegatives(6), PopularityNegatives(COUNTS, 0.7)])
def test_as_many_as_there_are_items_means_each_once(sampler):
    for number in (6, 1000):
        sample = sampler(number, seeded())
        assert sample.items.tolist() == list(range(6))
        # In the softmax, N * q is then 1 for every item.
        torch.testing.assert_close(sample.log_q + math.log(6), torch.zeros(6), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", [UniformNegatives(5000), PopularityNegatives(torch.arange(5000), 0.7)])
def test_the_generator_is_the_only_randomness(sampler):
    torch.manual_seed(1)
    first = sampler(20, seeded(3))
    torch.manual_seed(2)
    again, other = sampler(20, seeded(3)), sampler(20, seeded(4))
    assert torch.equal(first.items, again.items)
    assert not torch.equal(first.items, other.items)
    generator = seeded(3)
    assert torch.equal(sampler(20, generator).items, first.items)
    assert not torch.equal(sampler(20, generator).items, first.items)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformNegatives(0), "num_items must be >= 1, got 0"),
        (lambda: UniformNegatives(3)(0, seeded()), "num_negatives must be >= 1, got 0"),
        (lambda: PopularityNegatives(COUNTS, 0.5)(0, seeded()), "num_negatives must be >= 1, got 0"),
        (lambda: PopularityNegatives(COUNTS, 1.5), r"alpha must be within 0.0\.\.1.0, got 1.5"),
        (lambda: PopularityNegatives(-COUNTS, 0.5), "counts must be numbers >= 0"),
        (lambda: PopularityNegatives(torch.empty(0), 0.5), r"counts must be .* got shape \[0\]"),
        (lambda: PopularityNegatives(COUNTS[None], 0.5), r"counts must be .* got shape \[1, 6\]"),
        (lambda: PopularityNegatives(torch.tensor([1.0, math.nan]), 0.5), "counts must be numbers >= 0"),
        (lambda: PopularityNegatives(torch.tensor([1.0, math.inf]), 0.5), "counts must be numbers >= 0 and finite"),
    ],
)
def test_values_outside_their_range_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
