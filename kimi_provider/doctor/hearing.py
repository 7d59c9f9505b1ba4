"""What was heard at the doorway, as values: the request's JSON, the answer's frames or body.

Reads bytes by the client's own decoders and judges nothing. A payload that is no JSON keeps only its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ..errors import ProtocolError
from ..protocols.connect.envelope import END_STREAM, EnvelopeDecoder
from ..protocols.rest.sse import EventStream
from ..tap import MAX_ANSWER_BYTES, Exchange

CONNECT_STREAM: Final = "application/connect+json"
EVENT_STREAM: Final = "text/event-stream"

_HEAD_BYTES: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class HeardFrame:
    """`flag` is None outside of envelopes, `value` None when the `size_bytes` are no JSON."""

    flag: int | None
    value: Any = field(repr=False)
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One call: `body` is the JSON of an answer that is no stream; `step` says what it was made for, `model` the name
    of a model that a chat call asked for.
    """

    step: str
    model: str | None
    exchange: Exchange
    request: Any = field(repr=False)
    frames: tuple[HeardFrame, ...]
    body: Any = field(repr=False)
    cut: bool

    @property
    def chats(self) -> bool:
        """Whether it asked for an answer of a model."""
        return self.model is not None

    @property
    def values(self) -> tuple[Any, ...]:
        """The JSON of all frames that have one."""
        return tuple(frame.value for frame in self.frames if frame.value is not None)


def heard(exchange: Exchange, *, step: str, model: str | None = None) -> Heard:
    """The exchange as values. `model` is dropped for calls that ask for no answer."""
    streams = exchange.content_type in (CONNECT_STREAM, EVENT_STREAM) and exchange.status == 200
    frames = tuple(_frames(exchange)) if streams else ()
    ended = any(frame.flag is not None and frame.flag & END_STREAM for frame in frames)
    enveloped = exchange.path.endswith("/Chat")
    asks = enveloped or exchange.path.endswith("/completion/stream")
    return Heard(
        step=step,
        model=model if asks else None,
        exchange=exchange,
        request=_json(exchange.request[_HEAD_BYTES:] if enveloped else exchange.request),
        frames=frames,
        body=None if streams else _json(bytes(exchange.answer)),
        # A client that has read the last frame leaves the rest unread.
        cut=exchange.cut and not ended and streams,
    )


def _frames(exchange: Exchange) -> Iterator[HeardFrame]:
    answer = bytes(exchange.answer)
    try:
        if exchange.content_type == CONNECT_STREAM:
            for flag, payload in EnvelopeDecoder(MAX_ANSWER_BYTES).feed(answer):
                yield HeardFrame(flag=flag, value=_json(payload), size_bytes=len(payload))
            return
        events = EventStream(MAX_ANSWER_BYTES)
        for payload in (*events.feed(answer), *events.close()):
            yield HeardFrame(flag=None, value=_json(payload), size_bytes=len(payload))
    except ProtocolError:
        return  # what follows is not in the protocol's form: the frames before it tell enough


def _json(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def objects_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every JSON object in `value`."""
    if isinstance(value, dict):
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from objects_in(below)


def strings_in(value: Any) -> Iterator[str]:
    """Every string in `value` that is no name of a field."""
    if isinstance(value, str):
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from strings_in(below)
