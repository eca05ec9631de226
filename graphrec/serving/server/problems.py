"""Errors as RFC 9457 problem details."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from graphrec.errors import ArgumentError, ConflictError, GraphrecError, StoreError, StrangerError
from kg_loaders import UnknownIdError

MEDIA_TYPE = "application/problem+json"
MOST_SHOWN = 10  # faults of one request
STATUSES: dict[type[Exception], int] = {UnknownIdError: 404, ConflictError: 409}  # others: 422
STORE_FAILED = "the store cannot be used now; nothing of the request was kept"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Return an error response.

    Args:
        status: HTTP status.
        detail: What is wrong with this request, in a sentence.
        headers: Further headers.
        more: Further members of the problem.
    """
    # ASCII, so that what a client sent never decides about bytes outside of strings, lone surrogates included.
    body = json.dumps(
        {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    )
    return Response(body, status, headers, MEDIA_TYPE)


def add_handlers(app: FastAPI, log: Callable[..., None] | None) -> None:
    """Turn every error that a request can raise into a problem; what is wrong with the store goes to the log alone."""

    async def caller(_: Request, error: Exception) -> Response:
        if isinstance(error, StoreError):  # its text names a path, or a host
            if log is not None:
                log("store_failed", reason=str(error))
            return problem(503, STORE_FAILED)
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 422)
        return problem(status, str(error))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Without what was sent: it may be personal, or not fit into JSON.
        faults = [
            {"where": ".".join(map(str, fault["loc"])), "what": str(fault["msg"])}
            for fault in error.errors()[:MOST_SHOWN]
        ]
        first = f"{faults[0]['where']}: {faults[0]['what']}" if faults else "the request is not valid"
        return problem(422, first, faults=faults)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), error.headers)

    for kind in (ArgumentError, ConflictError, StrangerError, StoreError, GraphrecError, UnknownIdError):
        app.add_exception_handler(kind, caller)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
