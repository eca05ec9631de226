from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.layer_case import IN, NUM_TYPES, LayerCase

from graphrec.errors import ArgumentError
from graphrec.layers import KGATConv

OUT, SPACE = 3, 4


class KGATCase(LayerCase):
    layer_class = KGATConv

    def make(self):
        return KGATConv(IN, OUT, NUM_TYPES, relation_channels=SPACE, **self.options)

    def naive(self, layer, given):
        rows = []
        for node, own in enumerate(given.destinations):
            scores, sources = [], []
            for edge in (given.edge_index[1] == node).nonzero()[:, 0].tolist():
                source, relation = given.x[given.edge_index[0, edge]], int(given.edge_type[edge])
                weight = layer.relation_weight[relation]
                scores.append((weight @ source) @ torch.tanh(weight @ own + layer.relation[relation]))
                sources.append(source)
            neighbours = torch.stack(scores).softmax(dim=0) @ torch.stack(sources) if scores else torch.zeros_like(own)
            joined = torch.cat([own, neighbours]) if layer.aggregator == "concat" else own + neighbours
            row = F.leaky_relu(layer.lin(joined), layer.negative_slope)
            if layer.aggregator == "bi-interaction":
                row = row + F.leaky_relu(layer.lin_product(own * neighbours), layer.negative_slope)
            rows.append(row)
        return torch.stack(rows)


class TestBiInteraction(KGATCase):
    pass


class TestConcat(KGATCase):
    options: ClassVar = {"aggregator": "concat"}


class TestSum(KGATCase):
    options: ClassVar = {"aggregator": "sum"}


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="did you mean 'bi-interaction'"):
        KGATConv(IN, OUT, NUM_TYPES, aggregator="bi-interactions")
    with pytest.raises(ArgumentError, match="relation_channels must be >= 1, got 0"):
        KGATConv(IN, OUT, NUM_TYPES, relation_channels=0)
