"""What was said, as hashes: two histories have the same one when a model would make nothing of their difference.

Callers send the whole conversation with every request, our own answers included, in the form that their API gave these:
ids of calls anew, arguments written otherwise, an answer's text in blocks or with the list of its sources below. That
is no difference; every other one is. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..request import FilePart, Message, TextPart

#: The sources that callers see below a text; the model never wrote them.
_SOURCE_LIST: Final = re.compile(r"(?:\n+\[\d+\] (?:[^\n]*: )?https?://\S+)+\s*$")


def digest(*values: object) -> str:
    """SHA-256 in hex of JSON values."""
    return hashlib.sha256(_json(values)).hexdigest()


def extended(history: str, turns: Iterable[bytes]) -> str:
    """The hash of a history ("" is the empty one) after more turns."""
    for turn in turns:
        history = hashlib.sha256(history.encode() + turn).hexdigest()
    return history


def canonical(messages: Sequence[Message]) -> list[bytes]:
    """One text for each of `messages`, which are a history's turns from some point on."""
    #: Calls by their place: their ids differ between a caller's requests.
    places: dict[str, int] = {}
    turns = []
    for message in messages:
        for call in message.tool_calls:
            places[call.id] = len(places)
        turns.append(_json(_turn(message, places)))
    return turns


def _turn(message: Message, places: dict[str, int]) -> list[Any]:
    if message.role == "assistant":
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart)).strip()
        calls = [[call.name, _arguments(call.arguments)] for call in message.tool_calls]
        return ["assistant", _SOURCE_LIST.sub("", text), calls, *_files(message)]
    called = message.tool_call_id or message.name or ""
    return [message.role, message.text, places.get(called, called), message.is_error, *_files(message)]


def _files(message: Message) -> list[list[Any]]:
    """Each file and its place among the parts."""
    return [
        [at, part.kind, part.filename, part.media_type, digest(part.source)]
        for at, part in enumerate(message.parts)
        if isinstance(part, FilePart)
    ]


def _arguments(text: str) -> Any:
    try:
        return _plain(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _json(value: object) -> bytes:
    """ASCII, so that any text has one."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Numbers as every language writes them: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
