"""ProductSearch: the best k items by inner products, without writing down the scores of all of them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.evaluation.packed import GROUP, PackedItems
from graphrec.evaluation.topk import NotANumberError, drawn_by_whom, in_drawn_order, top_k
from graphrec.histories import Histories

if TYPE_CHECKING:
    from graphrec.models.base import Recommender

# Scores computed at once, 1 MiB of them: they stay in a core's own cache until their maxima have been taken.
BLOCK_SCORES = 2**18
FEWEST_ROWS, MOST_ROWS = 2**10, 2**15  # items of a block
FEW_SCORES = 2**16  # of which none is worth leaving out
HEIGHT = GROUP  # items that share a maximum
MOST_PACKED = 32  # users; the arithmetic of more takes longer than reading the items does
SPARE = 2  # groups searched beyond the k that would do if products were exact
FEWEST_GROUPS = 4  # for each one that is searched; with fewer, to score all items costs no more


class ProductSearch:
    r"""Finds the items of largest :math:`p_u \cdot q_j + b_j`, as :func:`~graphrec.evaluation.topk.top_k` does.

    Where scores are few, all are made. Else items are scored block by block, and of each block only the
    maxima of groups of 16 items are kept. The k-th largest maximum bounds the k-th best score from below, so the k
    groups with the largest maxima hold the answer; they, and two more, are scored again. Two products of the same
    vectors may differ in their last digits, by

    .. math:: \varepsilon = 2 (d + 2) 2^{-24} \, |p_u| \max_j |q_j|

    at most. Where a group that was left out comes nearer than that to the last of the list, or the cut-off runs through
    a tie, the row is ranked by its scores of all items. So lists are exact, and ties are drawn as in ``top_k``. For few
    users the maxima are those of :class:`~graphrec.evaluation.packed.PackedItems`, whose error is known too.

    Args:
        items: :math:`q_j`, float32 ``[num_items, dim]``, on the CPU.
        bias: :math:`b_j`, float32 ``[num_items]``; zeros when not given.

    Raises:
        ArgumentError: Shapes or types that do not fit.

    Example:
        >>> search = ProductSearch(torch.eye(3), torch.tensor([0.0, 0.0, 5.0]))
        >>> items, scores = search.top_k(torch.tensor([[1.0, 0.0, 0.0]]), k=2, seen=None)
        >>> items.tolist(), scores.tolist()
        ([[2, 0]], [[5.0, 1.0]])
    """

    def __init__(self, items: Tensor, bias: Tensor | None = None) -> None:
        if items.dim() != 2 or items.dtype != torch.float32 or items.device.type != "cpu":
            raise ArgumentError(
                f"items must be float32 [num_items, dim] on the CPU, got {items.dtype} {list(items.shape)} "
                f"on {items.device}"
            )
        if bias is not None and (bias.shape != items.shape[:1] or bias.dtype != torch.float32):
            raise ArgumentError(f"bias must be float32 [{len(items)}], got {bias.dtype} {list(bias.shape)}")
        self._items, self._bias = items.detach(), None if bias is None else bias.detach()
        # A bias is one more column, against a 1 in the query: to add it afterwards would be a pass over all scores.
        table = self._items if self._bias is None else torch.cat([self._items, self._bias.unsqueeze(1)], dim=1)
        self._table = table.contiguous()  # [num_items, width]
        self._longest = float(self._table.norm(dim=1).max()) if len(table) else 0.0

    @cached_property
    def packed(self) -> PackedItems | None:
        """The items in half the memory, made when few users first ask; ``None`` where they cannot be."""
        return PackedItems.of(self._items, self._bias)

    @classmethod
    def of(cls, model: Recommender, histories: Histories) -> ProductSearch | None:
        """Return the search among a model's items; ``None`` where its score is no product, or not made on the CPU.

        Args:
            model: In evaluation mode, with weights that stay.
            histories: Any that the model can score.
        """
        with torch.no_grad():
            product = model.product(histories)
        if product is None or product.items.dtype != torch.float32 or product.items.device.type != "cpu":
            return None
        return cls(product.items, product.bias)

    @torch.no_grad()
    def top_k(self, users: Tensor, k: int, seen: Histories | None, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return the ``k`` best items of each user, best first; see :func:`~graphrec.evaluation.topk.top_k`.

        Args:
            users: float32 ``[batch_size, dim]``.
            k: How many items, at least 1; may exceed the number of items.
            seen: One row a user, of items that are not to be returned; ``None`` leaves out nothing.
            seed: Decides the order of ties.

        Returns:
            Item indices, int64 ``[batch_size, k]``, -1 where no item is left, and their scores, ``-inf`` there.

        Raises:
            ArgumentError: A score is NaN, or shapes contradict each other.
        """
        check_range("k", k, low=1)
        num_items, dim = self._items.shape
        if users.dim() != 2 or users.size(1) != dim or users.dtype != torch.float32:
            raise ArgumentError(f"users must be float32 [batch_size, {dim}], got {users.dtype} {list(users.shape)}")
        searched = k + SPARE
        few = num_items < searched * FEWEST_GROUPS * HEIGHT
        if few or len(users) * num_items <= FEW_SCORES:
            return top_k(self._scores(users), k, seen, seed)
        drawn_by = drawn_by_whom(seen, len(users), num_items, users.device)
        asked = users if self._bias is None else torch.cat([users, users.new_ones(len(users), 1)], dim=1)
        packed = self.packed if len(users) <= MOST_PACKED and bool(users.isfinite().all()) else None
        blocks = _Blocks(self._table, asked.contiguous(), seen, packed)
        # From here on the arrays are small, and numpy's operators start in a fraction of the time of torch's.
        best, groups = (found.numpy() for found in blocks.maxima().topk(searched + 1, dim=1))
        not_a_number = np.isnan(best[:, 0])  # NaN counts as the largest of all
        if not_a_number.any():
            raise NotANumberError(int(not_a_number.argmax()))
        items, scores = blocks.scores(groups[:, :searched])
        top, place = torch.from_numpy(scores).topk(k + 1, dim=1)
        found = torch.from_numpy(np.take_along_axis(items, place.numpy()[:, :k], axis=1))
        last, after = top.numpy()[:, k - 1], top.numpy()[:, k]
        top = top[:, :k]
        slack = 2 * (dim + 2) * 2.0**-24 * self._longest * asked.norm(dim=1).numpy()
        if packed is not None:
            slack += packed.error(users).numpy()
        # The other way round, so that what cannot be compared is in doubt too.
        with np.errstate(invalid="ignore"):  # infinite scores
            doubtful = np.flatnonzero(~((after < last) & (best[:, searched] + slack < last)))
        found = in_drawn_order(top, found, drawn_by, num_items, seed)
        if doubtful.size:
            rows = torch.from_numpy(doubtful)
            past = Histories.from_lists([[]] * len(users)) if seen is None else seen
            some = replace(past.select(rows), user_index=drawn_by[rows])
            found[rows], top[rows] = top_k(self._scores(users[rows]), k, some, seed)
        return found, top

    def _scores(self, users: Tensor) -> Tensor:
        items = self._items.t()
        return users @ items if self._bias is None else torch.addmm(self._bias, users, items)


class _Blocks:
    """The scores of one batch, a block of items at a time.

    In a block of w groups, group g is items g, g + w, g + 2 w, ...: so the maxima are elementwise maxima of long rows.
    The last block is filled up with items that do not exist, of score ``-inf``.

    Args:
        table: ``[num_items, width]``.
        asked: ``[batch_size, width]``.
        seen: Whose scores are ``-inf``.
        packed: The same items, whose groups are blocks of their own.
    """

    def __init__(self, table: Tensor, asked: Tensor, seen: Histories | None, packed: PackedItems | None) -> None:
        self._table = table
        self._asked = asked
        self._packed = packed
        rows = min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // len(asked)), len(table) + HEIGHT - 1)
        self._width = rows // HEIGHT if packed is None else 1  # groups of a block
        self._rows = self._width * HEIGHT
        self._num_blocks = math.ceil(len(table) / self._rows)
        items = np.empty(0, dtype=np.int64) if seen is None else seen.items.numpy()
        order = np.argsort(items)
        self._hidden_items = items[order]
        self._hidden_rows = self._hidden_items if seen is None else seen.rows.numpy()[order]

    def maxima(self) -> Tensor:
        """Return the maximum of each group, ``[batch_size, num_groups]``; NaN where one of its scores is NaN."""
        batch_size, rows = len(self._asked), self._rows
        if self._packed is not None:
            by_user = np.argsort(self._hidden_rows, kind="stable")  # each user's items ascend, as all of them do
            offsets = np.searchsorted(self._hidden_rows[by_user], np.arange(batch_size + 1))
            users = self._asked[:, : self._packed.dim]
            return self._packed.maxima(users, offsets, self._hidden_items[by_user])
        block = np.empty((batch_size, rows), dtype=np.float32)
        maxima = np.empty((batch_size, self._num_blocks, self._width), dtype=np.float32)
        bounds = np.searchsorted(self._hidden_items, np.arange(self._num_blocks + 1) * rows)
        for number in range(self._num_blocks):
            part = self._table[number * rows : (number + 1) * rows]
            # The few users first: for two, the other way round takes twice as long.
            torch.mm(self._asked, part.t(), out=torch.from_numpy(block)[:, : len(part)])
            block[:, len(part) :] = -np.inf
            hidden = slice(*bounds[number : number + 2])
            if hidden.start < hidden.stop:
                at = self._hidden_rows[hidden], self._hidden_items[hidden] - number * rows
                not_a_number = np.isnan(block[at])
                if not_a_number.any():
                    raise NotANumberError(int(at[0][not_a_number].min()))
                block[at] = -np.inf
            np.maximum.reduce(block.reshape(batch_size, HEIGHT, self._width), axis=1, out=maxima[:, number])
        return torch.from_numpy(maxima).view(batch_size, -1)

    def scores(self, groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the items of some groups ``[batch_size, num_groups]`` and their scores, both ``[batch_size, -1]``.

        Each score is a sum of its own in one order, so that equal vectors have equal scores, wherever they stand.
        """
        block, place = np.divmod(groups, self._width)
        first = block * self._rows + place
        items = (first[:, :, None] + np.arange(HEIGHT) * self._width).reshape(len(first), -1)
        beyond = items >= len(self._table)
        items[beyond] = 0
        scores = np.einsum("bid,bd->bi", self._table.numpy()[items], self._asked.numpy())
        scores[beyond] = -np.inf
        block, place = np.divmod(self._hidden_items, self._rows)
        height, group = np.divmod(place, self._width)
        # Of what is hidden, what stands in a group that is searched, and in which.
        hidden, slot = np.nonzero(groups[self._hidden_rows] == (block * self._width + group)[:, None])
        scores[self._hidden_rows[hidden], slot * HEIGHT + height[hidden]] = -np.inf
        return items, scores
