"""Build the loops with the machine's own compiler, once, and load them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

SOURCE = Path(__file__).with_name("loops.c")
COMPILERS = ("cc", "gcc", "clang")
# -ffp-contract lets a product and a sum be one instruction; nothing here changes what NaN and infinity mean.
OPTIONS = ("-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-std=gnu11", "-Wno-psabi")
PATIENCE = 120.0  # seconds


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the loops; ``None`` where there is no compiler, or ``GRAPHREC_COMPILE=0`` in the environment forbids it.

    They are kept in ``$GRAPHREC_CACHE``, else ``$XDG_CACHE_HOME/graphrec``, else ``~/.cache/graphrec``, under a name of
    source, compiler and processor. Where they cannot be built, a warning says so once; torch's kernels serve instead.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None or os.environ.get("GRAPHREC_COMPILE", "1") == "0":
        return None
    try:
        path = _folder() / f"loops-{_fingerprint(compiler)}.so"
        if not path.exists():
            _build(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        warnings.warn(
            f"graphrec's compiled loops could not be built with {compiler}, so attention takes torch's slower kernels; "
            f"GRAPHREC_COMPILE=0 ends this warning: {said}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _folder() -> Path:
    # As kg_loaders.cache has it; layers know nothing of kg_loaders.
    own, xdg = os.environ.get("GRAPHREC_CACHE"), os.environ.get("XDG_CACHE_HOME")
    base = Path(own) if own else Path(xdg) / "graphrec" if xdg else Path.home() / ".cache" / "graphrec"
    folder = base / "compiled"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _fingerprint(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=PATIENCE).stdout  # noqa: S603
    parts = [SOURCE.read_bytes(), version, " ".join(OPTIONS).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Return what tells processors apart: a home folder may be shared by machines with other instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return platform.machine() + "".join(dict.fromkeys(kept))


def _build(compiler: str, path: Path) -> None:
    # Under another name first: two processes may build at once, and one may be killed.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *OPTIONS, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)  # noqa: S603
        made.replace(path)
