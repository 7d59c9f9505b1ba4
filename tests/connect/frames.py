"""Bytes for the tests, framed here and not by the code under test."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from kimi_provider.errors import KimiError
from kimi_provider.events import Event, merged
from kimi_provider.protocols.connect.wire import ChatDecoder
from kimi_provider.upstream import Upstream

GOLDEN = Path(__file__).parent.parent / "golden"
UPSTREAM = Upstream.load()


def env(payload: object, flag: int = 0) -> bytes:
    """One envelope; anything but bytes becomes JSON."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    return struct.pack(">BI", flag, len(data)) + data


@lru_cache
def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.bin").read_bytes()


def golden_http(name: str) -> tuple[int, bytes]:
    """Status and body of a golden HTTP answer."""
    head, _, body = golden(name).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def split(stream: bytes) -> list[tuple[int, bytes]]:
    """The frames of a well-formed stream."""
    frames, at = [], 0
    while at < len(stream):
        flag, size = struct.unpack_from(">BI", stream, at)
        frames.append((flag, stream[at + 5 : at + 5 + size]))
        at += 5 + size
    return frames


CHAT = {"op": "set", "mask": "chat", "chat": {"id": "c1"}}
ECHO = {
    "op": "set",
    "mask": "message",
    "message": {"id": "m-user", "role": "user", "blocks": [{"id": "1", "text": {"content": "error overloaded"}}]},
}
ASSISTANT = {
    "op": "set",
    "mask": "message",
    "message": {"id": "m-asst", "role": "assistant", "status": "MESSAGE_STATUS_GENERATING", "blocks": []},
}
COMPLETED = {"mask": "message.status", "message": {"id": "m-asst", "status": "MESSAGE_STATUS_COMPLETED"}}
OPENING = env(CHAT) + env(ECHO) + env(ASSISTANT)
END = env({}, 2)


def text(content: str, block_id: str = "5", op: str = "append", **more: Any) -> dict[str, Any]:
    return {"op": op, "mask": "block.text.content", "block": {"id": block_id, "text": {"content": content}, **more}}


def think(content: str, block_id: str = "3", op: str = "append") -> dict[str, Any]:
    return {"op": op, "mask": "block.think.content", "block": {"id": block_id, "think": {"content": content}}}


def tool(payload: dict[str, Any], block_id: str = "4", op: str = "set") -> dict[str, Any]:
    return {"op": op, "block": {"id": block_id, "tool": payload}}


Outcome = tuple[list[Event], type[KimiError] | None]


def decode(chunks: Iterable[bytes], *, close: bool = True, upstream: Upstream = UPSTREAM) -> Outcome:
    """Merged events and the class of the error, if any."""
    decoder = ChatDecoder(upstream, account="acct")
    events: list[Event] = []
    try:
        for chunk in chunks:
            for event in decoder.feed(chunk):
                events.append(event)
        if close:
            for event in decoder.close():
                events.append(event)
    except KimiError as exc:
        assert decoder.ended
        assert list(decoder.feed(END)) == []
        assert list(decoder.close()) == []
        return merged(events), type(exc)
    return merged(events), None


def answer(*frames: object, end: bytes = END) -> Outcome:
    """The events of a turn that opens as usual, without the opening's own two events."""
    events, error = decode([OPENING + b"".join(f if isinstance(f, bytes) else env(f) for f in frames) + end])
    assert [type(e).__name__ for e in events[:2]] == ["ChatOpened", "ChatOpened"]
    return events[2:], error


def said(*frames: object, end: bytes = END) -> str:
    """The text of such a turn, which must succeed."""
    events, error = answer(*frames, end=end)
    assert error is None
    return "".join(e.text for e in events if type(e).__name__ == "TextDelta")
