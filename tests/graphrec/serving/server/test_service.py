"""What the routes work with, asked without HTTP where that shows more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cases.busy_changes import BusyChanges
from fastapi.testclient import TestClient

from graphrec.errors import ArgumentError
from graphrec.serving.live_users import Change
from graphrec.serving.server.app import create_app
from graphrec.serving.server.service import Batcher, Service


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
