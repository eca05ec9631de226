"""TunedText: the last layers of a text encoder, trained with the recommender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.encoders.content import text_of
from graphrec.encoders.text import PACKAGED, TextEncoder, padded
from graphrec.errors import ArgumentError, check_range
from kg_loaders import RecGraph

TUNED = ("query", "value")  # the maps of a layer's attention that get a low-rank part
BATCH_TEXTS = 64


class TunedText(nn.Module):
    r"""Encodes the texts of items with a BERT whose last layers learn.

    .. math::
        v_i = \sum_t a_{it} h_{it}, \qquad a_i = \operatorname{softmax}_t(w^\top h_{it}), \qquad
        W' = W + s \, B A \quad \text{for } W_{query}, W_{value}

    where :math:`h_{it}` are the tokens after the last layer. The layers below are run once and kept. With
    :math:`B = 0` and :math:`w = 0` at the start it is the mean over the tokens, as :class:`TextEncoder` makes it; then
    the pooling attends, and the maps of query and value move by a matrix of low rank. The weights of the checkpoint
    stay, so one learning rate suits this and the rest of the model.

    A step of training runs ``texts_per_step`` random texts among those it needs; the others stand as they were encoded
    last, without a gradient. In evaluation mode all are encoded anew.

    Args:
        texts: A text an item; empty ones are missing and become zeros.
        checkpoint: As in :class:`TextEncoder`.
        num_layers: Last layers that learn.
        rank: Rank of :math:`BA`.
        scale: :math:`s`; with Adam it sets how far a step moves the map.
        max_tokens: Longer texts are cut.
        texts_per_step: Texts a step of training that gradients reach; 0 means all.
        quiet: Say nothing on standard error.

    Raises:
        ArgumentError: A value outside its range, or a checkpoint that is no BERT of at least ``num_layers`` layers.
        ImportError: transformers is not installed.

    Shape:
        - output: ``[num_rows, width]``, of about unit length

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), eq. 3.
    """

    vectors: Tensor

    def __init__(
        self,
        texts: Sequence[str],
        checkpoint: str | Path = PACKAGED,
        num_layers: int = 1,
        rank: int = 8,
        scale: float = 0.05,
        max_tokens: int = 64,
        texts_per_step: int = 128,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        for name, value, low in (
            ("num_layers", num_layers, 1),
            ("rank", rank, 1),
            ("texts_per_step", texts_per_step, 0),
        ):
            check_range(name, value, low=low)
        encoder = TextEncoder(checkpoint, max_tokens, quiet)
        tokenizer, bert = encoder.load()
        stack = getattr(getattr(bert, "encoder", None), "layer", None)
        if stack is None or not 1 <= num_layers <= len(stack):
            raise ArgumentError(
                f"num_layers must be within 1..{0 if stack is None else len(stack)}, the layers of a BERT in "
                f"{encoder.folder}, got {num_layers}"
            )
        self.texts_per_step = texts_per_step
        self.width = int(bert.config.hidden_size)
        tokens = encoder.tokenize(tokenizer, [text.strip() for text in texts])
        present = np.array([bool(text.strip()) for text in texts])
        lengths = torch.tensor([len(row) if there else 0 for row, there in zip(tokens, present, strict=True)])
        self.offsets: Tensor
        self.hidden: Tensor
        self.register_buffer("offsets", F.pad(lengths.cumsum(0), (1, 0)), persistent=False)
        rest = nn.ModuleList(stack[-num_layers:])
        del stack[-num_layers:]
        # Half precision, for this is the largest thing here: one vector a token.
        self.register_buffer("hidden", _run_below(bert, tokens, present).half(), persistent=False)
        self.layers = rest.requires_grad_(False).eval()
        for layer in self.layers:
            attention: Any = layer.get_submodule("attention.self")
            for name in TUNED:
                setattr(attention, name, LowRank(getattr(attention, name), rank, scale))
        self.attend = nn.Parameter(torch.empty(self.width))
        # What each text was encoded as last: a part of the state, for training goes on from it.
        self.register_buffer("vectors", torch.zeros(len(texts), self.width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the checkpoint: no low-rank part, and the mean over the tokens."""
        nn.init.zeros_(self.attend)
        for module in self.layers.modules():
            if isinstance(module, LowRank):
                module.reset_parameters()
        with torch.no_grad():
            self.vectors.copy_(self._encode(torch.arange(len(self.vectors), device=self.vectors.device)))

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Return the vectors of some texts, or of all."""
        every = torch.arange(len(self.vectors), device=self.vectors.device)
        wanted = every if rows is None else rows
        if not self.training:
            return self._encode(wanted)
        distinct, place = torch.unique(wanted, return_inverse=True)
        order = torch.randperm(len(distinct), device=distinct.device)
        chosen = order[: self.texts_per_step or len(order)]
        fresh = self._encode(distinct[chosen])
        with torch.no_grad():
            self.vectors[distinct[chosen]] = fresh
        return self.vectors[distinct].index_copy(0, chosen, fresh).index_select(0, place)

    def _encode(self, rows: Tensor) -> Tensor:
        starts = range(0, len(rows), BATCH_TEXTS)
        parts = [self._encode_batch(rows[start : start + BATCH_TEXTS]) for start in starts]
        return torch.cat(parts) if parts else self.vectors.new_zeros(0, self.width)

    def _encode_batch(self, rows: Tensor) -> Tensor:
        start = self.offsets[rows]
        lengths = self.offsets[rows + 1] - start
        longest = max(int(lengths.max()), 1)
        place = torch.arange(longest, device=rows.device)
        there = place < lengths.unsqueeze(1)  # [batch, longest]
        at = (start.unsqueeze(1) + place).clamp(max=max(len(self.hidden) - 1, 0))
        hidden = (self.hidden[at] if len(self.hidden) else self.hidden.new_zeros(*at.shape, self.width)).float()
        # A text without tokens attends to its first place, and is left out at the end.
        seen = there | (place == 0)
        bias = torch.zeros(seen.shape, device=rows.device).masked_fill_(~seen, torch.finfo(torch.float32).min)
        for layer in self.layers:
            out = layer(hidden, bias[:, None, None, :])
            hidden = out[0] if isinstance(out, tuple) else out
        weight = (hidden @ self.attend).masked_fill(~seen, -torch.inf).softmax(dim=1)
        pooled = F.normalize((weight.unsqueeze(2) * hidden).sum(dim=1), dim=1)
        return pooled * (lengths > 0).unsqueeze(1)

    def train(self, mode: bool = True) -> TunedText:
        """Set the mode as in any module; the layers of the checkpoint stay without dropout."""
        super().train(mode)
        self.layers.eval()
        return self


class LowRank(nn.Module):
    """A linear map that stays, plus one of low rank that learns.

    Args:
        base: The map.
        rank: Rank of the part that learns.
        scale: Its factor.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.empty(base.out_features, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the inner half anew; the outer one starts at 0."""
        nn.init.normal_(self.down, std=self.base.in_features**-0.5)
        nn.init.zeros_(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Map."""
        out: Tensor = self.base(x) + self.scale * F.linear(F.linear(x, self.down), self.up)
        return out


def _run_below(bert: Any, tokens: Sequence[Sequence[int]], present: np.ndarray) -> Tensor:
    """Return the states of all tokens after the layers that the model still has, ``[num_tokens, width]``."""
    rows = [row for row, there in zip(tokens, present, strict=True) if there]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(order), BATCH_TEXTS):
            batch = order[start : start + BATCH_TEXTS]
            ids, mask = padded([rows[row] for row in batch])
            hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
            found |= {row: hidden[at, : len(rows[row])].clone() for at, row in enumerate(batch)}
    width = int(bert.config.hidden_size)
    return torch.cat([found[row] for row in range(len(rows))]) if rows else torch.zeros(0, width)


def tuned_texts(graph: RecGraph, modalities: Sequence[str], checkpoint: str, num_layers: int) -> dict[str, TunedText]:
    """Return an encoder that learns for each modality of text; none where ``num_layers`` (``tune_text``) is 0.

    Raises:
        ArgumentError: ``num_layers`` is below 0, or above it and no modality is text.
    """
    check_range("tune_text", num_layers, low=0)
    if not num_layers:
        return {}
    texts = {name: text for name in modalities if (text := text_of(graph, name)) is not None}
    if not texts:
        raise ArgumentError(f"tune_text={num_layers} needs a modality of text, got {list(modalities)}")
    return {name: TunedText(text, checkpoint, num_layers) for name, text in texts.items()}
