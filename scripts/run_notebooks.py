"""Run notebooks in full, each from a clean kernel, and render them to HTML. make notebooks runs all.

python scripts/run_notebooks.py                   # all, to build/notebooks
python scripts/run_notebooks.py notebooks/01*     # these
python scripts/run_notebooks.py --smoke           # every cell on a little data for a few epochs, as the tests do

The files themselves stay as they are, without outputs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
OUT = Path("build/notebooks")
QUIET = ["--log-level=ERROR"]  # no warning that the kernel listens on a local port
SMOKE = "GRAPHREC_SMOKE"  # "1": the notebooks make all sizes of their work small


def execute(path: Path, smoke: bool = False, folder: Path | None = None) -> nbformat.NotebookNode:
    """Run a notebook in a new kernel of this interpreter and return it with its outputs.

    Args:
        path: The file; it is read only.
        smoke: Whether the notebook is to do little work.
        folder: Where it runs; a folder that is removed afterwards when not given.

    Raises:
        CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    # The kernel inherits nothing but the environment.
    environment = {**os.environ, SMOKE: "1" if smoke else "0"}
    with tempfile.TemporaryDirectory() as empty:
        resources = {"metadata": {"path": str(folder or empty)}}
        client = NotebookClient(notebook, kernel_name="python3", resources=resources, extra_arguments=QUIET)
        client.execute(env=environment)
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them one after the other; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="files (default: all)")
    parser.add_argument("--smoke", action="store_true", help="a little data and a few epochs")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the HTML goes (default: {OUT})")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter()
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # of a bar, its end
    failed = 0
    for path in chosen.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.perf_counter()
        try:
            notebook = execute(path, chosen.smoke)
        except CellExecutionError as error:
            failed += 1
            print(f"{path.name}: failed\n{error}", file=sys.stderr)
            continue
        page = chosen.out / f"{path.stem}.html"
        page.write_text(exporter.from_notebook_node(notebook)[0], encoding="utf-8")
        print(f"{path.name:<40} {time.perf_counter() - start:6.1f} s  {page}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
