"""Questions to a live run, and the vectors of those who ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.serving.live_users import NOTHING, Indices, Times

MOST_VECTORS = 2**16  # of 128 channels: 32 MiB


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


class UserVectors:
    """User vectors of a model whose score is a product; those of the data set's users are kept while they stay.

    A user who likes something is another question, so nothing kept is ever stale. Of people who come once nothing is
    kept. What was asked for longest ago makes room. Any number of threads may ask.

    Args:
        model: In evaluation mode, with weights that stay.
        most: How many vectors are kept.
    """

    def __init__(self, model: Recommender, most: int = MOST_VECTORS) -> None:
        self._model = model
        self._most = most
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, questions: Sequence[Question]) -> Tensor:
        """Return the vector of each who asks, float32 ``[num_questions, dim]``."""
        keys = [None if question.user_index is None else question.fingerprint() for question in questions]
        with self._lock:
            vectors = [None if key is None else self._kept.get(key) for key in keys]
        missing = [number for number, vector in enumerate(vectors) if vector is None]
        if missing:
            product = self._model.product(asked([questions[number] for number in missing]))
            assert product is not None  # or there were no search among products
            for number, vector in zip(missing, product.users.numpy(), strict=True):
                vectors[number] = vector.copy()  # not a view, which would keep the whole batch
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                if key is not None and vector is not None:
                    self._kept[key] = vector
                    self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return torch.from_numpy(np.stack([vector for vector in vectors if vector is not None]))
