import itertools

import pytest
import torch
import torch.nn.functional as F

from graphrec.errors import ArgumentError
from graphrec.layers import RelationAttentionConv
from graphrec.layers.ops import EdgeLayout

EDGES = torch.tensor([[0, 1, 4, 4, 2, 1], [1, 1, 1, 1, 3, 3]])  # 4 -> 1 twice, node 0 without edges
TYPES = torch.tensor([0, 2, 1, 0, 2, 2])


def make(heads=2, **options):
    torch.manual_seed(0)
    conv = RelationAttentionConv(6, 6 if options.get("transform") is False else 3, 3, heads, **options).double()
    with torch.no_grad():
        for weight in conv.parameters():
            weight.normal_()
    return conv


def naive(conv, x, edge_index, edge_type):
    """Sum over one destination, head and edge at a time."""
    out = torch.zeros(len(x), conv.heads, conv.out_channels, dtype=x.dtype)
    for node, head in itertools.product(range(len(x)), range(conv.heads)):
        scores, messages = [], []
        for edge in (edge_index[1] == node).nonzero()[:, 0].tolist():
            source, relation = int(edge_index[0, edge]), int(edge_type[edge])
            message = x[source] if conv.lin is None else conv.lin(x[source]).view(conv.heads, -1)[head]
            score = conv.att_src[head] @ message + conv.att_dst[head] @ x[node] + conv.relation_score[relation, head]
            scores.append(F.leaky_relu(score, conv.negative_slope))
            if conv.relation_vector is not None:
                message = message + conv.relation_vector[relation].view(conv.heads, -1)[head]
            messages.append(message)
        if scores:
            out[node, head] = torch.stack(scores).softmax(dim=0) @ torch.stack(messages)
    return out.flatten(1) if conv.concat else out.mean(dim=1)


VARIANTS = [
    {},
    {"concat": False},
    {"relation_message": False},
    {"transform": False},
    {"transform": False, "concat": False},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_equals_a_naive_loop(options):
    conv, x = make(**options), torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(conv(x, EDGES, TYPES), naive(conv, x, EDGES, TYPES))


def test_transforming_before_or_after_the_sum_is_the_same():
    conv, x = make(heads=1), torch.randn(5, 6, dtype=torch.float64)
    few = conv((x, x[:4]), EDGES, TYPES)  # fewer destinations than sources: summed first
    torch.testing.assert_close(few, naive(conv, x, EDGES, TYPES)[:4])


def test_the_order_of_edges_changes_nothing_but_the_order_of_alpha():
    conv, x = make(), torch.randn(5, 6, dtype=torch.float64)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    out, alpha = conv(x, EDGES, TYPES, return_attention_weights=True)
    again, alpha_again = conv(x, EDGES[:, order], TYPES[order], return_attention_weights=True)
    torch.testing.assert_close(again, out)
    torch.testing.assert_close(alpha_again, alpha[order])
    sums = torch.zeros(5, 2, dtype=torch.float64).index_add(0, EDGES[1], alpha)
    torch.testing.assert_close(sums[[1, 3]], torch.ones(2, 2, dtype=torch.float64))


def test_permuting_nodes_permutes_the_output():
    conv, x = make(), torch.randn(5, 6, dtype=torch.float64)
    order = torch.tensor([2, 0, 4, 1, 3])
    moved = conv(x[order], order.argsort()[EDGES], TYPES)
    torch.testing.assert_close(moved, conv(x, EDGES, TYPES)[order])


def test_every_weight_gets_an_exact_gradient():
    conv, x = make(), torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    weights = tuple(conv.parameters())
    assert torch.autograd.gradcheck(lambda v, *_: conv(v, EDGES, TYPES), (x, *weights))
    conv(x, EDGES, TYPES).square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in weights)


def test_the_graph_matters_and_a_layout_does_not():
    conv, x = make(), torch.randn(5, 6, dtype=torch.float64)
    out = conv(x, EDGES, TYPES)
    assert not torch.allclose(conv(x, EDGES.flip(0), TYPES), out)
    assert not torch.allclose(conv(x, EDGES, TYPES.flip(0)), out)
    assert torch.equal(conv(x, EdgeLayout.from_edge_index(EDGES, 5, 5), TYPES), out)


def test_no_edges_give_zeros():
    conv = make()
    nothing = conv(torch.randn(5, 6, dtype=torch.float64), EDGES[:, :0], TYPES[:0])
    assert torch.equal(nothing, torch.zeros(5, 6, dtype=torch.float64))


def test_what_does_not_fit_is_refused():
    conv, x = make(), torch.randn(5, 6, dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"edge_type must be within 0\.\.2, got 0\.\.3"):
        conv(x, EDGES, TYPES + (TYPES == 2))
    with pytest.raises(ArgumentError, match=r"edge_type must have shape \[6\]"):
        conv(x, EDGES, TYPES[:3])
    with pytest.raises(ArgumentError, match="the edge layout is for 9 source"):
        conv(x, EdgeLayout.from_edge_index(EDGES, 9, 9), TYPES)
    with pytest.raises(ArgumentError, match="heads must be >= 1"):
        RelationAttentionConv(4, 4, 2, heads=0)
    with pytest.raises(ArgumentError, match="needs out_channels == in_channels"):
        RelationAttentionConv(4, 5, 2, transform=False)
