from dataclasses import replace

import numpy as np
import pytest
from cases.domains import TEST, TRAIN, VALID, books_and_films, graph, pairs_of, two_records_of_one_site

from kg_loaders import SPLITS, Feature, GraphError, KGLoaderError, Vocabulary, link
from kg_loaders.joining import HELD_OUT_PAIRS
from kg_loaders.splits import random_split
from kg_loaders.synthetic import planted


def test_a_share_of_the_target_leaves_test_alone():
    target = random_split(planted(num_users=60, seed=1), seed=3)
    pair = link(planted(num_users=90, seed=2), target, on="item")
    less = pair.keep_target(0.25, seed=1)
    assert pairs_of(less.union, "test") == pairs_of(target, "test")
    for part in ("train", "valid"):
        assert pairs_of(less.target, part) < pairs_of(target, part)
        assert len(less.target.part(part)) == round(0.25 * len(target.part(part)))
    assert less.target.users == target.users
    assert less.union.entities == pair.union.entities
    assert not (pairs_of(less.union, "train") & pairs_of(target, "test"))
    assert pair.keep_target(0.25, seed=1).union == less.union
    assert pair.keep_target(0.25, seed=2).union != less.union
    with pytest.raises(KGLoaderError, match="share must be above 0 and at most 1, got 0"):
        pair.keep_target(0)


def test_cold_users_keep_only_what_the_source_and_the_test_part_know():
    pair = link(*books_and_films(), on="user")
    cold = pair.without_history(np.array([0]))
    assert {(u, i) for u, i in pairs_of(cold.union, "train") if u == "ann"} == {("ann", "books:2"), ("ann", "books:3")}
    assert pairs_of(cold.union, "test") == {("ann", "2")}
    assert pairs_of(cold.target, "train") == {("bob", "2"), ("dan", "2"), ("eve", "1")}

    chosen = pair.validate_cold(np.array([0]))
    moved = {(u, i) for u, i in pairs_of(pair.target, "train") if u == "ann"}
    assert moved
    assert pairs_of(chosen.target, "train") == pairs_of(pair.target, "train") - moved
    assert pairs_of(chosen.target, "valid") == pairs_of(pair.target, "valid") | moved
    assert pairs_of(chosen.target, "test") == pairs_of(pair.target, "test")
    assert not (pairs_of(chosen.union, "train") & moved)


def test_the_source_alone_knows_no_pair_of_the_target_but_test():
    before = link(*books_and_films(), on="user").source_only()
    assert pairs_of(before, "train") == {
        ("cid", "books:1"), ("ann", "books:2"), ("ann", "books:3"), ("bob", "books:1"),
    }  # fmt: skip
    assert pairs_of(before, "test") == {("ann", "2")}
    assert not before.has_split("valid")


def test_the_source_alone_keeps_what_the_target_knows_too():
    source = graph(
        ["ann", "bob"], ["x", "y", "z"], [("ann", "x"), ("ann", "y"), ("bob", "x"), ("bob", "z")],
        time=[9, 8, 7, 5], weight=[1, 2, 3, 4], name="source",
    )  # fmt: skip
    target = graph(
        ["ann", "bob", "cat"], ["x", "y"], [("ann", "x"), ("ann", "y"), ("bob", "x"), ("cat", "y")],
        split=[TRAIN, TEST, TRAIN, VALID], time=[1, 2, 3, 4], weight=[5, 5, 5, 5], name="target",
    )  # fmt: skip
    pair = link(source, target, on="item", same_users=True)
    before = pair.source_only()
    assert pairs_of(before, "train") == {("ann", "x"), ("bob", "x"), ("bob", "z")}
    assert pairs_of(before, "test") == {("ann", "y")}
    assert len(before.interactions) == 4
    train = before.part("train")  # in order of the source's time, which is not the target's
    assert before.items.ids_of(train.item) == ["x", "z", "x"]
    assert (train.time.tolist(), train.weight.tolist()) == ([9, 5, 7], [1, 4, 3])
    test = before.part("test")
    assert (test.time.tolist(), test.weight.tolist()) == ([2], [5])
    # Where times of one are lacking the union has none, and neither has this.
    timeless = replace(target, interactions=replace(target.interactions, time=None))
    assert link(source, timeless, on="item", same_users=True).source_only().interactions.time is None


@pytest.mark.parametrize("on", ["item", "user", "entity"])
@pytest.mark.parametrize("seed", range(3))
def test_the_source_alone_knows_all_of_the_source_and_nothing_that_the_target_holds_out(on, seed):
    """Two records of the same users and items, which have about half of their pairs in common."""
    whole = planted().with_split(None)
    rng = np.random.default_rng(seed)
    ours, theirs = (whole.interactions[np.sort(rng.permutation(whole.num_interactions)[:1200])] for _ in range(2))
    target = random_split(replace(whole, interactions=theirs), (0.6, 0.2, 0.2), seed=seed)
    options = {} if on == "user" else {"same_users": True}
    whole_pair = link(replace(whole, interactions=ours, name="source"), target, on=on, **options)
    cold = np.arange(0, target.num_users, 3)
    for pair in (
        whole_pair,
        whole_pair.keep_target(0.5, seed=seed),
        whole_pair.without_history(cold),
        whole_pair.validate_cold(cold),
        whole_pair.without_kg(),
    ):
        before, union = pair.source_only(), pair.union
        told = {
            (union.users.id_of(int(pair.users[user])), union.entities.id_of(int(pair.entities[item])))
            for user, item in zip(pair.source.interactions.user, pair.source.interactions.item, strict=True)
        }
        held_out = pairs_of(pair.target, "test") | pairs_of(pair.target, "valid")
        assert pairs_of(before, "train") == told - held_out
        assert pairs_of(before, "test") == pairs_of(target, "test")
        assert not before.has_split("valid")
        assert before.num_interactions == len(pairs_of(before))  # each pair once
        if on != "user":  # else they have no item in common
            assert told & held_out
            assert pairs_of(before, "train") & pairs_of(pair.target, "train")


def test_without_common_pairs_the_source_alone_is_the_union_without_the_targets_pairs():
    pair = link(planted(num_users=90, seed=2), random_split(planted(num_users=60, seed=1)), on="item")
    pairs = pair.union.interactions
    assert not (pair.from_target & (pair.source_rows >= 0)).any()
    assert pair.source_only() == replace(
        pair.union, interactions=pairs[~pair.from_target | (pairs.split == SPLITS.index("test"))]
    )


def test_the_kg_of_both_is_left_out_or_shuffled_and_the_link_stays():
    pair = link(planted(num_users=40, seed=1), random_split(planted()), on="item", by="label").keep_target(0.5)
    none, shuffled = pair.without_kg(), pair.shuffled_kg(3)
    assert none.source.num_triples == none.target.num_triples == none.union.num_triples == 0
    assert shuffled.source == pair.source.shuffled_kg(3)
    assert shuffled.target == pair.target.shuffled_kg(3)
    assert shuffled.union != pair.union
    for other in (none, shuffled):
        assert replace(other.union, triples=pair.union.triples) == pair.union
        np.testing.assert_array_equal(other.matches, pair.matches)
        assert other.unlinked == pair.unlinked


def test_another_target_must_have_the_same_users_and_items():
    pair = link(*books_and_films(), on="user")
    with pytest.raises(GraphError, match="the same users, items and entities"):
        pair.with_target(random_split(planted()))


def test_the_summary_tells_overlap_and_what_was_dropped():
    text = link(*two_records_of_one_site(), on="item", same_users=True).summary()
    assert text.startswith("s -> films\nlinked on item by id, and users by id; entities of equal id are the same")
    assert "users               1          2           2" in text
    assert f"2 {HELD_OUT_PAIRS}" in text


def test_the_summary_warns_of_users_who_are_merely_numbered():
    warning = "user ids are plain numbers: the link holds only if both files number the same people"
    books, films = books_and_films()
    assert warning not in link(books, films, on="user").summary()
    numbered = [
        replace(graph, users=Vocabulary([str(n) for n in range(graph.num_users)], "user")) for graph in (books, films)
    ]
    assert warning in link(*numbered, on="user").summary()
    assert warning not in link(*numbered, on="entity", same_entities=True).summary()


def test_the_repr_names_the_graphs():
    assert repr(link(*books_and_films(), on="user")) == (
        "LinkedPair('books' -> 'films' on user; shared: 2 users, 0 items, 1 entities)"
    )


def test_what_was_not_linked_is_told_of_less_of_the_target_too():
    source = planted(num_users=40, seed=1)
    titles = np.array(["Item 3" if item in (3, 4) else f"Item {item}" for item in range(80)], dtype=object)
    source = replace(source, name="far", item_features={"title": Feature.text(titles)})
    pair = link(source, planted(), on="item", by="label", labels=["title"], on_ambiguous="review")
    for other in (pair.keep_target(0.5), pair.without_history(np.array([1])), pair.without_twins()):
        assert other.dropped["ambiguous matches"] == pair.dropped["ambiguous matches"] == 2
