import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphrec.errors import ArgumentError
from graphrec.evaluation import (
    combined_interval,
    holm,
    paired_bootstrap,
    paired_bootstrap_rows,
    seed_interval,
    significance,
    user_interval,
)


def naive_means(values, num_samples, seed):
    """Resample with the same draws, one user at a time."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(num_samples, len(values)), dtype=np.int32)
    return [sum(values[user] for user in sample) / len(values) for sample in drawn]


def per_user(seed, num_users=200):
    return np.random.default_rng(seed).beta(0.4, 2.0, num_users)


def test_the_interval_over_seeds_equals_scipys_t_interval():
    x = [0.11, 0.125, 0.119, 0.14]
    for confidence in (0.5, 0.95, 0.99):
        low, high = stats.t.interval(confidence, len(x) - 1, loc=np.mean(x), scale=stats.sem(x))
        assert seed_interval(x, confidence) == pytest.approx((np.mean(x), low, high), abs=1e-12)


def test_the_interval_over_seeds_by_hand():
    # mean 2, standard deviation 1, t(2 degrees) = 4.30265
    assert seed_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-5)


def test_the_interval_over_users_equals_the_naive_loop():
    x = per_user(0, num_users=37)
    means = naive_means(x, 300, seed=5)
    interval = user_interval(x, num_samples=300, confidence=0.9, seed=5)
    assert interval == pytest.approx((x.mean(), *np.quantile(means, [0.05, 0.95])), abs=1e-12)


def test_the_interval_over_users_agrees_with_scipys_bootstrap():
    x = per_user(1)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))
    ours = user_interval(x, num_samples=20_000)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_the_interval_over_users_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        interval = user_interval(rng.exponential(size=80), num_samples=400, seed=trial)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.88 < covered / 300 < 0.98


def test_the_combined_interval_averages_each_user_over_seeds_first():
    rows = [per_user(seed) for seed in range(3)]
    expected = user_interval(np.mean(rows, axis=0), seed=4, num_samples=500)
    assert combined_interval(rows, seed=4, num_samples=500) == expected
    assert combined_interval(torch.tensor(np.array(rows)), seed=4, num_samples=500) == expected
    one_seed = combined_interval(rows[:1], seed=4, num_samples=500)
    assert one_seed == user_interval(rows[0], seed=4, num_samples=500)


def test_the_paired_bootstrap_equals_the_naive_loop():
    first, second = per_user(0, 41), per_user(1, 41)
    d = first - second
    means = naive_means(d, 500, seed=9)
    extreme = sum(abs(m - d.mean()) >= abs(d.mean()) for m in means)
    test = paired_bootstrap(first, second, num_samples=500, seed=9)
    assert test.difference == pytest.approx(d.mean(), abs=1e-12)
    assert (test.low, test.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)
    assert test.p_value == (1 + extreme) / 501
    assert test.p_holm == test.p_value


@pytest.mark.parametrize("shift", [0.0, 0.004, 0.008, 0.02])
def test_the_paired_bootstrap_agrees_with_the_t_test_where_users_are_many(shift):
    rng = np.random.default_rng(3)
    first = rng.normal(0.3, 0.1, 2000)
    second = first - shift + rng.normal(0.0, 0.1, 2000)
    p = paired_bootstrap(first, second).p_value
    assert p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.015)


def test_pairing_finds_what_the_spread_between_users_hides():
    rng = np.random.default_rng(0)
    second = rng.beta(0.4, 2.0, 300)
    first = second + 0.005 + rng.normal(0.0, 0.01, 300)
    assert paired_bootstrap(first, second).p_value < 0.001
    assert stats.ttest_ind(first, second).pvalue > 0.5


def test_equal_models_are_not_different_and_a_constant_gain_is():
    x = per_user(0)
    assert paired_bootstrap(x, x, num_samples=99) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert paired_bootstrap(x + 0.25, x, num_samples=99).p_value == 0.01


def test_swapping_the_models_changes_the_sign_alone():
    first, second = per_user(0), per_user(1)
    one, other = paired_bootstrap(first, second, num_samples=400), paired_bootstrap(second, first, num_samples=400)
    assert one.p_value == other.p_value
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


def test_rows_are_tested_on_the_same_users_and_corrected_together():
    baseline = per_user(0)
    rng = np.random.default_rng(1)
    gains = {"none": 0.0, "small": 0.004, "large": 0.03}
    rows = {name: baseline + gain + rng.normal(0, 0.03, len(baseline)) for name, gain in gains.items()}
    tests = paired_bootstrap_rows(rows, torch.from_numpy(baseline), num_samples=999)
    for name, values in rows.items():
        assert tests[name][:4] == paired_bootstrap(values, baseline, num_samples=999)[:4]
    assert [test.p_holm for test in tests.values()] == holm([test.p_value for test in tests.values()])
    assert tests["large"].p_holm == pytest.approx(3 / 1000)
    assert paired_bootstrap_rows({}, baseline) == {}


def test_draws_depend_on_the_seed_and_not_on_the_chunk(monkeypatch):
    x = per_user(0, num_users=64)
    whole = user_interval(x, num_samples=300, seed=1)
    assert user_interval(x, num_samples=300, seed=1) == whole
    assert user_interval(x, num_samples=300, seed=2) != whole
    monkeypatch.setattr(significance, "CHUNK", 64 * 7)
    assert user_interval(x, num_samples=300, seed=1) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the table of Holm's procedure in many textbooks
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, expected):
    assert holm(p_values) == pytest.approx(expected)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, row in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[row] * (len(p_values) - step) > level:
                break
            rejected.add(row)
        assert {row for row, p in enumerate(corrected) if p <= level} == rejected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seed_interval([0.1]), "at least two seeds"),
        (lambda: user_interval([0.1]), "at least two users"),
        (lambda: user_interval([[0.1, 0.2]]), r"got shape \[1, 2\]"),
        (lambda: user_interval([0.1, float("nan")]), "holds NaN at position 1"),
        (lambda: paired_bootstrap([float("inf"), 0.1], [float("inf"), 0.2]), "baseline holds infinity at position 0"),
        (lambda: user_interval([0.1, 0.2], num_samples=0), "num_samples must be >= 1, got 0"),
        (lambda: user_interval([0.1, 0.2], confidence=95), "confidence must be between 0 and 1, got 95"),
        (lambda: seed_interval([0.1, 0.2], confidence=1.0), "confidence must be between 0 and 1"),
        (lambda: combined_interval([]), "equally long rows"),
        (lambda: combined_interval([[0.1, 0.2], [0.1, 0.2, 0.3]]), r"got lengths \[2, 3\]"),
        (lambda: paired_bootstrap([0.1, 0.2], [0.1, 0.2, 0.3]), "same users on both sides, got 2 and 3"),
        (lambda: holm([0.1, 1.2]), r"within 0\.\.1"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
