import gzip
import json

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_loaders import Feature, FormatError, GraphError, Interactions, RecGraph, Vocabulary
from kg_loaders.formats.nx import detect, from_networkx, read, to_networkx, write
from kg_loaders.synthetic import planted


def rich_graph():
    """Everything that a graph can hold; ids of all kinds collide, triples are out of order and parallel."""
    return RecGraph(
        users=Vocabulary(["1", "2", "Ü", "4"], "user"),
        entities=Vocabulary(["1", "2", "Jaws", "Scott", "interacts"], "entity"),
        num_items=3,
        interactions=Interactions(
            np.array([0, 0, 1, 3]),
            np.array([2, 0, 1, 2]),
            np.array([1.5, 0.1, 0.0, 7e9]),
            np.array([5, 0.1, 3, 1], dtype=np.float32),
            np.array([0, 2, 0, 1], dtype=np.int8),
        ),
        relations=Vocabulary(["director", "interacts", "unused"], "relation"),
        triples=np.array([[4, 1, 3], [0, 0, 3], [0, 1, 3], [2, 1, 1], [1, 1, 1]]),
        user_features={"age": Feature.text(["30", "", "41", "22"])},
        item_features={
            "title": Feature.text(["Alien (1979)", "", "Jaws"]),
            "image": Feature.vectors(np.ones((3, 4)) / 3),
            "none": Feature.text(["", "", ""]),
            "empty": Feature.vectors(np.zeros((3, 2)), np.zeros(3, dtype=bool)),
        },
        entity_features={
            "title": Feature(np.array(["a", "b", "", "kept", ""], dtype=object), np.array([1, 1, 1, 0, 0], dtype=bool)),
            "image": Feature.vectors(np.arange(10).reshape(5, 2), np.array([True, False, True, True, False])),
        },
        name="rich",
        dropped={"repeated pairs": 3},
    )


GRAPHS = {
    "rich": rich_graph(),
    "planted": planted(),
    "unsplit": planted().with_split(None),
    "no kg": planted().without_kg(),
    "empty": RecGraph(
        Vocabulary((), "user"), Vocabulary((), "entity"), 0, Interactions(*np.empty((2, 0), dtype=np.int64))
    ),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_round_trip_loses_nothing(graph, tmp_path):
    for again in (from_networkx(to_networkx(graph)), written(graph, tmp_path)):
        assert again == graph
        assert (again.name, again.dropped) == (graph.name, graph.dropped)


def written(graph, folder):
    write(graph, folder)
    assert detect(folder)
    return read(folder)


def test_the_hand_written_form():
    graph = to_networkx(rich_graph())
    assert graph.number_of_nodes() == 4 + 5
    assert list(graph.nodes)[3:8] == [
        ("user", "4"),
        ("item", "1"),
        ("item", "2"),
        ("item", "Jaws"),
        ("entity", "Scott"),
    ]
    node = graph.nodes["item", "1"]
    assert (node["kind"], node["id"], node["features"]["title"]) == ("item", "1", "Alien (1979)")
    assert node["entity_features"] == {"title": "a", "image": [0.0, 1.0]}
    assert "title" not in graph.nodes["item", "2"]["features"]
    assert graph.nodes["entity", "Scott"]["masked"] == {"features": {"title": "kept"}}
    edge = graph["user", "1"]["item", "1"]
    assert dict(edge) == {"interacts": {"row": 1, "time": 0.1, "weight": pytest.approx(0.1), "split": "test"}}
    assert set(graph["item", "1"]["entity", "Scott"]) == {"director", "interacts"}


def test_a_graph_made_by_hand():
    graph = nx.MultiDiGraph()
    graph.add_node("ann", kind="user")
    graph.add_node("Scott", kind="entity", features={"born": [1937.0, 11.0]})
    graph.add_node("Alien", kind="item", features={"title": "Alien (1979)"})
    graph.add_node(7, kind="item")
    graph.add_edge("ann", 7)
    graph.add_edge("Alien", "Scott", key="director")
    graph.add_edge("Alien", 7, key="before")
    result = from_networkx(graph)
    assert (list(result.users), list(result.entities), list(result.relations)) == (
        ["ann"],
        ["Alien", "7", "Scott"],
        ["director", "before"],
    )
    assert result.interactions.item.tolist() == [1]
    assert result.interactions.time is None
    assert result.triples.tolist() == [[0, 0, 2], [0, 1, 1]]
    assert result.item_features["title"].present.tolist() == [True, False]
    assert result.entity_features["born"].values.tolist() == [[0, 0], [0, 0], [1937, 11]]


def test_a_part_of_a_graph_keeps_its_order():
    graph, given = to_networkx(planted()), planted()
    few = {node for node in graph if node[0] != "user" or node[1] < "user-010"}
    part = from_networkx(graph.subgraph(few).copy())
    assert part.users == given.users.head(10)
    assert part.entities == given.entities
    assert (part.triples == given.triples).all()
    kept = given.interactions[given.interactions.user < 10]
    assert all((ours == theirs).all() for (_, ours), (_, theirs) in columns_of(part.interactions, kept))
    assert part.item_features["title"].values.tolist() == given.item_features["title"].values.tolist()


def columns_of(ours, theirs):
    return ((a, b) for a, b in zip(ours.columns(), theirs.columns(), strict=True) if b[1] is not None)


def broken(change):
    graph = to_networkx(rich_graph())
    change(graph)
    return graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.add_node("x"), "node 'x': kind must be one of 'user', 'item', 'entity', got None"),
        (lambda g: g.add_edge(("user", "1"), ("entity", "Scott")), "an edge from a user must lead to an item"),
        (lambda g: g.add_edge(("item", "1"), ("user", "1")), "an edge to a user is no triple"),
        (lambda g: g.add_edge(("user", "2"), ("item", "1")), r"time must be a number, got nothing, though other"),
        (lambda g: g["user", "1"]["item", "1"]["interacts"].update(split="dev"), "split must be one of .*, got 'dev'"),
        (lambda g: g["user", "1"]["item", "1"]["interacts"].update(time="now"), "time must be a number, got 'now'"),
        (lambda g: g["user", "1"]["item", "1"]["interacts"].update(weight=1e300), "weight holds NaN or infinity"),
        (lambda g: g.nodes["item", "1"]["features"].update(image=[1.0]), r"must be 4 numbers, got \[1.0\] at node"),
        (lambda g: g.nodes["item", "1"]["features"].update(image="x"), "must be 4 numbers, got 'x' at node"),
        (lambda g: g.nodes["item", "1"]["features"].update(image=[1e99] * 4), "NaN or infinity"),
        (lambda g: g.nodes["item", "1"]["features"].update(title=3), "must be text, got 3 at node"),
        (lambda g: g.nodes["user", "1"]["features"].update(height=180), "must be 1 numbers, got 180 at node"),
        (lambda g: g.nodes["item", "1"].update(id="2"), "id '2' occurs twice"),
        (
            lambda g: g.add_edge(("user", "1"), ("item", "1"), key="again", time=1, weight=1, split="test"),
            "repeated .user, item. pairs",
        ),
    ],
)
def test_faults_are_named(change, message):
    graph = broken(change)
    with pytest.raises(GraphError, match=message):
        from_networkx(graph)


def test_only_a_multidigraph_will_do():
    with pytest.raises(GraphError, match=r"must be a networkx\.MultiDiGraph, got DiGraph"):
        from_networkx(nx.DiGraph())


def test_files_plain_and_gzipped(tmp_path):
    path = tmp_path / "films.nx.json"
    write(planted(), path)
    assert detect(path)
    assert read(path) == planted()
    packed = tmp_path / "films.nx.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(packed) == planted()
    assert not detect(tmp_path)
    with pytest.raises(FormatError, match=r"expected one file \*.nx.json in the folder, found 2"):
        read(tmp_path)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(FormatError, match="gzip"):
        read(packed)


def test_bad_json_is_refused_with_its_line(tmp_path):
    path = tmp_path / "films.nx.json"
    write(planted(), path)
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:-1]
    path.write_text("\n".join(lines))
    with pytest.raises(FormatError, match=r"films\.nx\.json:6: not JSON"):
        read(path)
    path.write_text('{"nodes": [1], "edges": 3}')
    with pytest.raises(FormatError, match="not a graph in networkx"):
        read(path)
    path.write_text('{"directed": true, "multigraph": true, "nodes": [{"id": 1}], "edges": []}')
    with pytest.raises(FormatError, match="kind must be one of"):
        read(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["item", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "kind", "features", "key"]), inner)
    ),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=300, deadline=None, database=None)
def test_only_format_errors_come_out(tmp_path_factory, data):
    tree = json.loads(json.dumps(nx.node_link_data(to_networkx(rich_graph()), edges="edges")))
    for _ in range(data.draw(st.integers(1, 3))):
        place = tree
        while data.draw(st.booleans()) or place is tree:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list):
                break
            parent, place = place, place[key]
            if data.draw(st.booleans()):
                parent[key] = data.draw(json_values)
                break
        else:
            if isinstance(place, dict) and place:
                place[data.draw(st.sampled_from(list(place)))] = data.draw(json_values)
    path = tmp_path_factory.getbasetemp() / "fuzz.nx.json"
    path.write_text(json.dumps(tree))
    try:
        graph = read(path)
    except FormatError:
        return
    assert isinstance(graph, RecGraph)
