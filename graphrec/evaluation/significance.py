"""How sure a figure is: intervals over seeds and over users, paired tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, check_range

Values = Tensor | NDArray[np.floating] | Sequence[float]
"""Numbers of one model: one a user, or one a seed."""

# Users drawn in one go; the draws of a chunk stay in the processor's cache.
CHUNK = 2**20


class Interval(NamedTuple):
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """A comparison of two models on the same users.

    Args:
        difference: Mean over users of first minus second.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end.
        p_value: Two-sided, of the hypothesis that the mean difference is 0.
        p_holm: The same corrected over all rows that were tested together.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float


def seed_interval(values: Values, confidence: float = 0.95) -> Interval:
    r"""Return mean and t-interval **over seeds**: how much another seed would change the figure.

    :math:`\bar x \pm t_{n-1} \, s / \sqrt n`, with the sample's standard deviation s. It says nothing of other users.

    Args:
        values: One figure a seed (each a mean over users), at least two.
        confidence: Probability that such intervals cover the true mean, between 0 and 1.

    Raises:
        ArgumentError: Fewer than two seeds, NaN, infinity, or a confidence out of range.

    Example:
        >>> [round(x, 4) for x in seed_interval([0.10, 0.12, 0.14])]
        [0.12, 0.0703, 0.1697]
    """
    from scipy.stats import t

    x = _vector("values", values, "seeds")
    _check_confidence(confidence)
    mean = float(x.mean())
    half = float(t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half)


def user_interval(per_user: Values, num_samples: int = 10_000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return mean and percentile bootstrap interval **over users**: how much other users would change the figure.

    It says nothing of other seeds.

    Args:
        per_user: One value a user, at least two.
        num_samples: How often as many users are drawn with replacement.
        confidence: Share of the resampled means inside the interval.
        seed: Seed of the draws.

    Raises:
        ArgumentError: Fewer than two users, NaN, infinity, or an argument out of range.
    """
    x = _vector("per_user", per_user, "users")
    return Interval(float(x.mean()), *_percentiles(_resampled_means(x[None], num_samples, seed)[0], confidence))


def combined_interval(
    per_user_by_seed: Sequence[Values] | Tensor, num_samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return mean **over seeds and users** and an interval: each user's mean over seeds, then a bootstrap of users.

    The interval is that of the mean of this many seeds; their number may be one.

    Args:
        per_user_by_seed: One row a seed of one value a user, in the same order of users.
        num_samples: See :func:`user_interval`.
        confidence: See :func:`user_interval`.
        seed: See :func:`user_interval`.

    Raises:
        ArgumentError: Rows of different length, fewer than two users, NaN, infinity, or an argument out of range.
    """
    rows = [_vector("per_user_by_seed", row, "users") for row in per_user_by_seed]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ArgumentError(f"per_user_by_seed must hold equally long rows, got lengths {[len(row) for row in rows]}")
    return user_interval(np.mean(rows, axis=0), num_samples, confidence, seed)


def paired_bootstrap(
    first: Values, second: Values, num_samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> PairedTest:
    """Compare two models user by user.

    Users are drawn with replacement, both models' values together. The p-value is the share of resamples whose mean
    difference is as far from the observed one as that is from 0, the observed sample counted among them:
    ``(1 + #{|d* - d| >= |d|}) / (1 + num_samples)``; so it is never 0.

    Args:
        first: One value a user; with several seeds, each user's mean over them.
        second: The same users' values of the other model, in the same order.
        num_samples: Number of resamples; the smallest p-value is ``1 / (1 + num_samples)``.
        confidence: Share of the resampled differences inside the interval.
        seed: Seed of the draws.

    Raises:
        ArgumentError: Different numbers of users, fewer than two, NaN, infinity, or an argument out of range.

    Example:
        >>> test = paired_bootstrap([0.5, 0.4, 0.9, 0.7], [0.4, 0.2, 0.6, 0.5], num_samples=999)
        >>> round(test.difference, 3), test.p_value
        (0.2, 0.001)
    """
    return paired_bootstrap_rows({"": first}, second, num_samples, confidence, seed)[""]


def paired_bootstrap_rows(
    rows: Mapping[str, Values],
    baseline: Values,
    num_samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedTest]:
    """Compare each row of a table with one baseline by :func:`paired_bootstrap`, and correct by Holm over the rows.

    All rows are tested on the same resamples of users.

    Args:
        rows: By name, one value a user; the baseline itself not among them.
        baseline: The values that the rows are compared with.
        num_samples: See :func:`paired_bootstrap`.
        confidence: See :func:`paired_bootstrap`; the intervals are not corrected.
        seed: See :func:`paired_bootstrap`.
    """
    if not rows:
        return {}
    second = _vector("baseline", baseline, "users")
    differences = []
    for name, values in rows.items():
        first = _vector(f"row {name!r}", values, "users")
        if first.shape != second.shape:
            raise ArgumentError(f"a paired test needs the same users on both sides, got {len(first)} and {len(second)}")
        differences.append(first - second)
    means = _resampled_means(np.stack(differences), num_samples, seed)  # [num_rows, num_samples]
    observed = np.array([d.mean() for d in differences])
    extreme = np.abs(means - observed[:, None]) >= np.abs(observed)[:, None]
    p_values = (1 + extreme.sum(axis=1)) / (1 + num_samples)
    return {
        name: PairedTest(float(mean), *_percentiles(resampled, confidence), float(p), float(corrected))
        for name, mean, resampled, p, corrected in zip(rows, observed, means, p_values, holm(p_values), strict=True)
    }


def holm(p_values: Values) -> list[float]:
    """Return p-values corrected for testing all of them together, in their order.

    The i-th smallest of m is multiplied by ``m - i + 1``, kept no smaller than the one before it, and at most 1.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ArgumentError(f"p_values must be a list of numbers within 0..1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result: list[float] = corrected.clip(max=1.0).tolist()
    return result


def _resampled_means(values: NDArray[np.float64], num_samples: int, seed: int) -> NDArray[np.float64]:
    """Return each row's means over users drawn with replacement, ``[num_rows, num_samples]``, same draws for all."""
    check_range("num_samples", num_samples, low=1)
    num_users = values.shape[1]
    generator = np.random.default_rng(seed)
    means = np.empty((len(values), num_samples))
    chunk = max(1, CHUNK // num_users)
    for start in range(0, num_samples, chunk):
        end = min(start + chunk, num_samples)
        drawn = generator.integers(num_users, size=(end - start, num_users), dtype=np.int32)
        for row, mean in zip(values, means, strict=True):
            mean[start:end] = np.take(row, drawn).mean(axis=1)
    return means


def _percentiles(means: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    _check_confidence(confidence)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must be between 0 and 1, got {confidence!r}")


def _vector(name: str, values: Values, of: str) -> NDArray[np.float64]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    vector = np.asarray(array, dtype=np.float64)
    if vector.ndim != 1 or len(vector) < 2:
        raise ArgumentError(f"{name} must hold a number for each of at least two {of}, got shape {list(vector.shape)}")
    broken = ~np.isfinite(vector)
    if broken.any():
        place = int(broken.argmax())
        raise ArgumentError(f"{name} holds {'NaN' if np.isnan(vector[place]) else 'infinity'} at position {place}")
    return vector
