"""Our layers in models that are not ours, by PyG's own means."""

import pickle

import pytest
import torch
from cases.layer_case import IN, NUM_TYPES, sample
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import HeteroConv, Sequential, to_hetero

from graphrec.layers import KGATConv, LightGCNConv, RelationAttentionConv

MODEL_CONFIG = {"mode": "regression", "task_level": "node", "return_type": "raw"}


def hetero():
    data = HeteroData()
    data["user"].x, data["item"].x = torch.randn(4, IN), torch.randn(5, IN)
    data["user", "took", "item"].edge_index = torch.tensor([[0, 1, 3, 3], [4, 0, 0, 2]])
    data["item", "taken_by", "user"].edge_index = torch.tensor([[4, 0, 0, 2], [0, 1, 3, 3]])
    return data


def stacked():
    torch.manual_seed(0)
    return Sequential(
        "x, edge_index, edge_type",
        [
            (RelationAttentionConv(IN, 4, NUM_TYPES, heads=2), "x, edge_index, edge_type -> x"),
            nn.ReLU(inplace=True),
            (KGATConv(8, 3, NUM_TYPES), "x, edge_index, edge_type -> x"),
        ],
    )


def test_in_sequential_compiled_and_pickled():
    model, given = stacked(), sample(dtype=torch.float32)
    args = (given.x, given.edge_index, given.edge_type)
    out = model(*args)
    assert out.shape == (7, 3)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(*args), out)
    torch.testing.assert_close(torch.compile(model, backend="eager")(*args), out)


def test_gnn_explainer_learns_a_mask_of_edges():
    model, given = stacked().eval(), sample(dtype=torch.float32)
    explainer = Explainer(
        model,
        GNNExplainer(epochs=30),
        explanation_type="model",
        edge_mask_type="object",
        model_config=MODEL_CONFIG,
    )
    mask = explainer(given.x, given.edge_index, edge_type=given.edge_type, index=3).edge_mask
    assert mask.shape == (10,)
    assert mask[given.edge_index[1] == 3].min() > 0  # what enters the node counts
    assert mask[7] > 0
    assert mask[9] == 0  # 3 -> 4 cannot reach it


def test_on_a_homogeneous_form_of_hetero_data():
    data = hetero().to_homogeneous()
    out = RelationAttentionConv(IN, 3, num_relations=2)(data.x, data.edge_index, data.edge_type)
    assert out.shape == (9, 3)


def test_to_hetero_and_hetero_conv():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = LightGCNConv(IN), LightGCNConv(IN)

        def forward(self, x, edge_index):
            return self.second(self.first(x, edge_index), edge_index)

    data = hetero()
    out = to_hetero(Twice(), data.metadata())(data.x_dict, data.edge_index_dict)
    homogeneous = data.to_homogeneous()
    expected = Twice()(homogeneous.x, homogeneous.edge_index)
    torch.testing.assert_close(torch.cat([out["user"], out["item"]]), expected)

    convs = {edge: RelationAttentionConv((IN, IN), 3, 1) for edge in data.edge_types}
    types = {edge: torch.zeros(data[edge].num_edges, dtype=torch.int64) for edge in data.edge_types}
    mixed = HeteroConv(convs)(data.x_dict, data.edge_index_dict, edge_type_dict=types)
    assert {name: tuple(y.shape) for name, y in mixed.items()} == {"item": (5, 3), "user": (4, 3)}


def test_a_sampled_batch_is_a_graph_like_any_other():
    # What NeighborLoader would give: seeds first, edges from new nodes, numbered within the batch.
    given = sample()
    conv = RelationAttentionConv(IN, 3, NUM_TYPES).double()
    seeds = torch.tensor([1, 3])
    kept = torch.isin(given.edge_index[1], seeds)
    nodes = torch.cat([seeds, given.edge_index[0, kept]]).unique()
    nodes = torch.cat([seeds, nodes[~torch.isin(nodes, seeds)]])
    local = torch.full((7,), -1).scatter(0, nodes, torch.arange(len(nodes)))
    batch = conv(given.x[nodes], local[given.edge_index[:, kept]], given.edge_type[kept])
    torch.testing.assert_close(batch[:2], conv(given.x, given.edge_index, given.edge_type)[seeds])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("score", ["additive", "dot", "gatv2"])
def test_a_gpu_gives_what_the_processor_gives(score):
    given = sample(dtype=torch.float32)
    conv = RelationAttentionConv(IN, 3, NUM_TYPES, heads=2, score=score)
    results = []
    for device in ("cpu", "cuda"):
        moved, x = conv.to(device), given.x.to(device).requires_grad_()
        out = moved(x, given.edge_index.to(device), given.edge_type.to(device))
        out.square().sum().backward()
        results.append((out.cpu(), x.grad.cpu()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
