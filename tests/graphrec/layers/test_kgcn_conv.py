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


@pytest.mark.parametrize("aggregator", ["sum", "concat", "neighbor"])
@pytest.mark.parametrize("shared", [True, False])
def test_all_users_at_once_see_what_each_sees_alone(aggregator, shared):
    torch.manual_seed(0)
    layer = KGCNConv(IN, OUT, NUM_TYPES, USER, aggregator).double()
    user = torch.randn(5, USER, dtype=torch.float64)
    x = torch.randn(7, IN, dtype=torch.float64) if shared else torch.randn(7, 5, IN, dtype=torch.float64)
    nodes = torch.tensor([4, 0, 4])
    neighbor, types = torch.randint(7, (3, 2)), torch.randint(NUM_TYPES, (3, 2))
    found = layer.for_all_users(x, nodes, neighbor, types, user)
    edge_index = torch.stack([neighbor.flatten(), torch.arange(3).repeat_interleave(2)])
    for number, vector in enumerate(user):
        seen = x if shared else x[:, number]
        alone = layer((seen, seen[nodes]), edge_index, types.flatten(), vector.expand(3, -1))
        torch.testing.assert_close(found[:, number], alone)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(7, IN + 1)}, r"x must have shape \[num_nodes, 6\] or \[num_nodes, 5, 6\], got \[7, 7\]"),
        ({"x": torch.zeros(7, 4, IN)}, r"got \[7, 4, 6\]"),
        ({"user": torch.zeros(5, USER + 1)}, r"user must have shape \[num_users, 2\], got \[5, 3\]"),
        ({"nodes": torch.tensor([0])}, r"must have shape \[1, num_neighbors\], got \[3, 2\] and \[3, 2\]"),
        ({"neighbor_type": torch.zeros(3, 1, dtype=torch.int64)}, r"got \[3, 2\] and \[3, 1\]"),
    ],
)
def test_tables_that_do_not_fit_are_refused(changed, message):
    table = torch.zeros(3, 2, dtype=torch.int64)
    given = {"x": torch.zeros(7, IN), "nodes": torch.arange(3), "neighbor": table, "neighbor_type": table}
    with pytest.raises(ArgumentError, match=message):
        KGCNConv(IN, OUT, NUM_TYPES, USER).for_all_users(**{**given, "user": torch.zeros(5, USER), **changed})


def test_settings_that_do_not_fit_are_refused():
    given = sample(dtype=torch.float32)
    with pytest.raises(ArgumentError, match=r"user must have shape \[7, 2\], got \[7, 6\]"):
        KGCNConv(IN, OUT, NUM_TYPES, USER)(given.x, given.edge_index, given.edge_type, given.x)
    with pytest.raises(ArgumentError, match="did you mean 'concat'"):
        KGCNConv(IN, OUT, NUM_TYPES, aggregator="concatenate")
    with pytest.raises(ArgumentError, match="num_relations must be >= 1"):
        KGCNConv(IN, OUT, 0)
