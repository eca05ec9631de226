"""What every recommender remembers in evaluation mode, by one of them."""

import copy

import pytest
import torch

from graphrec.histories import Histories
from graphrec.models import ItemKNN, SoftmaxMF

ASKED = Histories.from_lists([[], []], [2, 0])


@pytest.fixture
def model():
    return SoftmaxMF(num_users=3, num_items=4, dim=5).eval()


def score(model):
    with torch.no_grad():
        return model.score(ASKED)


def test_loading_a_model_as_a_part_of_another_forgets(model):
    score(model)
    other = SoftmaxMF(num_users=3, num_items=4, dim=5).eval()
    torch.nn.ModuleDict({"m": model}).load_state_dict({f"m.{name}": w for name, w in other.state_dict().items()})
    assert torch.equal(score(model), score(other))


def test_another_type_forgets(model):
    before = score(model)
    assert score(model.double()).dtype == torch.float64
    torch.testing.assert_close(score(model).float(), before)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_gradients_flow_whatever_was_asked_before(model, mode):
    with mode():
        model.score(ASKED)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model.score(ASKED)[:, 0].sum().backward()
        gradients.append(model.item.grad.clone())
    assert gradients[0][0].any()
    assert torch.equal(*gradients)


def test_a_copy_starts_without_what_is_remembered(model):
    model.score(ASKED)
    score(model)
    other = copy.deepcopy(model)
    assert not other._cache
    assert torch.equal(score(other), score(model))


def test_models_without_weights_to_train_remember_with_gradients_too():
    model = ItemKNN(num_items=3)
    model.fit(Histories.from_lists([[0, 1], [0, 1, 2]]))
    model.eval().score(Histories.from_lists([[0]]))
    assert "matrix" in model._cache
