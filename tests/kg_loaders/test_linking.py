from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import kg_loaders
from kg_loaders import Feature, GraphError, Interactions, KGLoaderError, RecGraph, Vocabulary, link, sort_interactions
from kg_loaders.joining import COMMON_PAIRS, COMMON_TRIPLES, HELD_OUT_PAIRS, LINKED_ELSEWHERE
from kg_loaders.linking import AMBIGUOUS, EQUAL_NUMBERS, SAME_AS
from kg_loaders.splits import random_split
from kg_loaders.synthetic import planted

TRAIN, VALID, TEST = range(3)


def graph(
    users, items, pairs, split=None, others=(), triples=(), relations=("r",), time=None, weight=None, name="toy", **rest
):
    """A graph from lists; ``pairs`` are (user, item) ids, ``triples`` (head, relation, tail) ids."""
    user, entity = {u: i for i, u in enumerate(users)}, {e: i for i, e in enumerate([*items, *others])}
    relation = {r: i for i, r in enumerate(relations)}
    interactions = Interactions(
        np.array([user[u] for u, _ in pairs], dtype=np.int64),
        np.array([entity[i] for _, i in pairs], dtype=np.int64),
        None if time is None else np.array(time, dtype=np.float64),
        None if weight is None else np.array(weight, dtype=np.float32),
        None if split is None else np.array(split, dtype=np.int8),
    )
    return RecGraph(
        users=Vocabulary(users, "user"),
        entities=Vocabulary([*items, *others], "entity"),
        num_items=len(items),
        interactions=sort_interactions(interactions),
        relations=Vocabulary(relations, "relation"),
        triples=np.array([[entity[h], relation[r], entity[t]] for h, r, t in triples], dtype=np.int64).reshape(-1, 3),
        name=name,
        **rest,
    )


def books_and_films(**rest):
    """Two domains that share the users ann and bob, and the entity Dune; item ids collide on purpose."""
    books = graph(
        ["cid", "ann", "bob"],
        ["1", "2", "3"],
        [("cid", "1"), ("ann", "2"), ("ann", "3"), ("bob", "1")],
        others=["q:herbert", "q:dune"],
        triples=[("1", "author", "q:herbert"), ("1", "about", "q:dune"), ("2", "author", "q:herbert")],
        relations=["about", "author"],
        name="books",
        **rest,
    )
    films = graph(
        ["ann", "bob", "dan", "eve"],
        ["1", "2"],
        [("ann", "1"), ("ann", "2"), ("bob", "1"), ("bob", "2"), ("dan", "2"), ("eve", "1")],
        split=[TRAIN, TEST, VALID, TRAIN, TRAIN, TRAIN],
        others=["q:lynch", "q:dune"],
        triples=[("1", "director", "q:lynch"), ("1", "about", "q:dune")],
        relations=["about", "director"],
        name="films",
    )
    return books, films


def pairs_of(graph, split=None):
    part = graph.part(split) if split else graph.interactions
    users, items = (v.ids_of(i) for v, i in ((graph.users, part.user), (graph.items, part.item)))
    return set(zip(users, items, strict=True))


def verdicts(pair):
    return {finding.check: (finding.count, finding.verdict) for finding in pair.audit()}


# The union


def test_shared_users_become_one_and_colliding_items_stay_apart():
    pair = link(*books_and_films(), on="user")
    union = pair.union
    assert union.users.ids == ("ann", "bob", "dan", "eve", "cid")
    assert union.items.ids == ("1", "2", "books:1", "books:2", "books:3")
    assert pair.users.tolist() == [4, 0, 1]
    assert pair.items.tolist() == [2, 3, 4]
    assert pair.shared_users.tolist() == [0, 1]
    assert pair.shared_items.tolist() == []
    assert pairs_of(union, "train") == {
        ("ann", "1"), ("bob", "2"), ("dan", "2"), ("eve", "1"),
        ("cid", "books:1"), ("ann", "books:2"), ("ann", "books:3"), ("bob", "books:1"),
    }  # fmt: skip
    assert pairs_of(union, "test") == {("ann", "2")}
    assert pairs_of(union, "valid") == {("bob", "1")}
    assert pair.overlap()["users"] == {"source": 1, "both": 2, "target": 2}


def test_domains_are_marked_on_users_and_items():
    union = link(*books_and_films(), on="user").union
    assert union.user_features["domain"].values.tolist() == ["both", "both", "target", "target", "source"]
    assert union.item_features["domain"].values.tolist() == ["target", "target", "source", "source", "source"]


def test_entities_and_relations_of_equal_ids_are_one_unless_they_are_numbers():
    pair = link(*books_and_films(), on="user")
    union = pair.union
    assert union.entities.ids[union.num_items :] == ("q:lynch", "q:dune", "q:herbert")
    assert union.relations.ids == ("about", "director", "author")
    named = {(union.entities.id_of(h), union.relations.id_of(r), union.entities.id_of(t)) for h, r, t in union.triples}
    assert named == {
        ("1", "director", "q:lynch"), ("1", "about", "q:dune"),
        ("books:1", "author", "q:herbert"), ("books:1", "about", "q:dune"), ("books:2", "author", "q:herbert"),
    }  # fmt: skip
    assert pair.overlap()["entities"] == {"source": 1, "both": 1, "target": 1}
    books, films = books_and_films()
    numbered = replace(books, entities=Vocabulary(["1", "2", "3", "7", "8"], "entity"))
    apart = link(numbered, films, on="user").union
    assert apart.relations.ids == ("about", "director", "books:about", "books:author")
    assert len(apart.entities) == len(films.entities) + len(numbered.entities)


def test_same_entities_can_be_told():
    apart = link(*books_and_films(), on="user", same_entities=False).union
    assert apart.entities.ids[apart.num_items :] == ("q:lynch", "q:dune", "books:q:herbert", "books:q:dune")
    assert apart.num_triples == 5


def test_an_item_may_be_an_entity_of_the_other_graph():
    """The book Dune is an item of the source and an entity that a film is about."""
    books, films = books_and_films()
    books = replace(books, entities=Vocabulary(["q:dune", "b2", "b3", "q:herbert", "q:other"], "entity"))
    pair = link(books, films, on="entity")
    union = pair.union
    assert union.items.ids == ("1", "2", "q:dune", "b2", "b3")
    assert union.item_features["domain"].values.tolist() == ["target", "target", "source", "source", "source"]
    about = union.triples[union.triples[:, 1] == union.relations.index_of("about")]
    assert [union.entities.id_of(int(t)) for h, _, t in about if h == 0] == ["q:dune"]
    assert pair.target_entities.tolist() == [0, 1, 5, 2]
    assert pair.entities[0] == 2


def test_entities_of_equal_numbers_are_not_the_same_unless_told():
    pair = link(*books_and_films(), on="entity")
    assert pair.dropped[EQUAL_NUMBERS] == 2  # the items "1" and "2"
    assert pair.overlap()["entities"]["both"] == 1
    assert len(pair.shared_items) == 0
    assert len(link(*books_and_films(), on="entity", same_entities=True).shared_items) == 2


def test_numbers_of_two_files_are_no_names():
    """Attributes are numbered from 1 in each sequence file: the fifth of one shop is not the fifth of another."""
    books, films = books_and_films()
    shops = [
        replace(graph.without_kg(), entities=Vocabulary([*graph.items, *more], "entity"), entity_features={})
        for graph, more in ((books, ["attribute:1", "attribute:2"]), (films, ["attribute:1", "attribute:2"]))
    ]
    with pytest.raises(GraphError, match=r"by id; 4 entities of equal numbers, .* \(same_entities=True"):
        link(*shops, on="entity")
    with pytest.raises(GraphError, match="no entity of 'books' .* matches one of 'films' .* by label"):
        link(*(replace(shop, item_features={}) for shop in shops), on="entity", by="label")
    apart = link(*shops, on="user").union
    assert len(apart.entities) == sum(len(shop.entities) for shop in shops)


def test_two_items_of_equal_id_are_not_one_unless_linked():
    pair = link(*books_and_films(), on="user", same_entities=True)
    assert len(pair.shared_items) == 0
    assert len(link(*books_and_films(), on="item").shared_items) == 2


def test_an_entity_of_equal_id_whose_like_is_linked_stays_apart_and_is_counted():
    books, films = books_and_films()
    films = replace(films, entity_features={"label": Feature.text(["Dune", "Eraserhead", "Lynch", "q:dune"])})
    books = replace(books, entity_features={"label": Feature.text(["A", "B", "q:dune", "Herbert", "C"])})
    pair = link(books, films, on="entity", by="label")  # the book "3" is the target's q:dune
    assert pair.dropped[LINKED_ELSEWHERE] == 1
    assert "books:q:dune" in pair.union.entities


def test_features_are_joined_and_the_target_counts_where_both_know():
    books, films = books_and_films()
    books = replace(
        books,
        item_features={"title": Feature.text(["Dune", "Emma", ""]), "v": Feature.vectors(np.ones((3, 2)))},
        user_features={"age": Feature.text(["1", "2", "3"])},
    )
    films = replace(
        films,
        item_features={"title": Feature.text(["Alien", ""])},
        user_features={"age": Feature.text(["9", "", "9", "9"])},
    )
    by_item = link(books, films, on="item").union
    assert by_item.item_features["title"].values.tolist() == ["Alien", "Emma", ""]
    assert by_item.item_features["v"].present.tolist() == [True, True, True]
    by_user = link(books, films, on="user").union
    assert by_user.item_features["v"].present.tolist() == [False, False, True, True, True]
    assert by_user.user_features["age"].values.tolist() == ["9", "3", "9", "9", "1"]


def test_features_that_contradict_each_other_are_refused():
    books, films = books_and_films()
    books = replace(books, item_features={"v": Feature.vectors(np.ones((3, 2)))})
    films = replace(films, item_features={"v": Feature.vectors(np.ones((2, 3)))})
    with pytest.raises(GraphError, match=r"item feature 'v' is .*width 2.* in the source and .*width 3"):
        link(books, films, on="user")
    films = replace(films, item_features={"domain": Feature.text(["space", "space"])})
    with pytest.raises(GraphError, match="items have a feature 'domain' already"):
        link(books, films, on="user")


def test_a_union_can_be_linked_again():
    books, films = books_and_films()
    first = link(books, films, on="user").union
    games = graph(["ann", "zoe"], ["g"], [("ann", "g"), ("zoe", "g")], name="games")
    assert link(games, first, on="user").union.num_users == 6


def test_times_and_weights_need_both_and_are_counted_where_one_lacks_them():
    books, films = books_and_films(time=[1, 2, 3, 4], weight=[5, 4, 3, 2])
    pair = link(books, films, on="user")
    assert pair.union.interactions.time is None
    assert pair.dropped["times, since films has none"] == 4
    pairs = films.interactions
    both = replace(films, interactions=replace(pairs, time=np.arange(6.0), weight=np.ones(6, dtype=np.float32)))
    union = link(books, both, on="user").union
    assert union.interactions.time is not None
    assert union.interactions.weight.sum() == 6 + 14


# Leaks


def two_records_of_one_site():
    """Equal users and items; the source holds a test pair, a validation pair and a train pair of the target."""
    films = books_and_films()[1]
    source = graph(
        ["ann", "bob", "zoe"], ["1", "2"], [("ann", "2"), ("ann", "1"), ("bob", "1"), ("zoe", "2")], name="s"
    )
    return source, films


def test_pairs_that_the_target_holds_out_are_left_out_of_the_source():
    source, films = two_records_of_one_site()
    pair = link(source, films, on="item", same_users=True)
    assert pair.dropped[HELD_OUT_PAIRS] == 2  # ann - 2 is test, bob - 1 is validation
    assert pair.dropped[COMMON_PAIRS] == 1  # ann - 1
    assert pairs_of(pair.union, "train") == {("ann", "1"), ("bob", "2"), ("dan", "2"), ("eve", "1"), ("zoe", "2")}
    assert pairs_of(pair.union, "test") == {("ann", "2")}
    assert pairs_of(pair.union, "valid") == {("bob", "1")}
    assert pair.from_target.sum() == films.num_interactions
    assert verdicts(pair)["held-out target pairs in train"] == (0, "ok")
    assert verdicts(pair)["held-out target pairs in the source"] == (2, "note")


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


def test_the_target_must_be_split():
    books, films = books_and_films()
    with pytest.raises(GraphError, match="target 'films' has not been split"):
        link(books, films.with_split(None), on="user")


# Less of the target


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


def test_another_target_must_have_the_same_users_and_items():
    pair = link(*books_and_films(), on="user")
    with pytest.raises(GraphError, match="the same users, items and entities"):
        pair.with_target(random_split(planted()))


# Text for people


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


def test_triples_of_both_are_counted_once():
    pair = link(planted(num_users=90, seed=1), planted(), on="entity")
    assert pair.dropped[COMMON_TRIPLES] > 0
    assert pair.union.num_triples == 2 * 160 - pair.dropped[COMMON_TRIPLES]


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "users"}, "on must be one of 'user', 'item', 'entity', 'text', got 'users'; did you mean 'user'"),
        ({"on": "item", "by": "name"}, "by must be one of .*, got 'name'"),
        ({"on": "item", "on_ambiguous": "drop"}, "on_ambiguous must be one of 'raise', 'review', got 'drop'"),
        ({"on": "item", "by": "id", "labels": ["title"]}, "labels is for by='label', got by='id'"),
        ({"on": "item", "by": "map"}, "by='map' needs map, got none"),
        ({"on": "text"}, "by='vectors' needs vectors, got none"),
        ({"on": "text", "by": "label"}, "on='text' links by vectors, got by='label'"),
        ({"on": "item", "threshold": 0.5}, "threshold is for by='label' or by='vectors', got by='id'"),
        ({"on": "user", "predicate": "r"}, "users have no triples"),
        ({"on": "user", "same_users": True}, "same_users is for links on something else"),
        ({"on": "item", "labels": "title"}, "labels must be a list of features"),
        ({"on": "item", "labels": ["plot"]}, r"labels must name text features of the items of 'books' \(none\)"),
        ({"on": "item", "vectors": "v"}, r"vectors must name a vector feature of the items of 'books' \(none\)"),
        ({"on": "item", "vectors": 3}, "vectors must be a feature's name or two arrays"),
        ({"on": "item", "vectors": (np.ones((3, 2)), np.ones((1, 2)))}, r"vectors of 'films' must be finite numbers"),
        ({"on": "item", "vectors": (np.ones((3, 2)), np.ones((2, 5)))}, "must be .* of one width"),
        ({"on": "item", "by": "label", "threshold": 1.5}, "threshold must be above 0 and at most 1, got 1.5"),
        ({"on": "item", "map": ["a.csv"]}, "map must be one file, or two"),
        ({"on": "item", "map": "nowhere.csv"}, "map must name a CSV file, got 'nowhere.csv', which is not there"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(KGLoaderError, match=message):
        link(*books_and_films(), **options)


def test_no_match_is_an_error_that_shows_both_kinds_of_ids():
    books = graph(["u1"], ["b"], [("u1", "b")], name="books")
    with pytest.raises(GraphError, match=r"no user of 'books' \(such as 'u1'\) matches one of 'films'"):
        link(books, books_and_films()[1], on="user")


def test_ambiguous_matches_raise_or_are_listed():
    books, films = books_and_films()
    books = replace(books, item_features={"title": Feature.text(["Dune", "Dune", "Emma"])})
    films = replace(films, item_features={"title": Feature.text(["Dune", "Emma"])})
    with pytest.raises(GraphError, match=r"2 matches of items are ambiguous, such as '1' \(Dune\) - '1' \(Dune\)"):
        link(books, films, on="item", by="label")
    pair = link(books, films, on="item", by="label", on_ambiguous="review")
    assert pair.matches.tolist() == [[2, 1]]
    assert pair.dropped[AMBIGUOUS] == 2
    assert pair.review[["source_id", "target_id", "linked"]].to_numpy().tolist() == [
        ["1", "1", False],
        ["2", "1", False],
    ]


def test_a_corrected_review_is_a_map(tmp_path):
    books, films = books_and_films()
    books = replace(books, item_features={"title": Feature.text(["Dune", "Dune", "Emma"])})
    films = replace(films, item_features={"title": Feature.text(["Dune", "Emma"])})
    review = link(books, films, on="item", by="label", on_ambiguous="review").review
    review.iloc[1:].to_csv(tmp_path / "map.csv", index=False)
    assert link(books, films, on="item", map=tmp_path / "map.csv").matches.tolist() == [[1, 0]]


def test_the_package_exports_it():
    assert kg_loaders.link is link
    assert isinstance(link(*books_and_films(), on="user").review, pd.DataFrame)
    assert SAME_AS.endswith("#sameAs")
