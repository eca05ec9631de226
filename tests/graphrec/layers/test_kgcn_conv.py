from typing import ClassVar

import pytest
import torch
from cases.layer_case import IN, NUM_TYPES, LayerCase, sample

from graphrec.errors import ArgumentError
from graphrec.layers import KGCNConv

OUT, USER = 3, 2


class KGCNCase(LayerCase):
    layer_class = KGCNConv

    def make(self):
        return KGCNConv(IN, OUT, NUM_TYPES, user_channels=USER, **self.options)

    def call(self, layer, given, **options):
        x = given.x if given.x_dst is None else (given.x, given.x_dst)
        return layer(x, given.edge_index, given.edge_type, users(given), **options)

    def naive(self, layer, given):
        rows = []
        for node, (own, user) in enumerate(zip(given.destinations, users(given), strict=True)):
            edges = (given.edge_index[1] == node).nonzero()[:, 0]
            alpha = (layer.relation[given.edge_type[edges]] @ user).softmax(dim=0)
            neighbours = alpha @ given.x[given.edge_index[0, edges]]
            rows.append({"sum": own + neighbours, "concat": torch.cat([own, neighbours]), "neighbor": neighbours})
        return torch.stack([layer.lin(row[layer.aggregator]) for row in rows])


def users(given):
    return given.destinations[:, :USER].flip(1).cos()  # a node's own, so that they move with it


class TestSum(KGCNCase):
    pass


class TestConcat(KGCNCase):
    options: ClassVar = {"aggregator": "concat"}


class TestNeighbor(KGCNCase):
    options: ClassVar = {"aggregator": "neighbor"}


def test_two_users_see_one_neighbourhood_differently():
    layer = KGCNConv(1, 1, num_relations=2, user_channels=2)
    with torch.no_grad():
        layer.relation.copy_(torch.eye(2) * 20)
    x = torch.tensor([[1.0], [-1.0]])
    edge_index = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]])
    user = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # the first cares for relation 0, the second for relation 1
    _, alpha = layer(
        (x, torch.zeros(2, 1)), edge_index, torch.tensor([0, 1, 0, 1]), user, return_attention_weights=True
    )
    torch.testing.assert_close(alpha.flatten(), torch.tensor([1.0, 0.0, 0.0, 1.0]))


def test_settings_that_do_not_fit_are_refused():
    given = sample(dtype=torch.float32)
    with pytest.raises(ArgumentError, match=r"user must have shape \[7, 2\], got \[7, 6\]"):
        KGCNConv(IN, OUT, NUM_TYPES, USER)(given.x, given.edge_index, given.edge_type, given.x)
    with pytest.raises(ArgumentError, match="did you mean 'concat'"):
        KGCNConv(IN, OUT, NUM_TYPES, aggregator="concatenate")
    with pytest.raises(ArgumentError, match="num_relations must be >= 1"):
        KGCNConv(IN, OUT, 0)
