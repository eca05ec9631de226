"""A frozen two-way mapping between original ids and contiguous indices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError, UnknownIdError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

OnUnknown = Literal["raise", "drop"]

MAX_IDS_SEARCHED_FOR_SUGGESTION = 20_000


class Vocabulary:
    """Original ids (always text, exactly as in the file) and their indices ``0..n-1``.

    Args:
        ids: Distinct ids; their order defines the indices.
        kind: What the ids name (``"user"``, ``"entity"``, ...); used in error messages.

    Raises:
        GraphError: An id occurs twice or is not text.

    Example:
        >>> films = Vocabulary(["Alien", "Heat"], kind="item")
        >>> films.index_of("Heat"), films.id_of(0), len(films)
        (1, 'Alien', 2)
        >>> films.indices_of(["Heat", "Jaws"], on_unknown="drop").tolist()
        [1, -1]
    """

    def __init__(self, ids: Iterable[str], kind: str = "id") -> None:
        self._ids: tuple[str, ...] = tuple(ids)
        self.kind = kind
        # Set difference by length first: the common, valid case costs one pass.
        if len(set(self._ids)) != len(self._ids):
            seen: set[str] = set()
            twice = next(i for i in self._ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise GraphError(f"{kind} id {twice!r} occurs twice in one vocabulary")
        if self._ids and not isinstance(self._ids[0], str):
            raise GraphError(f"{kind} ids must be str, got {type(self._ids[0]).__name__}")

    @classmethod
    def from_range(cls, size: int, kind: str = "id") -> Vocabulary:
        """Ids ``"0"``, ``"1"``, ... for files that already count from zero."""
        return cls(map(str, range(size)), kind)

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids in index order."""
        return self._ids

    @cached_property
    def is_integer(self) -> bool:
        """Whether every id is a canonical decimal integer (``"42"``, not ``"042"``) that fits 64 bits."""
        try:
            return bool(self._ids) and all(str(int(i)) == i and abs(int(i)) < 2**63 for i in self._ids)
        except ValueError:
            return False

    @cached_property
    def _index(self) -> pd.Index[str]:
        import pandas as pd

        index: pd.Index[str] = pd.Index(np.asarray(self._ids, dtype=object))
        return index

    def id_of(self, index: int) -> str:
        """Return the id at ``index``."""
        return self._ids[index]

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        """Return the ids at ``indices``, in their order."""
        return [self._ids[int(i)] for i in indices]

    def index_of(self, id_: str) -> int:
        """Return the index of ``id_``.

        Raises:
            UnknownIdError: The id is not here; the message offers the nearest one.
        """
        return int(self.indices_of([id_])[0])

    def indices_of(self, ids: Iterable[str], on_unknown: OnUnknown = "raise") -> NDArray[np.int64]:
        """Return the indices of many ids; with ``on_unknown="drop"`` unknown ones become -1.

        Raises:
            UnknownIdError: An id is not here and ``on_unknown="raise"``.
        """
        if on_unknown not in ("raise", "drop"):
            raise ValueError(f"on_unknown must be one of 'raise', 'drop', got {on_unknown!r}")
        wanted = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=object)
        found = self._index.get_indexer(wanted)  # type: ignore[arg-type]
        indices = np.asarray(found, dtype=np.int64)
        if on_unknown == "raise" and (indices < 0).any():
            missing = wanted[indices < 0]
            first = str(missing[0])
            hint = did_you_mean(first, self._ids) if len(self) <= MAX_IDS_SEARCHED_FOR_SUGGESTION else ""
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UnknownIdError(f"unknown {self.kind} {first!r}{more} among {len(self)} {self.kind}s{hint}")
        return indices

    def head(self, size: int, kind: str | None = None) -> Vocabulary:
        """Return the vocabulary of the first ``size`` ids."""
        return Vocabulary(self._ids[:size], kind or self.kind)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._ids[:3])) + (", ..." if len(self) > 3 else "")
        return f"Vocabulary({len(self)} {self.kind}s: {shown})"
