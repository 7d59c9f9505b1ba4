"""Bytes on their way: counted, hashed and kept, small ones in memory, larger ones in a file that only we can read.

Written from one place at a time, on any thread. `close` may come at any moment, also while a thread still writes whose
caller was cancelled: it waits for that piece, removes everything, and later pieces are dropped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..errors import KimiError
from .kinds import HEAD_BYTES
from .refusal import too_large


class Spool:
    """Takes at most `max_bytes`, keeps up to `memory_bytes` of them in memory."""

    def __init__(self, *, max_bytes: int, memory_bytes: int) -> None:
        self.size_bytes = 0
        self.head = b""
        self._max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._hash = hashlib.sha256()
        self._memory = BytesIO()
        self._folder: Path | None = None
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def path(self) -> Path | None:
        """Where the bytes are, when they are on disk."""
        return self._folder / "content" if self._folder else None

    @property
    def content(self) -> bytes:
        """The bytes, when they are in memory."""
        return self._memory.getvalue()

    @property
    def sha256(self) -> str:
        """Of all that was written, in hex."""
        return self._hash.hexdigest()

    def stays_in_memory(self, more_bytes: int) -> bool:
        """Whether writing so many bytes touches no disk."""
        return self._folder is None and self.size_bytes + more_bytes <= self._memory_bytes

    def write(self, piece: bytes) -> None:
        """Append. Raises Refused beyond the limit, KimiError when the disk refuses."""
        with self._lock:
            if self._closed:
                return
            self.size_bytes += len(piece)
            if self.size_bytes > self._max_bytes:
                raise too_large(self.size_bytes, self._max_bytes)
            if len(self.head) < HEAD_BYTES:
                self.head += piece[: HEAD_BYTES - len(self.head)]
            self._hash.update(piece)
            if self._file is None and self.size_bytes <= self._memory_bytes:
                self._memory.write(piece)
                return
            try:
                if self._file is None:
                    self._file = self._to_disk()
                self._file.write(piece)
            except OSError as exc:
                raise _disk_error(exc) from None

    def _to_disk(self) -> BinaryIO:
        self._folder = Path(tempfile.mkdtemp(prefix="kimi-file-"))  # 0700
        descriptor = os.open(self._folder / "content", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(descriptor, "wb")
        file.write(self._memory.getbuffer())
        self._memory = BytesIO()
        return file

    def finish(self) -> None:
        """Nothing follows: what was written can be read."""
        with self._lock:
            try:
                if self._file is not None:
                    self._file.close()
            except OSError as exc:
                raise _disk_error(exc) from None

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._closed = True
            try:
                if self._file is not None:
                    self._file.close()
            except OSError:  # a full disk is told at close; the file goes anyway
                pass
            finally:
                if self._folder is not None:
                    shutil.rmtree(self._folder, ignore_errors=True)


def _disk_error(exc: OSError) -> KimiError:
    return KimiError(
        f"A file can't be kept until it is uploaded: {exc.strerror}", cure="Make room in the TMPDIR folder."
    )
