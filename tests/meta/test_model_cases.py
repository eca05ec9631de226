"""Every registered model is tested by the shared cases."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from cases.model_case import ClosedFormCase, GradientCase, ModelCase

from graphrec.models import MODELS
from graphrec.models.base import ClosedFormRecommender

FOLDER = Path(__file__).parents[1] / "graphrec" / "models"


def cases() -> list[type[ModelCase]]:
    """Return the case classes that pytest finds beside the models."""
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
            if name.startswith("Test") and inspect.isclass(value) and issubclass(value, ModelCase)
        ]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_case(name):
    model = MODELS[name]
    kind = ClosedFormCase if issubclass(model, ClosedFormRecommender) else GradientCase
    own = [case for case in cases() if getattr(case, "model_class", None) is model]
    assert own, f"no Test class in {FOLDER} has model_class = {name}"
    assert any(issubclass(case, kind) for case in own)


def test_models_are_registered_under_their_own_names_in_order():
    assert [model.__name__ for model in MODELS.values()] == list(MODELS) == sorted(MODELS)
