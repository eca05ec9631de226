"""Train, validation and test: six ways to split a graph's interactions, always disjoint.

Every function returns a new graph in which each (user, item) pair carries exactly one code of
:data:`~kg_loaders.graph.SPLITS`. The draws come from ``numpy.random.default_rng(seed)`` over the pairs in the order of
their indices, so the order of rows in a file changes nothing; only :func:`leave_last` and :func:`carve_last` leave
equal times in file order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError, KGLoaderError
from kg_loaders.graph import SPLITS, RecGraph

TRAIN, VALID, TEST = range(len(SPLITS))

# Added before rounding so that a share such as 45 * 0.7 = 31.499999999999996 counts as the half that it stands for.
ROUNDING_SLACK = 1e-9


def random_split(graph: RecGraph, ratios: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> RecGraph:
    """Split each user's items at random.

    A user with ``n`` items gives ``round(n * ratios[2])`` of them to test and ``round(n * ratios[1])`` to validation
    (halves go up), the rest to train. Where nothing would be left for train, validation gives way first, then test:
    each user keeps at least one train item, and a user with too few items stays in train only.

    Args:
        graph: Any graph; a split that it already has is replaced.
        ratios: The shares of train, validation and test; they sum to 1.
        seed: Seed of the draw, at least 0.

    Returns:
        The graph with ``interactions.split`` set.

    Raises:
        KGLoaderError: The ratios or the seed are not allowed.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> parts = random_split(planted(), (0.6, 0.2, 0.2), seed=1)
        >>> [len(parts.part(name)) for name in ("train", "valid", "test")]
        [960, 360, 360]
    """
    _, valid_ratio, test_ratio = _checked_ratios(ratios)
    rows = np.arange(graph.num_interactions)
    return graph.with_split(_draw(graph, rows, valid_ratio, test_ratio, seed))


def carve_valid(graph: RecGraph, ratio: float = 0.1, seed: int = 0) -> RecGraph:
    """Carve a validation part out of train, user by user, for a graph that comes with train (and test) only.

    A user with ``n`` train items gives ``round(n * ratio)`` of them (halves go up) and keeps at least one; test is
    untouched. A graph without a split counts as all train.

    Args:
        graph: A graph without validation pairs.
        ratio: The share of each user's train items, within 0 and 1 (both excluded).
        seed: Seed of the draw, at least 0.

    Returns:
        The graph with ``interactions.split`` set.

    Raises:
        GraphError: The graph has validation pairs already.
        KGLoaderError: The ratio or the seed is not allowed.
    """
    if not 0 < ratio < 1:
        raise KGLoaderError(f"ratio must be within 0 and 1 (both excluded), got {ratio!r}")
    _check_no_valid(graph, "carve_valid")
    old = graph.interactions.split
    split = np.full(graph.num_interactions, TRAIN, dtype=np.int8) if old is None else old.copy()
    rows = np.flatnonzero(split == TRAIN)
    split[rows] = _draw(graph, rows, ratio, 0.0, seed)
    return graph.with_split(split)


def carve_cold(graph: RecGraph, ratio: float = 0.1, seed: int = 0) -> RecGraph:
    """Carve a validation part out of train, item by item: it says how a model ranks items that nobody took in training.

    Of the items with train pairs, ``round(n * ratio)`` (at least one) give all of these to validation; test is
    untouched. A graph without a split counts as all train. Users who took nothing else keep no train pair.

    Args:
        graph: A graph without validation pairs.
        ratio: The share of these items, within 0 and 1 (both excluded).
        seed: Seed of the draw, at least 0.

    Returns:
        The graph with ``interactions.split`` set.

    Raises:
        GraphError: The graph has validation pairs already.
        KGLoaderError: The ratio or the seed is not allowed.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> graph = carve_cold(planted().with_split(None), 0.2)
        >>> train, valid = graph.part("train").item, graph.part("valid").item
        >>> len(np.intersect1d(train, valid)), round(len(np.unique(valid)) / len(np.unique([*train, *valid])), 2)
        (0, 0.2)
    """
    if not 0 < ratio < 1:
        raise KGLoaderError(f"ratio must be within 0 and 1 (both excluded), got {ratio!r}")
    _check_seed(seed)
    _check_no_valid(graph, "carve_cold")
    old = graph.interactions.split
    split = np.full(graph.num_interactions, TRAIN, dtype=np.int8) if old is None else old.copy()
    is_train = split == TRAIN
    taken = np.unique(graph.interactions.item[is_train])
    count = max(1, round(len(taken) * ratio))
    cold = np.random.default_rng(seed).permutation(taken)[:count]
    split[is_train & np.isin(graph.interactions.item, cold)] = VALID
    return graph.with_split(split)


def leave_last(graph: RecGraph, k: int = 1) -> RecGraph:
    """Give each user's last ``k`` items to test, the ``k`` before them to validation, the rest to train.

    Time sorts stably: items of the same time stay in the order in which the graph, and before it the file, has them.
    A user with fewer than ``2 * k + 1`` items stays in train only.

    Args:
        graph: A graph with times; a split that it already has is replaced.
        k: How many items each of test and validation gets, at least 1.

    Returns:
        The graph with ``interactions.split`` set.

    Raises:
        GraphError: The interactions have no times.
        KGLoaderError: ``k`` is not allowed.
    """
    from_end, counts = _from_end(graph, np.arange(graph.num_interactions), k, "leave_last")
    split = np.full(graph.num_interactions, TRAIN, dtype=np.int8)
    split[from_end < 2 * k] = VALID
    split[from_end < k] = TEST
    split[counts < 2 * k + 1] = TRAIN
    return graph.with_split(split)


def carve_last(graph: RecGraph, k: int = 1) -> RecGraph:
    """Give each user's last ``k`` train items to validation, for a graph whose test part is elsewhere or is given.

    Time sorts stably, as in :func:`leave_last`. A user with fewer than ``k + 1`` train items stays in train only; test
    is untouched. A graph without a split counts as all train.

    Args:
        graph: A graph with times and without validation pairs.
        k: How many items validation gets, at least 1.

    Returns:
        The graph with ``interactions.split`` set.

    Raises:
        GraphError: The interactions have no times, or the graph has validation pairs already.
        KGLoaderError: ``k`` is not allowed.

    Example:
        >>> import numpy as np
        >>> from kg_loaders.synthetic import planted
        >>> graph = planted().with_split(np.zeros(1680, dtype=np.int8))
        >>> [len(carve_last(graph).part(name)) for name in ("train", "valid", "test")]
        [1560, 120, 0]
    """
    _check_no_valid(graph, "carve_last")
    old = graph.interactions.split
    split = np.full(graph.num_interactions, TRAIN, dtype=np.int8) if old is None else old.copy()
    rows = np.flatnonzero(split == TRAIN)
    from_end, counts = _from_end(graph, rows, k, "carve_last")
    split[rows[(from_end < k) & (counts > k)]] = VALID
    return graph.with_split(split)


def temporal(graph: RecGraph, ratios: Sequence[float] = (0.8, 0.1, 0.1)) -> RecGraph:
    """Cut all interactions at two moments: train before the first, test after the second.

    The cuts fall after ``round(n * ratios[0])`` and ``round(n * (ratios[0] + ratios[1]))`` of the ``n`` interactions
    in order of time (halves go up). Interactions of the same moment stay together, in the earlier part, so the parts
    can differ from the ratios and row order changes nothing. A user may have no train items here: a stranger.

    Args:
        graph: A graph with times; a split that it already has is replaced.
        ratios: The shares of train, validation and test; they sum to 1.

    Returns:
        The graph with ``interactions.split`` set.

    Raises:
        GraphError: The interactions have no times.
        KGLoaderError: The ratios are not allowed.
    """
    train_ratio, _, test_ratio = _checked_ratios(ratios)
    time = _times(graph, "temporal")
    split = np.full(len(time), TEST, dtype=np.int8)
    in_order = np.sort(time)
    for code, share in ((VALID, 1.0 - test_ratio), (TRAIN, train_ratio)):
        size = int(_rounded(np.asarray(len(time) * share)))
        if size:
            split[time <= in_order[size - 1]] = code
    return graph.with_split(split)


def _draw(
    graph: RecGraph, rows: NDArray[np.int64], valid_ratio: float, test_ratio: float, seed: int
) -> NDArray[np.int8]:
    """Return a split code for each of the interactions at ``rows``, drawn within each user."""
    _check_seed(seed)
    user, item = graph.interactions.user[rows], graph.interactions.item[rows]
    keys = np.empty(len(rows))
    # The draw follows the pairs' indices, so that equal times in another file order draw the same items.
    keys[np.lexsort((item, user))] = np.random.default_rng(seed).random(len(rows))
    counts = np.bincount(user, minlength=graph.num_users)
    test = np.minimum(_rounded(counts * test_ratio), np.maximum(counts - 1, 0))
    valid = np.minimum(_rounded(counts * valid_ratio), np.maximum(counts - 1 - test, 0))
    rank = _ranks(user, np.lexsort((keys, user)), counts)
    split = np.full(len(rows), TRAIN, dtype=np.int8)
    split[rank < (test + valid)[user]] = VALID
    split[rank < test[user]] = TEST
    return split


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise KGLoaderError(f"seed must be an integer of at least 0, got {seed!r}")


def _from_end(
    graph: RecGraph, rows: NDArray[np.int64], k: int, function: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each of the interactions at ``rows``, its place from its user's end and how many the user has."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise KGLoaderError(f"k must be an integer of at least 1, got {k!r}")
    time, user = _times(graph, function)[rows], graph.interactions.user[rows]
    by_time = np.argsort(time, kind="stable")
    order = by_time[np.argsort(user[by_time], kind="stable")]
    counts = np.bincount(user, minlength=graph.num_users)
    return counts[user] - 1 - _ranks(user, order, counts), counts[user]


def _check_no_valid(graph: RecGraph, function: str) -> None:
    if graph.has_split("valid"):
        raise GraphError(f"graph {graph.name!r} has validation pairs already; {function} would mix them with new ones")


def _ranks(user: NDArray[np.int64], order: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each row's place among its user's rows, where ``order`` lists the rows user by user."""
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(user), dtype=np.int64)
    ranks[order] = np.arange(len(user)) - starts[user[order]]
    return ranks


def _rounded(shares: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    return np.asarray(np.floor(shares + 0.5 + ROUNDING_SLACK), dtype=np.int64)


def _times(graph: RecGraph, function: str) -> NDArray[np.float64]:
    if graph.interactions.time is None:
        raise GraphError(f"{function} needs the time of every interaction, and graph {graph.name!r} has none")
    return graph.interactions.time


def _checked_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    values = [float(ratio) for ratio in ratios]
    allowed = len(values) == len(SPLITS) and min(values) >= 0 and values[0] > 0 and abs(sum(values) - 1) < 1e-6
    if not allowed:
        raise KGLoaderError(
            f"ratios must be {len(SPLITS)} numbers ({', '.join(SPLITS)}) of at least 0 that sum to 1, train above 0, "
            f"got {tuple(ratios)}"
        )
    return values[0], values[1], values[2]
