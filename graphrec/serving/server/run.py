"""serve: a service as a process."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import signal
import socket
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graphrec.errors import ArgumentError, GraphrecError
from graphrec.process import keep_little_memory, return_freed_memory
from graphrec.serving.server.app import create_app
from graphrec.serving.server.guard import Limits, Log
from graphrec.serving.server.keys import KeyRing
from graphrec.serving.server.service import Service

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADER_SECONDS = 10.0  # until a connection's first head has come in, or a later one that has begun
HEAD_BYTES = 2**16  # and at most one more read of the socket
IDLE_SECONDS = 15
STOP_SECONDS = 20
MOST_CONNECTIONS = 1000
RETURN_SECONDS = 5.0  # between two times that freed memory goes back to the system


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, that hangs up on who is slow to ask, or sends what is neither a whole head nor a body.

    The parser itself keeps whatever comes, and no check of ours runs before a head is whole.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._unread = 0  # bytes since the parser last made something of them
        self._hang_up: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            # The next request, or the rest of a body that nobody reads; uvicorn's own timer stops with the first byte.
            self._expect_head()
        if self._unread > HEAD_BYTES:
            self.transport.close()
            return
        self._unread += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._unread = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._hang_up is None:
            self._hang_up = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None


class _Server(uvicorn.Server):
    """uvicorn's server, that loads its runs anew on SIGHUP, and gives freed memory back now and then.

    What an explanation takes for a moment may be a hundred megabytes; a heap that keeps all that is freed holds several
    times as much as is in use.
    """

    def __init__(self, config: uvicorn.Config, service: Service, log: Log) -> None:
        super().__init__(config)
        self._service = service
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._start_reload)
        # What is loaded by now stays, or goes by reference counting when another run takes its place.
        # To look for cycles in it would hold up every answer for a fifth of a second.
        gc.collect()
        gc.freeze()
        keep_little_memory()
        self._begin(self._return_memory())
        # Port 0 took one that nobody knows yet; lines of the log hold no addresses.
        ports = [listener.getsockname()[1] for server in self.servers for listener in server.sockets]
        self._log("ready", models=list(self._service.models), ports=ports)

    def _start_reload(self) -> None:
        self._begin(self._reload())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _return_memory() -> None:
        while True:
            await asyncio.to_thread(return_freed_memory)  # some milliseconds, in which others answer
            await asyncio.sleep(RETURN_SECONDS)

    async def _reload(self) -> None:
        for name in list(self._service.models):
            try:
                served = await self._service.reload(name)
            except (GraphrecError, OSError) as error:
                self._log("reload failed", model=name, reason=str(error))
            else:
                self._log("reloaded", model=name, run=served.run)


def serve(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: KeyRing | None = None,
    hosts: Collection[str] = (),
    limits: Limits | None = None,
    log: Log | None = None,
    sockets: Sequence[socket.socket] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what has been asked, for 20 seconds at most, and close the store.

    Args:
        service: What to serve.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        keys: API keys. Without, only a loopback address is served.
        hosts: Further host names to answer under. A loopback address answers under its own names alone, others under
            any name unless some are given.
        limits: What a request may cost.
        log: Where to log.
        sockets: Those of :func:`bind` for this address, where it was taken before the service was loaded.

    Raises:
        ArgumentError: No keys, and an address that other machines can reach.
        OSError: The address cannot be listened on; see :func:`bind`.
    """
    local = is_loopback(host)
    if keys is None and not local:
        raise ArgumentError(f"host {host!r} can be reached by other machines: give API keys, or listen on 127.0.0.1")
    names = {*hosts, *(LOOPBACK_NAMES if local else ())}
    log = log or Log()
    app = create_app(service, keys, names or None, limits, log)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        limit_concurrency=MOST_CONNECTIONS,
    )
    _Server(config, service, log).run(bind(host, port) if sockets is None else list(sockets))


def bind(host: str, port: int) -> list[socket.socket]:
    """Take a port of each address of a host, without listening yet: who asks early is refused, and does not wait.

    Args:
        host: A name or an address of this machine.
        port: Port; 0 takes a free one.

    Raises:
        OSError: The port is taken, may not be taken, or the host is not this machine.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound.append(socket.socket(family, kind, protocol))
            except OSError:  # "localhost" has an address of IPv6 where the system has none
                if len(found) == 1:
                    raise
                continue
            if os.name == "posix":
                bound[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a service that ended holds it a while
            if family == socket.AF_INET6:
                bound[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound[-1].bind(address)
    except OSError as error:
        for one in bound:
            one.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return bound


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
