"""Service: the models that are served, their store, and how one takes another's place."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from graphrec.errors import ArgumentError, RunError, check_choice
from graphrec.serving.live import LiveRecommender, Question
from graphrec.serving.recommender import Recommendation
from graphrec.serving.server.schemas import ModelOut
from graphrec.serving.store import Store
from kg_loaders import UnknownIdError

MOST_TOGETHER = 64  # questions answered with one product
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


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
        loop = asyncio.get_running_loop()
        while self._waiting:
            # Who has left, by a timeout or a closed connection, is not worked for.
            batch = [pair for pair in self._waiting[:MOST_TOGETHER] if not pair[1].done()]
            del self._waiting[:MOST_TOGETHER]
            try:
                answers = await loop.run_in_executor(self._executor, self._answer, [ask for ask, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
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

    Raises:
        RunError: A run cannot be served.
        ArgumentError: A name is no name, or the runs are of different data sets.
    """

    def __init__(self, runs: dict[str, Path], store: Store | None, threads: int = 1) -> None:
        for name in runs:
            if not RUN_NAME.fullmatch(name):
                raise ArgumentError(f"a served name must be letters, digits, '.', '_' or '-', got {name!r}")
        self.store = store
        self.runs = dict(runs)
        self.answering = ThreadPoolExecutor(threads, thread_name_prefix="graphrec-answer")
        self.working = ThreadPoolExecutor(2, thread_name_prefix="graphrec-work")  # explanations, searches, reloads
        self._reloading = asyncio.Lock()
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

    async def reload(self, name: str | None, run: str | None = None) -> Served:
        """Load a run and let it take the place of a model; questions under way are answered by the old one.

        Args:
            name: The model; the first when not given.
            run: Name of a folder beside the model's present one; that one again when not given.

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
            self.runs[old.name] = path
            await loop.run_in_executor(self.working, old.live.close)
            return new

    def close(self) -> None:
        """Finish all work and close the store."""
        self.answering.shutdown()
        self.working.shutdown()
        if self.store is not None:
            self.store.close()

    def _serve(self, name: str, path: Path) -> Served:
        try:
            live = LiveRecommender.load(path, self.store)
        except RunError as error:
            # The path is the operator's affair, not that of whoever asks.
            raise RunError(str(error).replace(str(path.parent) + "/", "")) from error
        return Served(name, path.name, live, self.answering)
