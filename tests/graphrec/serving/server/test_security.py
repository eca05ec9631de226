"""What an attacker tries."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cases.served_runs import Client, serving
from uvicorn.server import ServerState

from graphrec.errors import ArgumentError, StoreError
from graphrec.serving.server import run
from graphrec.serving.server.keys import FAILURES, KeyRing, new_key
from graphrec.serving.server.run import is_loopback


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    tokens = {scope: new_key(path, scope, scope, rate=1000) for scope in ("read", "write", "admin")}
    return {**tokens, "slow": new_key(path, "slow", "read", rate=1), "path": str(path)}


@pytest.fixture(scope="module")
def guarded(runs: tuple[Path, Path], keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A service that asks for keys; its folder, with the port in a file."""
    folder = tmp_path_factory.mktemp("guarded")
    arguments = (str(runs[0]), "--store", str(folder / "live.sqlite"), "--keys", keys["path"])
    with serving(*arguments, log=folder / "log") as (port, _):
        (folder / "port").write_text(str(port))
        yield folder


def ask(folder: Path, key: str | None, path: str, content: object) -> tuple[int, dict[str, object]]:
    with Client(int((folder / "port").read_text()), key) as client:
        return client.post(path, content)


def settled(log: Path) -> str:
    """Return a log once nothing more comes: a request's line is written after its answer."""
    text, before = log.read_text(), ""
    while text != before:
        time.sleep(0.3)
        text, before = log.read_text(), text
    return text


QUESTION = {"user_id": "user-01"}


def test_key_is_needed_and_a_wrong_one_is_refused(guarded: Path, keys: dict[str, str]) -> None:
    assert ask(guarded, None, "/recommend", QUESTION)[0] == 401
    right = keys["read"]
    for wrong in ("nonsense", "grk_0123456789abcdef_" + "a" * 43, right[:-1] + ("a" if right[-1] != "a" else "b"), ""):
        status, problem = ask(guarded, wrong, "/recommend", QUESTION)
        assert (status, problem["title"]) == (401, "Unauthorized")
    assert ask(guarded, right, "/recommend", QUESTION)[0] == 200
    # The page, which holds no data, and health are open.
    with Client(int((guarded / "port").read_text())) as client:
        answers = {path: client.get(path)[0] for path in ("/", "/page.js", "/health", "/metrics", "/items?query=a")}
    assert answers == {"/": 200, "/page.js": 200, "/health": 200, "/metrics": 401, "/items?query=a": 401}


def test_scope_bounds_what_a_key_may_do(guarded: Path, keys: dict[str, str], runs: tuple[Path, Path]) -> None:
    event = {"events": [{"user_id": "user-01", "item_id": "item-00"}]}
    assert ask(guarded, keys["read"], "/events", event)[0] == 403
    assert ask(guarded, keys["write"], "/events", event)[0] == 201
    assert ask(guarded, keys["write"], "/reload", {"run": runs[0].name})[0] == 403
    assert ask(guarded, keys["admin"], "/reload", {"run": runs[0].name})[0] == 200


def test_rate_of_a_key_is_kept(guarded: Path, keys: dict[str, str]) -> None:
    with Client(int((guarded / "port").read_text()), keys["slow"]) as client:
        answers = [client.post("/recommend", QUESTION)[0] for _ in range(8)]
    assert answers[:2] == [200, 200]  # twice the rate at once
    assert 429 in answers
    assert int(client.headers["retry-after"]) >= 1
    assert ask(guarded, keys["read"], "/recommend", QUESTION)[0] == 200  # nobody else waits


def test_guessing_at_a_key_is_slowed_down(guarded: Path, keys: dict[str, str]) -> None:
    wrong = keys["admin"][:-3] + "abc"
    answers = [ask(guarded, wrong, "/recommend", QUESTION)[0] for _ in range(int(FAILURES) + 3)]
    assert answers[0] == 401
    assert answers[-1] == 429


def test_log_and_key_file_hold_no_secret_and_no_person(guarded: Path, keys: dict[str, str]) -> None:
    ask(guarded, keys["read"], "/recommend", {"user_id": "user-02"})
    ask(guarded, keys["read"], "/recommend", {"user_id": "mallory@example.org"})
    log, file = settled(guarded / "log"), Path(keys["path"]).read_text()
    for token in (keys["read"], keys["admin"]):
        secret = token.split("_", 2)[2]  # which may hold more of them
        assert len(secret) == 43
        assert secret not in log
        assert secret not in file
    requests = "".join(line for line in log.splitlines(keepends=True) if line.startswith("{"))
    assert not {word for word in ("user-02", "mallory", "127.0.0.1") if word in requests}
    lines = [json.loads(line) for line in requests.splitlines()]
    assert {"event": "request", "route": "/recommend", "status": 200, "key": "read"}.items() <= lines[-2].items()


def test_key_file_is_private_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = new_key(path, "shop")
    assert path.stat().st_mode & 0o777 == 0o600
    ring = KeyRing.load(path)
    assert ring.known(token) is None
    assert ring.check(token) == ring.known(token)
    assert ring.check(token[:-1]) is None
    with pytest.raises(ArgumentError, match="name 'shop' is in use"):
        new_key(path, "shop")
    for name, message in (("a b", "name must be"), ("x" * 65, "name must be")):
        with pytest.raises(ArgumentError, match=message):
            new_key(path, name)
    with pytest.raises(ArgumentError, match="scope must be one of"):
        new_key(path, "other", "root")
    path.chmod(0o644)
    with pytest.raises(StoreError, match="others may read it; chmod 600"):
        KeyRing.load(path)
    (tmp_path / "bad.json").write_text('{"keys": [{"id": "x"}]}')
    (tmp_path / "bad.json").chmod(0o600)
    with pytest.raises(StoreError, match="is no key file"):
        KeyRing.load(tmp_path / "bad.json")


def test_only_loopback_goes_without_keys() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "host.example")))


def test_page_of_another_site_cannot_ask(client: Client, port: int) -> None:
    body = json.dumps(QUESTION).encode()
    # Its name made to resolve to this machine.
    assert client.post("/recommend", body, {"Host": "evil.example"})[0] == 421
    assert client.post("/recommend", body, {"Host": f"localhost:{port}"})[0] == 200
    # A form, which needs nobody's leave, cannot send JSON.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert client.post("/recommend", body, {"Content-Type": kind})[0] == 415
    client.post("/recommend", body, {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in client.headers


def test_page_has_a_strict_policy(client: Client) -> None:
    for path in ("/", "/page.js", "/page.css"):
        assert client.get(path)[0] == 200
        policy = client.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert client.headers["x-content-type-options"] == "nosniff"


def test_oversize_bodies_are_refused_before_they_are_read(client: Client, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        head = "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", port)) as raw:  # of a length that is not said
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        with suppress(OSError):  # hung up in the middle
            for _ in range(40):
                raw.sendall(chunk)
        raw.settimeout(30)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"user_id":' * 50_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"history": [' + b"[" * 500 + b"]" * 500 + b"]}",
    ],
)
def test_deep_json_is_refused(client: Client, body: bytes) -> None:
    assert client.post("/recommend", body)[0] in (400, 422)
    assert client.get("/health")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[]", b'"text"', b'{"user_id": null}', b'{"user_id": "\\ud800"}',
        b'{"user_id": "a\\u0000b"}', b'{"user_id": 1}', b'{"k": NaN, "user_id": "1"}', b'{"user_id": "1", "k": 1e400}',
        b'{"user_id": "1", "k": 99999999999999999999999}', b'{"history": ["' + b"x" * 1000 + b'"]}',
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_a_problem(client: Client, body: bytes) -> None:
    status, problem = client.post("/recommend", body)
    assert status in (400, 422)
    assert problem["status"] == status


@pytest.mark.parametrize(
    "run", ["../inductivekgat", "..", ".", "/etc", "a/../b", "..%2fx", "a\\b", "", "x" * 65, "a\x00b", "~root"]
)
def test_run_names_do_not_leave_the_folder(client: Client, run: str) -> None:
    status, problem = client.post("/reload", {"run": run})
    assert status == 422
    assert "etc" not in str(problem["detail"])


def test_run_that_is_not_there_says_no_more_than_that(client: Client, runs: tuple[Path, Path]) -> None:
    status, problem = client.post("/reload", {"run": "films"})
    assert (status, str(runs[0].parent) in problem["detail"]) == (422, False)
    assert client.post("/recommend", QUESTION)[0] == 200  # the old one goes on


SQL = ["'; DROP TABLE events; --", '" OR ""="', "1); DELETE FROM items; --", "%' UNION SELECT 1 --"]


@pytest.mark.parametrize("text", SQL)
def test_sql_in_ids_is_text(client: Client, text: str) -> None:
    event = {"user_id": text, "item_id": "item-03", "event_id": text}
    assert client.post("/events", {"events": [event]}) == (201, {"new": 1, "user_id": None})
    assert client.post("/history", {"user_id": text})[1]["num_past"] == 1
    assert client.post("/recommend", {"user_id": text})[0] == 200
    assert client.post("/recommend", {"history": [text]})[0] == 404
    assert client.post("/events", {"events": [{"item_id": text}]})[0] == 404


def test_headers_cannot_be_injected(client: Client, port: int) -> None:
    status, _ = client.post("/recommend", {"user_id": "user-01", "model": "x\r\nSet-Cookie: a=b"})
    assert status == 422
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET /items?query=a%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = raw.recv(65536)
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie" not in head
    with socket.create_connection(("127.0.0.1", port)) as raw:  # smuggling: two lengths
        raw.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 400")


def test_static_paths_do_not_leave_the_page(port: int) -> None:
    for path in (
        "/../page.js",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/page.js/../../x",
        "/static/../../etc/passwd",
    ):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 404"), path


HEAD = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (HEAD, b"X: " + b"y" * 1000 + b"\r\n"),
        (HEAD + b"X: ", b"y" * 1000),
        (b"", b"\r\n" * 500),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    ],
    ids=["headers", "one header", "empty lines", "trailers"],
)
def test_head_without_end_is_hung_up_on_before_it_fills_the_memory(
    client: Client, port: int, begin: bytes, more: bytes
) -> None:
    def send() -> None:
        for _ in range(1000):
            raw.sendall(more * 64)

    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        raw.sendall(begin)
        with pytest.raises(OSError, match="reset|pipe|abort"):
            send()
    assert client.get("/health")[0] == 200


def test_every_request_of_a_connection_has_to_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.2)

    async def refuse(scope: Any, _: object, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    async def ask(*parts: bytes) -> int:
        """Send the parts, each after an answer to the one before; return how many were answered until the hang-up."""
        config = uvicorn.Config(refuse, ws="none", timeout_keep_alive=600, access_log=False)
        server = await asyncio.get_running_loop().create_server(
            lambda: run._Protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            answers = b""
            async with asyncio.timeout(30):
                for part in parts[:-1]:
                    writer.write(part)
                    answers += await reader.read(4096)
                writer.write(parts[-1])
                answers += await reader.read()
            writer.close()
            return answers.count(b"HTTP/1.1 401")

    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert asyncio.run(ask(b"")) == 0
    assert asyncio.run(ask(whole, b"G")) == 1
    assert asyncio.run(ask(whole + whole, whole, b"\r\n")) == 3
    assert asyncio.run(ask(HEAD + b"Content-Length: 9\r\n\r\n", b"{")) == 1  # a body after its answer


@pytest.mark.slow
def test_slow_clients_are_hung_up_on_and_nobody_waits_for_them(client: Client, port: int) -> None:
    with ExitStack() as stack:
        *silent, slow = (stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(21))
        slow.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        for raw in silent[10:]:
            raw.sendall(b"GET /health HTTP/1.1\r\nX: ")  # a head that never ends
        started = time.monotonic()
        assert client.post("/recommend", QUESTION)[0] == 200
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        assert [raw.recv(4096) for raw in silent] == [b""] * 20
        assert time.monotonic() - started < 30
