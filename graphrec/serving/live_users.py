"""LiveUsers: the past of every user of a live run, in its data and by the events since."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import ArgumentError
from graphrec.serving.recommender import RunRecommender

Indices = NDArray[np.int64]
Times = NDArray[np.float64]
NOTHING: Indices = np.empty(0, dtype=np.int64)
MOST_CHANGES = 10_000  # items that one user may have liked and disliked since training


@dataclass(frozen=True)
class Change:
    """What a user's events have changed.

    Args:
        liked: Items that joined the history, in the order of the events.
        disliked: Items that left it, and are not recommended.
    """

    liked: tuple[int, ...] = ()
    disliked: frozenset[int] = frozenset()

    def after(self, item: int, kind: str) -> Change:
        """Return what has changed after one more event."""
        liked = tuple(other for other in self.liked if other != item)
        return Change(
            (*liked, item) if kind == "like" else liked,
            self.disliked | {item} if kind == "dislike" else self.disliked - {item},
        )


@dataclass(frozen=True, eq=False)
class KnownUser:
    """What is known of a user at one moment, whatever the store's thread takes meanwhile.

    Args:
        index: Index in the data set; ``None`` for who is not in it.
        change: What their events have changed.
        past: Items of their past, oldest first: the data set's, and what was liked since.
        times: When each of these was taken, in seconds; ``None`` where the data have no times.
    """

    index: int | None
    change: Change
    past: Indices
    times: Times | None


class LiveUsers:
    """The users of a run's data and those who have sent events since, with their pasts.

    An inductive model reads what events change; for a model with a user table the past stays the data's.

    Args:
        run: The fitted model with its graph.
    """

    def __init__(self, run: RunRecommender) -> None:
        self._inductive = run.model.inductive
        self._index = {id_: index for index, id_ in enumerate(run.graph.users)}
        self._past = run.known.items.numpy()
        self._times = None if run.known.times is None else run.known.times.numpy()
        self._offsets = run.known.offsets.tolist()
        self._changes: dict[str, Change] = {}

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._index or user_id in self._changes

    def index_of(self, user_id: str) -> int | None:
        """Return a user's index in the data set; ``None`` for who is not in it."""
        return self._index.get(user_id)

    def change(self, user_id: str) -> Change:
        """Return what a user's events have changed; nothing for a user without any."""
        return self._changes.get(user_id, Change())

    def known(self, user_id: str) -> KnownUser:
        """Return what is known of a user now, all of it from one reading of their events.

        What was liked since counts as taken with the last of the data: a model has learned of the time between things
        that people did, and none of how long a data set has been at rest. Of somebody who is not in the data all counts
        as taken just now, as of a stranger.
        """
        index, change = self.index_of(user_id), self.change(user_id)
        in_data = slice(0, 0) if index is None else slice(self._offsets[index], self._offsets[index + 1])
        past = self._after(self._past[in_data], change)
        if self._times is None:
            return KnownUser(index, change, past, None)
        told = self._times[in_data]
        if not len(told):
            return KnownUser(index, change, past, np.full(len(past), time.time()))
        kept = told[np.isin(self._past[in_data], past)]
        return KnownUser(index, change, past, np.concatenate([kept, np.full(len(past) - len(kept), told.max())]))

    def past(self, user_id: str) -> Indices:
        """Return the items of a user's past, oldest first: the data set's, and what was liked since."""
        return self.known(user_id).past

    def times(self, user_id: str) -> Times | None:
        """Return when each item of :meth:`past` was taken, in seconds; ``None`` where the data have no times."""
        return self.known(user_id).times

    def _after(self, past: Indices, change: Change) -> Indices:
        """Return a past of the data after what events changed."""
        if not self._inductive or change == Change():
            return past
        if change.disliked:
            past = past[~np.isin(past, list(change.disliked))]
        liked = np.array(change.liked, dtype=np.int64)
        return np.concatenate([past, liked[~np.isin(liked, past)]])

    def search(self, text: str, limit: int) -> list[str]:
        """Return users whose id begins with ``text``, the shortest ids first."""
        new = [id_ for id_ in list(self._changes) if id_ not in self._index]
        found = (id_ for ids in (self._index, new) for id_ in ids if id_.startswith(text))
        return heapq.nsmallest(limit, found, key=lambda id_: (len(id_), id_))

    def check_room(self, user_id: str, item: int, kind: str) -> None:
        """Make sure that a user may send an event about an item.

        Raises:
            ArgumentError: They like and dislike as many items as one user may, and this would be one more.
        """
        change = self.change(user_id)
        if kind == "undo" or item in change.disliked:
            return
        if len(change.liked) + len(change.disliked) >= MOST_CHANGES and item not in change.liked:
            raise ArgumentError(f"a user may like and dislike {MOST_CHANGES:,} items, and this one has")

    def take(self, user_id: str, item: int, kind: str) -> None:
        """Take one event about an item."""
        self._changes[user_id] = self.change(user_id).after(item, kind)
