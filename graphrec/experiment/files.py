"""Files that are written whole or not at all, and read with an eye for damage."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphrec.errors import RunError


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Write a file whole or not at all: a full disk or a kill leaves the old one intact.

    Args:
        path: The file.
        save: Writes to the path that it is given, which takes the place of ``path`` when it is complete.

    Raises:
        RunError: It could not be written (full disk, no permission).
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        save(partial)
        partial.chmod(mode)  # safetensors makes files that only their owner can read, whatever the umask says
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # safetensors has an error of its own for a full disk; loading it here would cost the reader of a table.
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise RunError(f"could not write {path}: {error}") from error
        raise


def make_folder(path: Path, called: str) -> None:
    """Make a folder and those above it.

    Args:
        path: The folder; it may exist.
        called: What the caller knows it by, for the message.

    Raises:
        RunError: It cannot be made (no permission, a file in the way).
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{called} cannot be made: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Write text as :func:`write` does."""

    def save(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write(path, save)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(content: Any) -> str:
    """Return plain values as indented JSON; what is not a finite number becomes null, for JSON knows no NaN."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        RunError: It is missing, is not JSON, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing; {path.parent} is not a run folder") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: damaged: must hold an object, got {type(content).__name__}")
    return content
