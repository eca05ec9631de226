"""Every registered model is tested by the shared cases."""

from pathlib import Path

import pytest
from cases.finding import cases_in
from cases.model_case import ClosedFormCase, GradientCase, ModelCase

from graphrec.models import MODELS
from graphrec.models.base import ClosedFormRecommender

FOLDER = Path(__file__).parents[1] / "graphrec" / "models"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_case(name):
    model = MODELS[name]
    kind = ClosedFormCase if issubclass(model, ClosedFormRecommender) else GradientCase
    own = [case for case in cases_in(FOLDER, ModelCase) if getattr(case, "model_class", None) is model]
    assert own, f"no Test class in {FOLDER} has model_class = {name}"
    assert any(issubclass(case, kind) for case in own)


def test_models_are_registered_under_their_own_names_in_order():
    assert [model.__name__ for model in MODELS.values()] == list(MODELS) == sorted(MODELS)
