"""A Gemini request -> the chat request that LiteLLM understands.

Pure: JSON in, JSON out; the turns themselves are `contents`. What has no place in a chat request is listed in
`Chat.ignored`; what would silently change the meaning of the request is refused with BadRequest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import BadRequest
from . import contents
from .fields import Json, camel, items, mapping, snake

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
    fields = snake(request)
    if fields.get("cached_content"):
        raise BadRequest("cachedContent is not supported", cure="Send the content itself in contents.")
    messages = contents.system(fields.get("system_instruction")) + contents.messages(fields.get("contents"))
    body: Json = {"messages": messages}
    ignored = [camel(name) for name in fields if name not in _TOP_LEVEL and fields[name] not in (None, [], {})]
    config = snake(mapping(fields.get("generation_config"), "generationConfig"))
    for name, value in config.items():
        if value is None or name in _READ:
            continue
        if name in _SAME:
            body[_SAME[name]] = value
        else:
            ignored.append(camel(name))
    thinking = snake(mapping(config.get("thinking_config"), "thinkingConfig"))
    if (effort := _effort(thinking)) is not None:
        body["reasoning_effort"] = effort
    if (wanted := _response_format(config)) is not None:
        body["response_format"] = wanted
    _take_tools(fields, body, ignored)
    return Chat(body=body, thoughts=thinking.get("include_thoughts") is not False, ignored=tuple(sorted(ignored)))


def to_count(request: Mapping[str, Any]) -> Json:
    """The chat request that `countTokens` is asked about. Raises BadRequest."""
    inner = snake(request).get("generate_content_request")
    return to_chat(inner if isinstance(inner, Mapping) else request).body


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
    for tool in items(fields.get("tools"), "tools"):
        for name, value in snake(mapping(tool, "tools")).items():
            if name == "function_declarations":
                functions += [_function(snake(mapping(f, "functionDeclarations"))) for f in items(value, name)]
            elif name in ("google_search", "google_search_retrieval"):
                body["web_search_options"] = {}
            else:
                ignored.append(f"tools.{camel(name)}")
    if not functions:
        return
    tool_config = snake(mapping(fields.get("tool_config"), "toolConfig"))
    calling = snake(mapping(tool_config.get("function_calling_config"), "functionCallingConfig"))
    mode = str(calling.get("mode") or "").lower()
    if mode in _TOOL_CHOICES:
        body["tool_choice"] = _TOOL_CHOICES[mode]
    names = items(calling.get("allowed_function_names"), "allowedFunctionNames")
    if names and mode in ("any", "validated"):
        # A chat request can force one tool or any: those that may not be called are not offered.
        functions = [function for function in functions if function["function"]["name"] in names]
        if not functions:
            raise BadRequest("allowedFunctionNames has none of the declared functions")
    body["tools"] = functions


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
