"""Guard: what happens to every request before and after its route."""

from __future__ import annotations

import asyncio
import math
import secrets
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import orjson
from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphrec.serving.server.keys import Key, KeyRing
from graphrec.serving.server.metrics import Metrics
from graphrec.serving.server.problems import problem

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
SENT_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
PAGE_FILES = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css"}
OPEN = {*PAGE_FILES, "/health", "/openapi.json"}
"""Paths that need no key: the page itself holds no data, and a balancer asks for health."""

SCOPES = {
    ("POST", "/events"): "write",
    ("POST", "/items"): "admin",
    ("POST", "/reload"): "admin",
}


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Args:
        body: Bytes of a body.
        body_seconds: Until a body has come in.
        seconds: Until an answer is there.
    """

    body: int = 2**20
    body_seconds: float = 10.0
    seconds: float = 30.0


class Log:
    """One JSON object a line, without ids, addresses or queries.

    Args:
        file: Where to; standard error when not given.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    def __call__(self, event: str, **fields: Any) -> None:
        """Write a line."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        line = orjson.dumps({"time": f"{now}Z", "event": event, **fields}).decode()
        print(line, file=self._file or sys.stderr, flush=True)


class Guard:
    """ASGI middleware: host, size, key, rate and time of a request; log, metrics and headers of its answer.

    Args:
        app: The application.
        metrics: Where requests are counted.
        routes: Known paths; others share one name in metrics and logs, for paths come from strangers.
        hosts: Accepted host names, without ports; ``None`` accepts all. A page of another site that has its name
            resolve to this machine is refused by it.
        keys: API keys; ``None`` asks for none.
        limits: What a request may cost.
        log: Writes a line for each request; ``None`` writes none.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Collection[str],
        hosts: Collection[str] | None = None,
        keys: KeyRing | None = None,
        limits: Limits | None = None,
        log: Log | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.routes = frozenset(routes)
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self.keys = keys
        self.limits = limits or Limits()
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        exchange = _Exchange(scope, receive, send, started)
        key: Key | None = None
        try:
            refusal, key = await self._admit(exchange)
            if refusal is None:
                async with asyncio.timeout(self.limits.seconds):
                    await self.app(scope, exchange.receive, exchange.send)
            else:
                await refusal(scope, receive, exchange.send)
        except TimeoutError:
            await exchange.fail(503, f"no answer within {self.limits.seconds:g} s")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._report(error, exchange.id)
            await exchange.fail(500, f"an error of ours; the log has it under {exchange.id}")
        finally:
            seconds = time.perf_counter() - started
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.count(scope["method"], route, exchange.status, seconds)
            if self.log is not None:
                self.log(
                    "request",
                    id=exchange.id,
                    method=scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other",
                    route=route,
                    status=exchange.status,
                    ms=round(1000 * seconds, 2),
                    key=key.name if key else None,
                )

    async def _admit(self, exchange: _Exchange) -> tuple[Response | None, Key | None]:
        """Return a refusal, or none after reading the body; and whose request it is."""
        scope, headers = exchange.scope, exchange.headers
        method, path = scope["method"], scope["path"]
        if self.hosts is not None and _host(headers.get(b"host", b"")) not in self.hosts:
            return problem(421, "this service does not answer under that host name"), None
        key = None
        if self.keys is not None and path not in OPEN:
            refusal, key = await self._identify(headers)
            if refusal is not None:
                return refusal, None
            assert key is not None
            needed = SCOPES.get((method, path), "read")
            if not key.allows(needed):
                return problem(403, f"this needs a key of scope {needed}, the key's scope is {key.scope}"), key
            wait = self.keys.take(key)
            if wait:
                return _wait(wait, f"the key's rate is {key.rate:g} requests a second"), key
        if method == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                # A form of another site cannot send this without asking first, and is never allowed to.
                return problem(415, "a body must be application/json"), key
        return await exchange.read(self.limits), key

    async def _identify(self, headers: Mapping[bytes, bytes]) -> tuple[Response | None, Key | None]:
        assert self.keys is not None
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            detail = "an API key is needed: Authorization: Bearer KEY"
            return problem(401, detail, {"www-authenticate": "Bearer"}), None
        key = self.keys.known(token)
        if key is None:
            wait = self.keys.may_check(token)
            if wait:
                return _wait(wait, "too many wrong keys"), None
            key = await asyncio.to_thread(self.keys.check, token)
        if key is None:
            return problem(401, "the API key is not valid", {"www-authenticate": 'Bearer error="invalid_token"'}), None
        return None, key

    def _report(self, error: Exception, request_id: str) -> None:
        """Log an error of ours by its kind and place: its text may hold what somebody sent."""
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = f"{frame.tb_frame.f_code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}" if frame else ""
        (self.log or Log())("error", id=request_id, kind=type(error).__name__, place=place)


class _Exchange:
    """A request whose body has been read, and the state of its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = secrets.token_hex(8)
        self.status = 499  # the client left before there was an answer
        self._receive = receive
        self._send = send
        self._started = started
        self._body: bytes | None = b""

    async def read(self, limits: Limits) -> Response | None:
        """Read the body; return a refusal where it is too long or too slow."""
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limits.body:
            return problem(413, f"a body may have {limits.body} bytes")
        if self.scope["method"] in ("GET", "HEAD") and length == b"0" and b"transfer-encoding" not in self.headers:
            return None
        chunks, size, more = [], 0, True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        break
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limits.body:
                        return problem(413, f"a body may have {limits.body} bytes", {"connection": "close"})
                    chunks.append(chunk)
                    more = message.get("more_body", False)
        except TimeoutError:
            return problem(408, f"the body did not come within {limits.body_seconds:g} s", {"connection": "close"})
        self._body = b"".join(chunks)
        return None

    async def receive(self) -> Message:
        """Give the body as one message, then what comes after it."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Send on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            took = 1000 * (time.perf_counter() - self._started)
            own = [(b"x-request-id", self.id.encode()), (b"server-timing", b"app;dur=%.2f" % took)]
            if self.scope["path"] not in PAGE_FILES:
                own.append((b"cache-control", b"no-store"))
            message["headers"] = [*message.get("headers", ()), *SENT_HEADERS, *own]
        await self._send(message)

    async def fail(self, status: int, detail: str) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.status == 499:
            await problem(status, detail)(self.scope, self._receive, self.send)


def _host(value: bytes) -> str:
    name = value.decode("latin-1").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _wait(seconds: float, detail: str) -> Response:
    return problem(429, detail, {"retry-after": str(math.ceil(seconds))})
