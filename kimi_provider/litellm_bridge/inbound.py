"""LiteLLM's keyword arguments -> `ChatRequest`.

LiteLLM translates every surface to chat messages but drops some of what it does not know; the caller's own body is
the complete source and is read for those wishes. Nothing is lost silently: a parameter is honoured, refused with
BadRequest, or listed in `Inbound.ignored`, which callers see as a response header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadRequest
from ..request import ANY_TOOL, ChatRequest, Message, Role, ToolCall
from ..shaping import json_format, stop_sequences
from ..tools.shapes import tool_choice, tool_specs
from . import conversing, parts

#: LiteLLM marks the calls of /health with this tag; they must never become a prompt.
HEALTH_CHECK_TAG = "litellm-internal-health-check"

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
#: Honoured here, or without meaning for an answer's content.
_HONOURED = frozenset(
    {"stream", "stream_options", "reasoning_effort", "thinking", "reasoning", "output_config", "web_search_options"}
    | {"use_search", "tools", "user", "metadata", "store", "n", "max_retries", "extra_body", "extra_headers"}
    | {"litellm_session_id", "litellm_trace_id", "tool_choice", "parallel_tool_calls"}
    | {"response_format", "stop", "max_tokens", "max_completion_tokens", *conversing.NAMES}
)
#: What LiteLLM drops without a word: fields of the caller's own body, and headers that an SDK writes for a field.
_DROPPED_FIELDS = ("container", "prompt_cache_retention")
_DROPPED_HEADERS = {"anthropic-user-profile-id": "user_profile_id", "anthropic-workspace-id": "workspace_id"}
_SEARCH_FIELDS = ("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inbound:
    """A request and what is to be said about it. `ignored` names parameters that have no effect.

    `reads_citations`: the search was asked for in the way of an API that has citations as data. `functions`: the tools
    were offered in OpenAI's older form, whose answer has one `function_call` in place of `tool_calls`.
    """

    request: ChatRequest
    ignored: tuple[str, ...]
    health_check: bool
    reads_citations: bool = False
    functions: bool = False


def read(
    *,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    optional_params: Mapping[str, Any],
    litellm_params: Mapping[str, Any] | None,
    timeout: Any,
    api_key: str | None,
    collected: bool = False,
) -> Inbound:
    """Build the request. Raises BadRequest with the place and the cure."""
    params = dict(optional_params)
    params.update(_mapping(params.pop("extra_body", None)))
    caller = _mapping((litellm_params or {}).get("proxy_server_request"))
    body, headers = _mapping(caller.get("body")), _mapping(caller.get("headers"))
    if (params.get("n") or 1) != 1:
        raise BadRequest("n must be 1: Kimi writes one answer per call")
    if params.get("thread") or body.get("thread"):
        raise BadRequest("thread: no messages are kept here", cure="Send the whole history.")
    functions = _take_functions(params)
    offered = params.get("tools") or ()
    tools, others = tool_specs([tool for tool in offered if not _is_web_search(tool)])
    native_search = params.get("web_search_options") is not None or any(map(_is_web_search, offered))
    ignored = {name for name, value in params.items() if value is not None and name not in _HONOURED}
    ignored |= {name for name in _DROPPED_FIELDS if body.get(name) is not None}
    ignored |= {name for header, name in _DROPPED_HEADERS.items() if header in headers}
    ignored |= {f"tools.{kind}" for kind in others}
    if params.get("store") is True:
        ignored.add("store")
    choice = tool_choice(params.get("tool_choice"))
    talk = conversing.read(params, litellm_params or {})
    if tools and choice.mode != "none" and native_search:
        # The service's own tools stay off beside the caller's.
        ignored.add("web_search")
    request = ChatRequest(
        model=model,
        messages=tuple(_message(number, message, ignored) for number, message in enumerate(messages, start=1)),
        thinking=_thinking(params, body),
        effort=_effort(params, body),
        search=_search(params, native=native_search),
        tools=tools,
        tool_choice=choice if tools else ANY_TOOL,
        parallel_tool_calls=_parallel(params, body),
        response_format=json_format(_format(params, body)),
        stop=stop_sequences(params.get("stop")),
        max_tokens=_max_tokens(params),
        collected=collected,
        credential=api_key or None,
        timeout_s=_seconds(timeout),
        caller=talk.caller,
        conversation=talk.conversation,
        previous_answer=talk.previous_answer,
        lasts=talk.lasts,
    )
    if not request.messages:
        raise BadRequest("messages is empty", cure="Add at least one user message.")
    return Inbound(
        request=request,
        ignored=tuple(sorted(ignored)),
        health_check=_is_health_check(litellm_params),
        reads_citations=native_search,
        functions=functions,
    )


def _is_health_check(litellm_params: Mapping[str, Any] | None) -> bool:
    metadata = _mapping((litellm_params or {}).get("metadata"))
    tags = metadata.get("tags")
    return isinstance(tags, list | tuple) and HEALTH_CHECK_TAG in tags


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _seconds(timeout: Any) -> float | None:
    """LiteLLM hands over a number or an httpx.Timeout, whose read part is the one that users set."""
    value = getattr(timeout, "read", timeout)
    return float(value) if isinstance(value, int | float) and value > 0 else None


# --- wishes -----------------------------------------------------------------------------------------------


def _effort(params: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    """OpenAI's `reasoning_effort`, Responses' `reasoning.effort`, Anthropic's `output_config.effort`."""
    for source in (params, body):
        for value in (
            source.get("reasoning_effort"),
            _mapping(source.get("reasoning")).get("effort"),
            _mapping(source.get("output_config")).get("effort"),
        ):
            word = _mapping(value).get("effort") if isinstance(value, Mapping) else value
            if isinstance(word, str) and word:
                return word.lower()
    return None


def _thinking(params: Mapping[str, Any], body: Mapping[str, Any]) -> bool | None:
    """Anthropic's `thinking: {type}`; None when nothing was said."""
    for source in (params, body):
        kind = _mapping(source.get("thinking")).get("type")
        if kind in ("enabled", "adaptive"):
            return True
        if kind == "disabled":
            return False
    return None


def _search(params: Mapping[str, Any], *, native: bool) -> bool | None:
    wanted = params.get("use_search")
    return wanted if isinstance(wanted, bool) else native or None


def _is_web_search(tool: Any) -> bool:
    """A search that the service itself is to make, as each API writes it: by type and date (Anthropic, Responses), by
    its one field (Gemini), as a built-in function (Moonshot). Never a function of the client's.
    """
    fields = _mapping(tool)
    kind = str(fields.get("type") or "")
    if kind == "builtin_function":
        return _mapping(fields.get("function")).get("name") == "$web_search"
    return kind.startswith("web_search") or any(name in fields for name in _SEARCH_FIELDS)


def _take_functions(params: dict[str, Any]) -> bool:
    """Put OpenAI's `functions` and `function_call` into the fields that came after them; whether there were any."""
    if not params.get("functions") or params.get("tools"):
        return False
    params["tools"], params["tool_choice"] = params.pop("functions"), params.pop("function_call", None)
    params["parallel_tool_calls"] = False
    return True


def _parallel(params: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """OpenAI's `parallel_tool_calls`, Anthropic's `tool_choice.disable_parallel_tool_use`."""
    if params.get("parallel_tool_calls") is False:
        return False
    return _mapping(body.get("tool_choice")).get("disable_parallel_tool_use") is not True


def _format(params: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
    """OpenAI's `response_format`, also as LiteLLM makes it of Responses' `text.format`; Anthropic's
    `output_config.format` and its older `output_format`.
    """
    return (
        params.get("response_format")
        or _mapping(body.get("output_config")).get("format")
        or _mapping(params.get("output_config")).get("format")
        or body.get("output_format")
    )


def _max_tokens(params: Mapping[str, Any]) -> int | None:
    value = params.get("max_tokens") or params.get("max_completion_tokens")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest("max_tokens must be a whole number above 0")
    return value


# --- messages ---------------------------------------------------------------------------------------------


def _message(number: int, message: Mapping[str, Any], ignored: set[str]) -> Message:
    name = message.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise BadRequest(f"Message {number} has the unknown role {parts.shown(name)}. Use one of: {', '.join(_ROLES)}.")
    return Message(
        role=role,
        parts=parts.read(message.get("content"), number, ignored),
        tool_calls=tuple(_calls(message.get("tool_calls") or _older_call(message.get("function_call")))),
        tool_call_id=_text_or_none(message.get("tool_call_id")),
        name=_text_or_none(message.get("name")),
        is_error=message.get("is_error") is True,
    )


def _calls(calls: Any) -> list[ToolCall]:
    if not isinstance(calls, list):
        return []
    out = []
    for call in calls:
        function = _mapping(_mapping(call).get("function"))
        out.append(
            ToolCall(
                id=str(_mapping(call).get("id") or ""),
                name=str(function.get("name") or ""),
                arguments=str(function.get("arguments") or "{}"),
            )
        )
    return out


def _older_call(call: Any) -> list[Any]:
    """OpenAI's `function_call`, whose result names the function and no id."""
    return [{"id": call.get("name"), "function": call}] if isinstance(call, Mapping) else []


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
