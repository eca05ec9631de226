"""Packages that promise to be light load nothing heavy; asked in a fresh interpreter, as only that can tell."""

import json
import subprocess
import sys

HEAVY = {
    "fastapi",
    "jsonargparse",
    "kg_loaders",
    "matplotlib",
    "networkx",
    "pandas",
    "pyarrow",
    "rdflib",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
    "torch",
    "torch_geometric",
    "uvicorn",
    "wandb",
    "yaml",
}


def loaded(before: str, code: str) -> set[str]:
    """Return the top-level modules that ``code`` loads beyond what ``before`` has loaded."""
    program = "\n".join(
        [
            "import json, sys",
            before,
            "known = set(sys.modules)",
            code,
            "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - known})))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_layers_losses_and_metrics_load_no_more_than_torch_geometric():
    before = "import torch_geometric.nn"
    code = "from graphrec.layers import *; import graphrec.layers.ops, graphrec.losses, graphrec.sampling"
    assert loaded(before, code) & HEAVY == set()


def test_kg_loaders_load_neither_torch_nor_the_parsers():
    assert loaded("", "import kg_loaders") & HEAVY == {"kg_loaders"}


def test_the_package_itself_loads_nothing():
    assert loaded("", "import graphrec, graphrec.errors") & HEAVY == set()


def test_models_load_torch_geometric_only_with_a_graph_layer():
    heavy = loaded("import torch", "import graphrec.models, graphrec.layers, graphrec.serving.explain") & HEAVY
    assert "torch_geometric" not in heavy
    assert "torch_geometric" in loaded("import torch", "from graphrec.layers import KGATConv")
