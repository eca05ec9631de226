"""Every notebook runs from top to bottom, and what is stored in it comes from such a run.

The code cells run in order in one namespace, without Jupyter. A cell tagged ``parameters`` holds nothing but sizes of
the work, ``NAME = whole number``; here each is 1, so that the run takes seconds.
"""

import ast
import json
from pathlib import Path

import pytest

from kg_loaders.errors import DownloadError

plt = pytest.importorskip("matplotlib.pyplot", reason="the plots extra is not installed")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def outputs(cell, kind):
    return [output for output in cell["outputs"] if output["output_type"] == kind]


def pictures(cell):
    return [output for output in outputs(cell, "display_data") if "image/png" in output["data"]]


def shrunk(cell):
    """The cell's source; each size in a cell of parameters is 1."""
    tree = ast.parse("".join(cell["source"]))
    if "parameters" in cell["metadata"].get("tags", ()):
        for size in tree.body:
            assert isinstance(size, ast.Assign), ast.unparse(size)
            assert type(ast.literal_eval(size.value)) is int, ast.unparse(size)
            size.value = ast.copy_location(ast.Constant(1), size.value)
    return tree


def test_there_are_notebooks():
    assert "layers_in_pyg" in [path.stem for path in NOTEBOOKS]


@every_notebook
def test_it_is_stored_as_it_ran_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not outputs(cell, "error")
        assert not [output for output in outputs(cell, "stream") if output["name"] == "stderr"]
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells) == 1
    assert any(pictures(cell) for cell in cells)


@every_notebook
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")  # where there is a display
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch_geometric, while it is imported
def test_it_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    namespace = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(code_cells(path), start=1):
            exec(compile(shrunk(cell), f"{path.name}, code cell {number}", "exec"), namespace)
            # It prints and draws where the stored run did.
            assert bool(capsys.readouterr().out) == bool(outputs(cell, "stream")), number
            assert len(plt.get_fignums()) == len(pictures(cell)), number
            plt.close("all")
    except DownloadError as error:
        pytest.skip(f"the data of {path.name} cannot be fetched: {error}")
    finally:
        plt.close("all")
    assert list(tmp_path.iterdir()) == []
