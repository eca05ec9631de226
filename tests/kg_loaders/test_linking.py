from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cases.domains import books_and_films, graph

import kg_loaders
from kg_loaders import Feature, GraphError, KGLoaderError, Vocabulary, link
from kg_loaders.linking import AMBIGUOUS, EQUAL_NUMBERS, SAME_AS
from kg_loaders.matching import DENIED, OVERRULED


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
        ({"on": "item", "vectors": ("v", "w")}, "vectors must be a feature's name or two arrays"),
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


def titled(titles, name):
    ids = [str(n) for n in range(len(titles))]
    made = graph(["u"], ids, [("u", "0")], split=[0], name=name)
    return replace(made, item_features={"title": Feature.text(titles)})


def test_a_corrected_review_beside_its_rule_settles_what_was_unsure_and_leaves_the_rest(tmp_path):
    books = titled(["Dune", "Dune", "Emma", "Heidi of the Alps", "Ivanhoe", "Kim"], "books")
    films = titled(["Dune", "Emma", "Heidi of the Alp", "Ivanhoes", "Kim", "Kim's story"], "films")
    how = {"on": "item", "by": "label", "threshold": 0.8}
    pair = link(books, films, **how, on_ambiguous="review")
    assert pair.matches.tolist() == [[2, 1], [5, 4], [3, 2], [4, 3]]
    review = pair.review.set_index(["source_id", "target_id"])
    assert set(review.index) == {("0", "0"), ("1", "0"), ("3", "2"), ("4", "3")}
    file = tmp_path / "review.csv"
    review.drop([("0", "0"), ("4", "3")]).reset_index().to_csv(file, index=False)
    corrected = link(books, films, **how, map=file)
    assert sorted(corrected.matches.tolist()) == [[1, 0], [2, 1], [3, 2], [5, 4]]
    assert (corrected.by, len(corrected.review)) == ("label", 0)
    assert corrected.dropped[DENIED] == 2
    assert link(books, films, on="item", labels=["title"], threshold=0.8, map=file).by == "label"  # what labels are for
    # The rule alone would have it otherwise; and no row at all denies everything that was unsure.
    file.write_text("source_id,target_id\n5,5\n", encoding="utf-8")
    other = link(books, films, **how, map=file)
    assert sorted(other.matches.tolist()) == [[2, 1], [5, 5]]
    assert (other.dropped[DENIED], other.dropped[OVERRULED]) == (4, 1)
    file.write_text("source_id,target_id\n", encoding="utf-8")
    assert sorted(link(books, films, **how, map=file).matches.tolist()) == [[2, 1], [5, 4]]
    with pytest.raises(GraphError, match="no item of 'books' .* by map"):
        link(books, films, on="item", map=file)
    file.write_text("source_id,target_id\n0,0\n1,0\n", encoding="utf-8")
    with pytest.raises(GraphError, match="2 matches of items are ambiguous"):
        link(books, films, **how, map=file)


def test_the_package_exports_it():
    assert kg_loaders.link is link
    assert isinstance(link(*books_and_films(), on="user").review, pd.DataFrame)
    assert SAME_AS.endswith("#sameAs")
