"""Credentials at rest: sealed with Fernet, several keys at once, each with a public name.

The first key seals, any key opens; a row says by which it was sealed, so that a missing key can be named without
trying. Keys come from KIMI_SECRET_KEY, or from a file that only its owner can read. A key is never shown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from ..settings import SettingsError

_HOW = "Make one with: openssl rand -base64 32"


class StoreError(SettingsError):
    """The account store can't be opened; the text says why and what to do."""


class MissingKey(Exception):
    """Something is sealed with a key that is not here."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id


class Sealer:
    """Keys, newest first: 32 bytes each."""

    def __init__(self, keys: list[bytes]) -> None:
        self._fernets = {key_id(key): Fernet(base64.urlsafe_b64encode(key)) for key in keys}
        #: Name of the key that seals.
        self.current = key_id(keys[0])

    @classmethod
    def of(cls, text: str) -> Sealer:
        """Keys of KIMI_SECRET_KEY, separated by commas or whitespace. Raises StoreError."""
        return cls([_key(part) for part in re.split(r"[\s,]+", text.strip(", \t\r\n"))])

    @property
    def names(self) -> frozenset[str]:
        """Names of all keys."""
        return frozenset(self._fernets)

    def seal(self, content: bytes) -> bytes:
        """Sealed with the current key."""
        return self._fernets[self.current].encrypt(content)

    def open(self, sealed: bytes, name: str) -> bytes:
        """What was sealed with the key `name`. Raises MissingKey."""
        try:
            return self._fernets[name].decrypt(sealed)
        except (KeyError, InvalidToken):
            raise MissingKey(name) from None


def key_id(key: bytes) -> str:
    """A name for a key that does not give it away."""
    return hashlib.sha256(b"kimi-provider key id\0" + key).hexdigest()[:8]


def _key(text: str) -> bytes:
    try:
        # Both alphabets of base64: openssl writes one, Fernet.generate_key the other.
        key = base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise StoreError(f"KIMI_SECRET_KEY must hold keys of 32 bytes in base64, separated by commas. {_HOW}")
    return key


def key_of_file(path: Path) -> str:
    """The text of the key file, made on first use. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_once(path, base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise StoreError(
            f"The key file {path} can't be used ({reason}). Make its folder writable, or set KIMI_SECRET_KEY. {_HOW}"
        ) from None


def _write_once(path: Path, text: str) -> None:
    """Whole or not at all, and never over one that another process has just made."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()
