import json
from dataclasses import replace

import numpy as np
import pytest

from kg_loaders import Feature, Interactions, RecGraph, Vocabulary
from kg_loaders.inspect import format_summary, summary


@pytest.fixture
def graph() -> RecGraph:
    """Four users, five items, ten entities.

    Items 0 (Alien) and 1 (Aliens) share their only triple; item 2 (Heat) and item 3 (heat) have one label and other
    triples; item 4 has no triple and no title. Entity 5 is one hop away, 6 two, 7 three; 8 and 9 know only each other.
    """
    return RecGraph(
        users=Vocabulary(["ann", "bob", "cy", "dora"], "user"),
        entities=Vocabulary([*"abcde", "Scott", "UK", "Europe", "x", "y"], "entity"),
        num_items=5,
        interactions=Interactions(
            np.array([0, 0, 0, 1, 2, 2]),
            np.array([0, 1, 2, 0, 1, 3]),
            split=np.array([0, 0, 2, 0, 0, 1], dtype=np.int8),
        ),
        relations=Vocabulary(["made by", "in", "unused"], "relation"),
        triples=np.array([[0, 0, 5], [1, 0, 5], [5, 1, 6], [7, 1, 6], [8, 1, 9], [2, 0, 3]]),
        item_features={
            "title": Feature.text(["Alien", "Aliens", "Heat", "heat ", ""]),
            "image": Feature.vectors(np.ones((5, 2)), np.array([True, True, True, False, False])),
        },
        name="toy",
        dropped={"repeated pairs": 4, "test pairs also in train": 2},
    )


def test_sizes_and_interactions(graph: RecGraph) -> None:
    found = summary(graph)
    assert found["sizes"] == {
        "users": 4,
        "items": 5,
        "interactions": 6,
        "entities": 10,
        "entities_not_items": 5,
        "relations": 3,
        "triples": 6,
    }
    assert found["density"] == 6 / 20
    assert found["interactions"] == {"train": 4, "valid": 1, "test": 1}
    assert found["history"] == {"min": 1, "median": 2.0, "max": 3}  # dora has none and does not count
    assert found["users_without_interactions"] == 1
    assert found["items_without_interactions"] == 1
    assert found["items_without_triples"] == 1
    assert found["fingerprint"] == graph.fingerprint


def test_drops_and_test_pairs_in_train(graph: RecGraph) -> None:
    found = summary(graph)
    assert found["dropped"] == {"repeated pairs": 4, "test pairs also in train": 2}
    assert found["test_pairs_in_train"] == 2
    assert summary(replace(graph, dropped={}))["test_pairs_in_train"] == 0
    assert summary(graph.with_split(None))["test_pairs_in_train"] is None
    assert summary(graph.with_split(None))["interactions"] == {"unsplit": 6}


def test_a_test_part_all_of_which_stands_in_train(graph: RecGraph) -> None:
    rest = graph.with_split(np.zeros(6, dtype=np.int8))
    assert summary(rest)["test_pairs_in_train"] == 2
    assert summary(replace(rest, dropped={}))["test_pairs_in_train"] is None


def test_reach_by_hops(graph: RecGraph) -> None:
    reach = summary(graph)["reach"]
    assert reach["connected"] == 3
    assert reach["connected_share"] == 3 / 5
    assert reach["share_by_hops"] == [1 / 5, 2 / 5, 3 / 5]


def test_reach_needs_no_direction(graph: RecGraph) -> None:
    turned = replace(graph, triples=graph.triples[:, [2, 1, 0]])
    assert summary(turned)["reach"] == summary(graph)["reach"]


def test_reach_equals_a_naive_walk() -> None:
    rng = np.random.default_rng(0)
    num_items, num_entities = 7, 90
    triples = np.unique(rng.integers(0, [num_entities, 2, num_entities], (70, 3)), axis=0)
    graph = RecGraph(
        users=Vocabulary(["u"], "user"),
        entities=Vocabulary.from_range(num_entities, "entity"),
        num_items=num_items,
        interactions=Interactions(np.array([0]), np.array([0])),
        relations=Vocabulary(["r", "s"], "relation"),
        triples=triples,
    )
    reached, shares = set(range(num_items)), []
    while True:
        new = {t for h, _, t in triples.tolist() if h in reached} | {h for h, _, t in triples.tolist() if t in reached}
        if new <= reached:
            break
        reached |= new
        shares.append((len(reached) - num_items) / (num_entities - num_items))
    assert len(shares) > 2
    assert summary(graph)["reach"]["share_by_hops"] == shares


def test_relations_are_counted(graph: RecGraph) -> None:
    assert summary(graph)["relations"] == [
        {"relation": "made by", "triples": 3, "heads": 3, "tails": 2},
        {"relation": "in", "triples": 3, "heads": 3, "tails": 2},
        {"relation": "unused", "triples": 0, "heads": 0, "tails": 0},
    ]


def test_quality_of_the_links(graph: RecGraph) -> None:
    links = summary(graph)["links"]
    assert links["share_with_triples"] == 4 / 5
    assert links["items_sharing_a_triple_set"] == 2
    assert links["same_label_linked_differently"] == 1  # "Heat" and "heat "
    assert links["examples"] == [{"label": "Heat", "items": ["c", "d"]}]


def test_the_direction_of_a_triple_tells_items_apart(graph: RecGraph) -> None:
    triples = np.array([[0, 0, 5], [5, 0, 1]])
    assert summary(replace(graph, triples=triples))["links"]["items_sharing_a_triple_set"] == 0


def test_one_label_linked_alike_is_not_suspicious(graph: RecGraph) -> None:
    both = np.array([[2, 0, 5], [3, 0, 5]])
    assert summary(replace(graph, triples=both))["links"]["same_label_linked_differently"] == 0
    one = both[:1]
    assert summary(replace(graph, triples=one))["links"]["same_label_linked_differently"] == 1


def test_features_are_listed(graph: RecGraph) -> None:
    assert summary(graph)["features"] == [
        {"of": "item", "name": "title", "values": "text", "share_known": 4 / 5},
        {"of": "item", "name": "image", "values": "2 numbers", "share_known": 3 / 5},
    ]


def test_an_empty_graph_has_a_summary() -> None:
    nothing = np.array([], dtype=np.int64)
    graph = RecGraph(Vocabulary([], "user"), Vocabulary([], "entity"), 0, Interactions(nothing, nothing))
    found = summary(graph)
    assert found["density"] == 0.0
    assert found["history"] == {"min": 0, "median": 0.0, "max": 0}
    assert found["reach"] == {"connected": 0, "connected_share": 0.0, "share_by_hops": []}
    assert "none" in format_summary(found)


def test_a_summary_is_plain_data(graph: RecGraph) -> None:
    found = summary(graph)
    assert json.loads(json.dumps(found)) == found


def test_the_table(graph: RecGraph) -> None:
    lines = format_summary(summary(graph)).splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert rows[0] == f"toy (fingerprint {graph.fingerprint[:12]})"
    for row in (
        "users 4",
        "history of a user 2 median; 1 to 3",
        "test pairs also in train 2",
        "in 1 hop 20.0%",
        "suspicious labels 1 name several items, linked differently",
        "Heat items c, d",
        "made by 3 3 heads, 2 tails",
        "item image 2 numbers known for 60.0%",
    ):
        assert row in rows
    assert all(line == line.rstrip() for line in lines)
    # Values end in one column.
    assert (
        len({line.index(value) + len(value) for line in lines for value in ("30.0000%", "2 numbers") if value in line})
        == 1
    )


def test_the_table_stays_narrow_and_short(graph: RecGraph) -> None:
    names = [f"http://dbpedia.org/ontology/a/very/long/name/of/a/relation/number{number}" for number in range(40)]
    wide = replace(graph, relations=Vocabulary(names, "relation"))
    lines = format_summary(summary(wide)).splitlines()
    assert max(map(len, lines)) <= 110
    shown = [line for line in lines if "http://dbped" in line]
    assert len(shown) == 12
    assert shown[0].split()[0].endswith("number0")
    assert any("28 others" in line for line in lines)


def test_long_chains_are_followed_to_their_end_but_not_listed(graph: RecGraph) -> None:
    chain = np.stack([np.arange(4, 9), np.ones(5, dtype=np.int64), np.arange(5, 10)], axis=1)
    long = replace(
        graph,
        entities=Vocabulary([*graph.entities.ids, *(f"z{number}" for number in range(20))], "entity"),
        triples=np.concatenate(
            [chain, np.stack([np.arange(9, 29), np.ones(20, dtype=np.int64), np.arange(10, 30)], axis=1)]
        ),
    )
    found = summary(long)
    assert len(found["reach"]["share_by_hops"]) == 25
    assert found["reach"]["connected_share"] == 1.0
    assert sum(" hop" in line for line in format_summary(found).splitlines()) == 6
