from dataclasses import replace

import numpy as np
import pytest
from cases.domains import books_and_films, pairs_of, two_records_of_one_site

from kg_loaders import Feature, GraphError, KGLoaderError, Vocabulary, link
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
