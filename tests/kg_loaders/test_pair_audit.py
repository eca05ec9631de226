from dataclasses import replace

import numpy as np
import pytest
from cases.domains import TEST, TRAIN, graph, pairs_of, two_records_of_one_site

from kg_loaders import link
from kg_loaders.splits import random_split
from kg_loaders.synthetic import planted


def verdicts(pair):
    return {finding.check: (finding.count, finding.verdict) for finding in pair.audit()}


def test_pairs_that_the_target_holds_out_are_noted_in_the_source_and_not_in_train():
    found = verdicts(link(*two_records_of_one_site(), on="item", same_users=True))
    assert found["held-out target pairs in train"] == (0, "ok")
    assert found["held-out target pairs in the source"] == (2, "note")


def test_the_audit_sees_a_leak_a_changed_split_and_a_source_that_is_held_out():
    pair = link(*two_records_of_one_site(), on="item", same_users=True)
    split = pair.union.interactions.split.copy()
    split[pair.union.interactions.split == TEST] = TRAIN
    leaky = replace(pair, union=pair.union.with_split(split))
    assert verdicts(leaky)["held-out target pairs in train"] == (1, "problem")
    assert verdicts(leaky)["target pairs of another split"] == (2, "problem")
    held = replace(pair, union=pair.union.with_split(np.full_like(split, TEST)))
    assert verdicts(held)["source pairs outside train"] == (1, "problem")


@pytest.mark.parametrize("on", ["user", "item", "entity"])
def test_nothing_leaks_and_the_target_keeps_its_split(on):
    target = random_split(planted(num_users=60, seed=1), seed=3)
    source = random_split(planted(num_users=90, seed=2), seed=4)  # its own split goes
    pair = link(source, target, on=on, same_users=on != "user")
    assert {verdict for _, verdict in verdicts(pair).values()} <= {"ok", "note", "-"}
    assert pairs_of(pair.union, "test") == pairs_of(target, "test")
    assert pairs_of(pair.union, "valid") == pairs_of(target, "valid")
    held = pairs_of(target, "test") | pairs_of(target, "valid")
    assert not held & pairs_of(pair.union, "train")
    assert (pair.union.interactions.split[~pair.from_target] == TRAIN).all()


def test_pairs_later_than_the_held_out_ones_are_noted():
    source = graph(["ann"], ["b1", "b2"], [("ann", "b1"), ("ann", "b2")], time=[5, 15], name="books")
    target = graph(["ann"], ["1", "2"], [("ann", "1"), ("ann", "2")], split=[TRAIN, TEST], time=[1, 10], name="films")
    assert verdicts(link(source, target, on="user"))["source pairs after the held-out ones"] == (1, "note")


def test_a_user_with_the_history_of_another_is_noted():
    items = [f"i{n}" for n in range(12)]
    target = graph(["t"], items, [("t", i) for i in items], split=[TRAIN] * 11 + [TEST], name="films")
    twin = graph(["a", "b"], items, [("a", i) for i in items[:11]] + [("b", i) for i in items[:3]], name="more")
    found = verdicts(link(twin, target, on="item"))["target users with a look-alike in the source"]
    assert found == (1, "note")
    far = graph(["a", "b"], items, [("a", i) for i in items[:5]] + [("b", i) for i in items[7:]], name="more")
    assert verdicts(link(far, target, on="item"))["target users with a look-alike in the source"] == (0, "ok")
