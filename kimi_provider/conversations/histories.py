"""What was said, as hashes: two histories have the same one when a model would make nothing of their difference.

Callers send the whole conversation with every request, our own answers included, in the form that their API gave these:
ids of calls anew, arguments written otherwise or with their defaults, an answer's text in blocks or with the list of
its sources below. That is no difference; every other one is. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..request import FilePart, Message, TextPart, ToolSpec

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


def canonical(messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[bytes]:
    """One text for each of `messages`, which are a history's turns from some point on; `tools` are those it has."""
    #: Calls by their place: their ids differ between a caller's requests.
    places: dict[str, int] = {}
    defaults = {tool.name: _defaults(tool.parameters) for tool in tools}
    turns = []
    for message in messages:
        for call in message.tool_calls:
            places[call.id] = len(places)
        turns.append(_json(_turn(message, places, defaults)))
    return turns


def _turn(message: Message, places: Mapping[str, int], defaults: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    if message.role == "assistant":
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart)).strip()
        calls = [[call.name, _arguments(call.arguments, defaults.get(call.name, {}))] for call in message.tool_calls]
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


def _defaults(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values that arguments have anyway."""
    properties = parameters.get("properties")
    fields = properties.items() if isinstance(properties, Mapping) else ()
    return {key: field["default"] for key, field in fields if isinstance(field, Mapping) and "default" in field}


def _arguments(text: str, defaults: Mapping[str, Any]) -> Any:
    try:
        found = _plain(json.loads(text))
    except (ValueError, RecursionError):
        return text
    if not isinstance(found, dict):
        return found
    return {key: value for key, value in found.items() if key not in defaults or value != defaults[key]}


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
