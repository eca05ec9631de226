"""Twins: items of two domains that nearly the same people took, which may be one product listed in both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kg_loaders.linked_pair import LinkedPair

LEAST_USERS = 3  # who took both; fewer may be chance
LEAST_ALIKE = 0.5  # Jaccard index of the two items' users
TIMES_OWN = 1.5  # as alike as the most alike item of either's own domain: tastes alone make goods of one kind alike
BLOCK_ITEMS = 1024  # whose likeness to all others is counted at once

Indices = NDArray[np.int64]


def find_twins(pair: LinkedPair) -> Indices:
    """Return the items of the source and of the target that nearly the same shared users took.

    A shop that lists a product in two departments makes it two items, and a purchase two pairs. One of them in the
    source tells the other where the target holds it out. Two items are twins if three shared users or more took both,
    at least half of those who took either, and they are half as much again alike as any item of their own domain is to
    them. All of the target's pairs count, those held out too: this only finds more to take away from the source.

    Args:
        pair: A pair with shared users; without them there are no twins.

    Returns:
        int64 ``[num_twins, 2]`` of (source item, target item) in the union, the most alike first.
    """
    from scipy.sparse import csr_array

    users, size = pair.shared_users, pair.union.num_items
    if not len(users):
        return np.empty((0, 2), dtype=np.int64)
    place = np.full(pair.union.num_users, -1, dtype=np.int64)
    place[users] = np.arange(len(users))

    def matrix(user: Indices, item: Indices) -> Any:
        rows = place[user] >= 0
        ones = np.ones(int(rows.sum()), dtype=np.float32)
        return csr_array((ones, (place[user[rows]], item[rows])), shape=(len(users), size))

    ours, theirs = pair.source.interactions, pair.target.interactions
    own = pair.items[ours.item]
    apart = own >= pair.target.num_items  # an item that is linked is no twin of itself
    source, target = matrix(pair.users[ours.user[apart]], own[apart]), matrix(theirs.user, theirs.item)
    nearest = np.maximum(_most_alike_own(source), _most_alike_own(target))
    found: list[tuple[float, int, int]] = []
    for row, column, common, alike in _alike(source, target):
        least = np.maximum(LEAST_ALIKE, TIMES_OWN * np.maximum(nearest[row], nearest[column]))
        kept = (common >= LEAST_USERS) & (alike >= least)
        found += zip(-alike[kept], row[kept], column[kept], strict=True)
    return np.array([pair[1:] for pair in sorted(found)], dtype=np.int64).reshape(-1, 2)


def _alike(left: Any, right: Any) -> Iterator[tuple[Indices, Indices, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield pairs of items that somebody took both of, by how many, and the Jaccard index of their users.

    A block of items at a time: the pairs of a large shop are more than memory holds.
    """
    items = left.T.tocsr()
    num_left, num_right = (np.asarray(matrix.sum(axis=0)).ravel() for matrix in (left, right))
    for start in range(0, items.shape[0], BLOCK_ITEMS):
        common = (items[start : start + BLOCK_ITEMS] @ right).tocoo()
        row = common.row + start
        yield row, common.col, common.data, common.data / (num_left[row] + num_right[common.col] - common.data)


def _most_alike_own(matrix: Any) -> NDArray[np.float32]:
    """Return how alike each item is to the most alike other of the same domain that two people took with it."""
    most = np.zeros(matrix.shape[1], dtype=np.float32)
    for row, column, common, alike in _alike(matrix, matrix):
        others = (row != column) & (common > 1)
        np.maximum.at(most, row[others], alike[others])
    return most


def told_by_twins(pair: LinkedPair, twins: Indices) -> NDArray[np.bool_]:
    """Return which of the target's pairs belong to a user who took a twin of the item in the source."""
    size = pair.union.num_items
    ours, theirs = pair.source.interactions, pair.target.interactions
    taken = np.unique(pair.users[ours.user] * size + pair.items[ours.item])
    told = np.zeros(len(theirs), dtype=np.bool_)
    order = np.argsort(twins[:, 1], kind="stable")
    by_target = twins[order]
    first, last = (np.searchsorted(by_target[:, 1], theirs.item, side=side) for side in ("left", "right"))
    for step in range(int((last - first).max(initial=0))):  # an item has few twins
        rows = np.flatnonzero(first + step < last)
        twin = by_target[first[rows] + step, 0]
        told[rows] |= np.isin(theirs.user[rows] * size + twin, taken)
    return told
