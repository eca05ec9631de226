from dataclasses import replace

import pytest
import torch
from cases.layer_case import IN, NUM_TYPES, LayerCase, sample
from torch_geometric.nn import HGTConv

from graphrec.errors import ArgumentError
from graphrec.layers import HeteroAttentionConv

OUT, HEADS = 6, 2
EDGES = [("node", str(number), "node") for number in range(NUM_TYPES)]


class TestHeteroAttentionConv(LayerCase):
    """One type of node; the types of edges are those of the sample, so edges are grouped by type."""

    layer_class = HeteroAttentionConv
    bipartite = False

    def make(self):
        return HeteroAttentionConv(IN, OUT, (["node"], EDGES), HEADS)

    def call(self, layer, given, **options):
        masks = [given.edge_type == number for number in range(NUM_TYPES)]
        edges = {edge: given.edge_index[:, mask] for edge, mask in zip(EDGES, masks, strict=True)}
        out = layer({"node": given.x}, edges, **options)
        if not options:
            return out["node"]
        alpha = torch.empty(len(given.edge_type), HEADS, dtype=given.x.dtype)
        for edge, mask in zip(EDGES, masks, strict=True):
            alpha[mask] = out[1][edge]
        return out[0]["node"], alpha

    def naive(self, layer, given):
        size, rows = OUT // HEADS, []
        for node, own in enumerate(given.x):
            summed = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                query, scores, values = layer.lin_query[0](own)[part], [], []
                for edge in (given.edge_index[1] == node).nonzero()[:, 0].tolist():
                    relation = int(given.edge_type[edge])
                    key, value = layer.lin_key_value[0](given.x[given.edge_index[0, edge]]).chunk(2)
                    score = query @ (key[part] @ layer.key_relation[relation, head])
                    scores.append(layer.prior[relation, head] * score / size**0.5)
                    values.append(value[part] @ layer.value_relation[relation, head])
                summed.append(torch.stack(scores).softmax(0) @ torch.stack(values) if scores else own.new_zeros(size))
            gate = layer.skip[0].sigmoid()
            rows.append(gate * layer.lin_out[0](torch.nn.functional.gelu(torch.cat(summed))) + (1 - gate) * own)
        return torch.stack(rows)

    def test_explainer_finds_the_attention_in_the_order_of_edges(self):
        layer, given, seen = self.layer(), sample(), []
        handle = layer.register_message_forward_hook(lambda module, inputs, out: seen.append(inputs[0]["alpha"]))
        watched = self.call(layer, given)
        handle.remove()
        torch.testing.assert_close(watched, self.call(layer, given))
        by_type = torch.argsort(given.edge_type, stable=True)
        torch.testing.assert_close(seen[0], self.attention(layer, given)[by_type])

    def test_an_edge_mask_of_zeros_hides_the_edges(self):
        layer, given = self.layer(), sample()
        layer.explain, layer._edge_mask, layer._apply_sigmoid = True, torch.zeros(10, dtype=torch.float64), False
        masked = self.call(layer, given)
        torch.testing.assert_close(masked, self.call(self.layer(), given.edges(torch.empty(0, dtype=torch.int64))))

    def test_all_forms_of_edge_index_are_one(self):
        layer, given = self.layer(), sample()
        narrow = replace(given, edge_index=given.edge_index.int())
        torch.testing.assert_close(self.call(layer, narrow), self.call(layer, given))

    def test_writing_to_the_edges_is_noticed(self):
        layer, given = self.layer(), sample()
        edges = {EDGES[0]: given.edge_index.clone(), EDGES[1]: given.edge_index.flip(0)}
        first, again = (layer({"node": given.x}, edges)["node"] for _ in range(2))
        assert torch.equal(first, again)
        edges[EDGES[0]][0, 0] = 5
        fresh = {name: edge_index.clone() for name, edge_index in edges.items()}
        second = layer({"node": given.x}, edges)["node"]
        assert not torch.allclose(second, first)
        assert torch.equal(second, layer({"node": given.x}, fresh)["node"])

    def test_what_does_not_fit_is_refused(self):
        layer, given = self.layer(), sample()
        x, edges = {"node": given.x}, {EDGES[0]: given.edge_index}
        wrong = [
            ((x, {EDGES[0]: given.edge_index + 2}), r"within 0\.\.6, got 2\.\.8"),
            ((x, {EDGES[0]: given.edge_index.double()}), r"edge_index must be integers .*got torch\.float64"),
            ((x, {("node", "4", "node"): given.edge_index}), "edge type must be one of"),
            (({"nodes": given.x}, edges), "x_dict must hold node type 'node', got 'nodes'"),
            (({"node": given.x[:, :-1]}, edges), rf"\[num_nodes, {IN}\], got torch.float64 \[7, {IN - 1}\]"),
            (({"node": given.x.long()}, edges), r"must be float .*got torch\.int64"),
        ]
        for args, message in wrong:
            with pytest.raises(ArgumentError, match=message):
                layer(*args)


METADATA = (
    ["user", "item", "genre"],
    [("user", "took", "item"), ("item", "taken by", "user"), ("genre", "of", "item"), ("item", "of", "genre")],
)


@pytest.mark.parametrize("out", [6, 4])
def test_equals_hgt_conv(out):
    torch.manual_seed(0)
    widths = {"user": 5, "item": 6, "genre": 3}  # the gate applies where input and output are equally wide
    peer, conv = HGTConv(widths, out, METADATA, heads=2), HeteroAttentionConv(widths, out, METADATA, heads=2)
    copy_weights(peer, conv, out)
    x = {"user": torch.randn(7, 5), "item": torch.randn(4, 6), "genre": torch.randn(3, 3)}
    edges = {}
    for source, name, destination in METADATA[1]:
        ends = [torch.randint(len(x[kind]), (12,)) for kind in (source, destination)]
        edges[source, name, destination] = torch.stack(ends)
    ours, theirs = conv(x, edges), peer(x, edges)
    assert ours.keys() == theirs.keys()
    for name, y in ours.items():
        torch.testing.assert_close(y, theirs[name], atol=1e-5, rtol=1e-5)


def copy_weights(peer, conv, out):
    with torch.no_grad():
        for number, name in enumerate(conv.sources):
            key, query, value = peer.kqv_lin.lins[name].weight.chunk(3)
            bias_key, bias_query, bias_value = peer.kqv_lin.lins[name].bias.chunk(3)
            conv.lin_key_value[number].weight.copy_(torch.cat([key, value]))
            conv.lin_key_value[number].bias.copy_(torch.cat([bias_key, bias_value]))
            conv.lin_query[conv.destinations.index(name)].weight.copy_(query)
            conv.lin_query[conv.destinations.index(name)].bias.copy_(bias_query)
        for number, name in enumerate(conv.destinations):
            conv.lin_out[number].load_state_dict(peer.out_lin.lins[name].state_dict())
            conv.skip[number].copy_(peer.skip[name][: conv.skip[number].numel()].fill_(0.3))
        for number, edge_type in enumerate(METADATA[1]):
            peer.p_rel["__".join(edge_type)].uniform_(0.5, 2)
            conv.prior[number] = peer.p_rel["__".join(edge_type)][0]
        # PyG keeps head after head, and in each the edge types.
        shape = (2, len(METADATA[1]), out // 2, out // 2)
        conv.key_relation.copy_(peer.k_rel.weight.view(shape).transpose(0, 1))
        conv.value_relation.copy_(peer.v_rel.weight.view(shape).transpose(0, 1))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="out_channels must be a multiple of heads, got 5 and 2"):
        HeteroAttentionConv(4, 5, METADATA, heads=2)
    with pytest.raises(ArgumentError, match="node type of an edge must be one of 'user', got 'item'"):
        HeteroAttentionConv(4, 4, (["user"], [("user", "took", "item")]))
    with pytest.raises(ArgumentError, match="in_channels of 'genre' must be >= 1, got 0"):
        HeteroAttentionConv({"user": 4, "item": 4}, 4, METADATA)
    with pytest.raises(ArgumentError, match="at least one edge type"):
        HeteroAttentionConv(4, 4, (["user"], []))


def test_few_sources_among_many_nodes_take_another_way_to_the_same_sum():
    torch.manual_seed(0)
    conv = HeteroAttentionConv(IN, OUT, (["node"], EDGES), HEADS)
    x, edge_index = torch.randn(7, IN), torch.tensor([[5, 1, 5], [0, 0, 2]])
    many = torch.cat([edge_index, torch.arange(7).repeat(2, 1)], dim=1)  # all are sources; each meets itself too
    few, _ = conv._layout({"node": x}, {EDGES[0]: edge_index})
    assert few.num_src == 2
    assert conv._layout({"node": x}, {EDGES[0]: many})[0].num_src == 7
    out = conv({"node": x}, {EDGES[0]: edge_index})["node"]
    picked = conv({"node": x[[5, 1, 0, 2]]}, {EDGES[0]: torch.tensor([[0, 1, 0], [2, 2, 3]])})["node"]
    torch.testing.assert_close(out[[0, 2]], picked[2:])
