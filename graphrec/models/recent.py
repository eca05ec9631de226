"""Recent: what a model remembers of those whom it was asked about last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any

from torch import Tensor


class Recent:
    """Values by key, as many of those asked for last as there is room for; any number of threads may ask.

    Each key has one value at a time, of one version: what a user's history was before something changed is dropped
    once there is what it is now.

    Args:
        num_bytes: What the tensors of all values may take; a value that alone takes more is not kept.

    Attributes:
        used_bytes: What they take.

    Example:
        >>> import torch
        >>> recent = Recent(800)
        >>> for key in ("a", "b", "c"):
        ...     recent.put(key, b"version", torch.zeros(100))
        >>> recent.get("a", b"version") is None, recent.get("c", b"version").shape, recent.used_bytes
        (True, torch.Size([100]), 800)
    """

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.used_bytes = 0
        self._values: OrderedDict[Hashable, tuple[bytes, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: bytes) -> Any:
        """Return the value of a key; ``None`` where none is remembered, or of another version."""
        with self._lock:
            found, value = self._values.get(key, (b"", None))
            if value is None or found != version:
                return None
            self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, version: bytes, value: Any) -> None:
        """Remember a value, a tensor or a tuple of tensors, and drop what was asked for longest ago."""
        size = _bytes_of(value)
        if size > self.num_bytes:
            return
        with self._lock:
            _, before = self._values.pop(key, (b"", ()))
            self.used_bytes += size - _bytes_of(before)
            self._values[key] = version, value
            while self.used_bytes > self.num_bytes:
                _, (_, oldest) = self._values.popitem(last=False)
                self.used_bytes -= _bytes_of(oldest)


def _bytes_of(value: Tensor | Iterable[Tensor]) -> int:
    parts = (value,) if isinstance(value, Tensor) else value
    return sum(part.untyped_storage().nbytes() for part in parts)
