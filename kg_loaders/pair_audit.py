"""What could make figures on a linked pair untrue: what its union knows of the target's held-out pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kg_loaders.audit import Finding
from kg_loaders.joining import HELD_OUT_PAIRS, TRAIN
from kg_loaders.twins import find_twins, told_by_twins

if TYPE_CHECKING:
    from kg_loaders.graph import RecGraph
    from kg_loaders.linked_pair import LinkedPair

LOOK_ALIKE = 0.5  # Jaccard index of two histories from which on two users may be one person
LOOK_ALIKE_ITEMS = 10

Indices = NDArray[np.int64]


def audit_pair(pair: LinkedPair) -> list[Finding]:
    """Look for what the union knows of the target's held-out part; see :meth:`LinkedPair.audit`."""
    union, target = pair.union, pair.target
    size = union.num_items
    pairs, split = union.interactions, _codes(union)
    keys = pairs.user * size + pairs.item
    their_split = _codes(target)
    their_keys = target.interactions.user * size + target.interactions.item
    told = keys[split == TRAIN]
    leaked = np.isin(their_keys[their_split != TRAIN], told)
    removed = pair.dropped.get(HELD_OUT_PAIRS, 0)
    unequal = len(np.setxor1d(keys[pair.from_target] * 3 + split[pair.from_target], their_keys * 3 + their_split))
    beyond = int((split[~pair.from_target] != TRAIN).sum())

    def verdict(count: int, bad: Literal["note", "problem"]) -> Literal["ok", "note", "problem"]:
        return bad if count else "ok"

    findings = [
        Finding("held-out target pairs in train", int(leaked.sum()), verdict(int(leaked.sum()), "problem"),
                "the union's train tells the answer"),
        Finding("held-out target pairs in the source", removed, verdict(removed, "note"),
                "left out of the union; a source read on its own would tell them"),
        Finding("target pairs of another split", unequal, verdict(unequal, "problem"),
                "the target's split must be as it was"),
        Finding("source pairs outside train", beyond, verdict(beyond, "problem"), "all of the source is train"),
    ]  # fmt: skip
    return [*findings, _twins(pair), _later(pair), _look_alikes(pair)]


def _twins(pair: LinkedPair) -> Finding:
    """Count the held-out pairs whose user took, in the source, an item that may be the same product."""
    check = "held-out target pairs told by a twin"
    if not len(pair.shared_users):
        return Finding(check, None, "-", "no shared users")
    twins = find_twins(pair)
    held = _codes(pair.target) != TRAIN
    told = int((told_by_twins(pair, twins) & held).sum())
    remark = f"of {int(held.sum()):,}; in the source their user took what may be the same item: see without_twins()"
    entities = pair.union.entities
    examples = tuple(f"{entities.id_of(int(one))} = {entities.id_of(int(other))}" for one, other in twins[:3])
    return Finding(check, told, "problem" if told else "ok", remark, examples)


def _later(pair: LinkedPair) -> Finding:
    """Count the source pairs that shared users made after the first pair that the target holds out of them."""
    check, remark = "source pairs after the held-out ones", "of shared users; in use, the source's future is not known"
    time = pair.union.interactions.time
    if time is None or not len(pair.shared_users):
        return Finding(check, None, "-", "no shared users with times")
    pairs, split = pair.union.interactions, _codes(pair.union)
    first = np.full(pair.union.num_users, np.inf)
    held = split != TRAIN
    np.minimum.at(first, pairs.user[held], time[held])
    later = int((~pair.from_target & (time > first[pairs.user])).sum())
    return Finding(check, later, "note" if later else "ok", remark)


def _look_alikes(pair: LinkedPair) -> Finding:
    """Count the target users whose history over shared items some other source user has nearly too.

    Such a user may be the same person under another id, and the source then tells the held-out items after all.
    """
    check = "target users with a look-alike in the source"
    if len(pair.shared_items) < LOOK_ALIKE_ITEMS:
        return Finding(check, None, "-", "few or no shared items")
    from scipy.sparse import csr_array

    shared = np.full(pair.union.num_items, -1, dtype=np.int64)
    shared[pair.shared_items] = np.arange(len(pair.shared_items))

    def matrix(user: Indices, item: Indices, num_users: int) -> Any:
        rows = shared[item] >= 0
        ones = np.ones(int(rows.sum()), dtype=np.float32)
        return csr_array((ones, (user[rows], shared[item[rows]])), shape=(num_users, len(pair.shared_items)))

    ours, theirs = pair.source.interactions, pair.target.interactions
    source = matrix(ours.user, pair.items[ours.item], pair.source.num_users)
    target = matrix(theirs.user, theirs.item, pair.target.num_users)
    num_ours, num_theirs = (np.asarray(m.sum(axis=1)).ravel() for m in (source, target))
    looking = np.flatnonzero(num_theirs >= LOOK_ALIKE_ITEMS)
    found: list[tuple[int, int, float]] = []
    for part in np.array_split(looking, -(-len(looking) // 256) or 1):
        common = (target[part] @ source.T).tocoo()
        user = part[common.row]
        index = common.data / (num_theirs[user] + num_ours[common.col] - common.data)
        other = pair.users[common.col] != user
        alike = np.flatnonzero((index >= LOOK_ALIKE) & other)
        found += [(int(user[k]), int(common.col[k]), float(index[k])) for k in alike]
    found.sort(key=lambda one: -one[2])
    users = len({user for user, _, _ in found})
    return Finding(
        check,
        users,
        "note" if users else "ok",
        f"histories of {LOOK_ALIKE_ITEMS} shared items or more, {LOOK_ALIKE:.0%} alike; perhaps one person",
        tuple(
            f"{pair.target.users.id_of(user)} - {pair.source.users.id_of(other)} ({index:.2f})"
            for user, other, index in found[:3]
        ),
    )


def _codes(graph: RecGraph) -> NDArray[np.int8]:
    split = graph.interactions.split
    assert split is not None, "a pair's target and union are split"
    return split
