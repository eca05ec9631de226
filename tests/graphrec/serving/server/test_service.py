"""What the routes work with, asked without HTTP where that shows more."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cases.busy_changes import BusyChanges
from fastapi.testclient import TestClient

from graphrec.errors import ArgumentError
from graphrec.serving.live_users import Change
from graphrec.serving.questions import Question
from graphrec.serving.recommender import Recommendation
from graphrec.serving.server.app import create_app
from graphrec.serving.server.schemas import RecommendRequest
from graphrec.serving.server.service import Batcher, Service
from graphrec.serving.store import Fact, NewItem, Store


def test_of_a_batch_that_fails_only_the_guilty_question_does() -> None:
    batches = []

    def answer(numbers: Sequence[int]) -> list[int]:
        batches.append(list(numbers))
        if 2 in numbers:
            raise ArgumentError("2 is no good")
        return [10 * number for number in numbers]

    async def ask_together(executor: ThreadPoolExecutor) -> list[int | BaseException]:
        batcher = Batcher(answer, executor)
        return await asyncio.gather(*(batcher.ask(number) for number in (1, 2, 3)), return_exceptions=True)

    with ThreadPoolExecutor(1) as executor:
        first, guilty, last = asyncio.run(ask_together(executor))
    assert (first, last) == (10, 30)
    with pytest.raises(ArgumentError, match="2 is no good"):
        raise guilty  # type: ignore[misc]
    assert batches == [[1, 2, 3], [1], [2], [3]]


def test_a_history_is_of_one_moment_whatever_its_user_likes_meanwhile(runs: tuple[Path, Path]) -> None:
    service = Service({"ease": runs[1]}, None)
    user = service.model(None).live.graph.users.id_of(3)
    service.model(None).live._users._changes = BusyChanges({user: Change()})
    client = TestClient(create_app(service))
    for turn in range(3):
        told = client.post("/history", json={"user_id": user}).json()
        assert len(told["liked"]) == turn
        assert set(told["liked"]) <= {item["item_id"] for item in told["items"]}
    service.close()


def test_a_report_names_runs_whose_folders_hold_a_plus(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(runs[1], tmp_path / "2026-11-30+kg")
    (tmp_path / "current").symlink_to("2026-11-30+kg")
    service = Service({"current": tmp_path / "current", "ease": runs[1]}, Store(tmp_path / "s"), interleave=True)
    client = TestClient(create_app(service))
    user = service.model(None).live.graph.users.id_of(3)
    assert client.post("/recommend", json={"user_id": user, "k": 3}).json()["model"] == "current+ease"
    (preference,) = client.get("/report").json()["preferences"]
    assert (preference["first"], preference["second"]) == ("current (2026-11-30+kg)", "ease")
    service.close()


def test_a_list_is_kept_under_the_run_that_made_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(runs[1], tmp_path / name)
    store = Store(tmp_path / "s")
    service = Service({"one": tmp_path / "one"}, store, record=True)
    old = service.model(None)

    class ReplacedWhileItAnswers:
        label = old.label
        name = old.name
        live = old.live

        async def answer(self, question: Question) -> tuple[list[Recommendation], float]:
            found = await old.answer(question)
            await service.reload(None, "two")
            return found

    service.models["one"] = ReplacedWhileItAnswers()  # type: ignore[assignment]
    asyncio.run(service.recommend(RecommendRequest(user_id=old.live.graph.users.id_of(3), k=3)))
    assert service.model(None).label == "one (two)"
    assert store.select("SELECT model FROM lists") == [("one",)]
    service.close()


def test_of_two_items_of_one_id_that_come_at_once_the_second_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "s")
    service = Service({"mine": runs[0]}, store)
    live = service.model(None).live
    head, relation, tail = live.graph.triples[0].tolist()
    assert head < live.graph.num_items
    fact = (live.graph.relations.id_of(relation), live.graph.entities.id_of(tail))
    check = live.check_new

    def check_and_be_overtaken(items: Sequence[NewItem]) -> tuple[NewItem, ...]:
        new = check(items)
        store.add_items([NewItem("new", "The first", (Fact(*fact),))]).result()
        return new

    monkeypatch.setattr(live, "check_new", check_and_be_overtaken)
    item = {"item_id": "new", "title": "The second", "facts": [{"relation": fact[0], "entity": fact[1]}]}
    answer = TestClient(create_app(service)).post("/items", json={"items": [item]})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "item_id 'new' has joined already, with another title or other facts"
    assert [live.graph.item_labels[found] for found in live.search_items("new")] == ["The first"]
    service.close()
