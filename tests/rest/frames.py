"""Bytes for the tests, framed here and not by the code under test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from kimi_provider.errors import KimiError
from kimi_provider.events import Event, merged
from kimi_provider.protocols.rest.wire import AnswerDecoder
from kimi_provider.upstream import Upstream

GOLDEN = Path(__file__).parent.parent / "golden"


@lru_cache
def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.bin").read_bytes()


def golden_http(name: str) -> tuple[int, bytes]:
    """Status and body of a golden HTTP answer."""
    head, _, body = golden(name).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


UPSTREAM = Upstream.load()

Outcome = tuple[list[Event], type[KimiError] | None]

REQ = {"event": "req", "id": "u1", "content": "echo: error overloaded", "refs": []}
RESP = {"event": "resp", "id": "a1"}
END = {"event": "all_done"}


def frame(data: object, end: bytes = b"\n") -> bytes:
    """One event; anything but bytes becomes JSON."""
    payload = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return b"data: " + payload + end * 2


def text(content: str) -> dict[str, Any]:
    return {"event": "cmpl", "idx_s": 0, "idx_z": 0, "text": content, "view": "cmpl"}


def error(error_type: str, message: str = "") -> dict[str, Any]:
    return {"event": "error", "error": {"error_type": error_type, "message": message, "detail": ""}}


def found(url: str, **more: Any) -> dict[str, Any]:
    return {"event": "search_plus", "msg": {"type": "get_res", "url": url, **more}}


def decode(chunks: Iterable[bytes], *, upstream: Upstream = UPSTREAM) -> Outcome:
    """Merged events and the class of the error, if any."""
    decoder = AnswerDecoder(upstream, account="acct")
    events: list[Event] = []
    failure: KimiError | None
    try:
        for chunk in chunks:
            for event in decoder.feed(chunk):
                events.append(event)
        for event in decoder.close():
            events.append(event)
    except KimiError as exc:
        failure = exc
    else:
        failure = None
    assert decoder.ended
    assert list(decoder.feed(frame(END))) == []
    assert list(decoder.close()) == []
    assert failure is None or failure.account == "acct"
    return merged(events), type(failure) if failure else None


def answer(*frames: object) -> Outcome:
    """The events of a call with these frames."""
    return decode([b"".join(f if isinstance(f, bytes) else frame(f) for f in frames)])
