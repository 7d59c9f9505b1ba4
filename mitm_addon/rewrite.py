"""What of a request reaches the gateway: headers and query by allow-list, and a body with another model's name in it.

Pure: bytes and strings in and out. A body is spliced, never parsed and dumped: everything but the bytes of the model's
name stays what it was, a large one costs one pass and one copy, and what only one JSON parser understands stays there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl, urlencode

#: What a gateway needs of a caller's headers. Everything else stays here: keys and cookies of the provider, session
#: and account ids, telemetry, and whatever a later version of a tool adds.
HEADERS = frozenset((b"content-type", b"accept", b"user-agent", b"anthropic-version", b"anthropic-beta"))

#: The same for the query: Google's and Azure's keys may stand there, too.
PARAMETERS = frozenset(("alt", "$alt", "beta", "limit", "order", "after", "before", "include", "stream"))

_WORD = re.compile(r"[\w.,-]*", re.ASCII)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]++")
#: Everything up to the next bracket that is not inside a string: one step of the loop, whatever the strings' size.
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+([{}\[\]])', re.DOTALL)


class BodyError(Exception):
    """A body that can't be sent on; the text says why."""


def headers(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields that go to the gateway."""
    return [(name, value) for name, value in fields if name.lower() in HEADERS]


def query(text: str) -> str:
    """The parameters that go to the gateway, from a query without its question mark. Their values are words: what
    holds a sign may be a key behind a separator that only its provider knows.
    """
    if not text:
        return ""
    given = parse_qsl(text, keep_blank_values=True)
    return urlencode([(name, value) for name, value in given if name in PARAMETERS and _WORD.fullmatch(value)])


def model(body: bytes, rename: Callable[[str], str]) -> bytes:
    """`body` with every top-level `model` of a JSON object renamed; the very same object when nothing changes.

    Duplicate keys are all renamed, since parsers differ in which of them counts. A `model` that is no string is left
    for the gateway to refuse. Raises BodyError when `body` is no JSON object as far as one pass can tell.
    """
    spans = [(start, end) for start, end in _values_of_model(body) if body[start : start + 1] == b'"']
    pieces: list[bytes | memoryview] = []
    at = 0
    whole = memoryview(body)
    for start, end in spans:
        name = _decoded(body[start:end])
        wanted = rename(name)
        if wanted != name:
            pieces += (whole[at:start], json.dumps(wanted).encode())
            at = end
    if not pieces:
        return body
    return b"".join((*pieces, whole[at:]))


def _values_of_model(body: bytes) -> Iterable[tuple[int, int]]:
    """Where the values of top-level `model` keys begin and end."""
    at = _expect(body, _space(body, 0), b"{")
    at = _space(body, at)
    if body[at : at + 1] == b"}":
        at += 1
    else:
        while True:
            end = _match(_STRING, body, at)
            key = body[at:end]
            start = _space(body, _expect(body, _space(body, end), b":"))
            at = _value_end(body, start)
            # A key may be written with escapes; only such a key costs a decoding.
            if key == b'"model"' or (b"\\" in key and len(key) <= 32 and _decoded(key) == "model"):
                yield start, at
            at = _space(body, at)
            if body[at : at + 1] != b",":
                break
            at = _space(body, at + 1)
        at = _expect(body, at, b"}")
    if _space(body, at) != len(body):
        raise BodyError(f"The body is not JSON: something follows its end at byte {at}.")


def _value_end(body: bytes, at: int) -> int:
    match body[at : at + 1]:
        case b'"':
            return _match(_STRING, body, at)
        case b"{" | b"[":
            return _nested_end(body, at)
        case _:
            return _match(_SCALAR, body, at)


def _nested_end(body: bytes, at: int) -> int:
    depth = 0
    for found in _TO_BRACKET.finditer(body, at):
        if found.start() != at:
            break
        at = found.end()
        depth += 1 if found[1] in (b"{", b"[") else -1
        if not depth:
            return at
    raise BodyError(f"The body is not JSON: it ends inside a value that begins before byte {at}.")


def _space(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    assert found is not None
    return found.end()


def _match(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    if (found := pattern.match(body, at)) is None:
        raise BodyError(f"The body is not JSON: unexpected content or its end at byte {at}.")
    return found.end()


def _expect(body: bytes, at: int, sign: bytes) -> int:
    if body[at : at + 1] != sign:
        raise BodyError(f"The body is not a JSON object: '{sign.decode()}' is missing at byte {at}.")
    return at + 1


def _decoded(literal: bytes) -> str:
    try:
        text = json.loads(literal)
    except ValueError:
        raise BodyError("The body is not JSON: a string has a wrong escape or is not UTF-8.") from None
    assert isinstance(text, str)
    return text
