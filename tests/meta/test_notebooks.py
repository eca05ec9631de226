"""Every notebook is stored without outputs, and runs from top to bottom in a clean kernel.

The run is in smoke mode (``GRAPHREC_SMOKE=1``): little work, but every cell. ``make notebooks`` runs them in full.
"""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import kg_loaders

nbformat = pytest.importorskip("nbformat", reason="the notebooks extra is not installed")
exceptions = pytest.importorskip("nbclient.exceptions", reason="the notebooks extra is not installed")
pytest.importorskip("nbconvert", reason="the notebooks extra is not installed")
pytest.importorskip("ipykernel", reason="the notebooks extra is not installed")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_CELLS = 29
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def script():
    spec = importlib.util.spec_from_file_location("script_run_notebooks", ROOT / "scripts" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks_and_their_numbers_differ():
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert len(numbers) == len(set(numbers)) > 0
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name) for path in NOTEBOOKS)


@every_notebook
def test_it_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        hint = f"jupyter nbconvert --clear-output --inplace notebooks/{path.name}"
        assert not cell.outputs, hint
        assert cell.execution_count is None, hint


@every_notebook
def test_it_is_short_and_has_a_title(path):
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) <= MAX_CELLS
    assert notebook.cells[0].cell_type == "markdown"
    assert re.match(r"# \S", notebook.cells[0].source)


@every_notebook
def test_its_first_code_cell_holds_the_sizes_of_the_work(path):
    cell = code_cells(nbformat.read(path, as_version=4))[0]
    assert "parameters" in cell.metadata.get("tags", ())
    assert 'SMOKE = os.environ.get("GRAPHREC_SMOKE") == "1"' in cell.source
    sizes = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    assert any(isinstance(size.value, ast.IfExp) for size in sizes), "NAME = small if SMOKE else large"


@every_notebook
def test_it_runs_from_a_clean_kernel(path, tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHREC_DATA", raising=False)  # the data that any machine can fetch
    try:
        notebook = script().execute(path, smoke=True, folder=tmp_path)
    except exceptions.CellExecutionError as error:
        if error.ename == "DownloadError":
            pytest.skip(f"the data of {path.name} cannot be fetched: {error.evalue}")
        raise
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    errors = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in errors
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert list(tmp_path.iterdir()) == [], "a notebook leaves nothing behind"


def test_movielens_as_grouplens_has_it_will_do_as_well(tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHREC_DATA", raising=False)
    try:
        films = kg_loaders.load("ml-1m")
        kg_loaders.load("ml-100k")
    except kg_loaders.DownloadError as error:
        pytest.skip(f"the data cannot be fetched: {error}")
    folder = tmp_path / "data" / "ml-1m"
    folder.mkdir(parents=True)
    about = {name: feature.values for name, feature in films.item_features.items()}
    rated = films.interactions[films.interactions.user < 100]
    columns = (about["title"], about["release_year"], about["genre"])
    lines = {
        "movies.dat": [
            f"{item + 1}::{title} ({year})::{genre.replace(' ', '|')}"
            for item, (title, year, genre) in enumerate(zip(*columns, strict=True))
        ],
        "ratings.dat": [
            f"{user + 1}::{item + 1}::5::{int(time)}"
            for user, item, time in zip(rated.user, rated.item, rated.time, strict=True)
        ],
    }
    for name, rows in lines.items():
        (folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="latin-1", errors="replace")
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "data"))
    path = ROOT / "notebooks" / "08_order_words_graph.ipynb"
    cells = code_cells(script().execute(path, smoke=True, folder=tmp_path))
    printed = "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout")
    assert "Fargo: Crime, Drama, Thriller (1996)" in printed


def test_a_notebook_that_fails_is_named_and_the_others_run(tmp_path, capsys):
    cells = {"bad": "1 / 0", "good": "print(6 * 7)"}
    for name, source in cells.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    files = [str(tmp_path / f"{name}.ipynb") for name in cells]
    assert script().main([*files, "--smoke", "--out", str(tmp_path / "pages")]) == 1
    printed = capsys.readouterr()
    assert "bad.ipynb: failed" in printed.err
    assert "ZeroDivisionError" in printed.err
    assert "good.ipynb" in printed.out
    assert [page.name for page in (tmp_path / "pages").iterdir()] == ["good.html"]
    assert "42" in (tmp_path / "pages" / "good.html").read_text(encoding="utf-8")
    assert nbformat.read(files[1], as_version=4).cells[0].outputs == []
