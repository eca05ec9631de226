"""Recent: what a model remembers of the histories that it was asked about last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any

from torch import Tensor


class Recent:
    """Values by key, as many of those asked for last as there is room for; any number of threads may ask.

    Args:
        num_bytes: What the tensors of all values may take; a value that alone takes more is not kept.

    Attributes:
        used_bytes: What they take.

    Example:
        >>> import torch
        >>> recent = Recent(800)
        >>> for key in ("a", "b", "c"):
        ...     recent.put(key, torch.zeros(100))
        >>> recent.get("a") is None, recent.get("c").shape, recent.used_bytes
        (True, torch.Size([100]), 800)
    """

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.used_bytes = 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """Return the value of a key; ``None`` where it is not remembered."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Remember a value, a tensor or a tuple of tensors, and drop what was asked for longest ago."""
        size = _bytes_of(value)
        if size > self.num_bytes:
            return
        with self._lock:
            self.used_bytes += size - _bytes_of(self._values.pop(key, ()))
            self._values[key] = value
            while self.used_bytes > self.num_bytes:
                _, oldest = self._values.popitem(last=False)
                self.used_bytes -= _bytes_of(oldest)


def _bytes_of(value: Tensor | Iterable[Tensor]) -> int:
    parts = (value,) if isinstance(value, Tensor) else value
    return sum(part.untyped_storage().nbytes() for part in parts)
