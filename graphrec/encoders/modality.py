"""ModalityEncoder: what text, image and sound say of each item, fused with what the graph says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graphrec.encoders.content import scale_of, standardised
from graphrec.encoders.tuned_text import TunedText
from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.layers import ConcatFusion, CrossModalAttention, GatedFusion, ModalityTokens
from kg_loaders.graph import Feature

Fusion = Literal["attention", "gated", "concat"]
SIGNATURE_TOLERANCE = 0.01  # text encoded on another machine differs by much less, other content by much more
OWN, GRAPH = "id", "graph"  # the tokens that the model brings: the item's own vector, and the KG's


class ModalityEncoder(nn.Module):
    r"""One vector from all that is known of an item, gated channel by channel.

    .. math::
        m_i = \gamma \odot \operatorname{Fusion}\bigl(\{W_m x_{im} + b_m\}_{m \in \mathcal{M}_i}\bigr), \qquad
        \mathcal{M}_i \subseteq \{\text{id}, \text{graph}\} \cup \text{features}

    With attention, the item's vector so far is the query. A modality that an item lacks is masked: it gets no
    attention, and no zero stands in for it. Vectors are centred and scaled to a mean length of 1 first, each modality
    by itself, so that no unit of measurement decides who is heard.

    Args:
        features: Vectors by name, each a row an item.
        dim: Width of all vectors.
        fusion: "attention" (:class:`~graphrec.layers.CrossModalAttention`), "gated"
            (:class:`~graphrec.layers.GatedFusion`) or "concat" (:class:`~graphrec.layers.ConcatFusion`).
        heads: Heads of the attention; must divide ``dim``.
        gate: Start value of the gates :math:`\gamma`; near 0, the model starts as if it had no modalities.
        graph: Whether there is a token for the KG.
        num_sides: How many outputs to make, each with weights of its own.
        tuned: Encoders that are trained with the rest, in the place of the vectors of that name.

    Raises:
        ArgumentError: A value outside its range, no features, features of text or of different lengths.

    Example:
        >>> import numpy as np
        >>> image = Feature.vectors(np.eye(4, 6), np.array([True, True, True, False]))
        >>> encoder = ModalityEncoder({"image": image}, dim=8)
        >>> (vectors,) = encoder([torch.randn(4, 8)])
        >>> vectors.shape
        torch.Size([4, 8])

    Source:
        The layers' own; the gate as in :class:`~graphrec.encoders.KnowledgeGraphEncoder`.
    """

    def __init__(
        self,
        features: Mapping[str, Feature],
        dim: int,
        fusion: Fusion = "attention",
        heads: int = 1,
        gate: float = 0.1,
        graph: bool = False,
        num_sides: int = 1,
        tuned: Mapping[str, TunedText] | None = None,
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, get_args(Fusion))
        check_range("num_sides", num_sides, low=1)
        if not features:
            raise ArgumentError("features must hold at least one modality, got none")
        sizes = {name: len(feature) for name, feature in features.items()}
        if len(set(sizes.values())) > 1:
            raise ArgumentError(f"features must have a row for each item, got {sizes}")
        for name, feature in features.items():
            if name in (OWN, GRAPH):
                raise ArgumentError(f"a modality must not be called {name!r}: that is what the model brings itself")
            if feature.is_text:
                raise ArgumentError(f"features[{name!r}] must be vectors, got text; TextEncoder makes vectors of it")
        self.names = (OWN, *((GRAPH,) if graph else ()), *features)
        self.dim = dim
        self.fusion = fusion
        self.gate = gate
        # What the constructor is given is no part of the saved weights.
        for place, feature in enumerate(features.values()):
            self.register_buffer(f"vectors{place}", torch.from_numpy(standardised(feature)), persistent=False)
            self.register_buffer(f"present{place}", torch.from_numpy(feature.present.copy()), persistent=False)
        # One number a modality goes with the weights, by which they know the content that they were trained with.
        self.signature: Tensor
        vectors = [self.get_buffer(f"vectors{place}") for place in range(len(features))]
        self.register_buffer("signature", torch.stack([_signature(table) for table in vectors]))
        widths = dict.fromkeys(self.names, dim) | {name: f.values.shape[1] for name, f in features.items()}
        self.scales: dict[str, tuple[Tensor, float]] = {}
        for name in tuned or {}:
            check_choice("tuned", name, features)
            mean, length = scale_of(features[name])
            self.scales[name] = torch.from_numpy(mean).float(), length
        self.tuned = nn.ModuleDict(tuned)
        self.tokens = nn.ModuleList(ModalityTokens(widths, dim) for _ in range(num_sides))
        self.fusions = nn.ModuleList(_make_fusion(fusion, dim, len(widths), heads) for _ in range(num_sides))
        self.gates = nn.Parameter(torch.empty(num_sides, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in (*self.tokens, *self.fusions, *self.tuned.values()):
            module.reset_parameters()
        nn.init.constant_(self.gates, self.gate)

    def forward(
        self,
        sides: Sequence[Tensor],
        own: Sequence[tuple[Tensor, Tensor | None]] | None = None,
        graph: Sequence[tuple[Tensor, Tensor] | None] | None = None,
        rows: Sequence[Tensor | None] | None = None,
        leave_out: str | None = None,
    ) -> list[Tensor]:
        """Return :math:`m_i` once for each side.

        Args:
            sides: The item vectors so far, which ask, one ``[num_rows, dim]`` a side.
            own: The items' own vectors and which of them have one (``None``: all), a side; ``sides`` when not given.
            graph: What the KG says, and of which rows it says something, a side; ``None`` where it says nothing.
            rows: Which items these are, int64, for each side; ``None`` means all.
            leave_out: A feature to treat as missing everywhere.

        Returns:
            As many tensors of the same shapes; rows of items of which nothing is known are zeros.
        """
        fused = []
        read = self._tuned_vectors(rows or [None] * len(sides))
        for side, query in enumerate(sides):
            tokens, mask = self._tokens(side, query, own, graph, None if rows is None else rows[side], read[side])
            if leave_out is not None:
                mask = mask.index_fill(1, torch.tensor(self.names.index(leave_out), device=mask.device), False)
            fused.append(self.gates[side] * self._fuse(side, tokens, mask, query))
        return fused

    def attention(
        self,
        sides: Sequence[Tensor],
        own: Sequence[tuple[Tensor, Tensor | None]] | None = None,
        graph: Sequence[tuple[Tensor, Tensor] | None] | None = None,
    ) -> list[Tensor]:
        """Return how much each modality of :attr:`names` is heard, ``[num_items, num_modalities]``, for each side.

        With attention it is the mean over the heads, gated the mean over the channels; rows sum to 1, or to 0 where
        nothing is known of an item.

        Raises:
            ArgumentError: Concatenation shares nothing out.
        """
        if self.fusion == "concat":
            raise ArgumentError("fusion 'concat' has no attention to read; 'attention' and 'gated' have")
        shares = []
        read = self._tuned_vectors([None] * len(sides))
        for side, query in enumerate(sides):
            tokens, mask = self._tokens(side, query, own, graph, None, read[side])
            layer = self.fusions[side]
            if isinstance(layer, CrossModalAttention):
                _, alpha = layer(tokens, mask, query, return_attention_weights=True)
            else:
                _, alpha = layer(tokens, mask, return_attention_weights=True)
            shares.append(alpha.mean(dim=2))
        return shares

    def features_of(self, item: int) -> list[str]:
        """Return the names of the features that are known of an item."""
        features = [name for name in self.names if name not in (OWN, GRAPH)]
        return [name for place, name in enumerate(features) if self.get_buffer(f"present{place}")[item]]

    def _tokens(
        self,
        side: int,
        query: Tensor,
        own: Sequence[tuple[Tensor, Tensor | None]] | None,
        graph: Sequence[tuple[Tensor, Tensor] | None] | None,
        rows: Tensor | None,
        tuned: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of one side, ``[num_rows, num_modalities, dim]``, and which are there."""
        vector, known = (query, None) if own is None else own[side]
        inputs = {OWN: vector}
        masks = {} if known is None else {OWN: known}
        said = None if graph is None else graph[side]
        if GRAPH in self.names and said is not None:
            inputs[GRAPH], masks[GRAPH] = said
        for place, name in enumerate(name for name in self.names if name not in (OWN, GRAPH)):
            vectors, present = self.get_buffer(f"vectors{place}"), self.get_buffer(f"present{place}")
            inputs[name] = tuned[name] if name in tuned else vectors if rows is None else vectors.index_select(0, rows)
            masks[name] = present if rows is None else present.index_select(0, rows)
        tokens, mask = self.tokens[side](inputs, masks)
        return tokens, mask

    def _tuned_vectors(self, rows: Sequence[Tensor | None]) -> list[dict[str, Tensor]]:
        """Return what the trained encoders make of each side's rows; a row that several sides need is made once."""
        found: list[dict[str, Tensor]] = [{} for _ in rows]
        for name, encoder in self.tuned.items():
            given = [at for at in rows if at is not None]
            if len(given) < len(rows):
                whole = encoder(None)
                made = [whole if at is None else whole.index_select(0, at) for at in rows]
            else:
                made = list(encoder(torch.cat(given)).split([len(at) for at in given]))
            mean, length = self.scales[name]
            for side, vectors in zip(found, made, strict=True):
                side[name] = (vectors - mean.to(vectors.device)) / length
        return found

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        saved = state_dict.get(f"{prefix}signature")
        if isinstance(saved, Tensor) and saved.shape == self.signature.shape:
            changed = (saved.to(self.signature.device) - self.signature).abs() > SIGNATURE_TOLERANCE
            features = [name for name in self.names if name not in (OWN, GRAPH)]
            named = ", ".join(repr(name) for name, other in zip(features, changed.tolist(), strict=True) if other)
            if named:
                lists[-1].append(f"{prefix}signature: {named} are not the vectors that the weights were trained with")
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)

    def _fuse(self, side: int, tokens: Tensor, mask: Tensor, query: Tensor) -> Tensor:
        layer = self.fusions[side]
        fused: Tensor = layer(tokens, mask, query) if isinstance(layer, CrossModalAttention) else layer(tokens, mask)
        return fused


def _signature(vectors: Tensor) -> Tensor:
    """Return a number that hardly two tables have in common, and that rounding hardly changes."""
    row, column = (torch.arange(1, size + 1, dtype=torch.float64) for size in vectors.shape)
    number: Tensor = (row.sin() @ vectors.double() @ column.cos()) / len(vectors) ** 0.5
    return number.float()


def _make_fusion(fusion: Fusion, dim: int, num_tokens: int, heads: int) -> nn.Module:
    if fusion == "attention":
        return CrossModalAttention(dim, heads, learned_query=False)
    return GatedFusion(dim) if fusion == "gated" else ConcatFusion(dim, num_tokens)
