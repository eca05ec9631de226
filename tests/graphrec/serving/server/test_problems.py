import asyncio

from fastapi import FastAPI

from graphrec.errors import StoreError
from graphrec.serving.server.problems import add_handlers


def test_where_the_store_lies_goes_to_the_log_alone():
    app, lines = FastAPI(), []
    add_handlers(app, lambda event, **fields: lines.append((event, fields)))
    answer = asyncio.run(app.exception_handlers[StoreError](None, StoreError("/secret/s.sqlite: cannot be written")))
    assert answer.status_code == 503
    assert b"secret" not in answer.body
    assert lines == [("store_failed", {"reason": "/secret/s.sqlite: cannot be written"})]
