"""Envelopes as the service writes them: one flag byte, four bytes of big-endian length, the payload.

Written from the protocol document alone and on purpose apart from the client's reader, so that one misreading can't
agree with itself. This side writes any flag and reads exactly one request envelope; it keeps no state.
"""

from __future__ import annotations

import gzip
import struct
from typing import Any

import orjson

MESSAGE = 0x00
GZIPPED = 0x01
END = 0x02
WEB_TRAILER = 0x80

HEAD_BYTES = 5


def envelope(flag: int, payload: bytes) -> bytes:
    """One envelope; `flag` is any byte, also those the service only might send (protocol C.4)."""
    return struct.pack(">BI", flag, len(payload)) + payload


def message(value: dict[str, Any]) -> bytes:
    """A message envelope (flag 0x00)."""
    return envelope(MESSAGE, orjson.dumps(value))


def gzipped(value: dict[str, Any]) -> bytes:
    """A gzip-compressed message (flag 0x01)."""
    return envelope(GZIPPED, gzip.compress(orjson.dumps(value)))


def trailer(error: dict[str, Any] | None = None) -> bytes:
    """The end of the stream (flag 0x02): `{}` or `{"error": ...}`; `{}` as error gives `{"error":{}}`."""
    return envelope(END, orjson.dumps({} if error is None else {"error": error}))


class NotEnveloped(ValueError):
    """The request body isn't exactly one plain envelope with a JSON object (protocol C.1)."""


def read_single(body: bytes) -> dict[str, Any]:
    """The JSON object of a body that must be one envelope with flag 0x00, nothing before and nothing after it."""
    if len(body) < HEAD_BYTES:
        raise NotEnveloped("incomplete envelope")
    flag, length = struct.unpack_from(">BI", body)
    if flag != MESSAGE:
        raise NotEnveloped("protocol error")
    if len(body) < HEAD_BYTES + length:
        raise NotEnveloped("incomplete envelope")
    if len(body) > HEAD_BYTES + length:
        raise NotEnveloped("expected exactly one message")
    try:
        value = orjson.loads(body[HEAD_BYTES:])
    except orjson.JSONDecodeError as error:
        raise NotEnveloped("invalid JSON") from error
    if not isinstance(value, dict):
        raise NotEnveloped("expected a JSON object")
    return value
