import numpy as np
import pytest
import torch
from torch import nn

from graphrec.encoders import ModalityEncoder
from graphrec.errors import ArgumentError
from kg_loaders.graph import Feature

ITEMS, DIM = 6, 8
every_fusion = pytest.mark.parametrize("fusion", ["attention", "gated", "concat"])


def features() -> dict[str, Feature]:
    rng = np.random.default_rng(0)
    there = np.array([True, True, False, True, False, True])
    return {
        "image": Feature.vectors(rng.normal(size=(ITEMS, 5)), there),
        "text": Feature.vectors(rng.normal(size=(ITEMS, 3))),
    }


def make(fusion="attention", **options):
    torch.manual_seed(0)
    return ModalityEncoder(features(), DIM, fusion, **options)


@every_fusion
def test_few_rows_equal_those_of_all(fusion):
    encoder = make(fusion, num_sides=2)
    sides = [torch.randn(ITEMS, DIM) for _ in range(2)]
    at = [torch.tensor([4, 1]), None]
    few = encoder([sides[0][at[0]], sides[1]], rows=at)
    every = encoder(sides)
    torch.testing.assert_close(few[0], every[0][at[0]])
    torch.testing.assert_close(few[1], every[1])
    assert not torch.allclose(every[0], encoder([sides[0], sides[0]])[1])  # sides have weights of their own


@every_fusion
def test_what_stands_where_a_modality_is_missing_is_not_looked_at(fusion):
    given = features()
    side = torch.randn(ITEMS, DIM)
    expected = make(fusion)([side])[0]
    values = given["image"].values.copy()
    values[~given["image"].present] = 1e6
    torch.manual_seed(0)
    other = ModalityEncoder({**given, "image": Feature.vectors(values, given["image"].present)}, DIM, fusion)
    torch.testing.assert_close(other([side])[0], expected)
    as_zeros = ModalityEncoder({**given, "image": Feature.vectors(given["image"].values)}, DIM, fusion)
    as_zeros.load_state_dict({k: v for k, v in other.state_dict().items() if k != "signature"}, strict=False)
    assert not torch.allclose(as_zeros([side])[0][2], expected[2])  # a zero would have been heard


def test_units_of_measurement_change_nothing():
    given = features()
    side = torch.randn(ITEMS, DIM)
    scaled = {name: Feature.vectors(1000 * f.values + 7, f.present) for name, f in given.items()}
    torch.manual_seed(0)
    torch.testing.assert_close(ModalityEncoder(scaled, DIM)([side])[0], make()([side])[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fusion", ["attention", "gated"])
def test_attention_shares_out_among_what_is_there(fusion):
    encoder = make(fusion, graph=True)
    side = torch.randn(ITEMS, DIM)
    own_known = torch.tensor([True, True, True, True, False, False])
    graph_known = torch.tensor([True, False, True, True, False, True])
    (alpha,) = encoder.attention([side], [(side, own_known)], [(side, graph_known)])
    assert encoder.names == ("id", "graph", "image", "text")
    torch.testing.assert_close(alpha.sum(dim=1), torch.ones(ITEMS))
    there = torch.stack([own_known, graph_known, torch.from_numpy(features()["image"].present), torch.ones(ITEMS) > 0])
    assert torch.equal(alpha > 0, there.t())
    assert encoder.features_of(2) == ["text"]
    assert encoder.features_of(3) == ["image", "text"]


def test_an_item_of_which_nothing_is_known_gets_nothing():
    there = np.array([True] * 5 + [False])
    encoder = ModalityEncoder({"image": Feature.vectors(np.eye(ITEMS), there)}, DIM)
    side = torch.randn(ITEMS, DIM)
    (added,) = encoder([side], [(side, torch.from_numpy(there))])
    assert not added[5].any()
    assert added[:5].abs().sum(dim=1).gt(0).all()
    (alpha,) = encoder.attention([side], [(side, torch.from_numpy(there))])
    assert alpha[5].tolist() == [0.0, 0.0]


def test_leaving_a_modality_out_is_lacking_it():
    given = features()
    side = torch.randn(ITEMS, DIM)
    without = {**given, "image": Feature.vectors(given["image"].values, np.zeros(ITEMS, dtype=np.bool_))}
    torch.manual_seed(0)
    lacking = ModalityEncoder(without, DIM)([side])[0]
    torch.testing.assert_close(make()([side], leave_out="image")[0], lacking)


def test_closed_gates_change_nothing_and_the_vectors_are_not_saved():
    encoder = make(gate=0.0)
    assert not encoder([torch.randn(ITEMS, DIM)])[0].any()
    assert not any("vectors" in name or "present" in name for name in encoder.state_dict())


@every_fusion
def test_every_weight_gets_a_gradient(fusion):
    encoder = make(fusion)
    encoder([torch.randn(ITEMS, DIM)])[0].square().sum().backward()
    for name, weight in encoder.named_parameters():
        used = fusion != "concat" or "missing" not in name or weight.grad[1].any()  # the image alone is ever missing
        assert not used or weight.grad.abs().sum() > 0, name


def test_weights_refuse_other_content_than_they_were_trained_with():
    given = features()
    state = make().state_dict()
    nearly = {name: Feature.vectors(f.values * (1 + 1e-6), f.present) for name, f in given.items()}
    ModalityEncoder(nearly, DIM).load_state_dict(state)
    turned = {**given, "text": Feature.vectors(given["text"].values[::-1])}
    with pytest.raises(RuntimeError, match="signature: 'text' are not the vectors that the weights were trained with"):
        ModalityEncoder(turned, DIM).load_state_dict(state)


def test_what_does_not_fit_is_refused():
    given = features()
    vectors = given["text"]
    for arguments, message in (
        ({"features": {}}, "features must hold at least one modality, got none"),
        ({"features": {"graph": vectors}}, "a modality must not be called 'graph'"),
        ({"features": {"title": Feature.text(["a"] * ITEMS)}}, r"features\['title'\] must be vectors, got text"),
        ({"features": {**given, "sound": Feature.vectors(np.eye(3))}}, "features must have a row for each item"),
        ({"fusion": "gate"}, "fusion must be one of 'attention', 'gated', 'concat', got 'gate'; did you mean 'gated'"),
        ({"heads": 3}, "heads must divide channels, got 3 heads"),
    ):
        with pytest.raises(ArgumentError, match=message):
            ModalityEncoder(**{"features": given, "dim": DIM, **arguments})
    with pytest.raises(ArgumentError, match="fusion 'concat' has no attention"):
        make("concat").attention([torch.randn(ITEMS, DIM)])
    assert isinstance(make(), nn.Module)
