import numpy as np
import pandas as pd
import pytest

from kg_loaders import GraphError, KGLoaderError
from kg_loaders.assemble import assemble, natural_order

MOMENTS = pd.Series(pd.to_datetime(["1970-01-02T00:00:00.5", "2020-01-01T00:00:00.0"]))  # without a zone: UTC


def pairs(*rows, **columns):
    users, items = zip(*rows, strict=True)
    return pd.DataFrame({"user_id": list(users), "item_id": list(items), **columns})


def triples(*rows):
    return pd.DataFrame(list(rows), columns=["head_id", "relation_id", "tail_id"])


def values(feature):
    return list(map(list, feature.values)) if feature.values.ndim == 2 else list(feature.values)


def pairs_of(graph):
    part = graph.interactions
    return list(zip(graph.users.ids_of(part.user), graph.items.ids_of(part.item), strict=True))


def test_ids_are_sorted_as_numbers_only_if_all_are():
    assert natural_order(["10", "9", "100", "9"]) == ["9", "10", "100"]
    assert natural_order(["10", "9", "x"]) == ["10", "9", "x"]
    assert natural_order(["10", "9", "009"]) == ["009", "10", "9"]
    assert natural_order([]) == []


def test_the_order_of_rows_does_not_matter():
    rows = [("u10", "3"), ("u9", "20"), ("u9", "3"), ("u10", "100")]
    facts = [("3", "by", "x"), ("y", "by", "20"), ("3", "at", "z")]
    first = assemble(name="a", interactions=pairs(*rows), triples=triples(*facts))
    second = assemble(name="b", interactions=pairs(*rows[::-1]), triples=triples(*facts[::-1]))
    assert first == second
    assert first.users.ids == ("u10", "u9")
    assert first.entities.ids == ("3", "20", "100", "x", "y", "z")
    assert first.relations.ids == ("at", "by")
    assert first.triples.tolist() == [[0, 0, 5], [0, 1, 3], [4, 1, 1]]


def test_ties_in_time_keep_the_order_of_rows():
    graph = assemble(
        name="a", interactions=pairs(("u", "3"), ("u", "1"), ("u", "2"), ("v", "9"), time=[5.0, 5.0, 4.0, 1.0])
    )
    assert pairs_of(graph) == [("u", "2"), ("u", "3"), ("u", "1"), ("v", "9")]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_points_in_time_become_seconds_since_1970(unit, zone):
    moments = MOMENTS.astype(f"datetime64[{unit}]")
    if zone is not None:
        moments = moments.dt.tz_localize("UTC").dt.tz_convert(zone)
    graph = assemble(name="a", interactions=pairs(("u", "1"), ("v", "2"), time=moments))
    assert graph.interactions.time.tolist() == [86_400.5, 1_577_836_800]


def test_splits_may_be_whole_numbers_of_any_type():
    rows = pairs(("u", "1"), ("u", "2"), ("v", "3"), split=[0, 2, 1])
    for kind in ("int64", "uint8", "float32", "Int64", "object"):
        graph = assemble(name="a", interactions=rows.astype({"split": kind}))
        assert graph.interactions.split.tolist() == [0, 2, 1]


def test_of_a_repeated_pair_the_first_row_is_kept_and_the_rest_counted():
    rows = [("u", "1"), ("u", "1"), ("v", "2"), ("u", "1"), ("w", "3")]
    graph = assemble(
        name="a", interactions=pairs(*rows, weight=[3, 4, 5, 6, 7]), dropped={"repeated pairs": 1, "no": 0}
    )
    assert graph.interactions.weight.tolist() == [3, 5, 7]
    assert dict(graph.dropped) == {"repeated pairs": 3}


def test_of_a_pair_in_several_splits_the_earliest_is_kept_and_the_rest_counted():
    rows = [("u", "1"), ("u", "1"), ("u", "2"), ("u", "2"), ("u", "2"), ("u", "3"), ("u", "4"), ("v", "4"), ("v", "4")]
    split = [2, 0, 2, 1, 2, 0, 1, 0, 1]
    graph = assemble(name="a", interactions=pairs(*rows, split=split))
    assert pairs_of(graph) == [("u", "1"), ("u", "2"), ("u", "3"), ("u", "4"), ("v", "4")]
    assert graph.interactions.split.tolist() == [0, 1, 0, 1, 0]
    assert dict(graph.dropped) == {
        "test pairs also in train": 1,
        "test pairs also in valid": 1,
        "repeated pairs": 1,
        "valid pairs also in train": 1,
    }


def test_nothing_is_lost_without_being_counted():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "user_id": rng.integers(0, 5, 200).astype(str),
            "item_id": rng.integers(0, 7, 200).astype(str),
            "split": rng.integers(0, 3, 200),
        }
    )
    graph = assemble(name="a", interactions=rows, triples=triples(*[("1", "r", "x")] * 3, ("2", "r", "x")))
    facts = graph.dropped["repeated triples"]
    assert facts == 2
    assert graph.num_interactions + sum(graph.dropped.values()) - facts == 200
    first = rows.groupby(["user_id", "item_id"], sort=True)["split"].min()
    assert graph.interactions.split.tolist() == first.tolist()


def test_categories_and_rows_of_tables_are_kept_even_if_they_occur_nowhere():
    users = pd.Categorical.from_codes([1, 1], ["a", "b"])
    graph = assemble(
        name="a",
        interactions=pd.DataFrame({"user_id": users, "item_id": ["1", "2"]}),
        user_table=pd.DataFrame(index=["c"]),
        item_table=pd.DataFrame(index=["0"]),
        entity_table=pd.DataFrame(index=["x", "1"]),
    )
    assert graph.users.ids == ("a", "b", "c")
    assert graph.entities.ids == ("0", "1", "2", "x")
    assert graph.num_items == 3


def test_categorical_and_plain_columns_give_one_graph():
    frame = pairs(("u", "10"), ("v", "9"), ("u", "9"))
    facts = triples(("10", "r", "x"), ("y", "r", "9"))
    graph = assemble(name="a", interactions=frame, triples=facts)
    assert graph == assemble(name="a", interactions=frame.astype("category"), triples=facts.astype("category"))


def test_links_give_items_their_place_in_the_triples():
    graph = assemble(
        name="a",
        interactions=pairs(("u", "1"), ("v", "2"), ("v", "3")),
        triples=triples(("m.1", "by", "2"), ("x", "by", "m.3")),
        links={"1": "m.1", "3": "m.3"},
    )
    assert graph.entities.ids == ("1", "2", "3", "entity:2", "x")
    assert graph.triples.tolist() == [[0, 0, 3], [4, 0, 2]]


def test_without_links_an_entity_with_the_id_of_an_item_is_the_item():
    rows = pairs(("u", "1"), ("v", "2"), ("v", "3"))
    graph = assemble(name="a", interactions=rows, triples=triples(("1", "by", "2")))
    assert (graph.num_entities, graph.triples.tolist()) == (3, [[0, 0, 1]])
    with pytest.raises(GraphError, match="no item occurs in any of the 1 triples"):
        assemble(name="a", interactions=rows, triples=triples(("1", "by", "2")), links={})


def test_a_knowledge_graph_without_items_is_refused():
    with pytest.raises(GraphError, match=r"no item occurs in any of the 2 triples; .*item '1', entity 'm.1'"):
        assemble(name="a", interactions=pairs(("u", "1")), triples=triples(("m.1", "by", "m.2"), ("m.2", "by", "m.1")))


def test_two_items_of_one_entity_are_named_or_the_second_is_counted():
    given = {
        "name": "a",
        "interactions": pairs(("u", "7"), ("v", "12"), ("v", "9")),
        "triples": triples(("m", "by", "x")),
        "links": {"12": "m", "9": "m", "7": "n"},
    }
    with pytest.raises(GraphError, match="items '9' and '12' are both linked to entity 'm'"):
        assemble(**given)
    graph = assemble(**given, on_unknown="drop")
    assert graph.triples.tolist() == [[graph.entities.index_of("9"), 0, graph.entities.index_of("x")]]
    assert dict(graph.dropped) == {"items linked to an entity that another item has": 1}


def test_links_of_unknown_items_are_named_or_counted():
    given = {
        "name": "a",
        "interactions": pairs(("u", "1"), ("v", "2")),
        "triples": triples(("m", "by", "x")),
        "links": {"1": "m", "8": "n", "9": "n"},
    }
    with pytest.raises(GraphError, match=r"not there: '8' \(and 1 more\)"):
        assemble(**given)
    assert dict(assemble(**given, on_unknown="drop").dropped) == {"links of unknown items": 2}
    with pytest.raises(KGLoaderError, match="^on_unknown must be one of 'raise', 'drop', got 'ignore'"):
        assemble(**given, on_unknown="ignore")


def test_names_that_cannot_be_told_apart_are_refused():
    rows = pairs(("u", "1"), ("v", "2"), ("v", "entity:3"))
    with pytest.raises(GraphError, match=r"'entity:1' .*is taken"):
        assemble(
            name="a", interactions=rows, triples=triples(("1", "r", "entity:1"), ("m", "r", "1")), links={"2": "m"}
        )
    rows = pairs(("u", "1"), ("v", "entity:1"))
    with pytest.raises(GraphError, match=r"'entity:1' .*is taken"):
        assemble(name="a", interactions=rows, triples=triples(("1", "r", "m")), links={"entity:1": "m"})


def test_features_of_all_kinds_find_their_rows():
    items = pd.DataFrame(
        {
            "title": pd.Series(["Heat", None], dtype=object),
            "image": pd.Series([None, [1.0, 2.0]], dtype=object),
        }
    ).set_index(pd.Index(["2", "0"], dtype=object))
    graph = assemble(
        name="a",
        interactions=pairs(("v", "1"), ("u", "2")),
        triples=triples(("m", "by", "x")),
        links={"1": "m"},
        user_table=pd.DataFrame({"age": ["42"]}, index=["v"]),
        item_table=items,
        entity_table=pd.DataFrame({"label": ["a film", "a person"]}, index=["m", "x"]),
    )
    assert graph.items.ids == ("0", "1", "2")
    assert values(graph.user_features["age"]) == ["", "42"]
    assert values(graph.item_features["title"]) == ["", "", "Heat"]
    assert graph.item_features["title"].present.tolist() == [False, False, True]
    assert values(graph.item_features["image"]) == [[1, 2], [0, 0], [0, 0]]
    assert graph.item_features["image"].present.tolist() == [True, False, False]
    assert values(graph.entity_features["label"]) == ["", "a film", "", "a person"]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([1.5, "x"], "must hold text or lists of numbers, got 1.5"),
        ([[1.0, float("nan")], [1.0, 2.0]], "item feature 'f' holds NaN or infinity for '1'"),
        ([[1.0], [1e300]], "holds NaN or infinity for '2'"),
        ([[1.0], [1.0, 2.0]], "all of one length"),
        ([["a"], ["b"]], "lists of numbers"),
        ([[[1.0]], [[1.0]]], "all of one length"),
        (["a", [1.0]], "text"),
    ],
)
def test_malformed_features_are_refused(cells, reason):
    table = pd.DataFrame({"f": pd.Series(cells, dtype=object)}).set_index(pd.Index(["1", "2"], dtype=object))
    with pytest.raises(GraphError, match=reason):
        assemble(name="a", interactions=pairs(("u", "1"), ("v", "2")), item_table=table)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interactions": pd.DataFrame({"user_id": ["u"]})}, r"interactions must have a column 'item_id'"),
        ({"interactions": pairs(("u", "1"), timestamp=[1])}, r"interactions have no 'timestamp', .*mean 'time'\?"),
        ({"interactions": pairs(("u", "1"), rating=[1])}, r"have no 'rating', only user_id, .*; rename it or take it"),
        ({"interactions": pairs(("u", "1"), x=[1]).rename(columns={"x": 0})}, r"have no '0', only"),
        ({"interactions": pairs(("u", "1"), (None, "2"))}, r"interactions.user_id has no id at row 1"),
        ({"interactions": pairs(("u", 1), ("v", 2))}, r"interactions.item_id must hold ids as text.*got 1"),
        ({"interactions": pairs(("u", ""), ("v", "2"))}, r"none of them empty, got ''"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), weight=["a", "b"])}, r"interactions.weight must hold numbers"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), weight=[1.0, 1e300])}, r"weight holds NaN or infinity"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), time=[1.0, None])}, r"time holds NaN"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), split=[0, 3])}, r"split holds codes outside"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), split=[0, None])}, r"outside 0..2 \(.*\): nan at row 1"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), split=[257, 1])}, r"outside 0..2 \(.*\): 257 at row 0"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), split=[2.0, 0.7])}, r"outside 0..2 \(.*\): 0.7 at row 1"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), split=["train", "test"])}, r"interactions.split must hold num"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), time=MOMENTS.where([True, False]))}, r"time holds NaN.*row 1"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), time=MOMENTS - MOMENTS[0])}, r"numbers, got timedelta64"),
        ({"interactions": pairs(("u", "1"), ("v", "2"), weight=MOMENTS)}, r"weight must hold numbers, got datetime64"),
        ({"user_table": pd.DataFrame(index=["a", "a"])}, r"user 'a' has two rows in user_table"),
        ({"item_table": pd.DataFrame(index=[1, 2])}, r"the index of item_table must hold ids as text"),
        ({"triples": pd.DataFrame({"head_id": ["1"]})}, r"triples must have a column 'relation_id'"),
    ],
)
def test_malformed_tables_are_refused(change, reason):
    given = {"name": "a", "interactions": pairs(("u", "1"), ("v", "2"))}
    with pytest.raises(GraphError, match=reason):
        assemble(**{**given, **change})
