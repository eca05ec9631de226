"""LiveItems: the items that a live run ranks, those that have joined among them, found by id or title."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.errors import ArgumentError
from graphrec.evaluation.product import ProductSearch
from graphrec.histories import Histories
from graphrec.serving.questions import UserLists, UserVectors
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import NewItem
from kg_loaders import UnknownIdError


@dataclass(frozen=True, eq=False)
class LiveItems:
    """A run, grown by the items that have joined; replaced as a whole, so that no answer mixes two.

    Args:
        run: The model and the graph with all items.
        joined: Those that have joined.
        taken: How often each of the other items was taken in the run's data, ``[num_items - len(joined)]``.
    """

    run: RunRecommender
    joined: tuple[NewItem, ...]
    taken: NDArray[np.int64]

    @classmethod
    def of(cls, run: RunRecommender) -> Self:
        """Return the items of a run that none has joined."""
        return cls(run, (), np.bincount(run.known.items.numpy(), minlength=run.graph.num_items))

    def grown(self, run: RunRecommender, joined: tuple[NewItem, ...]) -> Self:
        """Return the items of the same run, grown by all that have joined."""
        return replace(self, run=run, joined=joined)

    def anybody(self) -> Histories:
        """Return a history that every model can read, and whose user is in every table."""
        return replace(self.run.stranger([0]), user_index=torch.tensor([0]))

    @cached_property
    def search_by_product(self) -> ProductSearch | None:
        """Finds the best items without all scores; ``None`` where the model's score is no product."""
        graph = self.run.graph
        if not graph.num_items or not graph.num_users:
            return None
        return ProductSearch.of(self.run.model, self.anybody())

    @cached_property
    def user_vectors(self) -> UserVectors:
        """The vectors that :attr:`search_by_product` is asked with."""
        return UserVectors(self.run.model)

    @cached_property
    def user_lists(self) -> UserLists:
        """The lists of a model whose score is no product."""
        return UserLists(self.run.model, self.run.seed)

    @cached_property
    def index(self) -> dict[str, int]:
        """Items by id."""
        return {id_: item for item, id_ in enumerate(self.run.graph.items)}

    @cached_property
    def folded_titles(self) -> list[str]:
        """The title of every item, its case folded."""
        return [label.casefold() for label in self.run.graph.item_labels]

    @cached_property
    def by_title(self) -> dict[str, int | None]:
        """Items by folded title; ``None`` where several bear it."""
        found: dict[str, int | None] = {}
        for item, title in enumerate(self.folded_titles):
            found[title] = None if title in found else item
        return found

    @cached_property
    def bits(self) -> list[float]:
        r""":math:`-\log_2 (n_i / \sum n)` of every item; one that joined counts as if a single user had taken it."""
        counts = np.ones(self.run.graph.num_items)
        counts[: len(self.taken)] = self.taken.clip(min=1)
        bits: list[float] = (-np.log2(counts / max(self.taken.sum(), 1))).tolist()
        return bits

    def warm(self) -> None:
        """Make now what the first question would wait for."""
        _ = self.index, self.by_title, self.bits, self.search_by_product, self.user_vectors, self.user_lists
        if self.search_by_product is not None:
            _ = self.search_by_product.packed

    def find(self, text: str) -> int:
        """Return the index of the item that an id or a whole title means, whatever the title's case.

        Raises:
            UnknownIdError: There is none.
            ArgumentError: Several items bear the title.
        """
        item = self.index.get(text)
        if item is None:
            folded = text.casefold().strip()
            if folded not in self.by_title:
                raise UnknownIdError(f"no item has the id or title {text!r}")
            item = self.by_title[folded]
            if item is None:
                raise ArgumentError(f"several items have the title {text!r}; give the id of one")
        return item

    def search(self, text: str, limit: int) -> list[int]:
        """Return items whose title or id holds ``text``: those that begin with it first, then the most taken."""
        folded = text.casefold().strip()
        found = [item for item, title in enumerate(self.folded_titles) if folded in title]
        exact = self.index.get(text.strip())

        def place(item: int) -> tuple[bool, bool, float, int]:
            return item != exact, not self.folded_titles[item].startswith(folded), self.bits[item], item

        return heapq.nsmallest(limit, found if exact is None else {*found, exact}, key=place)
