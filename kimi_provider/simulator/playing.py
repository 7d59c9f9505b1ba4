"""Performs a script on one HTTP response, and notices at once when nobody listens any more.

A script is an iterator of steps: bytes to send, a pause, an abort, or a whole HTTP answer instead of a stream. While it
runs, a watcher waits for the client to leave; leaving, cancelling and resetting all wake the current pause. The loop
gets no turn between the last piece and freeing the place in the gate, so a client that goes on at once finds it free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .refusals import STREAM_TYPE
from .streams import RunningStream

# How often a script without pauses lets the loop look at other things, in sends.
BREATH_SENDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Nothing for `seconds` (None: until the client leaves), with or without the headers sent."""

    seconds: float | None
    before_headers: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """Close the connection in the middle of the response body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpAnswer:
    """A complete answer that is no stream."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Step = bytes | Pause | Abort | HttpAnswer
Script = Iterator[Step]


class ScriptResponse(Response):
    """A response that plays a script."""

    def __init__(
        self,
        script: Script,
        stream: RunningStream,
        *,
        on_cancel: Callable[[], Iterator[bytes]],
        leave: Callable[[], None],
        media_type: str = STREAM_TYPE,
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._script = script
        self._stream = stream
        self._on_cancel = on_cancel
        self._leave = leave
        self._started = False
        self._sends = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play to the end or to the first reason to stop."""
        watcher = asyncio.create_task(self._watch(receive))
        try:
            answer = await self._perform(send)
        finally:
            self._leave()
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        if answer is not None:
            await answer(scope, receive, send)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.stop("left")

    async def _perform(self, send: Send) -> Response | None:
        stream = self._stream
        for step in self._script:
            match step:
                case bytes():
                    await self._send(send, step)
                case Pause():
                    if not step.before_headers:
                        await self._start(send)
                    await stream.wait(step.seconds)
                case Abort():
                    await self._start(send)
                    return None
                case HttpAnswer():
                    return Response(step.body, step.status, dict(step.headers), step.media_type)
            if stream.stopped.is_set():
                break  # before the script thinks of a next step: what nobody waits for must not come into being
        if stream.reason in ("left", "reset"):
            return None
        if stream.reason == "cancelled":
            for piece in self._on_cancel():
                await self._send(send, piece)
        await self._start(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None

    async def _start(self, send: Send) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _send(self, send: Send, piece: bytes) -> None:
        await self._start(send)
        self._sends += 1
        if self._sends % BREATH_SENDS == 0:
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
