"""Chat answers as JSON -> Gemini's `GenerateContentResponse`, whole and streamed.

Pure. Takes what LiteLLM sends to any client, so that an answer of a fallback provider comes out the same way. Usage of
a stream is sent with its last response, together with the finish reason, as Gemini does.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from ..citing import joined
from .grounding import grounding

Json = dict[str, Any]

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "tool_calls": "STOP"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(status: int, message: str) -> Json:
    """Google's error body."""
    default = "INTERNAL" if status >= 500 else "FAILED_PRECONDITION"
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, default)}}


def whole(answer: Mapping[str, Any], *, model: str, thoughts: bool) -> Json:
    """A chat completion as one response."""
    choice = _first(answer.get("choices"))
    message = choice.get("message") or {}
    parts = _text_parts(message, thoughts=thoughts) + [_call(call) for call in message.get("tool_calls") or ()]
    response = _response(
        parts, model=model, response_id=answer.get("id"), finish=choice.get("finish_reason"), usage=answer.get("usage")
    )
    text_at = next((index for index, part in enumerate(parts) if not part.get("thought")), 0)
    fields = message.get("provider_specific_fields") or {}
    if found := grounding(message.get("content") or "", message.get("annotations") or (), fields, part_index=text_at):
        response["candidates"][0]["groundingMetadata"] = found
    return response


def silence(*, model: str) -> Json:
    """A response that says nothing, for a stream that is kept alive: Google's SDKs take no comments."""
    return _response([{"text": ""}], model=model, response_id=None)


class Stream:
    """Chat chunks in, responses out. A function call is sent once its arguments are complete."""

    def __init__(self, *, model: str, thoughts: bool) -> None:
        self._model, self._thoughts = model, thoughts
        self._id: str | None = None
        self._finish: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._calls: dict[int, Json] = {}
        self._text: list[str] = []
        self._annotations: list[Json] = []
        self._found: list[Mapping[str, Any]] = []

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Json]:
        """Responses that `chunk` completes."""
        self._id = self._id or chunk.get("id")
        self._usage = chunk.get("usage") or self._usage
        choice = _first(chunk.get("choices"))
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or ():
            self._collect(call)
        self._text.append(delta.get("content") or "")
        self._annotations += delta.get("annotations") or ()
        if fields := delta.get("provider_specific_fields"):
            self._found.append(fields)
        if parts := _text_parts(delta, thoughts=self._thoughts):
            yield _response(parts, model=self._model, response_id=self._id)

    def close(self) -> Json:
        """The last response: function calls, finish reason, usage, what the answer rests on."""
        parts = [_call(self._calls[index]) for index in sorted(self._calls)]
        # Google's SDK forgets a turn of its chat in which a response has no part.
        response = _response(
            parts or [{"text": ""}],
            model=self._model,
            response_id=self._id,
            finish=self._finish or "stop",
            usage=self._usage,
        )
        if found := grounding("".join(self._text), self._annotations, joined(self._found)):
            response["candidates"][0]["groundingMetadata"] = found
        return response

    def _collect(self, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(piece.get("index") or 0, {"id": None, "function": {"name": "", "arguments": ""}})
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function") or {}
        call["function"]["name"] = function.get("name") or call["function"]["name"]
        call["function"]["arguments"] += function.get("arguments") or ""


def _response(
    parts: Sequence[Json], *, model: str, response_id: Any, finish: Any = None, usage: Mapping[str, Any] | None = None
) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = _FINISH.get(finish, "OTHER")
    response: Json = {"candidates": [candidate], "modelVersion": model}
    if response_id:
        response["responseId"] = response_id
    if usage:
        details = usage.get("completion_tokens_details") or {}
        reasoning = details.get("reasoning_tokens") or 0
        response["usageMetadata"] = {
            "promptTokenCount": usage.get("prompt_tokens") or 0,
            "candidatesTokenCount": max(0, (usage.get("completion_tokens") or 0) - reasoning),
            **({"thoughtsTokenCount": reasoning} if reasoning else {}),
            "totalTokenCount": usage.get("total_tokens") or 0,
        }
    if finish:
        response["createTime"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return response


def _text_parts(message: Mapping[str, Any], *, thoughts: bool) -> list[Json]:
    parts: list[Json] = []
    if thoughts and message.get("reasoning_content"):
        parts.append({"text": message["reasoning_content"], "thought": True})
    if message.get("content"):
        parts.append({"text": message["content"]})
    return parts


def _call(call: Mapping[str, Any]) -> Json:
    function = call.get("function") or {}
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        arguments = {"arguments": function.get("arguments")}
    inner: Json = {"name": function.get("name") or "", "args": arguments}
    if call.get("id"):
        inner["id"] = call["id"]
    return {"functionCall": inner}


def _first(choices: Any) -> Mapping[str, Any]:
    return choices[0] if isinstance(choices, list) and choices else {}
