"""The pairs of a click-through protocol: every held-out item, and beside it one that its user did not take."""

from __future__ import annotations

import torch

from graphrec.histories import Histories
from graphrec.sampling import untaken_items

SEED = 0


def with_untaken(told: Histories, relevant: Histories, num_items: int, seed: int = SEED) -> tuple[Histories, Histories]:
    """Return the held-out items, and for each of them an item that its user did not take.

    This is how the makers of labelled click-through data (RippleNet, KGCN, MCCLK) drew their rows with label 0: all
    untaken items with the same probability, as many for each user as were taken. Drawn here, any data set can be
    measured so, and interactions stay what users took. Draws depend on the seed and on the items alone, so all models
    and all their seeds are asked the same; an item may be drawn twice.

    Args:
        told: What the model is told of all users.
        relevant: What is held out, of the same users; disjoint from ``told``.
        num_items: Number of items.
        seed: Of the draws.

    Returns:
        Two histories with one item for one. The items of a user who took everything have nothing beside them and are
        left out of both.

    Example:
        >>> told, relevant = Histories.from_lists([[0], [1, 2]]), Histories.from_lists([[2], [0]])
        >>> [pairs.items.tolist() for pairs in with_untaken(told, relevant, num_items=3)]
        [[2], [1]]
    """
    rows = torch.cat([told.rows, relevant.rows])
    order = rows.argsort(stable=True)
    is_relevant = (order >= told.items.numel()).cpu()
    taken = Histories(torch.cat([told.items, relevant.items])[order], told.offsets + relevant.offsets).to("cpu")
    drawn = untaken_items(taken, num_items, torch.Generator().manual_seed(seed))[is_relevant].to(rows.device)
    kept = relevant.keep(drawn >= 0)
    return kept, Histories(drawn[drawn >= 0], kept.offsets, kept.user_index)
