"""Requests of a shape that LiteLLM would fail on, or drop parts of, before it asks us.

Its own code takes for granted that messages are objects with a role, tools objects with a type, and so on: anything
else becomes a 500, some with a traceback, or vanishes. Here it is refused in time, by its place in the request. Only
what LiteLLM takes for granted is checked; what it passes on is `inbound`'s and `parts`' to judge. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NotRequired

from litellm.types.llms import openai as openai_types
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # which pydantic wants before Python 3.12

from ..errors import BadRequest
from .parts import place_of

Json = dict[str, Any]

#: Parts of a user's chat message that LiteLLM lets through; where it has no such list, it checks none.
_CHAT_PARTS: Collection[str] = getattr(openai_types, "ValidUserMessageContentTypes", ())


class _Part(TypedDict):
    type: str


class _ChatMessage(TypedDict):
    role: str
    content: NotRequired[str | list[_Part] | None]
    tool_calls: NotRequired[list[Json] | None]


class _Chat(TypedDict):
    messages: list[_ChatMessage]
    tools: NotRequired[list[Json] | None]
    response_format: NotRequired[Json | None]


class _Block(TypedDict):
    type: str
    name: NotRequired[str]
    content: NotRequired[str | list[_Part] | Json | None]


class _Turn(TypedDict):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Tool(TypedDict):
    type: NotRequired[str | None]
    name: str  # LiteLLM would make one up, for a set of MCP tools, too


class _Choice(TypedDict):
    type: Literal["auto", "any", "tool", "none"]


class _Thinking(TypedDict):
    budget_tokens: NotRequired[int]


class _Messages(TypedDict):
    messages: list[_Turn]
    tools: NotRequired[list[_Tool] | None]
    tool_choice: NotRequired[_Choice | None]
    thinking: NotRequired[_Thinking | None]


class _Item(TypedDict):
    content: NotRequired[str | list[_Part] | None]
    call_id: NotRequired[str | None]


class _Function(TypedDict):
    parameters: NotRequired[Json | None]


class _Responses(TypedDict):
    input: str | list[_Item]
    tools: NotRequired[list[_Function] | None]
    reasoning: NotRequired[Json | None]


#: By LiteLLM's name for a call.
_SHAPES: dict[str, TypeAdapter[Any]] = {
    "acompletion": TypeAdapter(_Chat),
    "anthropic_messages": TypeAdapter(_Messages),
    "aresponses": TypeAdapter(_Responses),
}


def check(call_type: str, body: Mapping[str, Any]) -> None:
    """Raise BadRequest when LiteLLM would choke on `body`."""
    if (shape := _SHAPES.get(call_type)) is None:
        return
    try:
        shape.validate_python(body, strict=True)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        found = [(_path(error["loc"], body, error["type"] == "missing"), error["msg"]) for error in errors]
        # Of the forms that a value may have, the one that came furthest was meant.
        path, message = max(found, key=lambda one: len(one[0]))
        raise BadRequest(f"{''.join(path)}: {message}") from None
    if call_type == "anthropic_messages" and not body["messages"]:
        raise BadRequest("messages is empty", cure="Add at least one user message.")
    if call_type == "acompletion" and _CHAT_PARTS:
        _check_parts(body["messages"])


def _check_parts(messages: list[Json]) -> None:
    for number, message in enumerate(messages, start=1):
        content = message.get("content")
        if message["role"] == "user" and isinstance(content, list):
            for at, part in enumerate(content, start=1):
                if part["type"] not in _CHAT_PARTS:
                    raise BadRequest(f"{place_of(number, at)}: Kimi does not take parts of type {part['type']!r:.40}")


def _path(location: tuple[str | int, ...], node: Any, missing: bool) -> list[str]:
    """The places in `node` that pydantic's `location` leads through, which has names of types between them. Of a
    `missing` field the last is not there.
    """
    path: list[str] = []
    for key in location:
        if isinstance(node, list) and isinstance(key, int):
            node = node[key]
            path.append(f"[{key}]")
        elif isinstance(node, dict) and (key in node or (missing and key == location[-1])):
            node = node.get(key)
            path.append(f".{key}" if path else str(key))
    return path
