"""Errors as RFC 9457 problem details."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from graphrec.errors import ArgumentError, ConflictError, GraphrecError, StoreError, StrangerError
from kg_loaders import UnknownIdError

MEDIA_TYPE = "application/problem+json"
MOST_SHOWN = 10  # faults of one request
STATUSES: dict[type[Exception], int] = {UnknownIdError: 404, ConflictError: 409, StoreError: 503}  # others: 422


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


def add_handlers(app: FastAPI) -> None:
    """Turn every error that a request can raise into a problem."""

    async def caller(_: Request, error: Exception) -> Response:
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
