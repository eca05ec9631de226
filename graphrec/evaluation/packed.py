"""PackedItems: item vectors in half the memory, for a first look at all of them."""

from __future__ import annotations

import ctypes
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from graphrec.layers.ops.compiled.build import library

GROUP = 16  # items side by side: GROUP in loops.c
LARGEST = 32767  # 16 bits with a sign
SMALLEST = 1e-30  # of a score: below, products of single channels leave float32


class PackedItems:
    r"""Item vectors as whole numbers of 16 bits, :math:`q_{jc} \approx s_c n_{jc}`, in groups of 16 items.

    With few users it is reading the items that takes the time. The best score of each group comes from a compiled loop.

    Args:
        items: :math:`q_j`, float32 ``[num_items, dim]``, finite.
        bias: float32 ``[num_items]``, finite; zeros when not given.

    Example:
        >>> packed = PackedItems(torch.eye(3))
        >>> bool(packed.error(torch.tensor([[1.0, 0.0, 0.0]])) < 2e-5)
        True
    """

    def __init__(self, items: Tensor, bias: Tensor | None = None) -> None:
        num_items, self.dim = items.shape
        self._scale = items.abs().amax(dim=0) / LARGEST  # [dim]; 0 for a channel of zeros, which is off by nothing
        padding = -num_items % GROUP
        steps = items / torch.where(self._scale > 0, self._scale, 1.0)
        whole = F.pad(steps.round(), (0, 0, 0, padding)).to(torch.int16)
        self._items = whole.view(-1, GROUP, self.dim).transpose(1, 2).contiguous()  # [num_groups, dim, 16]
        bias = items.new_zeros(num_items) if bias is None else bias
        self._bias = F.pad(bias, (0, padding), value=-torch.inf)  # items that do not exist are no one's best

    @classmethod
    def of(cls, items: Tensor, bias: Tensor | None) -> Self | None:
        """Return the packed items; ``None`` where there is no compiler, or a number is not finite."""
        given = [items] if bias is None else [items, bias]
        if library() is None or not all(bool(part.isfinite().all()) for part in given):
            return None
        return cls(items, bias)

    def error(self, users: Tensor) -> Tensor:
        """Return how far the scores of each user may be off by packing, ``[batch_size]``."""
        # Half a step in each channel, a little for the division by a step, and numbers that are too small for float32.
        return 0.51 * users.abs() @ self._scale + SMALLEST

    def maxima(self, users: Tensor, offsets: NDArray[np.int64], hidden: NDArray[np.int64]) -> Tensor:
        """Return the best score of each group, ``[batch_size, num_groups]``.

        Args:
            users: float32 ``[batch_size, dim]``, finite.
            offsets: Where the items that do not count for each user begin and end in ``hidden``, ``[batch_size + 1]``.
            hidden: Item indices, each user's in ascending order.
        """
        scaled = (users * self._scale).contiguous()
        out = users.new_empty(len(users), len(self._items))
        begins, ends, hidden = (np.array(part, dtype=np.int64) for part in (offsets[:-1], offsets[1:], hidden))
        sizes = ctypes.c_int64(len(self._items)), ctypes.c_int(len(users)), ctypes.c_int(users.size(1))
        tensors = [ctypes.c_void_p(part.data_ptr()) for part in (self._items, self._bias, scaled)]
        arrays = [ctypes.c_void_p(part.ctypes.data) for part in (begins, ends, hidden)]
        loops = library()
        assert loops is not None  # or there were no packed items
        loops.graphrec_maxima(*sizes, *tensors, *arrays, ctypes.c_void_p(out.data_ptr()))
        return out
