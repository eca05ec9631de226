from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphrec.errors import ArgumentError
from graphrec.serving.interleaving import team_draft

ranked = st.lists(st.integers(0, 12), unique=True, max_size=10)


class Coins(random.Random):
    """A coin whose throws are known."""

    def __init__(self, *throws: int) -> None:
        super().__init__(0)
        self.throws = list(throws)

    def randrange(self, *_: int) -> int:  # type: ignore[override]
        return self.throws.pop(0)


def test_draft_by_hand() -> None:
    first, second = ["p", "q", "r", "s"], ["q", "t", "p", "u"]
    # The first leads both rounds: it places p, the second q; then it passes over q to r, and the second places t.
    assert team_draft(first, second, 4, Coins(0, 0)) == (("p", "q", "r", "t"), "abab")
    # The second leads: q; the first p; the second t; the first r.
    assert team_draft(first, second, 4, Coins(1, 1)) == (("q", "p", "t", "r"), "baba")
    assert team_draft(first, second, 3, Coins(0, 1)) == (("p", "q", "t"), "abb")


@given(first=ranked, second=ranked, k=st.integers(1, 12), seed=st.integers(0, 999))
def test_teams_are_equal_and_nothing_is_shown_twice(first: list[int], second: list[int], k: int, seed: int) -> None:
    items, teams = team_draft(first, second, k, random.Random(seed))
    assert len(items) == len(teams) == min(k, len({*first, *second}))
    assert len(set(items)) == len(items)
    assert set(items) <= {*first, *second}
    for place in range(1, len(teams) + 1):
        assert abs(teams[:place].count("a") - teams[:place].count("b")) <= 1
    if min(len(first), len(second)) >= k:
        assert "-" not in teams
    for team, own in (("a", first), ("b", second)):
        placed = [item for item, by in zip(items, teams, strict=True) if by == team]
        assert placed == sorted(placed, key=own.index)  # each team in its own order


def test_equal_lists_favour_neither() -> None:
    coin = random.Random(0)
    shares = [Counter[str]() for _ in range(4)]
    for _ in range(4000):
        items, teams = team_draft("wxyz", "wxyz", 4, coin)
        assert items == ("w", "x", "y", "z")
        for place, team in enumerate(teams):
            shares[place][team] += 1
    assert all(abs(share["a"] / 4000 - 0.5) < 0.03 for share in shares)


def test_random_clicks_show_no_preference_and_better_items_do() -> None:
    coin = random.Random(1)
    good = set(range(0, 40, 2))
    first, second = [*range(0, 20, 2), 1, 3], [*range(1, 20, 2), 0, 2]
    blind, seeing = Counter[str](), Counter[str]()
    for _ in range(3000):
        items, teams = team_draft(first, second, 10, coin)
        blind[teams[coin.randrange(10)]] += 1
        seeing[teams[coin.choice([place for place, item in enumerate(items) if item in good])]] += 1
    assert abs(blind["a"] - blind["b"]) < 250
    assert seeing["a"] == 3000


def test_list_that_ends_leaves_the_rest_to_nobody() -> None:
    assert team_draft(["x", "y", "z"], [], 5, Coins()) == (("x", "y", "z"), "---")
    assert team_draft(["x", "y", "z"], ["x"], 5, Coins(1)) == (("x", "y", "z"), "b--")
    assert team_draft([], [], 5, Coins()) == ((), "")


def test_mistakes_are_named() -> None:
    with pytest.raises(ArgumentError, match="k must be >= 1, got 0"):
        team_draft(["x"], ["y"], 0, Coins())
    with pytest.raises(ArgumentError, match="second holds an item twice"):
        team_draft(["x"], ["y", "y"], 1, Coins())
