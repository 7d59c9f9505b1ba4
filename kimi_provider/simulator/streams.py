"""Running answers: how many there are for an account, and how one is told to stop.

A stream counts from the moment it is admitted until its last byte is handed over or its client is gone, whichever
comes first (protocol E.7, E.8). Lives on one event loop; other threads may read the numbers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

StopReason = Literal["left", "cancelled", "reset"]


@dataclass(kw_only=True, eq=False)
class RunningStream:
    """One admitted Chat call."""

    owner: str
    protocol: str = "connect"
    chat_id: str | None = None
    message_id: str | None = None
    reason: StopReason | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _awake: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, reason: StopReason) -> None:
        """Ask the answer to end; the first reason stays."""
        self.reason = self.reason or reason
        self.stopped.set()
        self._awake.set()

    def resume(self) -> None:
        """End the pause it is in, if it is in one."""
        self._awake.set()

    async def wait(self, seconds: float | None) -> None:
        """Sleep (None: for ever), but wake at once when the stream is stopped or resumed."""
        if (seconds is not None and seconds <= 0) or self.stopped.is_set():
            return
        self._awake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            return


class StreamGate:
    """Admits streams and counts them."""

    def __init__(self) -> None:
        self._running: set[RunningStream] = set()
        self.peak = 0
        self.total = 0
        self.cancelled: list[dict[str, str]] = []

    @property
    def active(self) -> int:
        """Streams running now."""
        return len(self._running)

    def by_owner(self) -> dict[str, int]:
        """Streams running now, for each account that has any."""
        return dict(Counter(stream.owner for stream in list(self._running)))

    def enter(self, owner: str, limit: int, protocol: str = "connect") -> RunningStream | None:
        """A place for one more stream of the account on this protocol, or None at the limit."""
        if sum(one.owner == owner and one.protocol == protocol for one in self._running) >= limit:
            return None
        stream = RunningStream(owner=owner, protocol=protocol)
        self._running.add(stream)
        self.total += 1
        self.peak = max(self.peak, self.active)
        return stream

    def leave(self, stream: RunningStream) -> None:
        """Free the place; harmless when it is free already."""
        self._running.discard(stream)

    def cancel(self, owner: str, chat_id: str, message_id: str) -> None:
        """CancelChat: stop what runs in that chat; a message id, when given, must be the running one."""
        self.cancelled.append({"chat_id": chat_id, "message_id": message_id})
        for stream in list(self._running):
            if stream.owner == owner and stream.chat_id == chat_id and message_id in ("", stream.message_id):
                stream.stop("cancelled")

    def resume_all(self) -> None:
        """End the pauses of all running streams."""
        for stream in self._running:
            stream.resume()

    def stop_all(self) -> None:
        """Break off every running stream."""
        for stream in list(self._running):
            stream.stop("reset")

    def clear(self) -> None:
        """Break off what runs and start counting afresh."""
        self.stop_all()
        self._running.clear()
        self.peak = self.total = 0
        self.cancelled.clear()
