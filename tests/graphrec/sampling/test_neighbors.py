import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv
from torch_geometric.utils import k_hop_subgraph

from graphrec.errors import ArgumentError
from graphrec.layers import HeteroAttentionConv, RelationAttentionConv
from graphrec.sampling import NeighborSampler
from graphrec.sampling.neighbors import _distinct


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_graph(num_nodes=60, num_edges=400, seed=0):
    draw = generator(seed)
    return Data(
        x=torch.randn(num_nodes, 8, generator=draw),
        y=torch.arange(num_nodes),
        edge_index=torch.randint(num_nodes, (2, num_edges), generator=draw),
        edge_type=torch.randint(3, (num_edges,), generator=draw),
        names=[f"node {i}" for i in range(num_nodes)],
        weight=np.arange(num_edges),
        level=0.5,
    )


def shop(seed=0):
    """Users who bought items, and items of brands, with edges both ways."""
    draw = generator(seed)
    data = HeteroData()
    for kind, size in (("user", 30), ("item", 40), ("brand", 7)):
        data[kind].x = torch.randn(size, 8, generator=draw)
    bought = torch.stack([torch.randint(30, (150,), generator=draw), torch.randint(40, (150,), generator=draw)])
    made = torch.stack([torch.arange(40), torch.randint(7, (40,), generator=draw)])
    data["user", "bought", "item"].edge_index = bought
    data["user", "bought", "item"].rating = torch.arange(150)
    data["item", "bought_by", "user"].edge_index = bought.flip(0)
    data["item", "made_by", "brand"].edge_index = made
    data["brand", "makes", "item"].edge_index = made.flip(0)
    return data


def test_all_neighbours_of_all_hops_are_the_subgraph_that_pyg_finds():
    data = random_graph(num_edges=80)
    for hops in (1, 2, 3):
        batch = NeighborSampler(data, [-1] * hops).sample(torch.tensor([5, 17]))
        nodes, _, _, mask = k_hop_subgraph([5, 17], hops, data.edge_index, num_nodes=60)
        assert sorted(batch.n_id.tolist()) == nodes.tolist()
        # PyG's function also keeps edges into nodes of the last hop, which no layer reads.
        inner = torch.isin(data.edge_index[1], batch.n_id[: sum(batch.num_sampled_nodes[:-1])])
        assert sorted(batch.e_id.tolist()) == (mask & inner).nonzero().squeeze(1).tolist()


def test_a_batch_has_the_rows_of_its_nodes_and_edges():
    data = random_graph()
    batch = NeighborSampler(data, [4, 3]).sample(torch.tensor([9, 2, 30]), generator=generator())
    assert batch.n_id[:3].tolist() == [9, 2, 30]
    assert batch.input_id.tolist() == [0, 1, 2]
    assert batch.batch_size == 3
    assert batch.num_nodes == len(batch.n_id) == sum(batch.num_sampled_nodes)
    assert sum(batch.num_sampled_edges) == len(batch.e_id) == batch.num_edges
    assert len(batch.n_id.unique()) == len(batch.n_id)
    assert torch.equal(batch.x, data.x[batch.n_id])
    assert torch.equal(batch.y, batch.n_id)
    assert batch.names == [f"node {i}" for i in batch.n_id]
    assert torch.equal(batch.edge_type, data.edge_type[batch.e_id])
    assert batch.weight.tolist() == batch.e_id.tolist()
    assert batch.level == 0.5
    assert torch.equal(batch.n_id[batch.edge_index], data.edge_index[:, batch.e_id])
    assert batch.validate()
    assert data.num_nodes == 60  # the whole graph is as it was
    assert data.edge_index.shape == (2, 400)


def test_no_node_gets_more_neighbours_than_asked_and_each_edge_once():
    data = random_graph()
    batch = NeighborSampler(data, [4, 3]).sample(torch.arange(10), generator=generator())
    assert len(batch.e_id.unique()) == len(batch.e_id)
    degree = torch.bincount(data.edge_index[1], minlength=60)[batch.n_id]
    got = torch.bincount(batch.edge_index[1], minlength=batch.num_nodes)
    seeds, first, last = torch.tensor(batch.num_sampled_nodes).cumsum(0).tolist()
    assert torch.equal(got[:seeds], degree[:seeds].clamp(max=4))
    assert torch.equal(got[seeds:first], degree[seeds:first].clamp(max=3))
    assert not got[first:last].any()


def test_a_model_on_all_neighbours_gives_what_it_gives_on_the_whole_graph():
    data = random_graph()
    seeds = torch.tensor([3, 14, 15])
    batch = NeighborSampler(data, [-1, -1]).sample(seeds)
    sage, attention = SAGEConv(8, 8), RelationAttentionConv(8, 8, num_relations=3)
    with torch.no_grad():
        for layer, read in ((sage, ["edge_index"]), (attention, ["edge_index", "edge_type"])):
            whole, part = (layer(layer(d.x, *map(d.get, read)).relu(), *map(d.get, read)) for d in (data, batch))
            torch.testing.assert_close(part[:3], whole[seeds])


def test_typed_models_on_all_neighbours_give_what_they_give_on_the_whole_graph():
    data = shop()
    seeds = torch.tensor([4, 0, 33])
    batch = NeighborSampler(data, [-1, -1]).sample(seeds, "item")
    attention = HeteroAttentionConv(8, 8, metadata=data.metadata(), heads=2)
    sage = HeteroConv({kind: SAGEConv((8, 8), 8) for kind in data.edge_types})
    with torch.no_grad():
        for layer in (attention, sage):
            results = []
            for graph in (data, batch):
                x = layer(graph.x_dict, graph.edge_index_dict)
                results.append(layer({kind: value.relu() for kind, value in x.items()}, graph.edge_index_dict)["item"])
            torch.testing.assert_close(results[1][:3], results[0][seeds])


def test_a_typed_batch_has_the_rows_of_its_nodes_and_edges():
    data = shop()
    batch = NeighborSampler(data, [3, 2]).sample(torch.tensor([7, 1]), "user", generator())
    assert isinstance(batch, HeteroData)
    assert batch["user"].batch_size == 2
    assert batch["user"].n_id[:2].tolist() == [7, 1]
    assert batch["user"].input_id.tolist() == [0, 1]
    assert batch["brand"].num_sampled_nodes[0] == batch["item"].num_sampled_nodes[0] == 0
    for kind in data.node_types:
        assert torch.equal(batch[kind].x, data[kind].x[batch[kind].n_id])
    for kind in data.edge_types:
        store = batch[kind]
        ends = torch.stack([batch[kind[0]].n_id[store.edge_index[0]], batch[kind[-1]].n_id[store.edge_index[1]]])
        assert torch.equal(ends, data[kind].edge_index[:, store.e_id])
    assert torch.equal(batch["user", "bought", "item"].rating, batch["user", "bought", "item"].e_id)
    assert batch.validate()


def test_numbers_of_neighbours_may_differ_by_edge_type():
    data = shop()
    numbers = {kind: [0, 0] for kind in data.edge_types} | {("brand", "makes", "item"): [-1, -1]}
    batch = NeighborSampler(data, numbers).sample(torch.arange(5), "item")
    assert batch["user"].num_nodes == 0
    assert batch["brand", "makes", "item"].num_edges == 5


@pytest.mark.parametrize("distinct_ends", [False, True])
def test_pairs_are_found_again_in_their_batch(distinct_ends):
    if distinct_ends:
        data, kind = shop(), ("user", "bought", "item")
        pairs = torch.tensor([[3, 3, 29], [39, 0, 0]])
        batch = NeighborSampler(data, [2]).sample_links(pairs, torch.tensor([1, 0, 1]), kind, generator())
        store, ends = batch[kind], (batch["user"].n_id, batch["item"].n_id)
    else:
        pairs = torch.tensor([[5, 5, 8], [8, 1, 8]])
        batch = NeighborSampler(random_graph(), [2]).sample_links(pairs, torch.tensor([1, 0, 1]))
        store, ends = batch, (batch.n_id, batch.n_id)
        assert batch.num_sampled_nodes[0] == 3  # 1, 5 and 8
    found = torch.stack([end[index] for end, index in zip(ends, store.edge_label_index, strict=True)])
    assert torch.equal(found, pairs)
    assert store.edge_label.tolist() == [1, 0, 1]
    assert store.input_id.tolist() == [0, 1, 2]


def test_batches_hold_every_seed_once():
    sampler = NeighborSampler(random_graph(), [2])
    seeds = torch.arange(0, 60, 2)
    plain = [batch.n_id[: batch.batch_size] for batch in sampler.batches(seeds, 8)]
    assert [len(part) for part in plain] == [8, 8, 8, 6]
    assert torch.equal(torch.cat(plain), seeds)
    shuffled = list(sampler.batches(seeds, 8, shuffle=True, generator=generator()))
    mixed = torch.cat([batch.n_id[: batch.batch_size] for batch in shuffled])
    assert not torch.equal(mixed, seeds)
    assert torch.equal(mixed.sort().values, seeds)


@pytest.mark.parametrize("shuffle", [False, True])
def test_input_id_finds_what_belongs_to_a_seed_as_in_pyg(shuffle):
    seeds = torch.tensor([50, 20, 30, 10])
    labels = seeds * 10  # in the seeds' order
    for batch in NeighborSampler(random_graph(), [2]).batches(seeds, 3, shuffle=shuffle, generator=generator()):
        assert torch.equal(labels[batch.input_id], batch.n_id[: batch.batch_size] * 10)


def test_equal_seeds_draw_equal_batches():
    sampler = NeighborSampler(random_graph(), [2, 2])
    one, same, other = (sampler.sample(torch.arange(5), generator=generator(seed)).e_id for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_set_of_neighbours_is_as_likely_as_any_other():
    size, number, rounds = 6, 3, 20_000
    drawn = _distinct(torch.full((rounds,), size), number, generator())
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == math.comb(size, number)
    expected = rounds / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 43.8  # the 0.999 quantile with 19 degrees of freedom


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_graph_gives_a_true_part_of_itself(data):
    num_nodes = data.draw(st.integers(1, 8))
    nodes = st.integers(0, num_nodes - 1)
    edges = data.draw(st.lists(st.tuples(nodes, nodes), max_size=20))
    index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T
    if data.draw(st.booleans()):
        index = index.to(torch.int32)
    graph = Data(edge_index=index, num_nodes=num_nodes)
    seeds = torch.tensor(data.draw(st.lists(nodes, unique=True)), dtype=torch.int64)
    numbers = data.draw(st.lists(st.integers(-1, 3), min_size=1, max_size=3))
    batch = NeighborSampler(graph, numbers).sample(seeds, generator=generator())
    assert batch.n_id[: len(seeds)].tolist() == seeds.tolist()
    assert batch.n_id[batch.edge_index].tolist() == index[:, batch.e_id].tolist()
    assert len(batch.e_id.unique()) == len(batch.e_id)
    assert len(batch.num_sampled_nodes) == len(numbers) + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: NeighborSampler(d, []), "one number a hop"),
        (lambda d: NeighborSampler(d, [-2]), "num_neighbors must be"),
        (lambda d: NeighborSampler(d, [2.5]), r"num_neighbors must be whole numbers, got 2\.5"),
        (lambda d: NeighborSampler(Data(x=d.x), [1]), "no edge_index"),
        (lambda d: NeighborSampler(Data(edge_index=d.edge_index, num_nodes=9), [1]), r"sources must be within 0\.\.8"),
        (lambda d: NeighborSampler(d, {("a", "b", "c"): [1]}), "must name the edge types"),
        (lambda d: NeighborSampler(d, [1]).sample(torch.tensor([60])), r"seeds must be within 0\.\.59, got 60"),
        (lambda d: NeighborSampler(d, [1]).sample(torch.tensor([[1]])), "shape"),
        (lambda d: NeighborSampler(d, [1]).sample(torch.tensor([1.0])), "integers"),
        (lambda d: NeighborSampler(d, [1]).sample(torch.tensor([1, 1])), "distinct"),
        (lambda d: NeighborSampler(d, [1]).sample(torch.tensor([1]), "item"), "node_type must be None"),
        (lambda d: NeighborSampler(shop(), [1]).sample(torch.tensor([1])), "node_type must be given"),
        (lambda d: NeighborSampler(shop(), [1]).sample(torch.tensor([1]), "itm"), "item"),
        (lambda d: NeighborSampler(d, [1]).sample_links(torch.tensor([1])), r"\[2, batch_size\]"),
        (lambda d: NeighborSampler(d, [1]).sample_links(torch.tensor([[1], [60]])), "edge_label_index must be within"),
        (lambda d: NeighborSampler(d, [1]).sample_links(torch.tensor([[1], [2]]), torch.ones(2)), "2 rows for 1 pairs"),
        (lambda d: NeighborSampler(shop(), [1]).sample_links(torch.tensor([[1], [2]])), "edge_type must be given"),
        (lambda d: next(NeighborSampler(d, [1]).batches(torch.tensor([1]), 0)), "batch_size"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make(random_graph())


def test_it_trains_a_classifier_in_batches():
    # Two communities with few edges between them; the features say nothing, the seeds' neighbours everything.
    draw = generator()
    label = torch.arange(200) % 2
    source = torch.randint(200, (2000,), generator=draw)
    target = torch.where(torch.rand(2000, generator=draw) < 0.95, source % 2, 1 - source % 2)
    index = torch.stack([source, 2 * torch.randint(100, (2000,), generator=draw) + target])
    one_hot, kinds = nn.functional.one_hot(torch.arange(200)).float(), torch.zeros(2000, dtype=torch.int64)
    data = Data(x=one_hot, y=label, edge_index=index, edge_type=kinds)
    torch.manual_seed(0)
    layer = RelationAttentionConv(200, 2, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    sampler, train = NeighborSampler(data, [5]), torch.arange(100)
    for _ in range(10):
        for batch in sampler.batches(train, 32, shuffle=True, generator=draw):
            optimizer.zero_grad()
            out = layer(batch.x, batch.edge_index, batch.edge_type)[: batch.batch_size]
            nn.functional.cross_entropy(out, batch.y[: batch.batch_size]).backward()
            optimizer.step()
    with torch.no_grad():
        right = layer(data.x, data.edge_index, data.edge_type).argmax(1) == label
    assert right[100:].float().mean() > 0.85
