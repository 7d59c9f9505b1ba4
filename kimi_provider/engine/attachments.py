"""Files of a request, and where they already are: each is read once, and uploaded once per account.

Law: a file is known by the hash of its bytes. Callers send the whole history with every request, so what an account
holds already is remembered for a while and named again instead of being sent again; two answers that need the same file
at once share one upload. Knows the protocols by their interface, and no accounts: who may use which file is a key.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from ..errors import BadRequest, UpstreamTimeout
from ..files import SpooledFile, open_part
from ..protocols import ChatProtocol, UploadedFile
from ..request import FilePart, Message
from ..settings import Settings
from ..upstream import Upstream
from ..web import Session

#: Uploads that are remembered; the least recently used is forgotten first.
MAX_REMEMBERED: Final = 4096

#: Protocol, account, SHA-256.
_Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """One distinct file of a request. `place` is where it first stands, as errors say it."""

    file: SpooledFile
    place: str
    #: "image 1: photo.png"; what a transcript says in the file's place.
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachments:
    """The files of one request, in order of appearance."""

    all: tuple[Attachment, ...] = ()
    labels: Mapping[FilePart, str] = field(default_factory=dict)

    def of(self, messages: Sequence[Message]) -> Attachments:
        """Those that stand in `messages`."""
        named = {self.labels[part] for part in _places(messages)}
        return Attachments(all=tuple(one for one in self.all if one.label in named), labels=self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Brought:
    """The files in an account; `remembered`: at least one was there before."""

    files: tuple[UploadedFile, ...]
    remembered: bool


class Uploads:
    """What each account holds. Safe to use from several threads and event loops; `clock` is monotonic seconds."""

    def __init__(self, settings: Settings, upstream: Upstream, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._upstream = upstream
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[_Key, tuple[float, UploadedFile]] = OrderedDict()
        self._in_flight: dict[_Key, concurrent.futures.Future[None]] = {}

    @asynccontextmanager
    async def open(self, messages: Sequence[Message], deadline: float) -> AsyncIterator[Attachments]:
        """Read every file of `messages`; they exist until the context ends. `deadline` is in loop time.

        Raises BadRequest that names message and part, UpstreamTimeout.
        """
        places = _places(messages)
        if not places:
            yield Attachments()
            return
        async with AsyncExitStack() as stack:
            by_hash: dict[str, Attachment] = {}
            labels: dict[FilePart, str] = {}
            try:
                async with asyncio.timeout_at(deadline):
                    for part, place in places.items():
                        context = open_part(part, settings=self._settings, upstream=self._upstream, place=place)
                        file = await stack.enter_async_context(context)
                        known = by_hash.get(file.sha256)
                        if known is None:
                            label = f"{file.kind} {len(by_hash) + 1}: {file.name}"
                            known = by_hash[file.sha256] = Attachment(file=file, place=place, label=label)
                        labels[part] = known.label
            except TimeoutError:
                raise UpstreamTimeout("Reading the request's files took longer than the time allowed") from None
            yield Attachments(all=tuple(by_hash.values()), labels=labels)

    async def bring(
        self, files: Attachments, protocol: ChatProtocol, session: Session, *, owner: str, deadline: float
    ) -> Brought:
        """The files as `owner`'s account holds them, uploaded where it does not. Raises KimiError.

        A file that the service can't read is BadRequest and names the part.
        """
        uploaded, remembered = [], False
        for one in files.all:
            key = (protocol.name, owner, one.file.sha256)
            held = await self._recall(key, deadline)
            if held is None:
                held = await self._upload(one, protocol, session, key, deadline)
            else:
                remembered = True
            uploaded.append(held)
        return Brought(files=tuple(uploaded), remembered=remembered)

    def forget(self, files: Attachments, protocol: ChatProtocol, *, owner: str) -> bool:
        """Upload anew next time; False when nothing was remembered."""
        with self._lock:
            gone = [self._held.pop((protocol.name, owner, one.file.sha256), None) for one in files.all]
        return any(gone)

    async def _recall(self, key: _Key, deadline: float) -> UploadedFile | None:
        """What the account holds, after the upload that is under way; None makes the upload the caller's."""
        while True:
            with self._lock:
                until, held = self._held.get(key, (0.0, None))
                if held is not None and until > self._clock():
                    self._held.move_to_end(key)
                    return held
                theirs = self._in_flight.get(key)
                if theirs is None:
                    self._in_flight[key] = concurrent.futures.Future()
                    return None
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(asyncio.wrap_future(theirs))  # ours to leave, not to cancel
            except TimeoutError:
                raise UpstreamTimeout("An upload of the same file took longer than the time allowed") from None

    async def _upload(
        self, one: Attachment, protocol: ChatProtocol, session: Session, key: _Key, deadline: float
    ) -> UploadedFile:
        try:
            uploaded = await protocol.upload(one.file, session, deadline=deadline)
            with self._lock:
                self._held[key] = (self._clock() + self._upstream.files.remembered_s, uploaded)
                while len(self._held) > MAX_REMEMBERED:
                    self._held.popitem(last=False)
            return uploaded
        except BadRequest as exc:
            raise BadRequest(f"{one.place}: {exc.message}", account=exc.account, cure=exc.cure() or None) from None
        finally:
            with self._lock:
                ended = self._in_flight.pop(key)
            ended.set_result(None)


def _places(messages: Sequence[Message]) -> dict[FilePart, str]:
    """Each distinct file and where it first stands."""
    places: dict[FilePart, str] = {}
    for number, message in enumerate(messages, start=1):
        for at, part in enumerate(message.parts, start=1):
            if isinstance(part, FilePart):
                places.setdefault(part, part.place or f"Message {number}, part {at}")
    return places
