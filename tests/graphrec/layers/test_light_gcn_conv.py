from dataclasses import replace

import pytest
import torch
from cases.layer_case import IN, LayerCase, sample
from torch_geometric.nn import LGConv

from graphrec.errors import ArgumentError
from graphrec.layers import LightGCNConv


class TestLightGCNConv(LayerCase):
    layer_class = LightGCNConv
    attends = False
    typed = False

    def make(self):
        return LightGCNConv(IN)

    def call(self, layer, given, **options):
        x = given.x if given.x_dst is None else (given.x, given.x_dst)
        return layer(x, given.edge_index, **options)

    def naive(self, layer, given):
        out = given.x.new_zeros(given.num_dst, IN)
        for source, destination in given.edge_index.t().tolist():
            leaving = (given.edge_index[0] == source).sum()
            entering = (given.edge_index[1] == destination).sum()
            out[destination] += given.x[source] / (leaving * entering) ** 0.5
        return out

    # Without weights there is nothing to differentiate but x.
    def test_one_call_like_another_bit_by_bit(self):
        layer, given = self.layer(torch.float32), sample(dtype=torch.float32)
        assert torch.equal(self.call(layer, given), self.call(layer, given))

    def test_compiled_equals_eager(self):
        layer, given = self.layer(), sample()
        compiled = torch.compile(lambda x: self.call(layer, replace(given, x=x)) * 2, backend="aot_eager")
        torch.testing.assert_close(compiled(given.x), self.call(layer, given) * 2)

    def test_autocast_is_close(self):
        layer, given = self.layer(), sample(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = self.call(layer, given)
        torch.testing.assert_close(out, self.call(layer, given))


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_lg_conv(weighted):
    given = sample(dtype=torch.float32)
    both_ways = torch.cat([given.edge_index, given.edge_index.flip(0)], dim=1)
    ours = LightGCNConv(IN)(given.x, both_ways)
    torch.testing.assert_close(ours, LGConv()(given.x, both_ways), atol=1e-5, rtol=1e-5)
    if weighted:
        weights = torch.rand(both_ways.size(1))
        plain = LGConv(normalize=False)(given.x, both_ways, weights)
        degree = torch.bincount(both_ways[1], minlength=len(given.x)).clamp(min=1)
        again = LightGCNConv(IN)(given.x * degree.sqrt()[:, None], both_ways, weights) * degree.sqrt()[:, None]
        torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-5)


def test_weights_that_do_not_fit_are_refused():
    given = sample()
    with pytest.raises(ArgumentError, match=r"edge_weight must have shape \[10\], got \[3\]"):
        LightGCNConv(IN)(given.x, given.edge_index, torch.ones(3))
