from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.tiny_bert import WORDS, write_tiny_bert

from graphrec.encoders import TextEncoder, TunedText
from graphrec.encoders.tuned_text import LowRank
from graphrec.errors import ArgumentError
from graphrec.models import InductiveKGAT
from kg_loaders.graph import Feature

TEXTS = ["space alien crew ship", "", "love", "the wedding of a crew", "a space wedding", "paris", "love ship"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_bert(tmp_path_factory.mktemp("checkpoints") / "bert")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))


def make(folder, texts=TEXTS, **options):
    torch.manual_seed(0)
    return TunedText(texts, folder, **options)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_starts_as_the_encoder_that_does_not_learn(folder, num_layers):
    expected = TextEncoder(folder).encode(TEXTS, cache=False).values
    found = make(folder, num_layers=num_layers).eval()()
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=2e-2, atol=2e-3)  # tokens in half precision
    assert not found[1].any()


def test_gradients_reach_the_attention_of_the_encoder_and_its_pooling(folder):
    tuned = make(folder).train()
    optimizer = torch.optim.Adam((p for p in tuned.parameters() if p.requires_grad), 0.1)
    frozen = {name: p.clone() for name, p in tuned.named_parameters() if not p.requires_grad}
    target = torch.randn(len(TEXTS), tuned.width)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (tuned() - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    learned = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    assert set(learned) == {
        "attend",
        *(f"layers.0.attention.self.{which}.{half}" for which in ("query", "value") for half in ("down", "up")),
    }
    assert all(p.grad.abs().sum() > 0 for p in learned.values())
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(p, dict(tuned.named_parameters())[name]) for name, p in frozen.items())


def test_a_step_encodes_a_few_texts_and_leaves_the_others_as_they_were(folder):
    tuned = make(folder, texts_per_step=2).train()
    with torch.no_grad():
        tuned.layers[0].attention.self.value.up.normal_(std=30.0)
    before = tuned.vectors.clone()
    rows = torch.tensor([0, 3, 3, 4, 5])
    out = tuned(rows)
    fresh = make(folder, texts_per_step=2)
    fresh.load_state_dict(tuned.state_dict())
    moved = (tuned.vectors != before).any(dim=1)
    assert moved.sum() == 2
    torch.testing.assert_close(out, torch.where(moved[rows, None], fresh.eval()(rows), before[rows]))
    assert torch.equal(out[1], out[2])
    out.sum().backward()
    assert tuned.attend.grad.abs().sum() > 0
    torch.testing.assert_close(tuned.eval()(), fresh())  # all are encoded anew


def test_reset_goes_back_to_the_checkpoint(folder):
    tuned = make(folder)
    start = tuned.eval()().clone()
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    assert not torch.allclose(tuned(), start)
    tuned.reset_parameters()
    assert torch.equal(tuned(), start)
    assert torch.equal(tuned.vectors, start)


def test_the_low_rank_part_is_added_to_the_map():
    base = torch.nn.Linear(4, 3)
    layer = LowRank(base, rank=2, scale=0.5)
    with torch.no_grad():
        layer.up.normal_()
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer(x), x @ (base.weight + 0.5 * layer.up @ layer.down).t() + base.bias)


def films():
    """The planted graph, whose texts name the genre in words."""
    graph = planted_graph().without_kg()
    rng = np.random.default_rng(0)
    words = [[WORDS[genre], WORDS[rng.integers(4, 10)], WORDS[rng.integers(4, 10)]] for genre in np.arange(80) % 4]
    return replace(graph, item_features={"plot": Feature.text([" ".join(rng.permutation(w)) for w in words])})


def test_the_recommender_trains_the_encoder_and_is_saved_with_it(folder):
    graph = films()
    torch.manual_seed(0)
    options = {"dim": 8, "modalities": ["plot"], "text_encoder": str(folder), "tune_text": 1, "fusion_gate": 1.0}
    model = InductiveKGAT.from_graph(graph, **options)
    histories = histories_of(graph)
    model.prepare(histories)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(histories, generator).backward()
        optimizer.step()
    tuned = model.modalities.tuned["plot"]
    assert all(p.grad.abs().sum() > 0 for p in tuned.parameters() if p.requires_grad)
    again = InductiveKGAT.from_graph(graph, **options)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval().score(histories), model.eval().score(histories))
        tuned.layers[0].attention.self.value.up.add_(30.0)
        model.forget()
        assert not torch.allclose(again.score(histories), model.score(histories))


def test_what_cannot_be_tuned_is_refused(folder):
    with pytest.raises(ArgumentError, match=r"num_layers must be within 1\.\.2, the layers of a BERT"):
        make(folder, num_layers=3)
    with pytest.raises(ArgumentError, match="rank must be >= 1"):
        make(folder, rank=0)
    with pytest.raises(ArgumentError, match=r"tune_text=1 needs a modality of text, got \[\]"):
        InductiveKGAT.from_graph(planted_graph(), tune_text=1)


def test_items_without_any_text_are_missing(folder):
    tuned = make(folder, ["", " "])
    assert not tuned().any()
    assert not tuned.eval()().any()
