"""What is remembered of an uploaded file: name, kind, size, digest, and when it will be parsed. Never its bytes.

A file belongs to one account; for any other it doesn't exist. Whether parsing will succeed is decided when the upload
ends, from the name and the first bytes: a picture by name must be one by content.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from ..settings import SimulatorSettings
from ..tokens import new_xid

HEAD_BYTES = 64
Status = Literal["processing", "parsed", "failed"]

_SIGNS: dict[str, Callable[[bytes], bool]] = {
    "png": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "jpg": lambda head: head.startswith(b"\xff\xd8\xff"),
    "gif": lambda head: head.startswith((b"GIF87a", b"GIF89a")),
    "webp": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "bmp": lambda head: head.startswith(b"BM"),
    "pdf": lambda head: head.startswith(b"%PDF-"),
}
_SIGNS["jpeg"] = _SIGNS["jpg"]
_IMAGES = frozenset(_SIGNS) - {"pdf"}


class FileTooLarge(Exception):
    """More bytes than the service takes."""


class Measured:
    """Size, digest and first bytes of what has been fed; constant memory."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes; beyond the limit they only count."""
        self.size += len(piece)
        if self.size <= self._limit_bytes:
            self._hash.update(piece)
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]

    @property
    def sha256(self) -> str:
        """Hex digest. FileTooLarge when there was too much."""
        if self.size > self._limit_bytes:
            raise FileTooLarge(f"a file may have {self._limit_bytes} bytes")
        return self._hash.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """One uploaded file."""

    id: str
    owner: str
    name: str
    content_type: str
    is_image: bool
    size: int
    sha256: str
    create_time: str
    parsed_at: float
    parses: bool

    @property
    def kind(self) -> str:
        """In one word."""
        return "image" if self.is_image else "document"

    @property
    def label(self) -> str:
        """How the demo speaks of it."""
        return f"{self.name} ({self.kind})"


@dataclass(kw_only=True, slots=True)
class Presigned:
    """A place for one upload of the legacy way."""

    owner: str
    name: str
    is_image: bool
    object_name: str
    signature: str = field(default_factory=lambda: secrets.token_hex(16))
    file_id: str = field(default_factory=new_xid)
    measured: Measured | None = None
    content_type: str = ""


class Files:
    """All files of one simulator."""

    def __init__(self, clock: Callable[[], float], now: Callable[[], str]) -> None:
        self._clock = clock
        self._now = now
        self._by_id: dict[str, StoredFile] = {}
        self.places: dict[str, Presigned] = {}

    def add(
        self,
        owner: str,
        *,
        name: str,
        content_type: str,
        measured: Measured,
        settings: SimulatorSettings,
        file_id: str | None = None,
    ) -> StoredFile:
        """Remember an upload. FileTooLarge when it is."""
        extension = PurePosixPath(name).suffix.lower().lstrip(".")
        claims_image = extension in _IMAGES or content_type.startswith("image/")
        file = StoredFile(
            id=file_id or str(uuid.uuid4()),
            owner=owner,
            name=name,
            content_type=content_type,
            is_image=claims_image,
            size=measured.size,
            sha256=measured.sha256,
            create_time=self._now(),
            parsed_at=math.inf if settings.parse_result == "never" else self._clock() + settings.parse_delay_s,
            parses=settings.parse_result != "fail" and _readable(name, extension, claims_image, measured.head),
        )
        self._by_id[file.id] = file
        return file

    def reserve(self, owner: str, *, name: str, is_image: bool) -> Presigned:
        """A place to put bytes."""
        place = Presigned(owner=owner, name=name, is_image=is_image, object_name=f"uploads/{new_xid()}/{new_xid()}")
        self.places[place.object_name] = place
        return place

    def find(self, owner: str, file_id: str) -> StoredFile | None:
        """The file, unless it is unknown or somebody else's."""
        file = self._by_id.get(file_id)
        return file if file is not None and file.owner == owner else None

    def status(self, file: StoredFile) -> Status:
        """How far parsing is."""
        if self._clock() < file.parsed_at:
            return "processing"
        return "parsed" if file.parses else "failed"

    def labels(self, owner: str, file_ids: list[str]) -> list[str]:
        """How the demo speaks of these files."""
        return [file.label for file in (self.find(owner, one) for one in file_ids) if file is not None]

    def shown(self) -> list[dict[str, object]]:
        """For the state: `user` is the account's id."""
        return [
            {
                "id": file.id,
                "name": file.name,
                "type": file.kind,
                "content_type": file.content_type,
                "size": file.size,
                "sha256": file.sha256,
                "user": file.owner,
                "status": self.status(file),
            }
            for file in list(self._by_id.values())
        ]

    def clear(self) -> None:
        """Forget everything."""
        self._by_id.clear()
        self.places.clear()


def _readable(name: str, extension: str, claims_image: bool, head: bytes) -> bool:
    """Whether a file is what it says: by extension, else as any picture."""
    if "unparseable" in name.lower():
        return False
    if extension in _SIGNS:
        return _SIGNS[extension](head)
    return not claims_image or any(_SIGNS[one](head) for one in _IMAGES)
