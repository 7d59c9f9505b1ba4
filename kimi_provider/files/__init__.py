"""A caller's file or image -> bytes ready to upload.

`open_part` reads `data:` URLs, base64 text and http(s) addresses, and knows neither Kimi nor its uploads. It promises:
no connection to an address that is not public or listed by the operator (guard, fetch); memory that does not grow with
the file (text, spool); a type told by the bytes, not by the caller (kinds); nothing left on disk, however it ends.
Everything wrong with a part is BadRequest and names the part; limits and tables are `files` of upstream.yaml.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from ..errors import BadRequest
from ..request import FilePart
from ..settings import Settings
from ..upstream import Files, Upstream
from .fetch import Fetched, Network, fetch
from .guard import Allowed
from .kinds import HEAD_BYTES, Kind, disposition_name, named, path_name, sniff
from .refusal import Refused, shown
from .spool import Spool
from .text import Encoded, encoded, is_url

__all__ = ["Network", "SpooledFile", "open_part"]

T = TypeVar("T")

#: Work on a disk or on much text; not the host's default pool, which others need.
_workers = concurrent.futures.ThreadPoolExecutor(4, thread_name_prefix="kimi-files")
#: Text of up to so many characters is decoded on the loop (about a millisecond).
_INLINE_CHARS = 256 * 1024
#: Pieces of text decoded by one turn of a worker: about a megabyte, a few milliseconds.
_PIECES_A_TURN = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledFile:
    """A file to upload; exists until its context ends. Exactly one of `path` and `content` is there.

    `name` is safe for headers and has an extension that fits `media_type`, which was told from the bytes. `kind` is
    `image` for every image, also when it came as a file. `sha256` is hex.
    """

    name: str
    media_type: str
    kind: Literal["image", "file"]
    size_bytes: int
    sha256: str
    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)

    def open(self) -> BinaryIO:
        """A new reader at the first byte; close it."""
        return self.path.open("rb") if self.path is not None else BytesIO(self.content or b"")


@asynccontextmanager
async def open_part(
    part: FilePart, *, settings: Settings, upstream: Upstream, place: str, network: Network | None = None
) -> AsyncIterator[SpooledFile]:
    """The bytes of `part`; `place` is what errors call it ("Message 3, part 2").

    Raises BadRequest for all that is wrong with the part or with the server it names, KimiError when our disk fails.
    """
    limits = upstream.files
    spool = Spool(max_bytes=limits.max_bytes, memory_bytes=limits.memory_bytes)
    try:
        try:
            async with asyncio.timeout(limits.total_timeout_s):
                file = await _read(part, spool, limits, Allowed.of(settings.kimi_file_hosts_allowed), network)
        except Refused as exc:
            raise BadRequest(f"{place}: {exc.cause}", cure=exc.cure) from None
        except TimeoutError:
            raise BadRequest(f"{place}: the file took longer than {limits.total_timeout_s:g} s") from None
        yield file
    finally:
        spool.close()


async def _read(part: FilePart, spool: Spool, limits: Files, allowed: Allowed, network: Network | None) -> SpooledFile:
    kinds: list[Kind] = []

    def look() -> None:
        """Tell the kind once it can be told: a film sent as an image ends with its first kilobytes."""
        if not kinds:
            kinds.append(_kind(part, spool.head, limits))

    async def write(piece: bytes) -> None:
        if spool.stays_in_memory(len(piece)):
            spool.write(piece)
        else:
            await _off_loop(spool.write, piece)
        if len(spool.head) == HEAD_BYTES:
            look()

    if is_url(part.source):
        fetched = await fetch(part.source.strip(), write, limits=limits, allowed=allowed, network=network or Network())
        names, media_type = _hints(part, fetched)
    else:
        source = encoded(part.source)
        await _decode(source, spool, look, limits)
        names, media_type = (part.filename,), part.media_type or source.media_type
    if not spool.size_bytes:
        raise Refused("the file is empty")
    look()
    await _off_loop(spool.finish) if spool.path else spool.finish()
    name, media_type = named(kinds[0], limits, names=names, media_type=media_type)
    return SpooledFile(
        name=name,
        media_type=media_type,
        kind="image" if kinds[0].image else "file",
        size_bytes=spool.size_bytes,
        sha256=spool.sha256,
        path=spool.path,
        content=None if spool.path else spool.content,
    )


def _kind(part: FilePart, head: bytes, limits: Files) -> Kind:
    kind = sniff(head, limits)
    if part.kind == "image" and not kind.image:
        called = f", though it is called {shown(part.filename)}" if part.filename else ""
        usual = ", ".join(dict.fromkeys(next(iter(known.types)) for known in limits.signatures if known.image))
        raise Refused(f"it is given as an image but holds {kind.word}{called}", cure=f"Images are: {usual}.")
    return kind


def _hints(part: FilePart, fetched: Fetched) -> tuple[tuple[str | None, ...], str | None]:
    names = (part.filename, disposition_name(fetched.content_disposition), path_name(fetched.url_path))
    return names, part.media_type or fetched.content_type


async def _decode(source: Encoded, spool: Spool, look: Callable[[], None], limits: Files) -> None:
    def some(pieces: Iterator[bytes], count: int | None) -> bool:
        """Decode up to `count` pieces; whether there may be more."""
        taken = 0
        for piece in itertools.islice(pieces, count):
            taken += 1
            spool.write(piece)
            if len(spool.head) == HEAD_BYTES:
                look()
        return taken == count

    if len(source.text) <= min(_INLINE_CHARS, limits.memory_bytes):
        some(source.decoded(limits.max_bytes), None)
        return
    pieces = await _off_loop(source.decoded, limits.max_bytes)
    while await _off_loop(some, pieces, _PIECES_A_TURN):
        pass


async def _off_loop(work: Callable[..., T], *args: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_workers, functools.partial(work, *args))
