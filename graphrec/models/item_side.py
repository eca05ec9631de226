"""ItemSide: what InductiveKGAT knows of its items, as vectors of past items and of candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from graphrec.encoders.modality import Fusion, ModalityEncoder
from graphrec.encoders.similarity import ContentSimilarity
from graphrec.encoders.tuned_text import TunedText
from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.models.base import GradientRecommender
from graphrec.models.foretold_popularity import foretold_popularity
from graphrec.sampling import PopularityNegatives, UniformNegatives
from kg_loaders.graph import Feature

if TYPE_CHECKING:
    from graphrec.encoders import CooccurrenceEncoder, ItemEdges, KnowledgeGraphEncoder, LikenessEncoder


class ItemSide(GradientRecommender):
    """The items of a model, each with a vector as part of a history and one as a candidate.

    What an item's own vector, the KG, the items taken with it, the items like it and its content say is added up. What
    is made of a history, and how a candidate is scored, is the subclass's affair; it has the defaults, too.

    Args:
        num_items: Number of items; they are the first entities.
        dim: Width of all vectors.
        untied: Whether candidates have vectors of their own.
        attend_candidates: Whether the KG also reaches the candidates.
        drop_id: Probability that in a step of training an item has neither a vector of its own nor items taken with it.
        negative_power: Negatives are drawn with probabilities proportional to this power of how often items were taken.

    Raises:
        ArgumentError: A value outside its range.
    """

    def __init__(
        self,
        num_items: int,
        dim: int,
        untied: bool,
        attend_candidates: bool,
        drop_id: float,
        negative_power: float = 0.0,
    ) -> None:
        super().__init__(num_items)
        check_range("dim", dim, low=1)
        check_range("drop_id", drop_id, low=0.0, high=1.0)
        check_range("negative_power", negative_power, low=0.0, high=1.0)
        self.dim = dim
        self.attend_candidates = attend_candidates
        self.drop_id = drop_id
        self.negative_power = negative_power
        self.negatives: UniformNegatives | PopularityNegatives = UniformNegatives(num_items)
        self.taken: Tensor
        self.register_buffer("taken", torch.ones(num_items, dtype=torch.bool))
        self.item = nn.Parameter(torch.empty(num_items, dim))
        self.candidate = nn.Parameter(torch.empty(num_items, dim)) if untied else None
        self.item_bias = nn.Parameter(torch.empty(num_items))
        self.co: CooccurrenceEncoder | None = None
        self.kg: KnowledgeGraphEncoder | None = None
        self.like: LikenessEncoder | None = None
        self.modalities: ModalityEncoder | None = None
        self.content_similarity: ContentSimilarity | None = None
        self.foretold: Tensor | None
        self.register_buffer("foretold", None)

    def _add_encoders(
        self,
        num_relations: int,
        triples: Tensor,
        *,
        heads: int,
        hops: int,
        min_entity_items: int,
        gate: float,
        co_neighbors: int,
        content: Mapping[str, Feature] | None,
        tuned: Mapping[str, TunedText] | None,
        fusion: Fusion,
        fusion_heads: int,
        fusion_gate: float,
        like_neighbors: int,
        content_popularity: bool,
    ) -> None:
        """Make what speaks for an item besides its own vector; for the arguments see :class:`InductiveKGAT`.

        Raises:
            ArgumentError: A value outside its range, or triples or content that do not fit.
        """
        check_range("heads", heads, low=1)
        check_range("co_neighbors", co_neighbors, low=0)
        check_range("like_neighbors", like_neighbors, low=0)
        if like_neighbors and not content:
            raise ArgumentError(f"like_neighbors={like_neighbors} needs content to be like; name modalities")
        for name, feature in (content or {}).items():
            if len(feature) != self.num_items:
                raise ArgumentError(
                    f"content[{name!r}] must have a row for each of {self.num_items} items, got {len(feature)}"
                )
        num_sides = 1 if self.candidate is None else 2
        if co_neighbors:
            from graphrec.encoders import CooccurrenceEncoder

            self.co = CooccurrenceEncoder(self.num_items, co_neighbors, self.dim, gate, num_sides=num_sides)
        if len(triples):
            # It brings torch_geometric, which takes two seconds to import; models without a KG never pay for it.
            from graphrec.encoders import KnowledgeGraphEncoder

            self.kg = KnowledgeGraphEncoder(
                self.num_items,
                num_relations,
                triples,
                self.dim,
                heads=heads,
                hops=hops,
                min_entity_items=min_entity_items,
                gate=gate,
                num_sides=num_sides if self.attend_candidates else 1,
            )
        if like_neighbors and content:
            from graphrec.encoders import LikenessEncoder

            self.like = LikenessEncoder(content, self.num_items, like_neighbors, self.dim, gate, num_sides=num_sides)
        if content:
            self.modalities = ModalityEncoder(
                content, self.dim, fusion, fusion_heads, fusion_gate, self.kg is not None, num_sides, tuned
            )

        if content_popularity:
            self.content_similarity = ContentSimilarity(self.num_items, content or {}, triples)
            self.foretold = torch.zeros(self.num_items)

    def _draw_tables(self, std: float) -> None:
        """Draw the items' own vectors anew, and forget which items were taken."""
        for table in (self.item, self.candidate):
            if table is not None:
                nn.init.normal_(table, std=std)
        nn.init.zeros_(self.item_bias)
        self.taken.fill_(True)

    def _draw_encoders(self) -> None:
        """Draw the weights of all that speaks for an item besides its own vector anew."""
        for encoder in (self.kg, self.co, self.like, self.modalities):
            if encoder is not None:
                encoder.reset_parameters()

    def prepare(self, histories: Histories) -> None:
        """Note which items were taken at all, and by the same users; see :meth:`GradientRecommender.prepare`."""
        counts = torch.bincount(histories.items, minlength=self.num_items)
        self.taken.copy_(counts > 0)
        if self.negative_power:
            self.negatives = PopularityNegatives(counts, self.negative_power, self.taken)
        else:
            self.negatives = UniformNegatives(self.num_items, self.taken)
        for near in (self.co, self.like):
            if near is not None:
                near.prepare(histories)
        with torch.no_grad():
            for table in (self.item, self.candidate):
                if table is not None:
                    table[~self.taken] = 0.0
        if self.content_similarity is not None and self.foretold is not None:
            self.foretold.copy_(foretold_popularity(self.content_similarity, counts))

    def item_vectors(self, inputs: Tensor | None = None, candidates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(h, g)``: the items as parts of a history and as candidates, each ``[num_items, dim]``.

        Args:
            inputs: Which rows of ``h`` to make, int64; ``None`` means all.
            candidates: Which rows of ``g``; the same as ``inputs`` where the two share their vectors.
        """
        rows = [inputs] if self.candidate is None else [inputs, candidates]
        parts = self._item_parts(rows)
        sides = parts.sides
        if self.modalities is not None:
            added = self.modalities(sides, parts.own, parts.graph, rows)
            sides = [side + of_content for side, of_content in zip(sides, added, strict=True)]
        return sides[0], sides[-1]

    def _item_parts(self, rows: Sequence[Tensor | None]) -> _ItemParts:
        """Return what is known of the items before their content is fused in, for each side."""
        tables = [self.item] if self.candidate is None else [self.item, self.candidate]
        own = [at_rows(table, at) for table, at in zip(tables, rows, strict=True)]
        known = [at_rows(self.taken, at) for at in rows]
        dropping = self.training and self.drop_id > 0
        if dropping:
            known = [mask & (torch.rand(mask.shape, device=mask.device) >= self.drop_id) for mask in known]
            own = [vector * mask.unsqueeze(1) for vector, mask in zip(own, known, strict=True)]
        sides = list(own)
        if self.co is not None:
            near = self.co(*tables, rows=rows)
            if dropping:
                near = [vector * mask.unsqueeze(1) for vector, mask in zip(near, known, strict=True)]
            sides = [side + vector for side, vector in zip(sides, near, strict=True)]
        if self.like is not None:
            alike = self.like(*tables, rows=rows)
            sides = [side + vector for side, vector in zip(sides, alike, strict=True)]
        graph: list[tuple[Tensor, Tensor] | None] = [None] * len(sides)
        if self.kg is not None:
            # The KG reaches the history's side alone, or both.
            reached = len(self.kg.sides)
            said = self.kg(*own[:reached], rows=rows[:reached])
            sides[:reached] = [side + of_kg for side, of_kg in zip(sides[:reached], said, strict=True)]
            if self.modalities is not None:
                linked = torch.zeros_like(self.taken).index_fill_(0, self.kg.item_edges[1], True)
                graph[:reached] = [(of_kg, at_rows(linked, at)) for of_kg, at in zip(said, rows, strict=False)]
        return _ItemParts(sides, list(zip(own, known, strict=True)), graph)

    def modality_attention(self) -> tuple[Tensor, Tensor] | None:
        """Return how much each of ``self.modalities.names`` is heard, in histories and as candidates.

        Returns:
            Twice ``[num_items, num_modalities]``, rows sum to 1; ``None`` without modalities.

        Raises:
            ArgumentError: Concatenation shares nothing out.
        """
        if self.modalities is None:
            return None
        parts = self._item_parts([None] * (1 if self.candidate is None else 2))
        shares = self.modalities.attention(parts.sides, parts.own, parts.graph)
        return shares[0], shares[-1]

    def kg_attention(self) -> tuple[ItemEdges, ItemEdges] | None:
        """Return the attention of items to entities as parts of a history and as candidates; ``None`` without a KG."""
        if self.kg is None:
            return None
        history_side = self.kg.attention(self.item)
        if self.candidate is None or not self.attend_candidates:
            return history_side, history_side
        return history_side, self.kg.attention(self.candidate, side=1)

    def bias(self) -> Tensor:
        r"""Return :math:`b_j` of every item, taken or not, ``[num_items]``."""
        least = self.item_bias[self.taken].min() - 1.0
        return torch.where(self.taken, self.item_bias, least if self.foretold is None else least + self.foretold)

    def _rows_of(self, items: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the rows of a table that ``items`` need, ``None`` for all, and the place of each item among them.

        All, too, where inputs and candidates share their vectors, and so must be the same rows.
        """
        if self.candidate is None or items.numel() >= self.num_items:
            return None, items
        rows, place = torch.unique(items, return_inverse=True)
        return rows, place


class _ItemParts(NamedTuple):
    """What is known of items on each side, before their content is fused in.

    Args:
        sides: The vectors so far, each ``[num_rows, dim]``.
        own: The items' own vectors, and which of them have one.
        graph: What the KG says, and of which rows; ``None`` on a side that it does not reach.
    """

    sides: list[Tensor]
    own: list[tuple[Tensor, Tensor]]
    graph: list[tuple[Tensor, Tensor] | None]


def at_rows(table: Tensor, rows: Tensor | None) -> Tensor:
    """Return some rows of a table, all of them where ``rows`` is ``None``."""
    return table if rows is None else table.index_select(0, rows)
