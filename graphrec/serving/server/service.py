"""Service: the models that are served, their store, and how one takes another's place."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from graphrec.errors import ArgumentError, RunError, StrangerError, check_choice
from graphrec.serving.interleaving import TEAMS, team_draft
from graphrec.serving.live import LiveRecommender
from graphrec.serving.online import JOINED
from graphrec.serving.questions import Question
from graphrec.serving.recommender import Recommendation
from graphrec.serving.server.schemas import ModelOut, RecommendRequest
from graphrec.serving.store import Event, ShownList, Store
from kg_loaders import UnknownIdError

MOST_TOGETHER = 64  # questions answered with one product
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Shown:
    """A list as it is answered.

    Args:
        model: Name of the model, or of both that made it.
        label: What the list is kept under; see :attr:`Served.label`.
        items: The list.
        novelty: Its mean novelty, in bits.
        num_past: Items of the past that it rests on.
        list_id: What clicks name; ``None`` where lists are not kept.
    """

    model: str
    label: str
    items: list[Recommendation]
    novelty: float
    num_past: int
    list_id: str | None = None


class Batcher(Generic[Ask, Answer]):
    """Answers together what is asked while an answer is being computed.

    Nobody waits for others to come: a lone question is answered at once.

    Args:
        answer: Answers several questions; runs in ``executor``.
        executor: Threads of their own, so that the event loop goes on.
    """

    def __init__(self, answer: Callable[[Sequence[Ask]], Sequence[Answer]], executor: ThreadPoolExecutor) -> None:
        self._answer = answer
        self._executor = executor
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Ask) -> Answer:
        """Return the answer to one question."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            # Who has left, by a timeout or a closed connection, is not worked for.
            batch = [pair for pair in self._waiting[:MOST_TOGETHER] if not pair[1].done()]
            del self._waiting[:MOST_TOGETHER]
            await self._settle(batch)

    async def _settle(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        """Answer a batch; where that fails each question by itself, so that others do not fail for the guilty one."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._executor, self._answer, [ask for ask, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for pair in batch:
                    await self._settle([pair])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


class Served:
    """One model as it is served, with what its lists have covered.

    Args:
        name: What requests call it.
        run: Name of its run folder.
        live: It.
        executor: Where answers are computed.
    """

    def __init__(self, name: str, run: str, live: LiveRecommender, executor: ThreadPoolExecutor) -> None:
        self.name = name
        self.run = run
        self.live = live
        self._batcher = Batcher(live.answer, executor)
        self._shown = np.zeros(live.num_items, dtype=np.bool_)
        self._lists = 0
        self._novelty = 0.0

    async def answer(self, question: Question) -> tuple[list[Recommendation], float]:
        """Return a list and its novelty."""
        found = await self._batcher.ask(question)
        indices = [item.item_index for item in found]
        novelty = self.live.novelty(indices)
        if self.live.num_items > len(self._shown):
            self._shown = np.pad(self._shown, (0, self.live.num_items - len(self._shown)))
        self._shown[indices] = True
        self._lists += 1
        self._novelty += (novelty - self._novelty) / self._lists
        return found, novelty

    @property
    def label(self) -> str:
        """What its lists are kept under: with the run where that is called otherwise."""
        return self.name if self.run == self.name else f"{self.name} ({self.run})"

    def describe(self) -> ModelOut:
        """Return what people ask of a model."""
        live = self.live
        return ModelOut(
            name=self.name,
            run=self.run,
            kind=type(live.base.model).__name__,
            data=live.graph.name,
            num_users=live.graph.num_users,
            num_items=live.num_items,
            num_joined=live.num_items - live.base.graph.num_items,
            left_out=len(live.left_out),
            takes_strangers=live.base.model.inductive,
            takes_items=live.takes_items,
            lists=self._lists,
            coverage=float(self._shown.mean()) if len(self._shown) else 0.0,
            novelty=self._novelty,
        )


class Service:
    """What the routes work with.

    Args:
        runs: Run folders by the name that requests use; the first is the default.
        store: Where events and items are kept; ``None`` serves read-only.
        threads: Threads that compute answers.
        record: Keep the lists that name no model, for :mod:`graphrec.serving.online`.
        interleave: Let the two models make these lists together, see
            :func:`~graphrec.serving.interleaving.team_draft`, and keep them. Where one of them does not know the user
            or an item, the other makes the list alone.
        prepare: Called with each model and its name before it answers anything, also when a run is loaded later.

    Raises:
        RunError: A run cannot be served.
        ArgumentError: A name is no name, the runs are of different data sets, there is no store to keep lists in, or
            there are not two models to interleave.
    """

    def __init__(
        self,
        runs: dict[str, Path],
        store: Store | None,
        threads: int = 1,
        record: bool = False,
        interleave: bool = False,
        prepare: Callable[[str, LiveRecommender], None] | None = None,
    ) -> None:
        if (record or interleave) and store is None:
            raise ArgumentError("a read-only service keeps no lists")
        if interleave and len(runs) != 2:
            raise ArgumentError(f"two runs can be interleaved, got {len(runs)}")
        for name in runs:
            if not RUN_NAME.fullmatch(name):
                raise ArgumentError(f"a served name must be letters, digits, '.', '_' or '-', got {name!r}")
        self.store = store
        self.records = record or interleave
        self.interleaves = interleave
        self.lists_lost = 0  # that the store could not keep
        self.runs = dict(runs)
        self._prepare = prepare
        self._coin = random.SystemRandom()
        self.answering = ThreadPoolExecutor(threads, thread_name_prefix="graphrec-answer")
        self.working = ThreadPoolExecutor(2, thread_name_prefix="graphrec-work")  # explanations, searches, reloads
        self._reloading = asyncio.Lock()
        self.guests = asyncio.Lock()  # of a guest's event that is sent twice the second must find the first
        self.models: dict[str, Served] = {}
        for name, path in runs.items():
            self.models[name] = self._serve(name, path)
        names = {model.live.graph.name for model in self.models.values()}
        if len(names) > 1:
            raise ArgumentError(f"all served runs must be of one data set, got {', '.join(sorted(names))}")

    @property
    def read_only(self) -> bool:
        """Whether events and items are refused."""
        return self.store is None

    def model(self, name: str | None) -> Served:
        """Return a model by name, the first when none is given.

        Raises:
            UnknownIdError: There is no such model.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise UnknownIdError(f"there is no model {name!r}; served are {', '.join(self.models)}")
        return self.models[name]

    @property
    def widest(self) -> Served:
        """The model with the most items: one that takes none stands beside others that do."""
        return max(self.models.values(), key=lambda served: served.live.num_items)

    def check_events(self, events: Sequence[Event]) -> None:
        """Make sure that events can be taken, each by every model that has its item; others pass over it.

        Raises:
            UnknownIdError: No model has an item.
            ArgumentError: A user would have too many likes and dislikes.
        """
        for event in events:
            lives = [served.live for served in self.models.values() if served.live.has_item(event.item_id)]
            if not lives:
                raise UnknownIdError(f"there is no item {event.item_id!r}")
            for live in lives:
                live.check_events([event])

    async def recommend(self, request: RecommendRequest) -> Shown:
        """Make a list: by the model that is named, else by the first, or by both where they are interleaved."""
        if request.model is None and self.interleaves:
            shown, teams = await self._interleaved(request)
        else:
            shown, teams = await self._answered(self.model(request.model), request), ""
        if request.model is not None or not self.records or self.store is None:
            return shown
        shown = replace(shown, list_id=secrets.token_urlsafe(12))
        assert shown.list_id is not None
        ids = tuple(item.item_id for item in shown.items)
        # Nobody waits for the disk, but a click on the list is written after it.
        written = self.store.add_lists([ShownList(shown.list_id, request.user_id, shown.label, ids, teams)])
        written.add_done_callback(self._note_lost)
        return shown

    async def _answered(self, served: Served, request: RecommendRequest) -> Shown:
        question = served.live.question(request.user_id, request.history, request.k, request.exclude)
        found, novelty = await served.answer(question)
        return Shown(served.name, served.label, found, novelty, len(question.history))

    async def _interleaved(self, request: RecommendRequest) -> tuple[Shown, str]:
        models = list(self.models.values())
        asked = (self._answered(served, request) for served in models)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        both = [answer for answer in answers if isinstance(answer, Shown)]
        for error in answers:
            if isinstance(error, BaseException) and not (both and isinstance(error, StrangerError | UnknownIdError)):
                raise error
        if len(both) == 1:
            return both[0], ""
        by_id = [{item.item_id: item for item in shown.items} for shown in both]
        draft = team_draft(list(by_id[0]), list(by_id[1]), request.k, self._coin)
        items, novelty = [], 0.0
        for rank, (id_, team) in enumerate(zip(draft.items, draft.teams, strict=True), start=1):
            side = 0 if team == TEAMS[0] or id_ not in by_id[1] else 1
            item = by_id[side][id_]
            items.append(replace(item, rank=rank))
            novelty += (models[side].live.novelty([item.item_index]) - novelty) / rank
        name, label = JOINED.join(shown.model for shown in both), JOINED.join(shown.label for shown in both)
        return Shown(name, label, items, novelty, both[0].num_past), draft.teams

    def _note_lost(self, done: Future[int]) -> None:
        if done.exception() is not None:
            self.lists_lost += 1

    def click(self, list_id: str, item_id: str) -> tuple[int, str]:
        """Return the place of an item in a list that was shown, and its team.

        Raises:
            UnknownIdError: There is no such list, or the item was not on it.
        """
        found = None if self.store is None else self.store.find_list(list_id)
        if found is None:
            raise UnknownIdError(f"there is no list {list_id!r}")
        items, teams = found
        if item_id not in items:
            raise UnknownIdError(f"item {item_id!r} was not on list {list_id!r}")
        place = items.index(item_id)
        return place + 1, teams[place : place + 1]

    async def reload(self, name: str | None, run: str | None = None) -> Served:
        """Load a run and let it take the place of a model; questions under way are answered by the old one.

        Args:
            name: The model; the first when not given.
            run: Name of a folder beside the one that the service was started with; when not given that one again, or
                what it leads to by now where it is a link.

        Raises:
            UnknownIdError: There is no such model.
            RunError: The run cannot be served; the old one goes on.
            ArgumentError: ``run`` is no plain name, or the run is of another data set.
        """
        async with self._reloading:
            old = self.model(name)
            path = self.runs[old.name]
            if run is not None:
                if not RUN_NAME.fullmatch(run) or ".." in run:
                    raise ArgumentError("run must be the plain name of a folder: letters, digits, '.', '_' or '-'")
                path = path.parent / run
            loop = asyncio.get_running_loop()
            new = await loop.run_in_executor(self.working, self._serve, old.name, path)
            if new.live.graph.name != old.live.graph.name:
                new.live.close()
                check_choice("data set of the run", new.live.graph.name, [old.live.graph.name])
            self.models[old.name] = new
            await loop.run_in_executor(self.working, old.live.close)
            return new

    def close(self) -> None:
        """Finish all work and close the store."""
        self.answering.shutdown()
        self.working.shutdown()
        for served in self.models.values():
            served.live.close()
        if self.store is not None:
            self.store.close()

    def _serve(self, name: str, path: Path) -> Served:
        path = path.resolve()  # a link leads to one run today and to another tomorrow; lists are kept by the run
        try:
            live = LiveRecommender.load(path, self.store)
        except RunError as error:
            # The path is the operator's affair, not that of whoever asks.
            raise RunError(str(error).replace(str(path.parent) + "/", "")) from error
        if self._prepare is not None:
            try:
                self._prepare(name, live)
            except BaseException:
                live.close()  # or it would hear of events, and be kept, as long as the store is open
                raise
        return Served(name, path.name, live, self.answering)
