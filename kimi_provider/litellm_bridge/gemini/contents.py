"""The turns of a Gemini request -> chat messages.

Pure. Text, files and calls keep their order, results go first, and each file remembers its place in the caller's own
`contents`, because one turn may become several messages. Files take a form that other providers understand as well: a
fallback may answer. What can't be sent is BadRequest with its place.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from ...errors import BadRequest
from ..parts import PlacedPart, place_of
from .fields import Json, camel, items, mapping, snake

#: Files kept by Google, which only Google can read: `files/abc` and the address of the same.
_KEPT_FILE = re.compile(r"(?:https://generativelanguage\.googleapis\.com/\S*?)?files/", re.IGNORECASE)


def system(instruction: Any) -> list[Json]:
    """The system message of a `systemInstruction`, if it says anything. Raises BadRequest."""
    if instruction is None:
        return []
    content = {"parts": [{"text": instruction}]} if isinstance(instruction, str) else instruction
    parts = items(snake(mapping(content, "systemInstruction")).get("parts"), "systemInstruction.parts")
    texts = []
    for part in parts:
        fields = snake(mapping(part, "systemInstruction.parts"))
        if strange := fields.keys() - {"text", "thought", "thought_signature"}:
            raise BadRequest(f"systemInstruction takes text only, not {', '.join(map(camel, sorted(strange)))}")
        texts.append(str(fields.get("text") or ""))
    text = "\n".join(texts)
    return [{"role": "system", "content": text}] if text else []


def messages(contents: Any) -> list[Json]:
    """The messages of `contents`, which may be one text. Raises BadRequest."""
    if isinstance(contents, str):
        contents = [{"parts": [{"text": contents}]}]
    messages: list[Json] = []
    calls = _CallIds()
    for number, content in enumerate(items(contents, "contents"), start=1):
        fields = mapping(content, f"contents[{number}]")
        role = fields.get("role") or "user"
        parts = [snake(mapping(part, f"contents[{number}].parts")) for part in items(fields.get("parts"), "parts")]
        if role == "model":
            messages.append(_model_turn(parts, calls, number))
        elif role in ("user", "function", "tool"):
            messages += _user_turn(parts, calls, number)
        else:
            raise BadRequest(f"contents[{number}] has the unknown role {str(role)[:40]!r}. Use user or model.")
    return messages


class _CallIds:
    """Pairs results with calls: by id where one is given, else in order for each name."""

    def __init__(self) -> None:
        self._open: dict[str, list[str]] = {}
        self._count = 0

    def opened(self, name: str, given: Any) -> str:
        """Id of a call."""
        self._count += 1
        call_id = given if isinstance(given, str) and given else f"call_{self._count}_{name}"
        self._open.setdefault(name, []).append(call_id)
        return call_id

    def closed(self, name: str, given: Any) -> str:
        """Id of the call that a result answers."""
        waiting = self._open.get(name, [])
        if isinstance(given, str) and given:
            if given in waiting:
                waiting.remove(given)
            return given
        return waiting.pop(0) if waiting else f"call_{name}"


def _model_turn(parts: list[Json], calls: _CallIds, number: int) -> Json:
    content: list[Json] = []
    for at, part in enumerate(parts, start=1):
        if part.get("thought"):
            continue
        if (file := _media(part, place_of(number, at))) is not None:
            content.append(file)
        elif part.get("text"):
            content.append({"type": "text", "text": str(part["text"])})
    message: Json = {"role": "assistant", "content": _joined(content, "")}
    tool_calls = []
    for part in parts:
        if (call := part.get("function_call")) is not None:
            fields = mapping(call, "functionCall")
            name = str(fields.get("name") or "")
            arguments = orjson.dumps(fields.get("args") or {}).decode()
            function = {"name": name, "arguments": arguments}
            tool_calls.append({"id": calls.opened(name, fields.get("id")), "type": "function", "function": function})
    if tool_calls:
        message["tool_calls"] = tool_calls
    return message


def _user_turn(parts: list[Json], calls: _CallIds, number: int) -> list[Json]:
    """Results first: they answer the turn before, whatever text comes along."""
    results: list[Json] = []
    content: list[Json] = []
    for at, part in enumerate(parts, start=1):
        if (answer := part.get("function_response")) is not None:
            results.append(_result(snake(mapping(answer, "functionResponse")), calls, number, at))
        elif (file := _media(part, place_of(number, at))) is not None:
            content.append(file)
        elif isinstance(part.get("text"), str):
            content.append({"type": "text", "text": part["text"]})
        elif part:
            raise BadRequest(f"{place_of(number, at)}: Kimi does not take {', '.join(map(camel, part))}")
    return [*results, {"role": "user", "content": _joined(content, "\n")}] if content else results


def _joined(content: list[Json], between: str) -> str | list[Json]:
    """One text where there is nothing else."""
    if all(item["type"] == "text" for item in content):
        return between.join(item["text"] for item in content)
    return content


def _result(fields: Json, calls: _CallIds, number: int, at: int) -> Json:
    name, value = str(fields.get("name") or ""), fields.get("response")
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    inner = [snake(mapping(part, "functionResponse.parts")) for part in items(fields.get("parts"), "parts")]
    media = [file for n, part in enumerate(inner, start=1) if (file := _media(part, place_of(number, at, n)))]
    return {
        "role": "tool",
        "tool_call_id": calls.closed(name, fields.get("id")),
        "name": name,
        "content": [{"type": "text", "text": text}, *media] if media else text,
    }


def _media(part: Json, place: str) -> PlacedPart | None:
    """`inlineData` or `fileData`, in a form that other providers take, too: a fallback may answer."""
    if (data := part.get("inline_data")) is not None:
        fields = snake(mapping(data, place))
        media_type = str(fields.get("mime_type") or "application/octet-stream")
        key, url = "file_data", f"data:{media_type};base64,{fields.get('data') or ''}"
    elif (data := part.get("file_data")) is not None:
        fields = snake(mapping(data, place))
        media_type = str(fields.get("mime_type") or "")
        key, url = "file_id", str(fields.get("file_uri") or "")
        if _KEPT_FILE.match(url):
            raise BadRequest(
                f"{place}: files kept by Google can't be read here",
                cure="Send the file itself as inlineData, or an https address that anyone can fetch.",
            )
    else:
        return None
    if media_type.startswith("image/"):
        return PlacedPart({"type": "image_url", "image_url": {"url": url}}, place)
    file = {key: url, "filename": fields.get("display_name"), "format": media_type}
    return PlacedPart({"type": "file", "file": {name: value for name, value in file.items() if value}}, place)
