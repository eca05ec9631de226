"""Histories: the only form a question to a recommender has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, LongHistoryWarning

if TYPE_CHECKING:
    from kg_loaders import Interactions


@dataclass(frozen=True, eq=False)
class Histories:
    """A ragged batch of users, each given by the items of their past, in order of time where it is known.

    User ``b`` owns ``items[offsets[b]:offsets[b + 1]]``. Training batches, evaluation and a live request all
    build this object. A user without a past is an empty row.

    Args:
        items: Item indices, int64 ``[total]``.
        offsets: Row boundaries from 0 to ``total``, int64 ``[batch_size + 1]``.
        user_index: Who they are, int64 ``[batch_size]``; ``None`` for strangers, -1 for a stranger among known users.
        times: Seconds, float64 ``[total]``; ``None`` where unknown.
        weights: Ratings or counts, float32 ``[total]``; ``None`` where unknown.
        asked_at: When what each user takes next is asked for, seconds, float64 ``[batch_size]``; ``None`` where
            unknown.

    Raises:
        ArgumentError: Shapes, types or offsets contradict each other.

    Example:
        >>> batch = Histories.from_lists([[3, 1], [], [2]])
        >>> len(batch), batch.lengths.tolist(), batch.rows.tolist()
        (3, [2, 0, 1], [0, 0, 2])
        >>> batch.select(torch.tensor([2, 0])).items.tolist()
        [2, 3, 1]
    """

    items: Tensor
    offsets: Tensor
    user_index: Tensor | None = None
    times: Tensor | None = None
    weights: Tensor | None = None
    asked_at: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value in (("items", self.items), ("offsets", self.offsets), ("user_index", self.user_index)):
            if value is not None and (value.dtype != torch.int64 or value.dim() != 1):
                raise ArgumentError(f"histories.{name} must be 1-d int64, got {value.dtype} {list(value.shape)}")
        if self.offsets.numel() == 0:
            raise ArgumentError("histories.offsets must hold batch_size + 1 boundaries, got none")
        for name, value, size in (
            ("user_index", self.user_index, len(self)),
            ("times", self.times, self.items.numel()),
            ("weights", self.weights, self.items.numel()),
            ("asked_at", self.asked_at, len(self)),
        ):
            if value is not None and value.shape != (size,):
                raise ArgumentError(f"histories.{name} must have shape [{size}], got {list(value.shape)}")
        if self.times is not None and not bool(self.times.isfinite().all()):
            raise ArgumentError("histories.times must be finite: an item at no known moment has no place in the order")
        # One check of three facts; spelled out only when it fails.
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first != 0 or last != self.items.numel() or bool((self.lengths < 0).any()):
            raise ArgumentError(f"histories.offsets must rise from 0 to {self.items.numel()}, got {first}..{last}")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], user_index: Sequence[int] | None = None) -> Histories:
        """Make histories from one list of item indices a user."""
        lengths = torch.tensor([len(row) for row in lists], dtype=torch.int64)
        items = torch.tensor([item for row in lists for item in row], dtype=torch.int64)
        users = None if user_index is None else torch.tensor(list(user_index), dtype=torch.int64)
        return cls(items, _offsets(lengths), users)

    @classmethod
    def from_interactions(cls, interactions: Interactions, num_users: int) -> Histories:
        """Make one history a user, for all ``num_users`` users, from interactions grouped by user."""
        users = torch.from_numpy(interactions.user)
        return cls(
            items=torch.from_numpy(interactions.item),
            offsets=_offsets(torch.bincount(users, minlength=num_users)),
            user_index=torch.arange(num_users),
            times=None if interactions.time is None else torch.from_numpy(interactions.time),
            weights=None if interactions.weight is None else torch.from_numpy(interactions.weight),
        )

    def check_items(self, num_items: int) -> None:
        """Make sure that all items are within a catalogue of ``num_items``.

        Raises:
            ArgumentError: One is not.
        """
        if not self.items.numel():
            return
        low, high = (int(bound) for bound in torch.aminmax(self.items))
        if low < 0 or high >= num_items:
            raise ArgumentError(f"histories.items must be within 0..{num_items - 1}, got {low}..{high}")

    @cached_property
    def lengths(self) -> Tensor:
        """Items of each user, int64 ``[batch_size]``."""
        return self.offsets[1:] - self.offsets[:-1]

    @cached_property
    def rows(self) -> Tensor:
        """The user of each item, as a row of this batch, int64 ``[total]``."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.items.device), self.lengths)

    @cached_property
    def followed_at(self) -> Tensor | None:
        """When each item was followed by the next, and the last one by the question, float64 ``[total]``.

        For histories in order of time. Where nobody says when the question was asked, it is with the last item.

        Example:
            >>> times, asked_at = torch.tensor([1.0, 4.0, 5.0]), torch.tensor([9.0, 7.0])
            >>> history = Histories(torch.tensor([3, 1, 2]), torch.tensor([0, 2, 3]), times=times, asked_at=asked_at)
            >>> history.followed_at.tolist()
            [4.0, 9.0, 7.0]
        """
        if self.times is None:
            return None
        last = self.from_end == 0
        final = self.times if self.asked_at is None else self.asked_at[self.rows]
        return torch.where(last, final, self.times.roll(-1))

    @cached_property
    def repeats(self) -> Tensor:
        """How often the history of the same user names the item of each entry, int64 ``[total]``."""
        _, number, times = torch.unique(self._pairs, return_inverse=True, return_counts=True)
        counts: Tensor = times[number]
        return counts

    def distinct(self) -> Histories:
        """Return the same users with each of their items once, where it first comes.

        Example:
            >>> Histories.from_lists([[3, 1, 3], [3]]).distinct().items.tolist()
            [3, 1, 3]
        """
        order = torch.argsort(self._pairs, stable=True)
        again = order[1:][self._pairs[order].diff() == 0]
        if not again.numel():
            return self
        return self.keep(torch.ones_like(self.items, dtype=torch.bool).index_fill_(0, again, False))

    @cached_property
    def _pairs(self) -> Tensor:
        """A number for each pair of a user and an item, int64 ``[total]``."""
        return self.rows * (self.items.max() + 1) + self.items if self.items.numel() else self.items

    def select(self, rows: Tensor) -> Histories:
        """Return the histories at ``rows``, in their order."""
        lengths = self.lengths[rows]
        offsets = _offsets(lengths)
        # Position within the batch, shifted to the position within the store.
        shift = torch.repeat_interleave(self.offsets[:-1][rows] - offsets[:-1], lengths)
        position = torch.arange(int(offsets[-1]), device=self.items.device) + shift
        return Histories(
            self.items[position],
            offsets,
            _at(self.user_index, rows),
            _at(self.times, position),
            _at(self.weights, position),
            _at(self.asked_at, rows),
        )

    def keep(self, mask: Tensor) -> Histories:
        """Return the same users with only the items where ``mask`` (bool ``[total]``) holds."""
        lengths = torch.bincount(self.rows[mask], minlength=len(self))
        return Histories(
            self.items[mask],
            _offsets(lengths),
            self.user_index,
            _at(self.times, mask),
            _at(self.weights, mask),
            self.asked_at,
        )

    @cached_property
    def from_end(self) -> Tensor:
        """How many items of the same user come after each item, int64 ``[total]``."""
        return self.offsets[1:][self.rows] - 1 - torch.arange(self.items.numel(), device=self.items.device)

    def recent(self, length: int) -> Histories:
        """Return the same users with their last ``length`` items at most."""
        return self.keep(self.from_end < length) if bool((self.lengths > length).any()) else self

    def fingerprint(self) -> bytes:
        """Return what tells these histories apart from others, a digest of all they hold."""
        digest = blake2b(digest_size=16)
        for part in (self.offsets, self.items, self.times, self.weights, self.user_index, self.asked_at):
            digest.update(b"-" if part is None else part.cpu().numpy().tobytes())
        return digest.digest()

    def recent_without_each(self, length: int) -> tuple[Histories, Tensor]:
        """Return what decides the last ``length`` items of one history when any one of its items is left out.

        That is one item more than ``length``, for where an item is left out, an older one takes its place.

        Returns:
            The most recent items, in order of time; and, for each item of the history as it came, the place in them
            that is left out with it, int64 ``[total]``. For an item too old to be read that is the first place of
            ``length + 1``: without it, what is read is what was read.

        Raises:
            ArgumentError: Not one row.

        Example:
            >>> times = torch.tensor([3.0, 9.0, 7.0, 5.0])
            >>> history = Histories(torch.tensor([10, 11, 12, 13]), torch.tensor([0, 4]), times=times)
            >>> read, place = history.recent_without_each(2)
            >>> read.items.tolist(), place.tolist()
            ([13, 12, 11], [0, 2, 1, 0])
        """
        if len(self) != 1:
            raise ArgumentError(f"histories must hold one row, got {len(self)}")
        order = self.order()
        read = self.in_order().recent(length + 1)
        place = torch.empty_like(order)
        place[order] = (torch.arange(len(order), device=order.device) - (len(order) - len(read.items))).clamp_(min=0)
        return read, place

    def without_each(self) -> Histories:
        """Return one history without each of its items in turn, a row for each item.

        Raises:
            ArgumentError: Not one row.

        Example:
            >>> Histories.from_lists([[3, 1, 4]]).without_each().items.tolist()
            [1, 4, 3, 4, 3, 1]
        """
        if len(self) != 1:
            raise ArgumentError(f"histories must hold one row, got {len(self)}")
        total = self.items.numel()
        copies = self.select(torch.zeros(total, dtype=torch.int64, device=self.items.device))
        return copies.keep(~torch.eye(total, dtype=torch.bool, device=self.items.device).flatten())

    def warn_longer(self, length: int, reader: str) -> None:
        """Say that ``reader`` keeps the last ``length`` items only, where some histories are longer."""
        longer = int((self.lengths > length).sum())
        if longer:
            text = f"{reader} reads the {length} most recent items of a history; {longer} of {len(self)} are longer"
            # Of the reader's own line, so that members of a blend, prepared one by one, say it once.
            warnings.warn(f"{text} (max_length={length})", LongHistoryWarning, stacklevel=2)

    def next_items(self, length: int) -> tuple[Histories, Tensor]:
        """Return what a model reads to predict each next item, and which items it should predict.

        Args:
            length: Most items of a history that are read, the most recent ones.

        Returns:
            The histories without their last item, asked when it was taken, and a mask, bool ``[total]``, of the items
            that follow their entries one by one.

        Example:
            >>> batch = Histories.from_lists([[3, 1, 4, 1], [5]])
            >>> read, follows = batch.next_items(length=2)
            >>> read.items.tolist(), batch.items[follows].tolist()
            ([1, 4], [4, 1])
        """
        follows = (self.from_end < length) & (self.from_end < self.lengths[self.rows] - 1)
        read = self.keep((self.from_end <= length) & (self.from_end > 0))
        if self.times is None or not self.items.numel():
            return read, follows
        return replace(read, asked_at=self.times[(self.offsets[1:] - 1).clamp(min=0)]), follows

    def endings(self) -> Histories:
        """Return a history for each entry: that entry and those of the same user after it.

        Example:
            >>> endings = Histories.from_lists([[3, 1, 4], [5]]).endings()
            >>> endings.items.tolist(), endings.lengths.tolist()
            ([3, 1, 4, 1, 4, 4, 5], [3, 2, 1, 1])
        """
        lengths = self.from_end + 1
        offsets = _offsets(lengths)
        entries = torch.arange(self.items.numel(), device=self.items.device)
        places = torch.arange(int(offsets[-1]), device=self.items.device)
        position = places + torch.repeat_interleave(entries - offsets[:-1], lengths)
        return Histories(
            self.items[position],
            offsets,
            _at(self.user_index, self.rows),
            _at(self.times, position),
            _at(self.weights, position),
            _at(self.asked_at, self.rows),
        )

    def entries(self, places: Tensor) -> Histories:
        """Return a history of one entry for each place, int64, that of its user.

        Example:
            >>> entries = Histories.from_lists([[3, 1, 4], [5]], user_index=[8, 9]).entries(torch.tensor([3, 1]))
            >>> entries.items.tolist(), entries.user_index.tolist()
            ([5, 1], [9, 8])
        """
        rows, bounds = self.rows[places], torch.arange(len(places) + 1, device=self.items.device)
        return Histories(
            self.items[places],
            bounds,
            _at(self.user_index, rows),
            _at(self.times, places),
            _at(self.weights, places),
            _at(self.asked_at, rows),
        )

    def order(self) -> Tensor:
        """Return the places of the items in order of time within each user, int64 ``[total]``.

        Equal times, and unknown ones, stay as they are.
        """
        places = torch.arange(self.items.numel(), device=self.items.device)
        if self.times is None:
            return places
        falls = (self.times[1:] < self.times[:-1]) & (self.rows[1:] == self.rows[:-1])
        if not bool(falls.any()):
            return places
        by_time = torch.argsort(self.times, stable=True)
        return by_time[torch.argsort(self.rows[by_time], stable=True)]

    def in_order(self) -> Histories:
        """Return the same users with their items in order of time; see :meth:`order`.

        Example:
            >>> times = torch.tensor([9.0, 5.0, 5.0])
            >>> Histories(torch.tensor([0, 1, 2]), torch.tensor([0, 3]), times=times).in_order().items.tolist()
            [1, 2, 0]
        """
        order = self.order()
        return replace(self, items=self.items[order], times=_at(self.times, order), weights=_at(self.weights, order))

    def strangers(self) -> Histories:
        """Return the same histories with nobody's identity."""
        return replace(self, user_index=None)

    def to(self, device: torch.device | str) -> Histories:
        """Return the histories on ``device``."""
        moved = (
            None if t is None else t.to(device, non_blocking=True)
            for t in (self.items, self.offsets, self.user_index, self.times, self.weights, self.asked_at)
        )
        return Histories(*moved)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def __repr__(self) -> str:
        who = "strangers" if self.user_index is None else "users"
        return f"Histories({len(self)} {who}, {self.items.numel()} items)"


def _offsets(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _at(column: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if column is None else column[rows]
