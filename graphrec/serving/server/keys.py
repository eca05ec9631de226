"""API keys: made once, kept as slow hashes, each with a scope and a rate."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphrec.errors import ArgumentError, StoreError, check_choice, check_range
from graphrec.experiment.files import read_json

SCOPES = ("read", "write", "admin")
"""What a key may do, each more than the one before: ask; send events; add items and load runs."""

TOKEN = re.compile(r"grk_([0-9a-f]{16})_([\w-]{43})", re.ASCII)
# scrypt with 16 MiB and some 50 ms. The secret has 256 random bits: a slow hash is the second wall, not the first.
COST, BLOCK, LANES = 2**14, 8, 1
FAILURES, FAILURES_A_SECOND = 5.0, 0.2  # wrong secrets for one key: a slow hash must not become a way to burden us


class Bucket:
    """A token bucket.

    Args:
        rate: Tokens that flow in a second.
        size: How many fit; at first it is full.
    """

    def __init__(self, rate: float, size: float) -> None:
        self.rate, self.size = rate, size
        self._left, self._at = size, time.monotonic()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = time.monotonic()
        self._left = min(self.size, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self.rate
        self._left -= 1
        return 0.0


@dataclass(frozen=True)
class Key:
    """A key as the file holds it.

    Args:
        id: Its public part.
        name: Whose it is; shown in logs and metrics.
        scope: One of :data:`SCOPES`.
        rate: Requests a second; twice as many at once.
        salt: Of the hash, hexadecimal.
        hash: scrypt of the secret part, hexadecimal.
    """

    id: str
    name: str
    scope: str
    rate: float
    salt: str
    hash: str

    def allows(self, scope: str) -> bool:
        """Whether the key's scope includes ``scope``."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class KeyRing:
    """The keys of a service.

    Args:
        keys: All keys.
    """

    def __init__(self, keys: list[Key]) -> None:
        self._keys = {key.id: key for key in keys}
        self._buckets = {key.id: Bucket(key.rate, max(1.0, 2 * key.rate)) for key in keys}
        self._failures = {key.id: Bucket(FAILURES_A_SECOND, FAILURES) for key in keys}
        # A secret that was right once is known again by a fast hash, keyed anew by every process.
        self._secret = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a key file.

        Raises:
            StoreError: The file is missing or damaged, or others than its owner may read it.
        """
        if not path.is_file():
            raise StoreError(f"{path}: there is no key file; graphrec serve --new-key NAME --keys {path} makes one")
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StoreError(f"{path}: others may read it; chmod 600 {path}")
        content = read_json(path)
        try:
            keys = [Key(**fields) for fields in content["keys"]]
            for key in keys:
                check_choice("scope", key.scope, SCOPES)
                check_range("rate", key.rate, low=0.001)
                bytes.fromhex(key.salt), bytes.fromhex(key.hash)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is no key file: {error}") from error
        if not keys:
            raise StoreError(f"{path}: holds no key")
        return cls(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def known(self, token: str) -> Key | None:
        """Return the key of a token that was checked before; quick."""
        match = TOKEN.fullmatch(token)
        if match is None or match[1] not in self._right:
            return None
        return self._keys[match[1]] if hmac.compare_digest(self._right[match[1]], self._fast(match[2])) else None

    def may_check(self, token: str) -> float:
        """Return 0 where :meth:`check` may be called, or the seconds until it may: after many wrong secrets."""
        match = TOKEN.fullmatch(token)
        return self._failures[match[1]].take() if match is not None and match[1] in self._keys else 0.0

    def check(self, token: str) -> Key | None:
        """Return the key of a token, ``None`` where it is none; slow on purpose, so call it in a thread."""
        match = TOKEN.fullmatch(token)
        key = None if match is None else self._keys.get(match[1])
        if match is None or key is None:
            return None
        if not hmac.compare_digest(_slow(match[2], bytes.fromhex(key.salt)), bytes.fromhex(key.hash)):
            return None
        self._right[key.id] = self._fast(match[2])
        return key

    def take(self, key: Key) -> float:
        """Count a request: 0 where it is within the key's rate, else the seconds to wait."""
        return self._buckets[key.id].take()

    def _fast(self, secret: str) -> bytes:
        return hashlib.blake2b(secret.encode(), key=self._secret, digest_size=32).digest()


def new_key(path: Path, name: str, scope: str = "write", rate: float = 100.0) -> str:
    """Add a key to a file, which is made when absent, and return the token: it is shown this once.

    Args:
        path: The key file; only its owner may read it.
        name: Whose key it is: letters, digits, ``.``, ``_`` and ``-``.
        scope: One of :data:`SCOPES`.
        rate: Requests a second.

    Raises:
        ArgumentError: An argument outside its range, or the name is in use.
        StoreError: The file is there and no key file.
    """
    if not re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII):
        raise ArgumentError(f"name must be 1 to 64 letters, digits, '.', '_' or '-', got {name!r}")
    check_choice("scope", scope, SCOPES)
    check_range("rate", rate, low=0.001)
    keys = list(KeyRing.load(path)._keys.values()) if path.exists() else []
    if any(key.name == name for key in keys):
        raise ArgumentError(f"name {name!r} is in use in {path}")
    id_, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_bytes(16)
    keys.append(Key(id_, name, scope, rate, salt.hex(), _slow(secret, salt).hex()))
    _write_private(path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n")
    return f"grk_{id_}_{secret}"


def _write_private(path: Path, content: str) -> None:
    """Write a file whole or not at all, that at no moment another user can read."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"could not write {path}: {error}") from error


def _slow(secret: str, salt: bytes) -> bytes:
    options: dict[str, Any] = {"n": COST, "r": BLOCK, "p": LANES, "maxmem": 2**26}
    return hashlib.scrypt(secret.encode(), salt=salt, **options)
