import pytest
import torch
from cases.layer_case import IN, NUM_TYPES, LayerCase, sample

from graphrec.errors import ArgumentError
from graphrec.layers import KGINConv


class TestKGINConv(LayerCase):
    """Entities are the nodes; each has a user of its own, who took it alone."""

    layer_class = KGINConv
    attends = False
    bipartite = False

    def make(self):
        return KGINConv(IN, NUM_TYPES, num_intents=2)

    def call(self, layer, given, **options):
        own = torch.arange(len(given.x)).expand(2, -1)
        return torch.cat(layer((given.x, given.x.cos()), given.edge_index, given.edge_type, own), dim=1)

    def naive(self, layer, given):
        own = torch.arange(len(given.x)).expand(2, -1)
        return torch.cat(naive(layer, given.x, given.x.cos(), given.edge_index, given.edge_type, own), dim=1)


def naive(layer, entity, user, edge_index, edge_type, interactions):
    entities, users = torch.zeros_like(entity), torch.zeros_like(user)
    for node in range(len(entity)):
        edges = (edge_index[1] == node).nonzero()[:, 0]
        if len(edges):
            entities[node] = (layer.relation[edge_type[edges]] * entity[edge_index[0, edges]]).mean(dim=0)
    intents = torch.stack([row.softmax(dim=0) @ layer.relation for row in layer.intent])
    for node in range(len(user)):
        items = interactions[0, interactions[1] == node]
        if len(items):
            beta = (intents @ user[node]).softmax(dim=0)
            users[node] = torch.stack([(beta @ intents) * entity[item] for item in items]).mean(dim=0)
            if layer.residual:
                users[node] += entity[items].mean(dim=0)
    return entities, users


@pytest.mark.parametrize("residual", [False, True])
def test_users_with_several_items_and_with_none(residual):
    torch.manual_seed(0)
    layer, given = KGINConv(IN, NUM_TYPES, residual=residual).double(), sample()
    x, interactions = (given.x, torch.randn(4, IN, dtype=torch.float64)), torch.tensor([[0, 6, 2, 2], [1, 1, 3, 1]])
    expected = naive(layer, *x, given.edge_index, given.edge_type, interactions)
    for ours, theirs in zip(layer(x, given.edge_index, given.edge_type, interactions), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_settings_that_do_not_fit_are_refused():
    given = sample(dtype=torch.float32)
    with pytest.raises(ArgumentError, match="num_intents must be >= 1, got 0"):
        KGINConv(IN, NUM_TYPES, num_intents=0)
    with pytest.raises(ArgumentError, match="destinations must be within 0..2, got"):
        KGINConv(IN, NUM_TYPES)((given.x, given.x[:3]), given.edge_index, given.edge_type, given.edge_index)
