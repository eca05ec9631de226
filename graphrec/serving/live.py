"""LiveRecommender: a fitted run that learns of new events and new items while it answers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch

from graphrec.errors import ArgumentError, StoreError, StrangerError, check_range
from graphrec.evaluation.ranking import best_of
from graphrec.histories import Histories
from graphrec.models.blend import Blend
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.serving.conflicts import item_of_another
from graphrec.serving.explain import Explanation, explain
from graphrec.serving.growth import can_grow, check_items, grow
from graphrec.serving.live_items import LiveItems
from graphrec.serving.live_users import Indices, KnownUser, LiveUsers
from graphrec.serving.questions import Question, drawn_by, in_rows
from graphrec.serving.recommender import Recommendation, RunRecommender
from graphrec.serving.store import GUEST, Event, NewItem, Store
from kg_loaders import RecGraph, UnknownIdError

PREPARED_AT_ONCE = 64  # users
EXPLAINED_AT_ONCE = 8
EXPLAINING_BYTES = 384 * 2**20
PREPARED_SHARE = 0.9  # of that room; the rest is for those whose past changes


class LiveRecommender:
    """A run's recommender that takes events and new items, and answers with them at once.

    A known user's past is the run's, then what they have liked since; what they dislike leaves the past and the lists.
    Somebody new is served under an id of their own as soon as they have liked something. An inductive model reads
    every new like; a model with a user table does not, so there likes and dislikes are left out of the lists and
    change nothing else, and somebody new is refused.

    Any number of threads may ask at once.

    Args:
        run: The fitted model with its graph.
        store: Where events and items are kept; without one there are none, and none are taken.

    New items in the store that the model cannot rank are left out, and so are events about items that are not in the
    catalogue; ``left_out`` and ``num_unplaced`` say so. They wait for a run that knows them.

    Example:
        >>> import tempfile
        >>> from graphrec.histories import Histories
        >>> from graphrec.models import EASE
        >>> from kg_loaders.synthetic import planted
        >>> graph = planted()
        >>> model = EASE.from_graph(graph)
        >>> _ = model.fit(Histories.from_interactions(graph.part("train"), graph.num_users))
        >>> with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/live.sqlite") as store:
        ...     live = LiveRecommender(RunRecommender(model, graph), store)
        ...     _ = live.add_events([Event("somebody new", graph.items.id_of(0))])
        ...     len(live.recommend(user_id="somebody new", k=3))
        3
    """

    def __init__(self, run: RunRecommender, store: Store | None = None) -> None:
        self.base = run
        self.store = store
        self.left_out: dict[str, str] = {}
        self.num_unplaced = 0
        self._users = LiveUsers(run)
        self._items = LiveItems.of(run)
        self._ahead: threading.Thread | None = None
        self._closed = threading.Event()
        self._changed = threading.Event()  # items have joined, or this is closed
        if store is not None:
            store.subscribe(self)
        self._warm(self._items)

    @classmethod
    def load(cls, run_dir: str | Path, store: Store | None = None) -> Self:
        """Load a finished run; see :meth:`RunRecommender.load`."""
        return cls(RunRecommender.load(run_dir), store)

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Make now what is kept of the data set's users, for as many as it is kept of, so that none of them waits.

        That is their vectors where scores are products, else their lists.

        Yields:
            How many users are done, and of how many.

        Example:
            >>> from graphrec.histories import Histories
            >>> from graphrec.models import EASE
            >>> from kg_loaders.synthetic import planted
            >>> graph = planted(num_users=100)
            >>> model = EASE.from_graph(graph)
            >>> _ = model.fit(Histories.from_interactions(graph.part("train"), graph.num_users))
            >>> list(LiveRecommender(RunRecommender(model, graph)).prepare())
            [(64, 100), (100, 100)]
        """
        live = self._items
        kept = live.user_lists if live.search_by_product is None else live.user_vectors
        users = list(islice(live.run.graph.users, kept.most))
        for start in range(0, len(users), PREPARED_AT_ONCE):
            some = users[start : start + PREPARED_AT_ONCE]
            with torch.no_grad():
                kept.of([self.question(user) for user in some])
            yield start + len(some), len(users)

    def prepare_explanations(self, num_bytes: int = EXPLAINING_BYTES) -> Iterator[tuple[int, int]]:
        """Make now what explanations to the data set's users need, whatever the item, for as many as there is room for.

        That is what a model that reads in order, alone or in a blend, makes of a history without each of its entries;
        of any other model nothing is worth it, and nothing is yielded. It is lost when items join, and a user who likes
        something waits for their own.

        Args:
            num_bytes: The room, for each model of a blend.

        Yields:
            How many users are done, and of how many.
        """
        run = self._items.run
        run.model.remember(num_bytes)
        users = list(run.graph.users)
        for done, user in enumerate(users, start=1):
            histories = self._histories(self.question(user))
            if self._items.run is not run:  # items have joined, and a past may hold some that this model does not know
                return
            with torch.no_grad():
                run.model.score_item(histories, 0)
                scores = run.model.score_without_each(histories, 0)
            remembered = run.model.remembered_bytes
            if scores is None or (not remembered and histories.items.numel() > 1):
                return
            full = remembered * (done + 1) > PREPARED_SHARE * num_bytes * done
            if full or done == len(users) or done % EXPLAINED_AT_ONCE == 0:
                yield done, done if full else len(users)
            if full:
                return

    def explain_ahead(self, told: Callable[[int, float], None]) -> None:
        """Do :meth:`prepare_explanations` in a thread, anew whenever items have joined, until :meth:`close`.

        Args:
            told: Called, by that thread, with the number of users and the seconds it took, each time it is done; with 0
                users where explanations need nothing.
        """

        def work() -> None:
            while not self._closed.is_set():
                self._changed.clear()
                items, begin, num_done = self._items, time.monotonic(), 0
                for done, _ in self.prepare_explanations():
                    num_done = done
                    if self._closed.is_set():
                        return
                if self._items is items:
                    told(num_done, time.monotonic() - begin)
                while not self._closed.is_set() and self._items is items:
                    self._changed.wait()
                    self._changed.clear()

        self._ahead = threading.Thread(target=work, name="graphrec-ahead", daemon=True)
        self._ahead.start()

    def close(self) -> None:
        """Hear of no more events, and explain nothing ahead; the store stays open for others."""
        if self.store is not None:
            self.store.unsubscribe(self)
        self._closed.set()
        self._changed.set()
        if self._ahead is not None:
            self._ahead.join()

    # What is there

    @property
    def graph(self) -> RecGraph:
        """The run's graph with the items that have joined."""
        return self._items.run.graph

    @property
    def num_items(self) -> int:
        """Number of items, new ones among them."""
        return self._items.run.graph.num_items

    def novelty(self, items: Sequence[int]) -> float:
        r"""Return the mean of :math:`-\log_2 (n_i / \sum n)` over items, in bits, as the metric of that name does.

        An item that joined counts as one that a single user took.
        """
        bits = self._items.bits
        return sum(bits[item] for item in items) / max(len(items), 1)

    def find(self, text: str) -> int:
        """Return the index of the item that an id or a whole title means, whatever the title's case.

        Raises:
            UnknownIdError: There is none.
            ArgumentError: Several items bear the title.
        """
        return self._items.find(text)

    def has_item(self, item_id: str) -> bool:
        """Whether an id is that of an item that can be ranked."""
        return item_id in self._items.index

    def search_items(self, text: str, limit: int = 10) -> list[int]:
        """Return items whose title or id holds ``text``: those that begin with it first, then the most taken."""
        return self._items.search(text, limit)

    def search_users(self, text: str, limit: int = 10) -> list[str]:
        """Return users of the data set and of the events whose id begins with ``text``, the shortest ids first."""
        return self._users.search(text, limit)

    def knows(self, user_id: str) -> bool:
        """Whether a user is in the data set or has sent an event."""
        return user_id in self._users

    def known(self, user_id: str) -> KnownUser:
        """Return what is known of a user now, all of it of one moment.

        Raises:
            UnknownIdError: There is no such user.
        """
        if not self.knows(user_id):
            raise UnknownIdError("there is no such user, neither in the data set nor in the events")
        return self._users.known(user_id)

    def past(self, user_id: str) -> Indices:
        """Return the items of a user's past, oldest first: the data set's, and what was liked since."""
        return self._users.past(user_id)

    # Questions and answers

    def question(
        self,
        user_id: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        exclude: Sequence[str] = (),
    ) -> Question:
        """Return what to ask for a user, or for a stranger's items (ids or whole titles, oldest first).

        Args:
            user_id: A user of the data set, or one who has sent events.
            history: A stranger's items.
            k: How many items to return.
            exclude: Ids or titles of items to leave out.

        Raises:
            ArgumentError: Neither or both are given, an item is given twice, or ``k`` is below 1.
            UnknownIdError: There is no such user or item.
            StrangerError: The model cannot serve somebody who is not in the data set.
        """
        if (user_id is None) == (history is None):
            raise ArgumentError("give either user_id or history")
        check_range("k", k, 1)
        left_out = [self.find(text) for text in exclude]
        if user_id is None:
            items = [self.find(text) for text in history or ()]
            if len(set(items)) < len(items):
                raise ArgumentError("history names an item twice")
            if not items:
                raise ArgumentError("history must name at least one item, got none")
            past, index = np.array(items, dtype=np.int64), None
            told = self._items.run.stranger(items).times
            times = None if told is None else told.numpy()
        else:
            known = self.known(user_id)
            index, past, times = known.index, known.past, known.times
            left_out += [*known.change.liked, *known.change.disliked]
        if index is None and not self.base.model.inductive:
            name = type(self.base.model).__name__
            raise StrangerError(f"{name} keeps a table of its users and cannot serve somebody who is not in it")
        return Question(past, times, np.array(left_out, dtype=np.int64), index, k)

    def recommend(
        self,
        user_id: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        exclude: Sequence[str] = (),
    ) -> list[Recommendation]:
        """Return the best ``k`` items, best first; see :meth:`question`."""
        return self.answer([self.question(user_id, history, k, exclude)])[0]

    def answer(self, questions: Sequence[Question]) -> list[list[Recommendation]]:
        """Answer several questions at once, with one product of user and item vectors where scores are products."""
        live = self._items
        run, graph = live.run, live.run.graph
        if not questions:
            return []
        with torch.no_grad():
            if live.search_by_product is None:
                lists = [(items.tolist(), scores.tolist()) for items, scores in live.user_lists.of(questions)]
            else:
                seen = in_rows([question.seen for question in questions], user_index=drawn_by(questions))
                k = max(question.k for question in questions)
                users = live.user_vectors.of(questions)
                items, values = best_of(run.model, live.search_by_product, users, k, seen, run.seed)
                lists = list(zip(items.tolist(), values.tolist(), strict=True))
        labels, ids = graph.item_labels, graph.entities.ids
        return [
            [
                Recommendation(rank, ids[item], labels[item], score, item)
                for rank, (item, score) in enumerate(zip(row[: q.k], scores[: q.k], strict=True), start=1)
                if item >= 0
            ]
            for q, (row, scores) in zip(questions, lists, strict=True)
        ]

    def explain(
        self, item: str, user_id: str | None = None, history: Sequence[str] | None = None, k: int = 5
    ) -> Explanation:
        """Explain the score of an item for a user or a stranger; see :func:`~graphrec.serving.explain.explain`."""
        histories = self._histories(self.question(user_id, history))
        return explain(self._items.run, histories, self.find(item), k)

    def similar(self, item: str, k: int = 10) -> list[Recommendation]:
        r"""Return the items most like one.

        For InductiveKGAT (of a blend, its first): the cosine of the vectors :math:`g` that items have as candidates.
        For other models: the scores of a stranger who took that item alone.

        Raises:
            UnknownIdError: There is no such item.
            StrangerError: The model has neither.
        """
        index = self.find(item)
        run = self._items.run
        model = run.model
        while isinstance(model, Blend):
            model = model.first
        if not isinstance(model, InductiveKGAT):
            return self.recommend(history=[item], k=k)
        check_range("k", k, 1)
        with torch.no_grad():
            _, g = model.cached("vectors", model.item_vectors)
            unit = model.cached("candidates", lambda: torch.nn.functional.normalize(g, dim=1))
            cosine = unit @ unit[index]
            cosine[index] = -torch.inf
            values, items = cosine.topk(min(k, max(run.graph.num_items - 1, 0)))
        return [
            Recommendation(rank, run.graph.items.id_of(other), run.graph.item_labels[other], value, other)
            for rank, (other, value) in enumerate(zip(items.tolist(), values.tolist(), strict=True), start=1)
        ]

    # Events and items

    def check_events(self, events: Sequence[Event]) -> None:
        """Make sure that events can be taken.

        Raises:
            UnknownIdError: An item is unknown.
            ArgumentError: A user would have too many likes and dislikes.
        """
        index = self._items.index
        for event in events:
            if event.item_id not in index:
                raise UnknownIdError(f"there is no item {event.item_id!r}")
            self._users.check_room(event.user_id, index[event.item_id], event.kind)

    def add_events(self, events: Iterable[Event]) -> int:
        """Keep events, and return how many were new: when this returns they are durable, and answers heed them.

        Raises:
            UnknownIdError: An item is unknown; none of the events is kept then.
            ConflictError: An ``event_id`` is that of another event; none of the events is kept then.
            StoreError: There is no store, or it cannot be written.
        """
        events = tuple(events)
        self.check_events(events)
        return self._writable().add_events(events).result()

    def add_items(self, items: Iterable[NewItem]) -> int:
        """Let items join the catalogue, durably, and return how many were new. An item sent again is no error.

        The model grows as a whole: seconds where a graph has millions of triples, so add many items at once.

        Raises:
            ArgumentError: An item cannot join; see :func:`~graphrec.serving.growth.check_items`. None is kept then.
            StoreError: There is no store, or it cannot be written.
        """
        items = self.check_new(tuple(items))
        return self._writable().add_items(items).result()

    def check_new(self, items: Sequence[NewItem]) -> tuple[NewItem, ...]:
        """Return those of the items that have not joined yet, after making sure that they can.

        Raises:
            ArgumentError: One cannot join.
        """
        joined = set(self._items.joined)
        new = tuple(item for item in dict.fromkeys(items) if item not in joined)
        # Against the grown graph, for their ids; against the base model, for their facts.
        taken = {item.item_id for item in self._items.joined}
        for item in new:
            if item.item_id in taken:
                raise item_of_another(item.item_id)
            if item.item_id in self.left_out:  # other facts would not be kept beside those of the store
                reason = self.left_out[item.item_id]
                raise ArgumentError(
                    f"item_id {item.item_id!r} is in the store already, and this run cannot rank it: {reason}"
                )
        check_items(self.base.model, self.base.graph, new)
        return new

    @property
    def takes_items(self) -> bool:
        """Whether the model can rank items that it was not trained with."""
        return can_grow(self.base.model)

    def new_user_id(self) -> str:
        """Return an id for somebody new, which nobody has and nobody can guess."""
        return f"{GUEST}{uuid.uuid4().hex}"

    def on_items(self, items: Sequence[NewItem]) -> None:
        """Take durable items; called by the store."""
        new = []
        for item in items:
            # A run trained since may know an item from its data: then it needs to join no more.
            if item.item_id in self.base.graph.items:
                continue
            try:
                check_items(self.base.model, self.base.graph, [item])
            except ArgumentError as error:
                self.left_out[item.item_id] = str(error)
            else:
                new.append(item)
        if not new:
            return
        joined = (*self._items.joined, *new)
        model, graph = grow(self.base.model, self.base.graph, joined)
        grown = self._items.grown(RunRecommender(model, graph, self.base.batch_size, self.base.seed), joined)
        self._warm(grown)
        self._items = grown
        self._changed.set()

    def on_events(self, events: Sequence[Event]) -> None:
        """Take durable events; called by the store."""
        index = self._items.index
        for event in events:
            item = index.get(event.item_id)
            if item is None:
                self.num_unplaced += 1
                continue
            self._users.take(event.user_id, item, event.kind)

    @staticmethod
    def _histories(question: Question) -> Histories:
        """Return what a model is told of who asks why."""
        known = None if question.user_index is None else [question.user_index]
        return in_rows([question.history], [question.times], known)

    def _writable(self) -> Store:
        if self.store is None:
            raise StoreError("there is no store: this recommender is read-only")
        return self.store

    def _warm(self, items: LiveItems) -> None:
        """Compute now what the first question would wait for."""
        items.warm()
        run = items.run
        with torch.no_grad():
            if run.graph.num_items and run.graph.num_users:
                first = items.anybody()
                run.model.score(first)
                explain(run, first, 0)
