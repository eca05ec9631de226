"""Every public graph layer is tested by the shared case."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from cases.layer_case import LayerCase
from torch_geometric.nn import MessagePassing

from graphrec import layers

FOLDER = Path(__file__).parents[1] / "graphrec" / "layers"
GRAPH_LAYERS = [name for name in layers.__all__ if issubclass(getattr(layers, name), MessagePassing)]


def cases() -> list[type[LayerCase]]:
    """Return the case classes that pytest finds beside the layers."""
    found = []
    for path in sorted(FOLDER.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"meta_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [
            value
            for name, value in vars(module).items()
            if name.startswith("Test") and inspect.isclass(value) and issubclass(value, LayerCase)
        ]
    return found


@pytest.mark.parametrize("name", GRAPH_LAYERS)
def test_every_graph_layer_has_a_case(name):
    layer = getattr(layers, name)
    assert [case for case in cases() if getattr(case, "layer_class", None) is layer], f"{FOLDER} has no case of {name}"


def test_graph_layers_are_found():
    assert "RelationAttentionConv" in GRAPH_LAYERS
