"""RunRecommender: from a run folder to ranked items, in original ids on both sides."""

from __future__ import annotations

import difflib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, RunError, check_range
from graphrec.evaluation.ranking import best, rank_all, score_batches
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.serving.filters import Filters, diversify, pool_size, similarity_of
from graphrec.serving.towers import Towers, item_vectors_of, towers_of
from kg_loaders import RecGraph, Vocabulary

if TYPE_CHECKING:
    import pandas as pd

    from graphrec.serving.index import ItemIndex

NUM_SUGGESTIONS = 5


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Args:
        rank: From 1.
        item_id: Its original id.
        title: Its title, or its id where no title is known.
        score: The model's score; comparable within one list only.
        item_index: Its index in the graph, for :func:`graphrec.serving.explain.explain`.
    """

    rank: int
    item_id: str
    title: str
    score: float
    item_index: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


class RunRecommender:
    """Answers for known users and for strangers, with a fitted model and the graph it was fitted on.

    A known user's past is train and validation together, as in the final fit; items of the past are never
    recommended, items of the test part may be.

    Args:
        model: A fitted model.
        graph: The graph it was fitted on.
        batch_size: Users ranked at once; when not given, chosen by :func:`~graphrec.evaluation.ranking.rank_all`.
        seed: Seed that breaks ties among equal scores.
        index: The model's items, searched for one user instead of scoring all of them; rules still see all scores.

    Raises:
        ArgumentError: ``batch_size`` is below 1, or the index is of another catalogue or model.

    Example:
        >>> from graphrec.models import Popularity
        >>> from kg_loaders.synthetic import planted
        >>> graph = planted()
        >>> model = Popularity.from_graph(graph)
        >>> _ = model.fit(Histories.from_interactions(graph.part("train"), graph.num_users))
        >>> len(RunRecommender(model, graph).recommend(user_id=graph.users.id_of(0), k=3))
        3
    """

    def __init__(
        self,
        model: Recommender,
        graph: RecGraph,
        batch_size: int | None = None,
        seed: int = 0,
        index: ItemIndex | None = None,
    ) -> None:
        if batch_size is not None:
            check_range("batch_size", batch_size, 1)
        if index is not None and index.info.num_items != graph.num_items:
            raise ArgumentError(f"the index holds {index.info.num_items} items, the graph {graph.num_items}")
        self.model = model.eval()
        self.graph = graph
        self.batch_size = batch_size
        self.seed = seed
        self.index = index

    @classmethod
    def load(cls, run_dir: str | Path) -> Self:
        """Load a finished run with its graph, which is read again from the data set and checked, and its index.

        Raises:
            RunError: The run is missing, unfinished or damaged, the data set has changed since, or the index is of
                other weights.
        """
        from graphrec.experiment.data import load_graph, prepare
        from graphrec.experiment.folder import WEIGHTS, RunFolder
        from graphrec.serving.index import POINTER, ItemIndex

        folder = RunFolder.open(run_dir)
        graph = prepare(load_graph(folder.config.data), folder.config)
        model = folder.load_model(graph)
        index = None
        if (folder.path / POINTER).is_file():
            index = ItemIndex.load(folder.path)
            if index.info.weights != folder.info.files[WEIGHTS]:
                raise RunError(f"{folder.path}: its index is of other weights; graphrec index makes it again")
        return cls(model, graph, seed=folder.config.seed, index=index)

    @cached_property
    def known(self) -> Histories:
        """The past of every user of the graph."""
        return Histories.from_interactions(self.graph.part("train", "valid"), self.graph.num_users)

    def histories(self, user_id: str | None = None, history: Sequence[str] | None = None) -> Histories:
        """Return the past of one known user, or of a stranger given by item ids or titles.

        Raises:
            ArgumentError: Neither or both are given, an item is unknown, ambiguous or given twice.
            UnknownIdError: There is no such user.
        """
        if (user_id is None) == (history is None):
            raise ArgumentError("give either user_id or history")
        if user_id is not None:
            return self.known.select(torch.tensor([self.graph.users.index_of(user_id)]))
        items: dict[int, str] = {}
        for text in history or ():
            item = self.find_item(text)
            if item in items:
                raise ArgumentError(f"history names {self._describe(item)} twice: {items[item]!r} and {text!r}")
            items[item] = text
        if not items:
            raise ArgumentError("history must name at least one item, got none")
        return self.stranger(list(items))

    def stranger(self, items: Sequence[int]) -> Histories:
        """Return the history of somebody who took these items, oldest first.

        Nobody says when; where the data have times, and a model may read them, all of it counts as taken just now.
        """
        now = (
            None
            if self.graph.interactions.time is None
            else torch.full((len(items),), time.time(), dtype=torch.float64)
        )
        return replace(Histories.from_lists([items]), times=now)

    def find_item(self, text: str) -> int:
        """Return the index of the item that an id or a title means.

        Tried in this order: an exact id or an exact title, a title whatever its case, a part of a single title.

        Raises:
            ArgumentError: No item fits, or several do; the message offers the nearest.
        """
        exact = list(self._by_title.get(text, ()))
        if text in self.graph.items:
            exact = list(dict.fromkeys([self.graph.items.index_of(text), *exact]))
        folded = text.casefold().strip()
        for matches in (exact, self._by_folded_title.get(folded, [])):
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise self._ambiguous(text, matches)
        inside = [item for title, items in self._by_folded_title.items() if folded in title for item in items]
        if len(inside) == 1 and folded:
            return inside[0]
        if inside and folded:
            raise self._ambiguous(text, inside)
        nearest = difflib.get_close_matches(folded, self._by_folded_title, n=NUM_SUGGESTIONS)
        items = [self._by_folded_title[title][0] for title in nearest]
        hint = f"; nearest: {', '.join(map(self._describe, items))}" if items else ""
        raise ArgumentError(f"no item has the id or title {text!r}{hint}")

    def recommend(
        self,
        user_id: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        filters: Filters | None = None,
    ) -> list[Recommendation]:
        """Return the best ``k`` items for a known user or a stranger, best first; fewer if no more are left.

        Args:
            user_id: A user of the graph.
            history: Item ids or titles of a stranger, oldest first.
            k: How many.
            filters: What else decides: items wanted or not, attributes, rules, diversity.

        Raises:
            ArgumentError: See :meth:`histories` and :class:`Filters`; or ``k`` is below 1.
            StrangerError: The model cannot serve strangers.
        """
        return self.recommend_to(self.histories(user_id, history), k, filters)

    def recommend_to(self, histories: Histories, k: int = 10, filters: Filters | None = None) -> list[Recommendation]:
        """Return the best ``k`` items for the single row of ``histories``, with filters as in :meth:`recommend`."""
        if self.index is not None and not (filters and filters.rules):
            items, scores = self._search(self.index, histories, k, filters or Filters())
        elif filters is None:
            _, items, scores = next(iter(self._rank(histories, k)))
        else:
            items, scores = self._rank_filtered(histories, k, filters)
        found = zip(items[0].tolist(), scores[0].tolist(), strict=True)
        return [
            Recommendation(rank, self.graph.items.id_of(item), self.graph.item_labels[item], score, item)
            for rank, (item, score) in enumerate(((item, score) for item, score in found if item >= 0), start=1)
        ]

    def recommend_all(self, k: int = 20) -> pd.DataFrame:
        """Return the best ``k`` items of every user: columns user_id, item_id, rank, score.

        Ids are int64 where all of them are canonical integers, else text.
        """
        import pandas as pd

        return pd.concat(list(self.batches(k)), ignore_index=True)

    def batches(self, k: int) -> Iterator[pd.DataFrame]:
        """Yield :meth:`recommend_all` in parts, so that any number of users fits in memory."""
        import pandas as pd

        users, items = _id_array(self.graph.users), _id_array(self.graph.items)
        for rows, top, scores in self._rank(self.known, k):
            left = (top >= 0).numpy()  # [batch_size, k]
            rank = np.broadcast_to(np.arange(1, top.shape[1] + 1), top.shape)[left]
            who = np.broadcast_to(rows.numpy()[:, None], top.shape)[left]
            yield pd.DataFrame(
                {
                    "user_id": users[who],
                    "item_id": items[top.numpy()[left]],
                    "rank": rank,
                    "score": scores.numpy()[left],
                }
            )

    def _rank(self, histories: Histories, k: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield rows, their best items (-1 where none is left) and scores, what was seen left out."""
        return rank_all(self.model, histories, k, histories, seed=self.seed, batch_size=self.batch_size)

    def _rank_filtered(self, histories: Histories, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return the items of one row and their scores, each ``[1, k]``, as :meth:`_rank` does."""
        check_range("k", k, 1)
        allowed = filters.allowed(self.graph, self.find_item)
        _, batch, scores = next(iter(score_batches(self.model, histories, None, self.batch_size)))
        scores = scores.cpu().masked_fill(~allowed, -torch.inf)
        scores[0, batch.items.cpu()] = -torch.inf
        scores = filters.apply_rules(scores[0]).unsqueeze(0)
        wanted = pool_size(k) if filters.diversity else k
        items, values = best(self.model, scores, wanted, batch.to("cpu"), self.seed)
        return self._diversified(items, values, k, filters)

    def _search(self, index: ItemIndex, histories: Histories, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Do as :meth:`_rank_filtered`, with the index."""
        allowed = None
        if filters.exclude or filters.only is not None or filters.where:
            allowed = filters.allowed(self.graph, self.find_item)
        users = self._towers.user_vectors(histories)
        items, values = index.search(users, pool_size(k) if filters.diversity else k, allowed, histories)
        return self._diversified(items, values, k, filters)

    @cached_property
    def _towers(self) -> Towers:
        return towers_of(self.model)

    def _diversified(self, items: Tensor, values: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        if not filters.diversity:
            return items, values
        there = items[0] >= 0
        items, values = items[:, there], values[:, there]
        if items.numel():
            alike = similarity_of(items[0], item_vectors_of(self.model), self.graph)
            chosen = diversify(values[0], alike.cpu(), k, filters.diversity)
            items, values = items[:, chosen], values[:, chosen]
        return items, values

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for item, title in enumerate(self.graph.item_labels):
            found[title].append(item)
        return dict(found)

    @cached_property
    def _by_folded_title(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for title, items in self._by_title.items():
            found[title.casefold().strip()].extend(items)
        return dict(found)

    def _describe(self, item: int) -> str:
        id_, title = self.graph.items.id_of(item), self.graph.item_labels[item]
        return repr(id_) if title == id_ else f"{title!r} (id {id_})"

    def _ambiguous(self, text: str, items: Sequence[int]) -> ArgumentError:
        shown = ", ".join(map(self._describe, items[:NUM_SUGGESTIONS]))
        more = f" and {len(items) - NUM_SUGGESTIONS} more" if len(items) > NUM_SUGGESTIONS else ""
        return ArgumentError(f"{text!r} fits {len(items)} items: {shown}{more}; give the id of one")


def _id_array(vocabulary: Vocabulary) -> NDArray[Any]:
    return np.asarray(vocabulary.ids, dtype=np.int64 if vocabulary.is_integer else object)
