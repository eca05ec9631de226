import numpy as np
import pytest
from cases.domains import TEST, TRAIN, graph, pairs_of

from kg_loaders import link
from kg_loaders import twins as twins_module
from kg_loaders.linked_pair import TWIN_PAIRS
from kg_loaders.splits import random_split
from kg_loaders.synthetic import planted
from kg_loaders.twins import find_twins, told_by_twins

USERS = [f"u{n}" for n in range(12)]


def shop_and_department():
    """A phone that five people took is listed in the source too, where four of them are told to have taken it."""
    phone = [(user, "phone") for user in USERS[:5]]
    case = [(user, "case") for user in USERS[4:9]]
    split = [TRAIN] * 3 + [TEST] * 2 + [TRAIN] * 5
    target = graph(USERS, ["phone", "case"], [*phone, *case], split=split, name="phones")
    again = [(user, "PHONE") for user in USERS[1:5]]
    radio = [(user, "radio") for user in USERS]
    rare = [(user, "rare") for user in USERS[:2]]
    source = graph(USERS, ["PHONE", "radio", "rare"], [*again, *radio, *rare], name="electronics")
    return source, target


def named(pair, twins):
    return [tuple(pair.union.entities.ids_of(row)) for row in twins]


def test_items_that_nearly_the_same_people_took_are_twins():
    pair = link(*shop_and_department(), on="user")
    twins = find_twins(pair)
    assert named(pair, twins) == [("PHONE", "phone")]
    assert twins.dtype == np.int64


def test_the_audit_counts_the_held_out_pairs_that_a_twin_tells():
    pair = link(*shop_and_department(), on="user")
    told = told_by_twins(pair, find_twins(pair))
    theirs = pair.target.interactions
    assert {(USERS[user], item) for user, item in zip(theirs.user[told], theirs.item[told], strict=True)} == {
        (user, 0) for user in USERS[1:5]
    }
    found = {finding.check: finding for finding in pair.audit()}["held-out target pairs told by a twin"]
    assert (found.count, found.verdict) == (2, "problem")
    assert found.examples[0] == "PHONE = phone"


def test_without_twins_the_source_says_nothing_of_them_and_the_rest_stays():
    pair = link(*shop_and_department(), on="user")
    without = pair.without_twins()
    assert pairs_of(without.source) == {(u, i) for u, i in pairs_of(pair.source) if i != "PHONE"}
    assert without.dropped[TWIN_PAIRS] == 4
    assert pairs_of(without.target) == pairs_of(pair.target)
    assert without.union.num_items == pair.union.num_items
    assert len(find_twins(without)) == 0
    assert without.without_twins().dropped == without.dropped
    assert without.keep_target(0.5).dropped[TWIN_PAIRS] == 4
    assert TWIN_PAIRS not in pair.keep_target(0.5).dropped
    assert "4 source pairs of items that are perhaps the target's own" in without.summary()


def test_blocks_of_items_find_what_all_at_once_do(monkeypatch):
    pair = link(*shop_and_department(), on="user")
    whole = find_twins(pair)
    monkeypatch.setattr(twins_module, "BLOCK_ITEMS", 1)
    assert np.array_equal(find_twins(pair), whole)


def test_no_shared_users_no_twins():
    target = random_split(planted(num_users=60, seed=1), seed=3)
    pair = link(planted(num_users=90, seed=2), target, on="item")
    assert len(find_twins(pair)) == 0
    assert not told_by_twins(pair, find_twins(pair)).any()
    found = {finding.check: finding for finding in pair.audit()}["held-out target pairs told by a twin"]
    assert (found.count, found.verdict) == (None, "-")


def test_a_linked_item_is_no_twin_of_itself():
    target = graph(USERS, ["a", "b"], [(user, "a") for user in USERS], split=[TRAIN] * 11 + [TEST], name="films")
    source = graph(USERS, ["a", "c"], [(user, "a") for user in USERS], name="more")
    pair = link(source, target, on="item", same_users=True)
    assert len(find_twins(pair)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_independent_shops_have_no_twins(seed):
    source, target = planted(num_users=120, seed=seed), random_split(planted(num_users=120, seed=seed + 10))
    assert len(find_twins(link(source, target, on="user"))) == 0
