"""team_draft: one list made of two models' lists, so that clicks tell which of them users prefer."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from graphrec.errors import ArgumentError, check_range

Item = TypeVar("Item", bound=Hashable)

TEAMS, NEITHER = "ab", "-"
"""How the first and the second model are called in :attr:`Interleaved.teams`, and what was placed without a rival."""


class Interleaved(NamedTuple, Generic[Item]):
    """A list of two models.

    Args:
        items: What is shown, best first.
        teams: For each item "a" or "b": the model that placed it, and that its clicks count for; "-" for neither.
    """

    items: tuple[Item, ...]
    teams: str


def team_draft(first: Sequence[Item], second: Sequence[Item], k: int, coin: random.Random) -> Interleaved[Item]:
    """Draft two teams: the models choose in turn, each the best item of its list that nobody has chosen.

    In each round a coin decides who chooses first. So both place equally many items (or one of them one more), no place
    is more often the one's than the other's, and what both rank alike favours neither. Where one list has ended, the
    rest of the other fills the places and counts for neither.

    Args:
        first: The first model's items, best first, each once.
        second: The second model's.
        k: How many items; fewer where both lists end.
        coin: Where the coin comes from.

    Raises:
        ArgumentError: ``k`` is below 1, or a list holds an item twice.

    Example:
        >>> team_draft(["x", "y", "z", "w"], ["y", "u", "v", "x"], k=4, coin=random.Random(1))
        Interleaved(items=('x', 'y', 'z', 'u'), teams='abab')

    Source:
        Radlinski, Kurup and Joachims, "How Does Clickthrough Data Reflect Retrieval Quality?" (CIKM 2008), algorithm 2.
    """
    check_range("k", k, low=1)
    lists = (first, second)
    for name, ranked in zip(("first", "second"), lists, strict=True):
        if len(set(ranked)) < len(ranked):
            raise ArgumentError(f"{name} holds an item twice")
    chosen: set[Item] = set()
    items: list[Item] = []
    teams = ""
    at = [0, 0]
    while len(items) < k:
        at = [_skip(ranked, place, chosen) for ranked, place in zip(lists, at, strict=True)]
        left = [side for side in (0, 1) if at[side] < len(lists[side])]
        if not left:
            break
        lead = teams.count(TEAMS[0]) - teams.count(TEAMS[1])
        side = left[0] if len(left) == 1 else int(lead > 0) if lead else coin.randrange(2)
        item = lists[side][at[side]]
        chosen.add(item)
        items.append(item)
        teams += TEAMS[side] if len(left) == 2 else NEITHER
    return Interleaved(tuple(items), teams)


def _skip(ranked: Sequence[Item], place: int, chosen: set[Item]) -> int:
    """Return the first place from ``place`` on whose item nobody has chosen."""
    while place < len(ranked) and ranked[place] in chosen:
        place += 1
    return place
