"""online: what users did with the lists they were shown: click-through, dwell, and which of two models they prefer."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from graphrec.errors import check_range
from graphrec.evaluation.significance import Interval
from graphrec.serving.interleaving import TEAMS

DAY = 86_400.0
CONFIDENCE = 0.95
JOINED = "+"  # between the labels of two models that share a list
# What a service keeps lists under: a model's name, and its run in brackets, whose folder may be called anything.
TWO_LABELS = re.compile(r"([^ +]+(?: \(.+?\))?)\+([^ +]+(?: \(.+\))?)", re.DOTALL)

Select = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class ClickThrough:
    """What became of a model's lists.

    Args:
        model: What its lists are kept under, or "first+second" of two that shared them.
        lists: Lists shown.
        users: Users they were shown to; each list of a stranger counts as one more.
        clicked: Lists with a click on them.
        rate: ``clicked / lists`` with its 95 % interval.
        clicks: Items clicked, each once in a list.
        dwell: Mean seconds that a clicked item held its user; ``None`` where no click says.
        num_dwell: Clicked items that say.
    """

    model: str
    lists: int
    users: int
    clicked: int
    rate: Interval
    clicks: int
    dwell: float | None
    num_dwell: int


@dataclass(frozen=True)
class Preference:
    r"""Which of two models users prefer, by the clicks on interleaved lists.

    Args:
        first: Name of the first model.
        second: Name of the second.
        lists: Lists shown.
        first_wins: Lists with more clicked items of the first than of the second.
        second_wins: Lists with more of the second.
        ties: Lists with as many of both, and some; lists without clicks are none of the three.
        delta: :math:`(W_a + T / 2) / (W_a + W_b + T) - 1/2`; above 0 where the first is preferred.
        first_users: Users with more lists won by the first than by the second; each list of a stranger is a user.
        second_users: Users with more won by the second.
        p_value: Two-sided sign test over these users, not over lists: those of one user are not independent.

    Source:
        Credit and wins: Radlinski, Kurup and Joachims, "How Does Clickthrough Data Reflect Retrieval Quality?" (CIKM
        2008). Delta: Chapelle, Joachims, Radlinski and Yue, "Large-Scale Validation and Analysis of Interleaved Search
        Evaluation" (TOIS 2012), eq. 1.
    """

    first: str
    second: str
    lists: int
    first_wins: int
    second_wins: int
    ties: int
    delta: float
    first_users: int
    second_users: int
    p_value: float

    def __str__(self) -> str:
        decided = self.first_users + self.second_users
        better = self.first if self.delta > 0 else self.second
        found = f"{better} is preferred" if self.p_value < 1 - CONFIDENCE else "no preference can be told"
        return (
            f"{self.first} against {self.second}: {found}; {self.first_wins} : {self.second_wins} lists, "
            f"{self.ties} ties, of {self.lists}; delta {self.delta:+.3f}; "
            f"{self.first_users} : {self.second_users} users, sign test over {decided}: p = {self.p_value:.3g}"
        )


@dataclass(frozen=True)
class OnlineReport:
    """What the kept lists and clicks say.

    Args:
        click_through: A row for each model, by name.
        preferences: A row for each two models that shared lists.
        days: Days it looks back; ``None`` for all.
    """

    click_through: tuple[ClickThrough, ...]
    preferences: tuple[Preference, ...]
    days: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        rows = [{**asdict(row), "rate": row.rate._asdict()} for row in self.click_through]
        return {**asdict(self), "click_through": rows}


def report(select: Select, days: float | None = None) -> OnlineReport:
    """Read the lists and clicks of a store.

    Args:
        select: :meth:`graphrec.serving.store.Store.select`.
        days: Look at lists shown in so many days only.

    Raises:
        ArgumentError: ``days`` is below 0.
        StoreError: The store cannot be read.

    Example:
        >>> import tempfile
        >>> from graphrec.serving.store import Click, ShownList, Store
        >>> with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/live.sqlite") as store:
        ...     for list_id, user in [("l1", "ann"), ("l2", "bob")]:
        ...         _ = store.add_lists([ShownList(list_id, user, "a+b", ("x", "y"), teams="ab")])
        ...     _ = store.add_events([], [Click("l1", "x", place=1, team="a", dwell=30.0)]).result()
        ...     found = report(store.select)
        >>> found.click_through[0].rate.mean, found.click_through[0].dwell, found.preferences[0].first_wins
        (0.5, 30.0, 1)
    """
    if days is not None:
        check_range("days", days, low=0)
    since = 0.0 if days is None else time.time() - DAY * days
    shown: dict[str, Counter[str | None]] = defaultdict(Counter)
    shared = set()  # by two models; not told by the label, which holds whatever a run is called
    query = "SELECT model, user_id, count(*), max(length(teams)) FROM lists WHERE time >= ? GROUP BY model, user_id"
    for model, user, count, num_placed in select(query, (since,)):
        shown[model][user] = count
        if num_placed:
            shared.add(model)
    # One row for each clicked item of a list, however often it was clicked.
    query = (
        "SELECT l.model, l.user_id, l.list_id, c.team, max(c.dwell) "
        "FROM clicks c JOIN lists l ON l.list_id = c.list_id WHERE l.time >= ? "
        "GROUP BY l.model, l.user_id, l.list_id, c.item_id, c.team"
    )
    clicked: dict[str, list[tuple[str | None, str, str, float | None]]] = defaultdict(list)
    for model, *click in select(query, (since,)):
        clicked[model].append(tuple(click))
    return OnlineReport(
        tuple(_click_through(model, shown[model], clicked[model]) for model in sorted(shown)),
        tuple(_preference(model, sum(shown[model].values()), clicked[model]) for model in sorted(shared)),
        days,
    )


def names_of(shared: str) -> tuple[str, str]:
    """Return the two names in what lists of two models are kept under.

    Example:
        >>> names_of("current (2026-11-30+kg)+ease"), names_of("a+b")
        (('current (2026-11-30+kg)', 'ease'), ('a', 'b'))
    """
    found = TWO_LABELS.fullmatch(shared)
    first, _, second = shared.partition(JOINED)  # of lists that a program kept under names of its own
    return (found[1], found[2]) if found else (first, second)


def clustered_interval(shown: Sequence[int], clicked: Sequence[int], confidence: float = CONFIDENCE) -> Interval:
    r"""Return the share of clicked lists and its Wilson interval, with as many lists as independent ones would do.

    Lists of one user are alike. Their number :math:`n` is divided by the design effect, the ratio of the variance of
    the share between users, :math:`\frac{m}{m - 1} \sum_u (x_u - p \, n_u)^2 / n^2`, to :math:`p (1 - p) / (n - 1)`,
    where it is above 1.

    Args:
        shown: Lists of each user, at least 1, :math:`n_u`.
        clicked: How many of them were clicked, :math:`x_u`.
        confidence: Of the interval.

    Example:
        >>> [round(x, 3) for x in clustered_interval([1] * 10, [1] * 3 + [0] * 7)]
        [0.3, 0.108, 0.603]
        >>> [round(x, 3) for x in clustered_interval([5, 5], [3, 0])]  # two users are not ten
        [0.3, 0.046, 0.793]

    Source:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (JASA 1927); the design effect
        as in Kish, "Survey Sampling" (1965), §8.2.
    """
    n, users = sum(shown), len(shown)
    p = sum(clicked) / n
    effective = float(n)
    if users > 1 and 0 < p < 1:
        between = sum((x - p * size) ** 2 for x, size in zip(clicked, shown, strict=True)) / n**2
        effect = users / (users - 1) * between / (p * (1 - p) / (n - 1))  # 1 where each user has one list
        effective = n / max(effect, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z**2 / effective
    centre = (p + z**2 / (2 * effective)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / effective + z**2 / (4 * effective**2))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def _click_through(
    model: str, shown: Counter[str | None], clicks: list[tuple[str | None, str, str, float | None]]
) -> ClickThrough:
    lists_of = defaultdict(set)
    for user, list_id, _, _ in clicks:
        lists_of[user].add(list_id)
    strangers, taken = shown[None], len(lists_of[None])
    users = [user for user in shown if user is not None]
    sizes = [shown[user] for user in users] + [1] * strangers
    counts = [len(lists_of[user]) for user in users] + [1] * taken + [0] * (strangers - taken)
    dwell = [seconds for *_, seconds in clicks if seconds is not None]
    return ClickThrough(
        model=model,
        lists=sum(sizes),
        users=len(sizes),
        clicked=sum(counts),
        rate=clustered_interval(sizes, counts),
        clicks=len(clicks),
        dwell=sum(dwell) / len(dwell) if dwell else None,
        num_dwell=len(dwell),
    )


def _preference(model: str, lists: int, clicks: list[tuple[str | None, str, str, float | None]]) -> Preference:
    from scipy.stats import binomtest

    lead: Counter[tuple[str | None, str]] = Counter()  # by user and list
    for user, list_id, team, _ in clicks:
        if team in TEAMS:
            lead[user, list_id] += 1 if team == TEAMS[0] else -1
    wins = [lead_of > 0 for lead_of in lead.values() if lead_of]
    first_wins, second_wins = wins.count(True), wins.count(False)
    ties = len(lead) - len(wins)
    of_user: Counter[str | tuple[None, str]] = Counter()
    for (user, list_id), lead_of in lead.items():
        of_user[(None, list_id) if user is None else user] += (lead_of > 0) - (lead_of < 0)
    first_users = sum(balance > 0 for balance in of_user.values())
    second_users = sum(balance < 0 for balance in of_user.values())
    decided = first_users + second_users
    first, second = names_of(model)
    return Preference(
        first=first,
        second=second,
        lists=lists,
        first_wins=first_wins,
        second_wins=second_wins,
        ties=ties,
        delta=(first_wins + ties / 2) / len(lead) - 0.5 if lead else 0.0,
        first_users=first_users,
        second_users=second_users,
        p_value=float(binomtest(first_users, decided).pvalue) if decided else 1.0,
    )


def lines_of(found: OnlineReport) -> Iterator[list[str]]:
    """Yield the cells of the click-through table, a row a model."""
    for row in found.click_through:
        dwell = "" if row.dwell is None else f"{row.dwell:.1f} s ({row.num_dwell})"
        low, high = row.rate.low, row.rate.high
        yield [row.model, str(row.lists), str(row.users), f"{row.rate.mean:.4f} [{low:.4f}, {high:.4f}]", dwell]
