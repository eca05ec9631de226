"""Filters: which items may be recommended, by what rules, and how different from each other."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.serving.naming import entity_name, relation_name
from kg_loaders import RecGraph

Rule = Callable[[Tensor, Tensor], Tensor]
"""Takes candidates, item indices int64 ``[n]``, and their scores ``[n]``; returns scores ``[n]``, -inf for never."""

NUM_SUGGESTIONS = 5
POOL_FACTOR, POOL_LEAST = 10, 100  # how many candidates are re-ranked for a list of k


@dataclass(frozen=True)
class Filters:
    """What else decides over a list, besides the model.

    Args:
        exclude: Ids or titles of items that are not wanted.
        only: Ids or titles of the items to choose from; ``None`` means all.
        where: (relation, entity) pairs, by id or in words as explanations name them, such as ``("genre", "Comedy")``:
            only items for which all of them hold. A mapping is as good.
        rules: Called one after the other with the candidates that are left and their scores.
        diversity: 0 (the model's order) to 1 (every item as unlike those above it as can be), see :func:`diversify`.

    Raises:
        ArgumentError: ``diversity`` out of range, ``only`` empty, or text where a list is expected.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> Filters(exclude=["item-01", "item-03"]).allowed(planted(), planted().items.index_of).sum().item()
        78
    """

    exclude: Sequence[str] = ()
    only: Sequence[str] | None = None
    where: Sequence[tuple[str, str]] | Mapping[str, str] = ()
    rules: Sequence[Rule] = ()
    diversity: float = 0.0

    def __post_init__(self) -> None:
        check_range("diversity", self.diversity, low=0.0, high=1.0)
        for name in ("exclude", "only", "where"):
            if isinstance(getattr(self, name), str):
                raise ArgumentError(f"{name} must be a list, got the text {getattr(self, name)!r}")
        if self.only is not None and not self.only:
            raise ArgumentError("only must name at least one item, got none")

    def allowed(self, graph: RecGraph, find_item: Callable[[str], int]) -> Tensor:
        """Return which items may be recommended, bool ``[num_items]``.

        Args:
            graph: Its items and triples.
            find_item: Returns the index that an id or a title means.

        Raises:
            ArgumentError: An item, a relation or an entity is unknown.
        """
        allowed = torch.ones(graph.num_items, dtype=torch.bool)
        if self.only is not None:
            allowed[:] = False
            allowed[[find_item(text) for text in self.only]] = True
        if self.exclude:
            allowed[[find_item(text) for text in self.exclude]] = False
        pairs = self.where.items() if isinstance(self.where, Mapping) else self.where
        for pair in pairs:
            allowed &= torch.from_numpy(items_with(graph, pair[0], pair[1]))
        return allowed

    def apply_rules(self, scores: Tensor) -> Tensor:
        """Return scores ``[num_items]`` after all rules; what is at -inf is no candidate any more.

        Raises:
            ArgumentError: A rule returns something else than a number for each candidate.
        """
        for rule in self.rules:
            candidates = (scores > -torch.inf).nonzero().squeeze(1)
            changed = rule(candidates, scores[candidates])
            name = getattr(rule, "__name__", type(rule).__name__)
            if not isinstance(changed, Tensor) or changed.shape != candidates.shape:
                got = list(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
                raise ArgumentError(f"rule {name} must return scores [{len(candidates)}], got {got}")
            if bool(changed.isnan().any()):
                raise ArgumentError(f"rule {name} returned NaN")
            scores = torch.full_like(scores, -torch.inf).index_copy(0, candidates, changed.to(scores.dtype))
        return scores


def items_with(graph: RecGraph, relation: str, entity: str) -> NDArray[np.bool_]:
    """Return the items that the KG links to an entity by a relation, bool ``[num_items]``.

    Args:
        graph: The graph.
        relation: Its id, or the word for it: several relations may share one. Followed both ways.
        entity: Its id or its name, whatever the case.

    Raises:
        ArgumentError: There is no such relation, or it links no item to such an entity; the message offers the nearest.
    """
    head, kind, tail = graph.triples.T
    edges = [  # of each direction: items, edge types, entities
        (head, kind + graph.num_relations, tail),
        (tail, kind, head),
    ]
    item, edge_type, other = (np.concatenate(columns) for columns in zip(*edges, strict=True))
    near = item < graph.num_items
    item, edge_type, other = item[near], edge_type[near], other[near]
    types = {int(t): relation_name(graph, int(t)) for t in np.unique(edge_type)}
    asked = relation.casefold().strip()
    wanted = [
        t
        for t, word in types.items()
        if asked in (word.casefold(), graph.relations.id_of(t % graph.num_relations).casefold())
    ]
    if not wanted:
        raise _unknown("relation", relation, sorted({word for word in types.values() if word}), graph.name)
    of_relation = np.isin(edge_type, wanted)
    item, other = item[of_relation], other[of_relation]
    asked = entity.casefold().strip()
    names = {int(e): entity_name(graph, int(e)) for e in np.unique(other)}
    found = [e for e, name in names.items() if asked in (name.casefold(), graph.entities.id_of(e).casefold())]
    if not found:
        raise _unknown(relation, entity, sorted({name for name in names.values() if name}), graph.name)
    mask = np.zeros(graph.num_items, dtype=np.bool_)
    mask[item[np.isin(other, found)]] = True
    return mask


def diversify(relevance: Tensor, similarity: Tensor, k: int, diversity: float) -> list[int]:
    r"""Choose ``k`` of some candidates one after the other, each good and unlike those before it.

    .. math::
        \operatorname*{argmax}_{j \notin S} \; (1 - \lambda) \, r_j - \lambda \max_{i \in S} \operatorname{sim}(i, j)

    with :math:`r` brought to 0..1.

    Args:
        relevance: Scores of the candidates, best first, ``[n]``.
        similarity: Of each to each, ``[n, n]``.
        k: How many, at most n.
        diversity: :math:`\lambda`.

    Returns:
        Places of the chosen among the candidates, in order; the first is the best.

    Example:
        >>> same = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> diversify(torch.tensor([3.0, 2.9, 2.0]), same, k=2, diversity=0.6)
        [0, 2]

    Source:
        Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998), eq. 1.
    """
    spread = float(relevance.max() - relevance.min()) or 1.0
    value = (1 - diversity) * (relevance - relevance.min()) / spread
    chosen = [0]
    nearest = similarity[0].clone()
    while len(chosen) < min(k, len(relevance)):
        gain = value - diversity * nearest
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        nearest = torch.maximum(nearest, similarity[chosen[-1]])
    return chosen


def similarity_of(items: Tensor, vectors: Tensor | None, graph: RecGraph) -> Tensor:
    """Return how alike items are, ``[n, n]``: cosine of their vectors, or the share of their entities in common.

    Args:
        items: Item indices, int64 ``[n]``.
        vectors: The model's item vectors, ``[num_items, dim]``; ``None`` where it has none.
        graph: Read where there are no vectors: Jaccard's coefficient of the entities linked to both.

    Raises:
        ArgumentError: There are neither vectors nor triples.
    """
    if vectors is not None:
        unit = F.normalize(vectors[items], dim=1)
        return unit @ unit.t()
    if not graph.num_triples:
        raise ArgumentError("diversity needs a model with item vectors, or a knowledge graph, and there is neither")
    head, _, tail = graph.triples.T
    place = np.full(graph.num_entities, -1)
    place[items.numpy()] = np.arange(len(items))
    row, other = np.concatenate([place[head], place[tail]]), np.concatenate([tail, head])
    entities, column = np.unique(other[row >= 0], return_inverse=True)
    has = torch.zeros(len(items), len(entities))
    has[torch.from_numpy(row[row >= 0]), torch.from_numpy(column)] = 1.0
    common = has @ has.t()
    count = has.sum(dim=1)
    union: Tensor = count[:, None] + count[None, :] - common
    return common / union.clamp(min=1.0)


def pool_size(k: int) -> int:
    """Return how many candidates are re-ranked for a list of ``k``."""
    return max(POOL_FACTOR * k, POOL_LEAST)


def _unknown(what: str, text: str, known: list[Any], name: str) -> ArgumentError:
    folded = {word.casefold(): word for word in known}
    nearest = difflib.get_close_matches(text.casefold().strip(), folded, n=NUM_SUGGESTIONS) or list(folded)[:5]
    hint = f"; there are {', '.join(repr(folded[word]) for word in nearest)}" if nearest else ""
    more = ", ..." if len(folded) > len(nearest) and nearest else ""
    return ArgumentError(f"no {what} {text!r} of items in {name!r}{hint}{more}")
