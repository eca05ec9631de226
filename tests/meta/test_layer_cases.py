"""Every public graph layer is tested by the shared case."""

from pathlib import Path

import pytest
from cases.finding import cases_in
from cases.layer_case import LayerCase
from torch_geometric.nn import MessagePassing

from graphrec import layers

FOLDER = Path(__file__).parents[1] / "graphrec" / "layers"
GRAPH_LAYERS = [name for name in layers.__all__ if issubclass(getattr(layers, name), MessagePassing)]


@pytest.mark.parametrize("name", GRAPH_LAYERS)
def test_every_graph_layer_has_a_case(name):
    layer = getattr(layers, name)
    assert [case for case in cases_in(FOLDER, LayerCase) if getattr(case, "layer_class", None) is layer], (
        f"{FOLDER} has no case of {name}"
    )


def test_graph_layers_are_found():
    assert "RelationAttentionConv" in GRAPH_LAYERS
