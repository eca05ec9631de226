"""The examples of both packages' docstrings and of the README run as they stand."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import graphrec
import kg_loaders

README = Path(__file__).parents[2] / "README.md"
MODULES = sorted(
    info.name
    for package in (graphrec, kg_loaders)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.endswith(".__main__")  # importing it runs the program
)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch_geometric, while it is imported
@pytest.mark.parametrize("name", ["graphrec", "kg_loaders", *MODULES])
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_both_packages_have_examples():
    finder = doctest.DocTestFinder()
    for package in ("graphrec", "kg_loaders"):
        modules = [importlib.import_module(name) for name in MODULES if name.split(".")[0] == package]
        assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 10


def test_examples_in_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testfile(str(README), module_relative=False)
    assert failed == 0
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2  # without prompts, so that doctest sees none of them
    for block in blocks:
        exec(block, {})
