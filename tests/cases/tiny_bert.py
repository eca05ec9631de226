"""A BERT of two layers with random weights, as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

WORDS = ("space", "alien", "crew", "love", "wedding", "paris", "ship", "the", "a", "of")


def write_tiny_bert(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint and return its folder; skips the test where transformers is not installed."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    return folder
