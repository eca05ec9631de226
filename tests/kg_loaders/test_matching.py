from dataclasses import replace

import numpy as np
import pytest

from kg_loaders import Feature, FormatError, GraphError, Interactions, KGLoaderError, RecGraph, Vocabulary, link
from kg_loaders.linking import SAME_AS


def graph(items, others=(), triples=(), relations=(), titles=None, name="toy", split=True):
    entity = {e: i for i, e in enumerate([*items, *others])}
    return RecGraph(
        users=Vocabulary(["u"], "user"),
        entities=Vocabulary(entity, "entity"),
        num_items=len(items),
        interactions=Interactions(np.array([0]), np.array([0]), split=np.zeros(1, dtype=np.int8) if split else None),
        relations=Vocabulary(relations, "relation"),
        triples=np.array([[entity[h], relations.index(r), entity[t]] for h, r, t in triples], dtype=np.int64).reshape(
            -1, 3
        ),
        item_features={} if titles is None else {"title": Feature.text(titles)},
        name=name,
    )


def linked(pair):
    return {(pair.source.entities.id_of(i), pair.target.entities.id_of(j)) for i, j in pair.matches}


def test_labels_join_the_features_that_each_graph_has():
    source = graph(["a", "b"], titles=["Heat (1995)", "Emma (1996)"], name="one")
    target = graph(["x", "y"], titles=["Heat", "Emma"], name="two")
    target = replace(
        target, item_features={**target.item_features, "year": Feature.text(["1986", "1996"])}
    )  # another Heat
    assert linked(link(source, target, on="item", labels=("title", "year"))) == {("b", "y")}


def test_a_vector_feature_links_by_name():
    def with_vectors(values, **rest):
        items = [f"{rest['name']}{n}" for n in range(len(values))]
        return replace(graph(items, **rest), item_features={"v": Feature.vectors(np.array(values))})

    pair = link(
        with_vectors([[1, 0], [0, 1]], name="a"), with_vectors([[0, 2], [3, 0.1]], name="b"), on="text", vectors="v"
    )
    assert linked(pair) == {("a0", "b1"), ("a1", "b0")}
    assert pair.review["score"].between(0.9, 1).all()


def test_a_map_links_by_two_columns_and_counts_unknown_ids(tmp_path):
    (tmp_path / "map.csv").write_text("book,film\na,x\nb,nowhere\n", encoding="utf-8")
    pair = link(graph(["a", "b"], name="one"), graph(["x", "y"], name="two"), on="item", map=tmp_path / "map.csv")
    assert linked(pair) == {("a", "x")}
    assert pair.dropped["rows of the map with an unknown id"] == 1


@pytest.mark.parametrize("more", [("", ""), (",note", ",seen")])
def test_columns_of_the_right_names_may_stand_in_any_order(more, tmp_path):
    (tmp_path / "map.csv").write_text(f"target_id,source_id{more[0]}\n1,2{more[1]}\n", encoding="utf-8")
    pair = link(graph(["1", "2"], name="one"), graph(["1", "2"], name="two"), on="item", map=tmp_path / "map.csv")
    assert linked(pair) == {("2", "1")}


def test_two_maps_link_through_their_common_key(tmp_path):
    (tmp_path / "one.csv").write_text("id,uri\na,http://x\nb,http://y\n", encoding="utf-8")
    (tmp_path / "two.csv").write_text("id,uri\ny,http://y\nx,\n", encoding="utf-8")
    files = (tmp_path / "one.csv", tmp_path / "two.csv")
    assert linked(link(graph(["a", "b"], name="one"), graph(["x", "y"], name="two"), on="item", map=files)) == {
        ("b", "y")
    }


def test_malformed_maps_are_refused(tmp_path):
    one, two = graph(["a"], name="one"), graph(["x"], name="two")
    file = tmp_path / "map.csv"
    file.write_text("a,b,c\n1,2,3\n", encoding="utf-8")
    with pytest.raises(KGLoaderError, match="source_id"):
        link(one, two, on="item", map=file)
    with pytest.raises(FormatError, match="3 columns, expected two: an id and a key"):
        link(one, two, on="item", map=(file, file))
    file.write_text("a,b\nz,x\n", encoding="utf-8")
    with pytest.raises(GraphError, match=r"map matches no item: none of its 1 pairs.*has both ids"):
        link(one, two, on="item", map=file)


def test_same_as_links_in_either_direction_from_either_graph():
    source = graph(["a", "b", "c"], ["http://x", "http://k"], [("a", SAME_AS, "http://x"), ("http://k", SAME_AS, "c")],
                   [SAME_AS], name="one")  # fmt: skip
    target = graph(["http://x", "y", "z"], ["b", "http://k"], [("b", SAME_AS, "y"), ("z", SAME_AS, "http://k")],
                   [SAME_AS], name="two")  # fmt: skip
    assert linked(link(source, target, on="item", by="predicate")) == {("a", "http://x"), ("b", "y"), ("c", "z")}


def test_another_predicate_can_be_named_and_must_be_there():
    source = graph(["a"], ["x"], [("a", "exactMatch", "x")], ["exactMatch"], name="one")
    target = graph(["x"], name="two")
    assert linked(link(source, target, on="item", predicate="exactMatch")) == {("a", "x")}
    with pytest.raises(GraphError, match="predicate 'closeMatch' is no relation of 'one' or 'two'"):
        link(source, target, on="item", predicate="closeMatch")
    with pytest.raises(GraphError, match="ties no item of 'one' to one of 'two'"):
        link(source, graph(["y"], name="two"), on="item", predicate="exactMatch")
