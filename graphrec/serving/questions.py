"""Questions to a live run, and what is kept of those who ask: their vectors, or their lists."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.evaluation.ranking import best
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.serving.live_users import NOTHING, Indices, Times

MOST_VECTORS = 2**16  # of 128 channels: 32 MiB
MOST_LISTS, LIST_LENGTH = 2**14, 256  # with their scores: 32 MiB

Rows = NDArray[Any]
Ranked = tuple[NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Question:
    """What :meth:`~graphrec.serving.live.LiveRecommender.answer` is asked: a user's past, and what not to return.

    Args:
        history: Item indices, oldest first.
        times: When each of them was taken, in seconds; ``None`` where the data have no times.
        left_out: Items that are not recommended; the history is not, either.
        user_index: The user's index in the data set; ``None`` for strangers.
        k: How many items.
    """

    history: Indices
    times: Times | None
    left_out: Indices
    user_index: int | None
    k: int

    @property
    def seen(self) -> Indices:
        """All that is not returned."""
        return np.concatenate([self.history, self.left_out]) if len(self.left_out) else self.history

    def fingerprint(self) -> bytes:
        """Return what tells it from others who took something else, or at another time."""
        digest = blake2b(self.history.tobytes(), digest_size=16)
        digest.update(b"" if self.times is None else self.times.tobytes())
        digest.update(str(self.user_index).encode())
        return digest.digest()


def asked(questions: Sequence[Question]) -> Histories:
    """Return what a model is told of those who ask, one row each; an inductive one may know a user's attributes."""
    return in_rows(
        [question.history for question in questions],
        [question.times for question in questions],
        [-1 if question.user_index is None else question.user_index for question in questions],
    )


def drawn_by(questions: Sequence[Question]) -> list[int]:
    """Return who draws the order of ties: as in RunRecommender the user; a stranger counts as the first row."""
    return [question.user_index or 0 for question in questions]


def in_rows(
    rows: Sequence[Indices], times: Sequence[Times | None] = (), user_index: Sequence[int] | None = None
) -> Histories:
    """Return histories of these items."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    told = [part for part in times if part is not None]
    return Histories(
        torch.from_numpy(np.concatenate([NOTHING, *rows])),
        torch.from_numpy(offsets),
        None if user_index is None else torch.tensor(user_index),
        torch.from_numpy(np.concatenate(told)) if told else None,  # a run tells of all users or of none
    )


class Kept:
    """What is found out about questions; of those of the data set's users it is kept while they stay.

    A user who likes something asks another question, whose answer takes the place of that before: nothing kept is ever
    stale, and events make it no more. Of people who come once nothing is kept. What was asked for longest ago makes
    room. It stands in tables that are made once: answers of their own, in the place of others, would leave the heap
    full of holes. Any number of threads may ask.

    Args:
        find: Finds it out for some questions: arrays with a row for each, of the same widths and types every time.
        most: Of how many users it is kept.

    Attributes:
        most: As given.
    """

    def __init__(self, find: Callable[[Sequence[Question]], tuple[Rows, ...]], most: int) -> None:
        self._find = find
        self.most = most
        self._tables: tuple[Rows, ...] = ()
        self._places: OrderedDict[int, tuple[bytes, int]] = OrderedDict()  # by user: what was asked, and the row
        self._lock = threading.Lock()

    def of(self, questions: Sequence[Question]) -> tuple[Rows, ...]:
        """Return what is found out about questions, one at least: arrays with a row for each."""
        asking = [
            None if question.user_index is None else (question.user_index, question.fingerprint())
            for question in questions
        ]
        with self._lock:
            places = [None if who is None else self._place(*who) for who in asking]
            known = np.array([place for place in places if place is not None], dtype=np.int64)
            kept = tuple(table[known] for table in self._tables)
        missing = [number for number, place in enumerate(places) if place is None]
        if not missing:
            return kept
        made = self._find([questions[number] for number in missing])
        with self._lock:
            self._keep([asking[number] for number in missing], made)
        if len(missing) == len(questions):
            return made
        found = tuple(np.empty((len(questions), *rows.shape[1:]), dtype=rows.dtype) for rows in made)
        was_known = np.array([place is not None for place in places])
        for whole, old, new in zip(found, kept, made, strict=True):
            whole[was_known], whole[~was_known] = old, new
        return found

    def _place(self, user: int, fingerprint: bytes) -> int | None:
        kept, place = self._places.get(user, (b"", 0))
        if kept != fingerprint:
            return None
        self._places.move_to_end(user)
        return place

    def _keep(self, asking: Sequence[tuple[int, bytes] | None], made: tuple[Rows, ...]) -> None:
        if not self._tables:
            self._tables = tuple(np.empty((self.most, *rows.shape[1:]), dtype=rows.dtype) for rows in made)
        for number, who in enumerate(asking):
            if who is None:
                continue
            user, fingerprint = who
            _, place = self._places.pop(user, (b"", len(self._places)))
            if place == self.most:
                _, (_, place) = self._places.popitem(last=False)
            self._places[user] = fingerprint, place
            for table, rows in zip(self._tables, made, strict=True):
                table[place] = rows[number]


class UserVectors:
    """User vectors of a model whose score is a product; see :class:`Kept`.

    Args:
        model: In evaluation mode, with weights that stay.
        most: How many vectors are kept.
    """

    def __init__(self, model: Recommender, most: int = MOST_VECTORS) -> None:
        self._model = model
        self._kept = Kept(self._find, most)

    @property
    def most(self) -> int:
        """Of how many users vectors are kept."""
        return self._kept.most

    def of(self, questions: Sequence[Question]) -> Tensor:
        """Return the vector of each who asks, one at least, float32 ``[num_questions, dim]``."""
        (vectors,) = self._kept.of(questions)
        return torch.from_numpy(vectors)

    def _find(self, questions: Sequence[Question]) -> tuple[Rows]:
        product = self._model.product(asked(questions))
        assert product is not None  # or there were no search among products
        return (product.users.numpy(),)


class UserLists:
    """Lists of a model whose score is no product; see :class:`Kept`.

    Args:
        model: In evaluation mode, with weights that stay.
        seed: Decides the order of ties.
        most: How many lists are kept.
        length: Items of each list, before those that the user does not want are left out.
    """

    def __init__(self, model: Recommender, seed: int, most: int = MOST_LISTS, length: int = LIST_LENGTH) -> None:
        self._model = model
        self._seed = seed
        self._length = length
        self._kept = Kept(lambda questions: self._find(questions, length), most)

    @property
    def most(self) -> int:
        """Of how many users lists are kept."""
        return self._kept.most

    def of(self, questions: Sequence[Question]) -> list[Ranked]:
        """Return the best items for each who asks, and their scores: ``k`` of them, or as many as there are."""
        fits = [question.k + len(question.left_out) <= self._length for question in questions]
        fitting = [question for question, fit in zip(questions, fits, strict=True) if fit]
        short = zip(*self._kept.of(fitting), strict=True) if fitting else iter(())
        lists = []
        for question, fit in zip(questions, fits, strict=True):
            if fit:
                items, scores = next(short)
            else:
                (items,), (scores,) = self._find([question], question.k + len(question.left_out))
            wanted = np.flatnonzero((items >= 0) & ~np.isin(items, question.left_out))[: question.k]
            lists.append((items[wanted], scores[wanted]))
        return lists

    def _find(self, questions: Sequence[Question], length: int) -> tuple[Rows, Rows]:
        """Return lists without what the users took, and nothing else; where they end, item -1."""
        seen = in_rows([question.history for question in questions], user_index=drawn_by(questions))
        items, scores = best(self._model, self._model.score(asked(questions)), length, seen, self._seed)
        return items.numpy().astype(np.int32), scores.numpy()
