"""A Gemini request -> the chat request that LiteLLM understands.

Pure: JSON in, JSON out. Both spellings of Gemini's fields are read (`inlineData`, `inline_data`). What has no place in
a chat request is listed in `Chat.ignored`; what would silently change the meaning of the request is refused with
BadRequest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ...errors import BadRequest

Json = dict[str, Any]

#: generationConfig fields with a namesake in chat requests.
_SAME: dict[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "candidate_count": "n",
    "max_output_tokens": "max_tokens",
    "stop_sequences": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
#: Read elsewhere in this module.
_READ = {"thinking_config", "response_mime_type", "response_schema", "response_json_schema"}
_TOP_LEVEL = {"contents", "system_instruction", "generation_config", "tools", "tool_config", "model"}
_TOOL_CHOICES = {"none": "none", "auto": "auto", "validated": "auto", "any": "required"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """`body` is a chat completion request without `model` and `stream`; `thoughts` tells whether to show them."""

    body: Json
    thoughts: bool
    ignored: tuple[str, ...] = field(default=())


def to_chat(request: Mapping[str, Any]) -> Chat:
    """Translate. Raises BadRequest naming the field."""
    fields = _snake(request)
    if fields.get("cached_content"):
        raise BadRequest("cachedContent is not supported", cure="Send the content itself in contents.")
    messages = _system(fields.get("system_instruction")) + _messages(fields.get("contents"))
    body: Json = {"messages": messages}
    ignored = [_camel(name) for name in fields if name not in _TOP_LEVEL and fields[name] not in (None, [], {})]
    config = _snake(_mapping(fields.get("generation_config"), "generationConfig"))
    for name, value in config.items():
        if value is None or name in _READ:
            continue
        if name in _SAME:
            body[_SAME[name]] = value
        else:
            ignored.append(_camel(name))
    thinking = _snake(_mapping(config.get("thinking_config"), "thinkingConfig"))
    if (effort := _effort(thinking)) is not None:
        body["reasoning_effort"] = effort
    if (wanted := _response_format(config)) is not None:
        body["response_format"] = wanted
    _take_tools(fields, body, ignored)
    return Chat(body=body, thoughts=thinking.get("include_thoughts") is not False, ignored=tuple(sorted(ignored)))


def prompt_text(request: Mapping[str, Any]) -> str:
    """All text of a request, for counting. Raises BadRequest."""
    fields = _snake(request)
    inner = fields.get("generate_content_request")
    if isinstance(inner, Mapping):
        fields = _snake(inner)
    messages = _system(fields.get("system_instruction")) + _messages(fields.get("contents"))
    texts = []
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts += [part["text"] for part in parts if part["type"] == "text"]
    if fields.get("tools"):
        texts.append(orjson.dumps(fields["tools"]).decode())
    return "\n".join(texts)


# --- generation settings ----------------------------------------------------------------------------------


def _effort(thinking: Mapping[str, Any]) -> str | None:
    """`thinkingLevel` by name; a `thinkingBudget` of 0 is off, -1 is the model's own choice."""
    level = thinking.get("thinking_level")
    if isinstance(level, str) and level.upper() != "THINKING_LEVEL_UNSPECIFIED":
        return level.lower()
    budget = thinking.get("thinking_budget")
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
        return None
    if budget == 0:
        return "none"
    return "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"


def _response_format(config: Mapping[str, Any]) -> Json | None:
    schema = config.get("response_json_schema") or config.get("response_schema")
    if schema is not None:
        return {"type": "json_schema", "json_schema": {"name": "response", "schema": _lower_types(schema)}}
    return {"type": "json_object"} if config.get("response_mime_type") == "application/json" else None


def _take_tools(fields: Mapping[str, Any], body: Json, ignored: list[str]) -> None:
    functions = []
    for tool in _list(fields.get("tools"), "tools"):
        for name, value in _snake(_mapping(tool, "tools")).items():
            if name == "function_declarations":
                functions += [_function(_snake(_mapping(f, "functionDeclarations"))) for f in _list(value, name)]
            elif name in ("google_search", "google_search_retrieval"):
                body["web_search_options"] = {}
            else:
                ignored.append(f"tools.{_camel(name)}")
    if not functions:
        return
    body["tools"] = functions
    tool_config = _snake(_mapping(fields.get("tool_config"), "toolConfig"))
    calling = _snake(_mapping(tool_config.get("function_calling_config"), "functionCallingConfig"))
    mode = str(calling.get("mode") or "").lower()
    names = calling.get("allowed_function_names")
    if mode == "any" and isinstance(names, list) and len(names) == 1:
        body["tool_choice"] = {"type": "function", "function": {"name": str(names[0])}}
    elif mode in _TOOL_CHOICES:
        body["tool_choice"] = _TOOL_CHOICES[mode]


def _function(declaration: Mapping[str, Any]) -> Json:
    name = declaration.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest("A function declaration has no name")
    schema = declaration.get("parameters_json_schema") or declaration.get("parameters") or {"type": "object"}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": str(declaration.get("description") or ""),
            "parameters": _lower_types(schema),
        },
    }


def _lower_types(schema: Any) -> Any:
    """Gemini writes schema types in upper case (OBJECT, STRING); JSON schema in lower case."""
    if isinstance(schema, Mapping):
        return {
            key: value.lower() if key == "type" and isinstance(value, str) else _lower_types(value)
            for key, value in schema.items()
        }
    return [_lower_types(item) for item in schema] if isinstance(schema, list) else schema


# --- contents ---------------------------------------------------------------------------------------------


def _system(instruction: Any) -> list[Json]:
    if instruction is None:
        return []
    content = {"parts": [{"text": instruction}]} if isinstance(instruction, str) else instruction
    parts = _list(_snake(_mapping(content, "systemInstruction")).get("parts"), "systemInstruction.parts")
    text = "\n".join(str(_mapping(part, "systemInstruction.parts").get("text") or "") for part in parts)
    return [{"role": "system", "content": text}] if text else []


def _messages(contents: Any) -> list[Json]:
    if isinstance(contents, str):
        contents = [{"parts": [{"text": contents}]}]
    messages: list[Json] = []
    calls = _CallIds()
    for number, content in enumerate(_list(contents, "contents"), start=1):
        fields = _mapping(content, f"contents[{number}]")
        role = fields.get("role") or "user"
        parts = [_snake(_mapping(part, f"contents[{number}].parts")) for part in _list(fields.get("parts"), "parts")]
        if role == "model":
            messages.append(_model_turn(parts, calls))
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


def _model_turn(parts: list[Json], calls: _CallIds) -> Json:
    text = "".join(str(part["text"]) for part in parts if part.get("text") and not part.get("thought"))
    message: Json = {"role": "assistant", "content": text}
    tool_calls = []
    for part in parts:
        if (call := part.get("function_call")) is not None:
            fields = _mapping(call, "functionCall")
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
    for part in parts:
        if (answer := part.get("function_response")) is not None:
            fields = _mapping(answer, "functionResponse")
            name = str(fields.get("name") or "")
            value = fields.get("response")
            results.append(
                {
                    "role": "tool",
                    "tool_call_id": calls.closed(name, fields.get("id")),
                    "name": name,
                    "content": value if isinstance(value, str) else orjson.dumps(value).decode(),
                }
            )
        elif (data := part.get("inline_data")) is not None:
            fields = _snake(_mapping(data, "inlineData"))
            media_type = str(fields.get("mime_type") or "application/octet-stream")
            content.append(_media(media_type, f"data:{media_type};base64,{fields.get('data') or ''}"))
        elif (data := part.get("file_data")) is not None:
            fields = _snake(_mapping(data, "fileData"))
            content.append(_media(str(fields.get("mime_type") or ""), str(fields.get("file_uri") or "")))
        elif isinstance(part.get("text"), str):
            content.append({"type": "text", "text": part["text"]})
        elif part:
            raise BadRequest(f"contents[{number}] holds a part that Kimi does not take: {', '.join(map(_camel, part))}")
    if not content:
        return results
    if all(item["type"] == "text" for item in content):
        return [*results, {"role": "user", "content": "\n".join(item["text"] for item in content)}]
    return [*results, {"role": "user", "content": content}]


def _media(media_type: str, url: str) -> Json:
    if media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"file_data" if url.startswith("data:") else "file_id": url, "format": media_type}}


# --- JSON shapes ------------------------------------------------------------------------------------------


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequest(f"{place or 'A field'} must be an object, not {type(value).__name__}")
    return value


def _list(value: Any, place: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [value]  # Google's own parser takes a single object for a repeated field
    if not isinstance(value, list):
        raise BadRequest(f"{place} must be a list, not {type(value).__name__}")
    return value


def _snake(value: Mapping[str, Any]) -> Json:
    return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): item for key, item in value.items()}


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
