import errno
import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kg_loaders import DownloadError, download
from kg_loaders.benchmarks import RemoteFile, Wheel
from kg_loaders.download import MANIFEST, fetch

CONTENT = b"0 1 2\n1 5\n" * 50_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GIT_BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT, usedforsecurity=False).hexdigest()
ABOUT = {"title": "A set", "licence": "none stated", "citation": "Ann 2020"}


class Server(http.server.ThreadingHTTPServer):
    """Answers by a plan: one word for each request; the last word for all that follow."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = ["whole"]
        self.content = CONTENT
        self.ranges: list[str | None] = []
        self.begun = threading.Event()
        self.released = threading.Event()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        word = self.server.plan.pop(0) if len(self.server.plan) > 1 else self.server.plan[0]
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        content = self.server.content
        if word.isdigit():
            self.send_error(int(word))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and word != "no ranges" else 0
        if start > len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if word != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if word == "cut":
            body = body[: len(body) // 2]
        if word == "slow":
            self.wfile.write(body[: len(body) // 2])
            self.server.begun.set()
            self.server.released.wait(1)
            body = body[len(body) // 2 :]
        if word == "hang":
            self.server.released.wait(5)
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def get(server: Server, folder: Path, *, timeout: float = 5.0, **known: str) -> list[str]:
    said: list[str] = []
    file = RemoteFile("train.txt", server.url("train.txt"), **known)
    fetch((file,), folder, about=ABOUT, say=said.append, timeout=timeout, pause=0.001)
    return said


def visible(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(
    "known", [{"sha256": SHA256}, {"git_blob": GIT_BLOB}, {"sha256": SHA256, "git_blob": GIT_BLOB}]
)
def test_a_file_is_fetched_verified_and_recorded(server: Server, tmp_path: Path, known: dict[str, str]) -> None:
    folder = tmp_path / "deep" / "set"
    said = get(server, folder, **known)
    assert (folder / "train.txt").read_bytes() == CONTENT
    assert visible(folder) == {"train.txt", MANIFEST}
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["licence"] == "none stated"
    assert manifest["files"]["train.txt"] == {
        "from": server.url("train.txt"),
        "sha256": SHA256,
        "verified by": "sha256" if "sha256" in known else "git blob",
    }
    assert not any("UNVERIFIED" in line for line in said)


def test_a_file_without_a_checksum_is_said_to_be_unverified(server: Server, tmp_path: Path) -> None:
    said = get(server, tmp_path)
    assert any("UNVERIFIED" in line and SHA256 in line for line in said)
    record = json.loads((tmp_path / MANIFEST).read_text())["files"]["train.txt"]
    assert (record["sha256"], record["verified by"]) == (SHA256, "nothing")


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"git_blob": "0" * 40}])
def test_a_wrong_checksum_leaves_nothing_behind(server: Server, tmp_path: Path, known: dict[str, str]) -> None:
    with pytest.raises(DownloadError, match=r"wrong checksum: .* expected 0000") as caught:
        get(server, tmp_path, **known)
    assert server.url("train.txt") in str(caught.value)
    assert visible(tmp_path) == set()


def test_a_missing_file_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.plan = ["404"]
    with pytest.raises(DownloadError, match="HTTP 404"):
        get(server, tmp_path, sha256=SHA256)
    assert len(server.ranges) == 1


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["503", "429", "whole"]
    get(server, tmp_path, sha256=SHA256)
    assert (tmp_path / "train.txt").read_bytes() == CONTENT


def test_a_server_that_stays_broken_is_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["500"]
    with pytest.raises(DownloadError, match=r"HTTP 500 .*\(3 attempts\)"):
        get(server, tmp_path, sha256=SHA256)
    assert len(server.ranges) == 3


def test_what_is_cut_off_is_resumed(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "cut", "whole"]
    get(server, tmp_path, sha256=SHA256)
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-"]
    assert (tmp_path / "train.txt").read_bytes() == CONTENT


def test_what_stays_cut_off_is_resumed_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut"]
    with pytest.raises(DownloadError, match="cut off after"):
        get(server, tmp_path, sha256=SHA256)
    assert not (tmp_path / "train.txt").exists()
    server.plan, server.ranges = ["whole"], []
    assert any("from byte" in line for line in get(server, tmp_path, sha256=SHA256))
    assert server.ranges[0] is not None
    assert (tmp_path / "train.txt").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "no ranges"]
    get(server, tmp_path, sha256=SHA256)
    assert (tmp_path / "train.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 10, b"x" * (len(CONTENT) + 5), b"x" * len(CONTENT)])
def test_a_part_of_something_else_is_thrown_away(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / ".train.txt.part").write_bytes(left)
    get(server, tmp_path, sha256=SHA256)
    assert (tmp_path / "train.txt").read_bytes() == CONTENT


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["hang"]
    start = time.perf_counter()
    with pytest.raises(DownloadError, match="timed out"):
        get(server, tmp_path, timeout=0.1)
    assert time.perf_counter() - start < 4
    assert visible(tmp_path) <= {".train.txt.part"}


def test_no_server_at_all(tmp_path: Path, server: Server) -> None:
    port = server.server_port
    server.server_close()  # nobody listens there from now on
    with pytest.raises(DownloadError, match="refused"):
        fetch(
            (RemoteFile("train.txt", f"http://127.0.0.1:{port}/train.txt"),),
            tmp_path,
            about=ABOUT,
            say=lambda _: None,
            pause=0.001,
        )


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "http://example.org/x"])
def test_only_https_is_followed(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="not an https address"):
        fetch((RemoteFile("x", url),), tmp_path, about=ABOUT, say=lambda _: None)


def test_endless_content_is_cut(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    server.plan = ["no length"]
    with pytest.raises(DownloadError, match="goes on after 1,000 bytes"):
        get(server, tmp_path)


def test_files_already_there_are_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"mine")
    assert get(server, tmp_path, sha256=SHA256) == []
    assert (tmp_path / "train.txt").read_bytes() == b"mine"
    assert server.ranges == []


def test_a_second_call_keeps_the_record_of_the_first(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path, sha256=SHA256)
    get(server, tmp_path, sha256=SHA256)
    assert set(json.loads((tmp_path / MANIFEST).read_text())["files"]) == {"train.txt"}


def test_what_was_fetched_before_a_failure_is_recorded(server: Server, tmp_path: Path) -> None:
    files = tuple(RemoteFile(name, server.url(name), SHA256) for name in ("train.txt", "test.txt"))
    server.plan = ["whole", "404"]
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch(files, tmp_path, about=ABOUT, say=lambda _: None)
    assert set(json.loads((tmp_path / MANIFEST).read_text())["files"]) == {"train.txt"}
    server.plan = ["whole"]
    fetch(files, tmp_path, about=ABOUT, say=lambda _: None)
    assert set(json.loads((tmp_path / MANIFEST).read_text())["files"]) == {"train.txt", "test.txt"}
    assert len(server.ranges) == 3


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", '{"files": 1}', '{"files": ["train.txt"]}', "\xff"])
def test_a_damaged_manifest_counts_as_none(server: Server, tmp_path: Path, left: str) -> None:
    (tmp_path / MANIFEST).write_text(left, encoding="latin-1")
    get(server, tmp_path, sha256=SHA256)
    assert set(json.loads((tmp_path / MANIFEST).read_text())["files"]) == {"train.txt"}


def test_two_who_fetch_one_file_do_not_meet(server: Server, tmp_path: Path) -> None:
    server.plan = ["slow"]
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        server.released.set()

    def fetch_second() -> None:
        server.begun.wait(5)
        fetch((RemoteFile("train.txt", server.url("train.txt"), SHA256),), tmp_path, about=ABOUT, say=say)

    with ThreadPoolExecutor() as pool:
        second = pool.submit(fetch_second)
        get(server, tmp_path, sha256=SHA256)
        second.result()
    assert said == [f"another process fetches into {tmp_path}; waiting for it"]
    assert server.ranges == [None]
    assert visible(tmp_path) == {"train.txt", MANIFEST}
    assert (tmp_path / "train.txt").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write to"):
        get(server, tmp_path / "file" / "set")


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.os, "replace", full)
    with pytest.raises(DownloadError, match="No space left"):
        get(server, tmp_path, sha256=SHA256)


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_a_zipped_file_is_unpacked(server: Server, tmp_path: Path) -> None:
    server.content = zipped({"kg_final.txt": b"0 0 1\n", "__MACOSX/._kg_final.txt": b"junk"})
    blob = hashlib.sha1(b"blob %d\0" % len(server.content) + server.content, usedforsecurity=False).hexdigest()
    file = RemoteFile("kg_final.txt", server.url("kg_final.txt.zip"), git_blob=blob, unzip=True)
    fetch((file,), tmp_path, about=ABOUT, say=lambda _: None)
    assert visible(tmp_path) == {"kg_final.txt", MANIFEST}
    assert (tmp_path / "kg_final.txt").read_bytes() == b"0 0 1\n"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"other.txt": b""}, "holds no members called kg_final.txt"),
        ({"a/kg_final.txt": b"1", "b/kg_final.txt": b"2"}, "holds 2 members"),
        (None, "not a whole zip archive"),
    ],
)
def test_a_strange_archive(server: Server, tmp_path: Path, members: dict[str, bytes] | None, reason: str) -> None:
    server.content = b"PK nothing" if members is None else zipped(members)
    with pytest.raises(DownloadError, match=reason):
        fetch((RemoteFile("kg_final.txt", server.url("x.zip"), unzip=True),), tmp_path, about=ABOUT, say=lambda _: None)
    assert not (tmp_path / "kg_final.txt").exists()


@pytest.mark.parametrize("damage", ["data", "password"])
def test_a_damaged_archive(server: Server, tmp_path: Path, damage: str) -> None:
    content = bytearray(zipped({"kg_final.txt": b"0 0 1\n" * 100}))
    if damage == "data":  # of the first member: 30 bytes of header, its name, then what was deflated
        content[30 + len("kg_final.txt")] = 0xFF
    else:  # the flag of encryption in both headers of the member
        content[6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
    server.content = bytes(content)
    with pytest.raises(DownloadError, match="not a whole zip archive"):
        fetch((RemoteFile("kg_final.txt", server.url("x.zip"), unzip=True),), tmp_path, about=ABOUT, say=lambda _: None)
    assert not (tmp_path / "kg_final.txt").exists()


def test_a_zip_bomb_is_not_unpacked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content = zipped({"kg_final.txt": b"0" * 1_000_000})
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    monkeypatch.setattr(download, "CHUNK", 10_000)
    with pytest.raises(DownloadError, match="unpacks to more than 100,000 bytes"):
        fetch((RemoteFile("kg_final.txt", server.url("x.zip"), unzip=True),), tmp_path, about=ABOUT, say=lambda _: None)
    assert not (tmp_path / "kg_final.txt").exists()


# Wheels: pip itself is played by a function, but for one test that is slow


def play_pip(monkeypatch: pytest.MonkeyPatch, wheel: bytes, code: int = 0, stderr: str = "") -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if not code:
            to = Path(command[command.index("--dest") + 1])
            (to / "toy-1.0-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(download.subprocess, "run", run)
    return commands


def wheel_of(content: bytes, members: dict[str, str]) -> Wheel:
    return Wheel("toy", "1.0", hashlib.sha256(content).hexdigest(), members)


def test_a_wheel_gives_the_named_members_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped({"toy/data/a.inter": b"a", "toy/__init__.py": b"1/0", "../evil": b"e", "/evil": b"e"})
    commands = play_pip(monkeypatch, content)
    folder = tmp_path / "set"
    fetch(wheel_of(content, {"a.inter": "toy/data/a.inter"}), folder, about=ABOUT, say=lambda _: None)
    assert visible(folder) == {"a.inter", MANIFEST}
    assert visible(tmp_path) == {"set"}
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "toy==1.0"
    assert "toy" not in sys.modules


def test_members_already_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped({"toy/a": b"a", "toy/b": b"b"})
    commands = play_pip(monkeypatch, content)
    (tmp_path / "a").write_bytes(b"mine")
    for _ in range(2):
        fetch(wheel_of(content, {"a": "toy/a", "b": "toy/b"}), tmp_path, about=ABOUT, say=lambda _: None)
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"mine", b"b"]
    assert len(commands) == 1


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", ""])
def test_no_member_leaves_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    content = zipped({"toy/a": b"a"})
    play_pip(monkeypatch, content)
    with pytest.raises(DownloadError, match="not a plain file name"):
        fetch(wheel_of(content, {name: "toy/a"}), tmp_path / "set", about=ABOUT, say=lambda _: None)
    assert visible(tmp_path) == {"set"}
    assert visible(tmp_path / "set") == set()


def test_a_wheel_with_a_traversing_member_of_the_right_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped({"../../a.inter": b"a"})
    play_pip(monkeypatch, content)
    fetch(wheel_of(content, {"a.inter": "../../a.inter"}), tmp_path / "x" / "set", about=ABOUT, say=lambda _: None)
    assert visible(tmp_path) == {"x"}
    assert (tmp_path / "x" / "set" / "a.inter").read_bytes() == b"a"


def test_a_wheel_of_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_pip(monkeypatch, zipped({"toy/a": b"b"}))
    with pytest.raises(DownloadError, match=r"the wheel of toy==1\.0 has the wrong checksum"):
        fetch(wheel_of(zipped({"toy/a": b"a"}), {"a": "toy/a"}), tmp_path, about=ABOUT, say=lambda _: None)
    assert visible(tmp_path) == set()


def test_a_pip_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_pip(monkeypatch, b"", code=1, stderr="WARNING: x\nERROR: No matching distribution found for toy\n\nnotice\n")
    with pytest.raises(DownloadError, match=r"pip could not bring toy==1\.0: ERROR: No matching distribution"):
        fetch(wheel_of(b"", {"a": "toy/a"}), tmp_path, about=ABOUT, say=lambda _: None)


def test_a_pip_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(download.subprocess, "run", run)
    with pytest.raises(DownloadError, match="within 900 seconds"):
        fetch(wheel_of(b"", {"a": "toy/a"}), tmp_path, about=ABOUT, say=lambda _: None)
