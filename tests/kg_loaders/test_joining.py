from dataclasses import replace

import numpy as np
import pytest
from cases.domains import books_and_films, graph, pairs_of, two_records_of_one_site

from kg_loaders import Feature, GraphError, Vocabulary, link
from kg_loaders.joining import COMMON_PAIRS, COMMON_TRIPLES, HELD_OUT_PAIRS, LINKED_ELSEWHERE
from kg_loaders.synthetic import planted


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


def test_triples_of_both_are_counted_once():
    pair = link(planted(num_users=90, seed=1), planted(), on="entity")
    assert pair.dropped[COMMON_TRIPLES] > 0
    assert pair.union.num_triples == 2 * 160 - pair.dropped[COMMON_TRIPLES]


def test_pairs_that_the_target_holds_out_are_left_out_of_the_source():
    source, films = two_records_of_one_site()
    pair = link(source, films, on="item", same_users=True)
    assert pair.dropped[HELD_OUT_PAIRS] == 2  # ann - 2 is test, bob - 1 is validation
    assert pair.dropped[COMMON_PAIRS] == 1  # ann - 1
    assert pairs_of(pair.union, "train") == {("ann", "1"), ("bob", "2"), ("dan", "2"), ("eve", "1"), ("zoe", "2")}
    assert pairs_of(pair.union, "test") == {("ann", "2")}
    assert pairs_of(pair.union, "valid") == {("bob", "1")}
    assert pair.from_target.sum() == films.num_interactions


def test_the_target_must_be_split():
    books, films = books_and_films()
    with pytest.raises(GraphError, match="target 'films' has not been split"):
        link(books, films.with_split(None), on="user")
