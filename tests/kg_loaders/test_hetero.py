import warnings

import numpy as np
import pytest
import torch

from kg_loaders import Feature, GraphError, Interactions, RecGraph, Vocabulary, splits
from kg_loaders.synthetic import planted

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch_geometric uses a deprecated part of torch at import
    from torch_geometric.nn import HGTConv, SAGEConv
    from torch_geometric.nn import to_hetero as model_to_hetero
    from torch_geometric.transforms import ToUndirected

    from kg_loaders.hetero import edge_names, from_hetero, to_hetero


def rich_graph():
    """Everything that a graph can hold, with triples out of order and between all kinds of entities."""
    vectors = Feature.vectors(np.arange(12).reshape(6, 2), np.array([True, False, True, True, False, True]))
    return RecGraph(
        users=Vocabulary(["ann", "bob", "eve", "joe"], "user"),
        entities=Vocabulary(["Alien", "Heat", "Jaws", "Scott", "crime", "http://x/Ü"], "entity"),
        num_items=3,
        interactions=Interactions(
            np.array([0, 0, 1, 3]),
            np.array([2, 0, 1, 2]),
            np.array([1.5, 2.0, 0.0, 7.0]),
            np.array([5, 4, 3, 1], dtype=np.float32),
            np.array([0, 2, 0, 1], dtype=np.int8),
        ),
        relations=Vocabulary(["director", "http://x/about", "unused", "about"], "relation"),
        triples=np.array([[4, 3, 5], [0, 0, 3], [2, 1, 1], [5, 1, 0], [1, 1, 4], [0, 3, 0]]),
        user_features={"age": Feature.text(["30", "", "41", "22"])},
        item_features={
            "title": Feature.text(["Alien (1979)", "", "Jaws"]),
            "has_title": Feature.text(["yes", "", ""]),
            "image": Feature.vectors(np.ones((3, 4)) / 3),
            "num_nodes": Feature.vectors(np.ones((3, 1))),
        },
        entity_features={"label": Feature.text(["a", "b", "c", "Ridley", "", "u"]), "image": vectors},
        name="rich",
        dropped={"repeated pairs": 3},
    )


def strip(graph, **changes):
    fields = {name: getattr(graph, name) for name in RecGraph.__dataclass_fields__}
    return RecGraph(**(fields | changes))


GRAPHS = {
    "rich": rich_graph(),
    "planted": planted(),
    "unsplit": planted().with_split(None),
    "no kg": strip(planted(), entities=planted().items, triples=np.empty((0, 3), dtype=np.int64), entity_features={}),
    "no interactions": strip(rich_graph(), interactions=Interactions(*np.empty((2, 0), dtype=np.int64))),
    "no items": RecGraph(
        Vocabulary(["ann"], "user"),
        Vocabulary(["x", "y"], "entity"),
        0,
        Interactions(*np.empty((2, 0), dtype=np.int64)),
        Vocabulary(["r"], "relation"),
        np.array([[1, 0, 0]]),
    ),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_round_trip_loses_nothing(graph):
    again = from_hetero(to_hetero(graph))
    assert again == graph
    assert again.name == graph.name
    assert again.dropped == graph.dropped
    assert (again.triples == graph.triples).all()


@pytest.mark.parametrize("name", ["rich", "planted", "unsplit"])
def test_validates(name):
    assert to_hetero(GRAPHS[name]).validate()


def test_the_hand_written_form():
    data = to_hetero(rich_graph())
    assert data.node_types == ["user", "item", "entity"]
    assert [data[kind].num_nodes for kind in data.node_types] == [4, 3, 3]
    edges = {
        edge_type: (data[edge_type].edge_index.tolist(), data[edge_type].relation_id)
        for edge_type in data.edge_types
        if edge_type[0] != "user"
    }
    assert edges == {
        ("item", "director", "entity"): ([[0], [0]], "director"),
        ("item", "about", "item"): ([[2], [1]], "http://x/about"),
        ("item", "about", "entity"): ([[1], [1]], "http://x/about"),
        ("entity", "about", "item"): ([[2], [0]], "http://x/about"),
        ("item", "about_2", "item"): ([[0], [0]], "about"),
        ("entity", "about_2", "entity"): ([[1], [2]], "about"),
    }
    taken = data["user", "interacts", "item"]
    assert taken.edge_index.tolist() == [[0, 0, 1, 3], [2, 0, 1, 2]]
    assert taken.time.tolist() == [1.5, 2.0, 0.0, 7.0]
    assert taken.weight.tolist() == [5, 4, 3, 1]
    assert [taken[mask].tolist() for mask in ("train_mask", "val_mask", "test_mask")] == [
        [True, False, True, False],
        [False, False, False, True],
        [False, True, False, False],
    ]
    assert data["item"].vector_image.shape == (3, 4)
    assert data["item"].entity_vector_image.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data["entity"].vector_image.tolist() == [[6, 7], [8, 9], [10, 11]]
    assert data["entity"].has_image.tolist() == [True, False, True]
    assert data.entity_text["label"].tolist() == ["a", "b", "c", "Ridley", "", "u"]
    assert data.item_ids.tolist() == ["Alien", "Heat", "Jaws"]


def test_item_i_is_entity_i_after_all():
    graph = planted()
    data = to_hetero(graph)
    tails = data["item", "genre", "entity"].edge_index[1] + graph.num_items
    assert tails.tolist() == [80 + item % 4 for item in range(80)]


def test_a_subgraph_keeps_ids_and_features():
    graph = rich_graph()
    keep = {"user": torch.tensor([0, 3]), "item": torch.tensor([0, 2]), "entity": torch.tensor([0, 2])}
    part = from_hetero(to_hetero(graph).subgraph(keep))
    assert list(part.users) == ["ann", "joe"]
    assert list(part.entities) == ["Alien", "Jaws", "Scott", "http://x/Ü"]
    assert part.item_features["title"].values.tolist() == ["Alien (1979)", "Jaws"]
    assert part.entity_features["label"].values.tolist() == ["a", "c", "Ridley", "u"]
    assert part.entity_features["image"].values[:, 0].tolist() == [0, 4, 6, 10]
    assert part.interactions.item.tolist() == [1, 0, 1]
    named = [(part.entities.id_of(h), part.relations.id_of(r), part.entities.id_of(t)) for h, r, t in part.triples]
    assert named == [
        ("Alien", "director", "Scott"),
        ("http://x/Ü", "http://x/about", "Alien"),
        ("Alien", "about", "Alien"),
    ]


def test_own_attributes_of_the_user_are_no_hindrance():
    data = to_hetero(rich_graph())
    data["item"].x = torch.rand(3, 8)
    data["item"].has_poster = torch.ones(3)
    assert from_hetero(data) == rich_graph()


def test_works_in_pyg_models():
    graph = rich_graph()
    data = ToUndirected()(to_hetero(graph))
    x = {kind: torch.rand(data[kind].num_nodes, 8) for kind in data.node_types}
    out = HGTConv(8, 8, data.metadata(), heads=2)(x, data.edge_index_dict)
    assert {kind: value.shape for kind, value in out.items()} == {kind: value.shape for kind, value in x.items()}

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = SAGEConv(8, 8)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.fx inside torch_geometric
        model = model_to_hetero(Encoder(), data.metadata())
    assert model(x, data.edge_index_dict)["item"].shape == (3, 8)


def test_relation_names_may_name_modules():
    ids = [
        "http://dbpedia.org/ontology/starring",
        "http://a#starring",
        "film.film.genre",
        "a__b",
        "http://x/",
        "",
        "7",
        "é",
    ]
    names = edge_names(Vocabulary(ids, "relation"))
    assert names == ["starring", "starring_2", "film_film_genre", "a_b", "x", "relation", "7", "relation_2"]


def test_refuses_what_it_did_not_make():
    data = ToUndirected()(to_hetero(planted()))
    with pytest.raises(GraphError, match=r"\('item', 'rev_interacts', 'user'\) was not made by to_hetero"):
        from_hetero(data)
    data = to_hetero(planted())
    del data["user"].node_id
    with pytest.raises(GraphError, match=r"data\['user'\].node_id is missing"):
        from_hetero(data)
    data = to_hetero(planted())
    del data.relation_ids
    with pytest.raises(GraphError, match=r"data.relation_ids is missing"):
        from_hetero(data)
    data = to_hetero(planted())
    data["user", "interacts", "item"].train_mask[3] ^= True
    with pytest.raises(GraphError, match="exactly one of train_mask, val_mask, test_mask; edge 3 has not"):
        from_hetero(data)
    data = to_hetero(planted())
    del data["user", "interacts", "item"]
    with pytest.raises(GraphError, match="has no edge type"):
        from_hetero(data)


def test_many_relations_are_fast():
    rng = np.random.default_rng(0)
    num_items, num_entities, num_relations = 20_000, 50_000, 60
    triples = np.unique(
        np.column_stack([rng.integers(size, size=300_000) for size in (num_entities, num_relations, num_entities)]),
        axis=0,
    )
    user = np.sort(rng.integers(5_000, size=100_000))
    item = np.concatenate([np.arange(count) for count in np.bincount(user, minlength=5_000)])
    graph = RecGraph(
        Vocabulary.from_range(5_000, "user"),
        Vocabulary.from_range(num_entities, "entity"),
        num_items,
        Interactions(user, item),
        Vocabulary.from_range(num_relations, "relation"),
        triples,
    )
    graph = splits.random_split(graph)
    data = to_hetero(graph)
    again = from_hetero(data)
    assert len(data.edge_types) == 1 + 4 * num_relations
    assert again == graph
