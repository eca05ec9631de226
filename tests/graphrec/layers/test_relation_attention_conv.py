import itertools
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.layer_case import EDGE_DIM, IN, NUM_TYPES, LayerCase, sample
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

from graphrec.errors import ArgumentError
from graphrec.layers import RelationAttentionConv

OUT, HEADS = 3, 2


class RelationAttentionCase(LayerCase):
    layer_class = RelationAttentionConv

    def make(self):
        options: ClassVar = {"heads": HEADS, **self.options}
        out = IN if options.get("transform") is False else OUT
        return RelationAttentionConv(IN, out, NUM_TYPES, **options)

    def call(self, layer, given, **options):
        x = given.x if given.x_dst is None else (given.x, given.x_dst)
        edge_attr = None if layer.edge_dim is None else given.edge_attr
        return layer(x, given.edge_index, given.edge_type, edge_attr, **options)

    def naive(self, layer, given):
        out = given.x.new_zeros(given.num_dst, layer.heads, layer.out_channels)
        for node, head in itertools.product(range(given.num_dst), range(layer.heads)):
            scores, messages = [], []
            for edge in (given.edge_index[1] == node).nonzero()[:, 0].tolist():
                source, relation = given.x[given.edge_index[0, edge]], int(given.edge_type[edge])
                message = source if layer.lin is None else by_head(layer, layer.lin(source))[head]
                attribute = 0 if layer.lin_edge is None else layer.lin_edge(given.edge_attr[edge])[head]
                score = self.score(layer, head, source, given.destinations[node], relation, message)
                bias = layer.relation_score[relation, head] + attribute
                if layer.score == "additive":
                    scores.append(F.leaky_relu(score + bias, layer.negative_slope))
                else:
                    scores.append(score + bias)
                if layer.relation_vector is not None:
                    message = message + by_head(layer, layer.relation_vector[relation])[head]
                messages.append(message)
            if scores:
                out[node, head] = torch.stack(scores).softmax(dim=0) @ torch.stack(messages)
        return out.flatten(1) if layer.concat else out.mean(dim=1)

    @staticmethod
    def score(layer, head, source, destination, relation, message):
        if layer.score == "additive":
            return layer.att_src[head] @ message + layer.att_dst[head] @ destination
        if layer.score == "dot":
            query, key = by_head(layer, layer.lin_query(destination)), by_head(layer, layer.lin_key(source))
            return query[head] @ key[head] / layer.out_channels**0.5
        hidden = message + by_head(layer, layer.lin_dst(destination))[head]
        hidden = hidden + by_head(layer, layer.relation_hidden[relation])[head]
        return layer.att[head] @ F.leaky_relu(hidden, layer.negative_slope)


def by_head(layer, vector):
    return vector.view(layer.heads, layer.out_channels)


class TestAdditive(RelationAttentionCase):
    pass


class TestAdditiveAverage(RelationAttentionCase):
    options: ClassVar = {"concat": False, "edge_dim": EDGE_DIM}


class TestWithoutRelationMessage(RelationAttentionCase):
    options: ClassVar = {"relation_message": False, "heads": 1}


class TestWithoutTransform(RelationAttentionCase):
    options: ClassVar = {"transform": False}


class TestWithoutTransformAverage(RelationAttentionCase):
    options: ClassVar = {"transform": False, "concat": False}


class TestDot(RelationAttentionCase):
    options: ClassVar = {"score": "dot", "edge_dim": EDGE_DIM}


class TestGatv2(RelationAttentionCase):
    options: ClassVar = {"score": "gatv2", "edge_dim": EDGE_DIM}


def test_summing_before_the_transform_is_the_same():
    torch.manual_seed(0)
    conv, given = RelationAttentionConv(IN, OUT, NUM_TYPES, relation_message=False).double(), sample()
    whole = conv(given.x, given.edge_index, given.edge_type)
    few = conv((given.x, given.x[:5]), given.edge_index, given.edge_type)  # fewer destinations than sources
    torch.testing.assert_close(few, whole[:5])


def test_many_relations_take_another_way_to_the_same_sum():
    torch.manual_seed(0)
    few, many = RelationAttentionConv(IN, OUT, NUM_TYPES), RelationAttentionConv(IN, OUT, 50)
    for weight in few.parameters():
        torch.nn.init.normal_(weight)
    for (name, weight), other in zip(many.named_parameters(), few.parameters(), strict=True):
        weight.data[: len(other)] = other.data[: len(weight)]
        assert name == "lin.weight" or weight.shape[1:] == other.shape[1:]
    given = sample(dtype=torch.float32)
    args = (given.x, given.edge_index, given.edge_type)
    torch.testing.assert_close(many(*args), few(*args))


@pytest.mark.parametrize(("concat", "heads"), [(True, 2), (False, 2), (True, 1)])
def test_equals_gat_conv(concat, heads):
    torch.manual_seed(0)
    peer = GATConv(IN, OUT, heads, concat=concat, add_self_loops=False, bias=False, edge_dim=EDGE_DIM)
    conv = RelationAttentionConv(IN, OUT, 1, heads, concat, relation_message=False, edge_dim=EDGE_DIM)
    given = sample(dtype=torch.float32)
    with torch.no_grad():
        conv.lin.weight.copy_(peer.lin.weight)
        conv.att_src.copy_(peer.att_src[0])
        conv.att_dst.copy_(torch.einsum("hci,hc->hi", peer.lin.weight.view(heads, OUT, IN), peer.att_dst[0]))
        edge = peer.lin_edge.weight.view(heads, OUT, EDGE_DIM)
        conv.lin_edge.weight.copy_(torch.einsum("hci,hc->hi", edge, peer.att_edge[0]))
    assert_equal(conv, peer, given, (given.edge_index, given.edge_attr), given.edge_attr)


def test_equals_gatv2_conv():
    torch.manual_seed(0)
    peer = GATv2Conv(IN, OUT, HEADS, add_self_loops=False, bias=False, edge_dim=NUM_TYPES)
    conv = RelationAttentionConv(IN, OUT, NUM_TYPES, HEADS, score="gatv2", relation_message=False)
    given = sample(dtype=torch.float32)
    with torch.no_grad():
        conv.lin.weight.copy_(peer.lin_l.weight)
        conv.lin_dst.weight.copy_(peer.lin_r.weight)
        conv.att.copy_(peer.att[0])
        conv.relation_hidden.copy_(peer.lin_edge.weight.t())
    types = F.one_hot(given.edge_type, NUM_TYPES).float()
    assert_equal(conv, peer, given, (given.edge_index, types), types=given.edge_type)


def test_equals_transformer_conv():
    torch.manual_seed(0)
    peer = TransformerConv(IN, OUT, HEADS, bias=False, root_weight=False)
    conv = RelationAttentionConv(IN, OUT, 1, HEADS, score="dot", relation_message=False)
    given = sample(dtype=torch.float32)
    with torch.no_grad():
        conv.lin.weight.copy_(peer.lin_value.weight)
        conv.lin_key.weight.copy_(peer.lin_key.weight)
        conv.lin_query.weight.copy_(peer.lin_query.weight)
    assert_equal(conv, peer, given, (given.edge_index,))


def assert_equal(conv, peer, given, peer_args, edge_attr=None, types=None):
    types = torch.zeros_like(given.edge_type) if types is None else types
    x, again = given.x.clone().requires_grad_(), given.x.clone().requires_grad_()
    out = conv(x, given.edge_index, types, edge_attr)
    expected = peer(again, *peer_args)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, again.grad, atol=1e-5, rtol=1e-5)


def test_dropout_drops_in_training_only_and_keeps_the_mean():
    torch.manual_seed(0)
    conv = RelationAttentionConv(1, 1, 1, transform=False, relation_message=False, dropout=0.5)
    x = torch.ones(2000, 1)
    edges = torch.stack([torch.arange(2000), torch.arange(2000) // 10])
    out, alpha = conv((x, x[:200]), edges, torch.zeros(2000, dtype=torch.int64), return_attention_weights=True)
    torch.testing.assert_close(alpha.sum(), torch.tensor(200.0))  # what is returned is not dropped
    assert 0.9 < out.mean().item() < 1.1
    assert not torch.allclose(out, torch.ones(200, 1))
    conv.eval()
    torch.testing.assert_close(conv((x, x[:200]), edges, torch.zeros(2000, dtype=torch.int64)), torch.ones(200, 1))


def test_its_score_is_shown():
    assert repr(RelationAttentionConv(8, 4, 3, heads=2, score="gatv2")).endswith(
        "num_relations=3, heads=2, score='gatv2')"
    )


def test_settings_that_do_not_fit_are_refused():
    given = sample(dtype=torch.float32)
    conv = RelationAttentionConv(IN, OUT, NUM_TYPES, edge_dim=EDGE_DIM)
    args = (given.x, given.edge_index, given.edge_type)
    with pytest.raises(ArgumentError, match="edge_attr and edge_dim go together, got None and 2"):
        conv(*args)
    with pytest.raises(ArgumentError, match=r"edge_attr must have shape \[10, 2\], got \[10, 1\]"):
        conv(*args, given.edge_attr[:, :1])
    with pytest.raises(ArgumentError, match="heads must be >= 1"):
        RelationAttentionConv(4, 4, 2, heads=0)
    with pytest.raises(ArgumentError, match="needs out_channels == in_channels"):
        RelationAttentionConv(4, 5, 2, transform=False)
    with pytest.raises(ArgumentError, match="did you mean 'dot'"):
        RelationAttentionConv(4, 5, 2, score="dott")
    with pytest.raises(ArgumentError, match="needs transform=True"):
        RelationAttentionConv(4, 4, 2, score="gatv2", transform=False)
    with pytest.raises(ArgumentError, match=r"dropout must be within 0\.0\.\.1\.0, got 1\.5"):
        RelationAttentionConv(4, 4, 2, dropout=1.5)
    with pytest.raises(ArgumentError, match="must be float"):
        conv(given.x.int(), *args[1:], given.edge_attr)
    with pytest.raises(ArgumentError, match="destination"):
        conv((given.x, given.x[:5, :2]), *args[1:], given.edge_attr)
