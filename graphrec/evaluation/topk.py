"""The best k items of every user: exact, fast on a CPU, with ties broken at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories

# Elements that the search for tied items looks at in one go.
TIE_CHUNK = 2**21

LOW_31_BITS = 0x7FFFFFFF  # keys of ties are 31 bits, so that they fit int32 and are never negative
MULTIPLIER = 0x45D9F3B  # odd, so multiplying by it permutes the 31-bit numbers


@torch.no_grad()
def top_k(scores: Tensor, k: int, seen: Histories | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Return the ``k`` best items of each row, best first.

    Items of equal score, also those that straddle the cut-off, come in an order drawn by ``seed`` for each user,
    never in the order of their indices. The draw depends on the seed, the user and the item alone, so a user's list
    is the same in a batch of any size. Items scored :math:`-\infty` are never returned.

    The columns are dealt out to blocks. The k-th largest block maximum bounds the k-th best score from below, so
    the k blocks with the largest maxima hold the answer, and only they are searched. This reads the scores once.

    Args:
        scores: Float ``[batch_size, num_items]``, higher is better. Left as it was.
        k: How many items, at least 1; may exceed ``num_items``.
        seen: One row a user, of items that are not to be returned; its ``user_index``, or the row number
            where there is none, stands for the user in the draw of ties. ``None`` leaves out nothing.
        seed: Decides the order of ties.

    Returns:
        Item indices, int64 ``[batch_size, k]``, -1 where no item is left, and their scores, ``-inf`` there.

    Raises:
        ArgumentError: The scores hold NaN, or shapes contradict each other.

    Example:
        >>> items, scores = top_k(torch.tensor([[0.1, 0.9, 0.5]]), k=3, seen=Histories.from_lists([[1]]))
        >>> items.tolist(), scores[0, :2].tolist()
        ([[2, 0, -1]], [0.5, 0.10000000149011612])
    """
    check_range("k", k, low=1)
    if scores.dim() != 2 or not scores.is_floating_point():
        raise ArgumentError(f"scores must be float [batch_size, num_items], got {scores.dtype} {list(scores.shape)}")
    users = drawn_by_whom(seen, len(scores), scores.size(1), scores.device)
    top, items = _top_k(without_seen(scores, seen), k, users, seed)
    missing = k - top.size(1)
    if missing > 0:
        top = torch.nn.functional.pad(top, (0, missing), value=-math.inf)
        items = torch.nn.functional.pad(items, (0, missing))
    return items.masked_fill(top == -math.inf, -1), top


def without_seen(scores: Tensor, seen: Histories | None) -> Tensor:
    """Return the scores with the seen items at ``-inf``; a copy, since a model may hand out its own memory."""
    if seen is None:
        return scores
    where = (seen.rows, seen.items)
    hidden = scores[where].isnan()
    if bool(hidden.any()):
        raise NotANumberError(int(seen.rows[hidden][0]))
    values = scores.clone(memory_format=torch.contiguous_format)
    values[where] = -math.inf
    return values


class NotANumberError(ArgumentError):
    """Scores with NaN, and the first row that has one."""

    def __init__(self, row: int) -> None:
        super().__init__(f"scores hold NaN in row {row}")
        self.row = row


def drawn_by_whom(seen: Histories | None, batch_size: int, num_items: int, device: torch.device) -> Tensor:
    """Check what is to be left out, and return who stands for each row in the draw of ties, int64 ``[batch_size]``."""
    if seen is None:
        return torch.arange(batch_size, device=device)
    if len(seen) != batch_size:
        raise ArgumentError(f"seen must have a row for each of {batch_size} rows of scores, got {len(seen)}")
    if seen.items.numel() and not 0 <= int(seen.items.min()) <= int(seen.items.max()) < num_items:
        raise ArgumentError(
            f"seen must hold items within 0..{num_items - 1}, got {int(seen.items.min())}..{int(seen.items.max())}"
        )
    return torch.arange(batch_size, device=device) if seen.user_index is None else seen.user_index


def _top_k(values: Tensor, k: int, users: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the largest values and their columns, ``[batch_size, min(k, num_items)]``, ties in random order."""
    top, items, next_best = _largest(values, k)
    not_a_number = top[:, :1].isnan().any(dim=1)  # NaN counts as the largest of all
    if bool(not_a_number.any()):
        raise NotANumberError(int(not_a_number.nonzero()[0]))
    if top.size(1) == 0:
        return top, items
    last = top[:, -1]
    tied = ((next_best == last) & (last > -math.inf)).nonzero().squeeze(1)
    if tied.numel():
        items[tied] = torch.cat(
            [
                _draw_last(values.index_select(0, part), top[part], items[part], users[part], seed)
                for part in torch.split(tied, max(1, TIE_CHUNK // values.size(1)))
            ]
        )
    return top, in_drawn_order(top, items, users, values.size(1), seed)


def in_drawn_order(top: Tensor, items: Tensor, users: Tensor, num_items: int, seed: int) -> Tensor:
    """Return the items of sorted scores with those of equal score in the order that ``seed`` draws for each user."""
    if not bool((top[:, 1:] == top[:, :-1]).any()):
        return items
    by_key = _tie_keys(users[:, None], items, num_items, seed).argsort(dim=1, descending=True)
    order = by_key.gather(1, top.gather(1, by_key).argsort(dim=1, descending=True, stable=True))
    return items.gather(1, order)


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest values ``[batch_size, min(k, n)]``, their columns, and the next value ``[batch_size]``.

    Where there is no next value it is NaN, which equals nothing.
    """
    batch_size, n = values.shape
    if k >= n:
        top, columns = values.sort(dim=1, descending=True)
        return top, columns, torch.full((batch_size,), math.nan, device=values.device)
    height = _block_height(n, k)
    if height < 2:
        top, columns = values.topk(k + 1, dim=1)
        return top[:, :k], columns[:, :k], top[:, k]
    best, blocks = _block_maxima(values, height).topk(k + 1, dim=1)
    columns = _columns_of(blocks[:, :k], n, height)
    top, position = values.gather(1, columns).topk(k + 1, dim=1)
    next_best = torch.maximum(top[:, k], best[:, k])  # the latter: the best of all blocks not searched
    return top[:, :k], columns.gather(1, position[:, :k]), next_best


def _block_height(n: int, k: int) -> int:
    """Return how many columns a block has: blocks cost ``n / height``, the search ``k * height``."""
    height = int(0.5 * math.sqrt(n / k))
    return height if height and n // height > 4 * k else 1


def _block_maxima(values: Tensor, height: int) -> Tensor:
    """Return the maximum of each block, ``[batch_size, width]`` with ``width = n // height``.

    Block b is columns b, b + width, b + 2 width, ...: so the maxima are elementwise maxima of long rows.
    The last ``n % height`` columns belong to no block.
    """
    width = values.size(1) // height
    return values[:, : height * width].view(len(values), height, width).amax(dim=1)


def _columns_of(blocks: Tensor, n: int, height: int) -> Tensor:
    """Return the columns of some blocks ``[batch_size, num_blocks]``, and those that belong to no block."""
    width = n // height
    shifts = torch.arange(height, device=blocks.device) * width
    rest = torch.arange(height * width, n, device=blocks.device).expand(len(blocks), -1)
    return torch.cat([(blocks[:, :, None] + shifts).flatten(1), rest], dim=1)


def _draw_last(values: Tensor, top: Tensor, items: Tensor, users: Tensor, seed: int) -> Tensor:
    """Fill the last places of lists whose cut-off runs through a tie with a random choice of the tied items."""
    k, num_items = top.size(1), values.size(1)
    last = top[:, -1:]
    height = _block_height(num_items, k)
    maxima = _block_maxima(values, height)
    num_blocks = int((maxima >= last).sum(dim=1).max())  # only these can hold a tied item
    if num_blocks * 4 < maxima.size(1):
        columns = _columns_of(maxima.topk(num_blocks, dim=1).indices, num_items, height)
        values = values.gather(1, columns)
    else:
        columns = torch.arange(num_items, device=values.device)[None]
    # A comparison into floats is several times faster than one into bools. All but the tied get the lowest key, 0; if a
    # tied item has it too, no harm is done: at least one of the tied finds no place, and that is the one.
    is_tied = torch.eq(values, last, out=torch.empty_like(values)).to(torch.int32)
    keys = _tie_keys(users[:, None], columns, num_items, seed).mul_(is_tied)
    drawn = columns.expand(len(values), -1).gather(1, _largest(keys, k)[1])
    place = torch.arange(k, device=values.device) - (top > last).sum(dim=1, keepdim=True)  # among the tied
    return torch.where(place >= 0, drawn.gather(1, place.clamp(min=0)), items)


def _tie_keys(users: Tensor, items: Tensor, num_items: int, seed: int) -> Tensor:
    """Return a random key for each (user, item), int32 within ``0..2^31 - 1``, distinct for the items of a user.

    Item codes are a random permutation, scattered over 31 bits; a user's code permutes them once more.
    """
    generator = torch.Generator().manual_seed(seed)
    permutation = torch.randperm(num_items, generator=generator).to(items.device)
    item_code = _scatter(permutation).to(torch.int32)[items]
    first_code = _scatter(users + 1 + _scatter(torch.tensor(seed, device=users.device)))
    second_code = _scatter(first_code + 1).to(torch.int32)
    # Products wrap around at 32 bits; their lower 31 bits are those of the exact product.
    keys = (item_code ^ first_code.to(torch.int32)).mul_(MULTIPLIER)
    return keys.bitwise_xor_(second_code).mul_(MULTIPLIER).bitwise_and_(LOW_31_BITS)


def _scatter(x: Tensor) -> Tensor:
    """Permute the 31-bit numbers without visible order (xor-shift and multiplication, each a bijection)."""
    x = x & LOW_31_BITS
    for _ in range(2):
        x = ((x ^ (x >> 16)) * MULTIPLIER) & LOW_31_BITS
    return x ^ (x >> 16)
