from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from graphrec.cli import main
from graphrec.errors import ArgumentError
from graphrec.evaluation.significance import Interval
from graphrec.serving.online import ClickThrough, OnlineReport, Preference, clustered_interval, report
from graphrec.serving.store import Click, ShownList, Store


def fill(store: Store) -> None:
    """Lists of two models: two of ann won by the first, one of bob by each, a stranger's by the second; and others."""
    old = time.time() - 40 * 86_400
    lists = [
        ShownList("l1", "ann", "x+y", ("i", "j", "k", "l"), "abab"),
        ShownList("l2", "ann", "x+y", ("i", "j", "k", "l"), "baba"),
        ShownList("l3", "bob", "x+y", ("i", "j", "k", "l"), "abba"),
        ShownList("l4", "bob", "x+y", ("i", "j", "k", "l"), "abba"),
        ShownList("l5", None, "x+y", ("i", "j"), "ba"),
        ShownList("l6", None, "x+y", ("i", "j"), "ba"),
        ShownList("l7", "cat", "x+y", ("i", "j"), "ab"),
        ShownList("s1", "ann", "x", ("i", "j")),
        ShownList("s2", "bob", "x", ("i", "j"), time=old),
    ]
    clicks = [
        Click("l1", "i", 1, "a"),
        Click("l1", "i", 1, "a", dwell=10.0),  # the same item again counts once, with its longest dwell
        Click("l1", "i", 1, "a", dwell=4.0),
        Click("l2", "j", 2, "a"),
        Click("l2", "l", 4, "a", dwell=20.0),
        Click("l2", "i", 1, "b"),
        Click("l3", "i", 1, "a"),
        Click("l4", "j", 2, "b"),
        Click("l5", "i", 1, "b"),
        Click("l7", "i", 1, "a"),
        Click("l7", "j", 2, "b"),
        Click("s2", "i", 1, time=old),
    ]
    store.add_lists(lists)
    store.add_events([], clicks).result()


def test_report_by_hand(where: str) -> None:
    with Store(where) as store:
        fill(store)
        found = report(store.select)
        single, both = found.click_through
        assert (single.model, single.lists, single.clicked, single.dwell) == ("x", 2, 1, None)
        assert (both.model, both.lists, both.users, both.clicked, both.clicks) == ("x+y", 7, 5, 6, 9)
        assert both.rate.mean == pytest.approx(6 / 7)
        assert both.rate.low < 6 / 7 < both.rate.high
        assert (both.dwell, both.num_dwell) == (15.0, 2)
        (preference,) = found.preferences
        assert (preference.first, preference.second, preference.lists) == ("x", "y", 7)
        assert (preference.first_wins, preference.second_wins, preference.ties) == (3, 2, 1)
        assert preference.delta == pytest.approx((3 + 0.5) / 6 - 0.5)
        # Of users: ann prefers the first, the stranger the second; bob and cat neither.
        assert (preference.first_users, preference.second_users) == (1, 1)
        assert preference.p_value == 1.0
        assert [row.lists for row in report(store.select, days=30).click_through] == [1, 7]
        with pytest.raises(ArgumentError, match="days must be >= 0, got -1"):
            report(store.select, days=-1)


def test_preference_that_is_there_is_found(where: str) -> None:
    with Store(where) as store:
        store.add_lists(ShownList(f"l{i}", f"u{i}", "x+y", ("i", "j"), "ab") for i in range(30))
        store.add_events(
            [], [Click(f"l{i}", "i" if i % 5 else "j", 1, "a" if i % 5 else "b") for i in range(30)]
        ).result()
        (preference,) = report(store.select).preferences
        assert (preference.first_users, preference.second_users) == (24, 6)
        assert preference.p_value == pytest.approx(binomtest(24, 30).pvalue)
        assert "x is preferred; 24 : 6 lists" in str(preference)


def test_runs_whose_folders_hold_a_plus_are_told_apart(where: str) -> None:
    with Store(where) as store:
        store.add_lists(
            [
                ShownList("l1", "ann", "current (a+b)", ("i", "j")),
                ShownList("l2", "ann", "current (a+b)+ease", ("i", "j"), "ab"),
                ShownList("l3", "bob", "current (a+b)+ease", ()),  # nothing was left to show
                ShownList("l4", "bob", "my model+x+y", ("i", "j"), "ba"),  # a program's own names
            ]
        ).result()
        found = report(store.select)
    assert [(row.model, row.lists) for row in found.click_through] == [
        ("current (a+b)", 1),
        ("current (a+b)+ease", 2),
        ("my model+x+y", 1),
    ]
    assert [(row.first, row.second, row.lists) for row in found.preferences] == [
        ("current (a+b)", "ease", 2),
        ("my model", "x+y", 1),
    ]


def test_store_without_lists_has_an_empty_report(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(where) as store:
        assert report(store.select) == OnlineReport((), ())
    assert main(["report", where]) == 0
    assert "no lists are kept; graphrec serve --record keeps them" in capsys.readouterr().out


def test_days_without_lists_are_not_a_store_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "s") as store:
        store.add_lists([ShownList("l1", "ann", "x", ("i",), time=time.time() - 86_400)])
    assert main(["report", str(tmp_path / "s"), "--days", "0.5"]) == 0
    assert capsys.readouterr().out == "no lists of the last 0.5 days are kept; graphrec serve --record keeps them\n"


def test_interval_of_independent_lists_is_wilsons() -> None:
    for clicked, n in ((3, 10), (0, 7), (7, 7), (1, 200)):
        found = clustered_interval([1] * n, [1] * clicked + [0] * (n - clicked))
        expected = binomtest(clicked, n).proportion_ci(method="wilson")
        assert found.mean == clicked / n
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_interval_covers_the_rate_where_users_differ() -> None:
    draw = np.random.default_rng(0)
    covered, naive = 0, 0
    for _ in range(400):
        sizes = draw.integers(1, 30, size=60)
        rates = draw.beta(0.3, 2.7, size=60)  # mean 0.1, very different users
        clicked = draw.binomial(sizes, rates)
        found = clustered_interval(sizes.tolist(), clicked.tolist())
        covered += found.low <= 0.1 <= found.high
        plain = binomtest(int(clicked.sum()), int(sizes.sum())).proportion_ci(method="wilson")
        naive += plain.low <= 0.1 <= plain.high
    assert covered / 400 > 0.9
    assert naive / 400 < 0.75


def test_command_prints_tables_and_json(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(where) as store:
        fill(store)
    assert main(["report", where]) == 0
    said = capsys.readouterr().out
    assert "x+y" in said
    assert "15.0 s (2)" in said
    assert "x against y: no preference can be told; 3 : 2 lists, 1 ties, of 7" in said
    assert main(["report", where, "--days", "30", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["lists"] for row in found["click_through"]] == [1, 7]
    assert found["preferences"][0]["p_value"] == 1.0


def test_command_names_a_store_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "no-such.sqlite"]) == 1
    assert "no-such.sqlite: there is no such store" in capsys.readouterr().err


def test_the_service_documents_every_field_of_a_report():
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    from graphrec.serving.server import schemas

    for answer, source in (
        (schemas.ClickThroughOut, ClickThrough),
        (schemas.PreferenceOut, Preference),
        (schemas.ReportResponse, OnlineReport),
    ):
        assert list(answer.model_fields) == [field.name for field in fields(source)]
    assert list(schemas.RateOut.model_fields) == list(Interval._fields)
