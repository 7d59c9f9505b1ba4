"""Bytes of an open answer -> batches of events: as fast as they come, and never more in memory than is bounded.

A task of its own decodes into a buffer; the consumer takes all that is there at once. Knows no protocol: a `Decoder`
says what bytes mean, when an answer is through, and what counts as content. Times silence, the end, and the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from typing import Protocol

from .errors import KimiError, ProtocolError, UpstreamTimeout
from .events import Event, merged
from .web import BROKEN, UNDECODABLE

#: The end of the body follows the last frame at once or never; only a connection that was read to it is used again.
_BODY_END_S = 0.05


class Decoder(Protocol):
    """Turns bytes, cut anywhere, into events. Sans-I/O; `feed` may raise a KimiError after it yielded events."""

    #: Grows with every frame that carries content: heartbeats don't count (protocol C.11, timeouts).
    content_frames: int
    #: The logical end was seen; an end-of-stream frame may still bring an error (protocol C.4).
    done: bool
    #: Nothing more is expected; later bytes are ignored.
    ended: bool

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Events that `chunk` completes."""

    def close(self) -> Iterable[Event]:
        """The connection ended, or the grace after `done` ran out. Raises ProtocolError when that is too early."""


async def pump(
    chunks: AsyncIterator[bytes],
    decoder: Decoder,
    *,
    idle_timeout_s: float,
    done_grace_s: float,
    deadline: float,
    max_buffer_bytes: int = 1024 * 1024,
) -> AsyncGenerator[list[Event], None]:
    """Decode in a task of its own and yield *all that is there* as one merged batch.

    One item per HTTP chunk would cost the gateway 0.2 ms each; taking everything at once adds no delay and keeps up
    with any upstream. The reader pauses while more than `max_buffer_bytes` wait. Events decoded before a failure are
    yielded before it is raised. `idle_timeout_s` bounds silence between frames with content, `done_grace_s` the wait
    after the logical end, `deadline` (loop time) the whole.
    """
    loop = asyncio.get_running_loop()
    ready, drained = asyncio.Event(), asyncio.Event()
    buffer: list[Event] = []
    state = _PumpState()

    async def read() -> None:
        try:
            async for chunk in chunks:
                state.waiting_bytes += len(chunk)
                for event in decoder.feed(chunk):
                    buffer.append(event)
                if decoder.ended:
                    break
                if buffer or decoder.done or decoder.content_frames != state.seen_frames:
                    ready.set()
                # Only what waits for the consumer may pause us: a frame still being collected waits for its end.
                if buffer and state.waiting_bytes > max_buffer_bytes:
                    drained.clear()
                    await drained.wait()
            buffer.extend(decoder.close())
        except UNDECODABLE as exc:
            state.failure = ProtocolError(f"The answer's compression can't be undone ({type(exc).__name__})")
        except BROKEN:
            # The connection broke: the decoder knows whether the answer was complete (protocol C.4).
            try:
                buffer.extend(decoder.close())
            except KimiError as exc:
                state.failure = exc
        except KimiError as exc:
            state.failure = exc
        finally:
            state.finished = True
            ready.set()
        if decoder.ended:
            with suppress(*BROKEN):
                async for _ in chunks:
                    pass

    reader = asyncio.create_task(read(), name="kimi-pump")
    silent_since = loop.time()
    try:
        while True:
            limit = silent_since + (done_grace_s if decoder.done else idle_timeout_s)
            try:
                async with asyncio.timeout_at(min(limit, deadline)):
                    await ready.wait()
            except TimeoutError:
                if not ready.is_set():  # else something came in the same turn of a busy loop
                    if loop.time() >= deadline:
                        raise UpstreamTimeout("The answer took longer than the time allowed") from None
                    if decoder.done:
                        yield merged(decoder.close())
                        return
                    raise UpstreamTimeout(f"The service sent nothing for {idle_timeout_s:g} s") from None
            ready.clear()
            if decoder.content_frames != state.seen_frames:
                state.seen_frames = decoder.content_frames
                silent_since = loop.time()
            batch = merged(buffer)
            buffer.clear()
            state.waiting_bytes = 0
            drained.set()
            if batch:
                yield batch
            if state.finished and not buffer:
                if state.failure is not None:
                    raise state.failure
                if not reader.cancelled() and reader.done():
                    reader.result()
                return
    finally:
        try:
            if state.finished and decoder.ended:
                await asyncio.wait((reader,), timeout=_BODY_END_S)
        finally:
            reader.cancel()
            await asyncio.wait((reader,))  # not `await reader`: its cancellation and ours could not be told apart


class _PumpState:
    """What reader and consumer share."""

    waiting_bytes = 0
    seen_frames = 0
    finished = False
    failure: KimiError | None = None
