"""Listening at the doorway: what calls of one context exchange with the service, kept as bytes.

Off unless somebody listens, and then for the calls of that task and of those it starts, a refresh on the background
loop included. Keeps requests without their headers, so no credential of a header is ever held; what bodies say is
for the listener to judge. Bounded: of an answer above `MAX_ANSWER_BYTES` the rest is not kept, and `cut` says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import httpx

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


@dataclass(kw_only=True, slots=True)
class Exchange:
    """One call: `path` is without host and query, `content_type` without parameters; `cut`: the answer did not come to
    its end, or was too long to be kept.
    """

    method: str
    path: str
    request: bytes = field(repr=False)
    status: int
    content_type: str
    answer: bytearray = field(default_factory=bytearray, repr=False)
    cut: bool = True


_listener: ContextVar[list[Exchange] | None] = ContextVar("kimi_tap", default=None)


@contextmanager
def listening() -> Iterator[list[Exchange]]:
    """Collect the exchanges of calls made inside, in the order of their answers."""
    heard: list[Exchange] = []
    token = _listener.set(heard)
    try:
        yield heard
    finally:
        _listener.reset(token)


async def overhear(response: httpx.Response) -> None:
    """A hook of httpx for every answer; does nothing unless somebody listens."""
    heard = _listener.get()
    if heard is None or not isinstance(response.stream, httpx.AsyncByteStream):
        return
    request = response.request
    exchange = Exchange(
        method=request.method,
        path=request.url.path,
        request=request.content if isinstance(request.stream, httpx.ByteStream) else b"",
        status=response.status_code,
        content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
    )
    heard.append(exchange)
    response.stream = _Overheard(response.stream, exchange)


class _Overheard(httpx.AsyncByteStream):
    """The same bytes, kept as they pass."""

    def __init__(self, stream: httpx.AsyncByteStream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        kept = self._exchange.answer
        whole = True
        async for chunk in self._stream:
            whole = whole and len(kept) + len(chunk) <= MAX_ANSWER_BYTES
            if whole:
                kept += chunk
            yield chunk
        self._exchange.cut = not whole

    async def aclose(self) -> None:
        await self._stream.aclose()
