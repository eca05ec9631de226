"""What a package exports is complete, sorted and there."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

PACKAGES = (
    "graphrec.encoders",
    "graphrec.evaluation",
    "graphrec.evaluation.metrics",
    "graphrec.experiment",
    "graphrec.experiment.pictures",
    "graphrec.layers",
    "graphrec.layers.ops",
    "graphrec.losses",
    "graphrec.models",
    "graphrec.sampling",
    "graphrec.serving",
    "graphrec.training",
    "kg_loaders",
)
# Packages whose every public class and function can be imported from the package itself; what several of their files
# share, and nobody else needs, stands in files whose own names begin with an underscore.
COMPLETE = ("graphrec.layers", "graphrec.losses", "graphrec.sampling")


def sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def defined_in(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_distinct_and_there(package):
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    # EASE is a class, whatever its spelling says: by spelling it sorts with the constants.
    assert names == sorted(names, key=sort_key)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name) is not None, name


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_binds_is_in_all(package):
    # What comes from elsewhere, an error class say, is there to be used, not to be exported.
    module = importlib.import_module(package)
    bound = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and f"{value.__module__}.".startswith(f"{package}.")
    ]
    assert sorted(set(bound) - set(getattr(module, "__all__", []))) == []


@pytest.mark.parametrize("package", COMPLETE)
def test_everything_public_in_the_files_is_exported(package):
    module = importlib.import_module(package)
    for info in pkgutil.iter_modules(module.__path__):
        if not info.ispkg and not info.name.startswith("_"):
            names = defined_in(importlib.import_module(f"{package}.{info.name}"))
            missing = [name for name in names if name not in module.__all__]
            assert missing == [], f"{package}.{info.name} defines {missing}, which {package} does not export"


def test_every_registered_model_is_exported():
    from graphrec import models

    assert set(models.MODELS) <= set(models.__all__)
