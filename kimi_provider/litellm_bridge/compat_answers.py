"""Shims over LiteLLM's translations of answers, for our answers only; `compat` puts them in place.

1. `AnthropicStreamWrapper` and `translate_openai_response_to_anthropic`: LiteLLM's Anthropic answers know neither
   searches nor citations of a custom provider, nor which stop string was met; ours do (`messages`). Unnecessary once
   its adapter takes annotations and `stop_sequence`.
2. `_transform_chat_completion_chunk_to_response_api_chunk`: of several annotations LiteLLM streams the first, ours all.
   Unnecessary once its iterator empties its own queue.
"""

from __future__ import annotations

import functools
import importlib
from collections import deque
from collections.abc import Callable
from typing import Any

from . import messages, outbound

#: LiteLLM's translation of Anthropic's API, by version.
ANTHROPIC_ADAPTERS = (
    "litellm.llms.anthropic.pass_through.adapters.transformation",
    "litellm.llms.anthropic.messages.adapters.transformation",  # since 1.109
)
_RESPONSES = "litellm.responses.litellm_completion_transformation.streaming_iterator"


def install(provider: str, version: str) -> list[str]:
    """Put the shims in place, once. Returns what falls back to LiteLLM's own behaviour, a sentence each."""
    limits = []
    adapters = anthropic_adapters()
    stream = getattr(adapters, "AnthropicStreamWrapper", None)
    adapter: Any = getattr(adapters, "LiteLLMAnthropicMessagesAdapter", None)
    whole = getattr(adapter, "translate_openai_response_to_anthropic", None)
    if whole is None or not all(
        hasattr(stream, name) for name in ("_should_start_new_content_block", "_is_blank_delta")
    ):
        limits.append(
            "searches and citations are no blocks on /v1/messages, and no stop string is named there (litellm "
            f"{version} has changed how it answers)"
        )
    elif not _is_ours(whole):
        adapters.AnthropicStreamWrapper = _fuller_stream(stream, provider)
        adapter.translate_openai_response_to_anthropic = _fuller_answer(whole)
    events: Any = getattr(_module(_RESPONSES), "LiteLLMCompletionStreamingIterator", None)
    translate = getattr(events, "_transform_chat_completion_chunk_to_response_api_chunk", None)
    if translate is None:
        limits.append(f"/v1/responses streams one citation at most (litellm {version} has changed its events)")
    elif not _is_ours(translate):
        events._transform_chat_completion_chunk_to_response_api_chunk = _every_annotation(translate, provider)
    return limits


def anthropic_adapters() -> Any:
    """LiteLLM's module that translates Anthropic's API; None when it has none."""
    return next((module for name in ANTHROPIC_ADAPTERS if (module := _module(name))), None)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _is_ours(function: Callable[..., Any]) -> bool:
    return getattr(function, "kimi_provider", False) is True


def _fuller_stream(original: Any, provider: str) -> Any:
    class FullerStream(original):  # type: ignore[misc]  # litellm is not followed by mypy
        def __init__(self, completion_stream: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(completion_stream, *args, **kwargs)
            ours = getattr(completion_stream, "custom_llm_provider", None) == provider
            self._events = messages.AnswerEvents() if ours else None
            self._ready: deque[Any] = deque()

        def _should_start_new_content_block(self, chunk: Any) -> bool:
            if self._events is not None:
                self._events.note(chunk.choices[0].delta.provider_specific_fields or {})
                if self._is_blank_delta(chunk):  # it says nothing of the kind of block
                    return False
            return bool(super()._should_start_new_content_block(chunk))

        def __next__(self) -> Any:
            while not self._ready:
                self._take(super().__next__())
            return self._ready.popleft()

        async def __anext__(self) -> Any:
            while not self._ready:
                self._take(await super().__anext__())
            return self._ready.popleft()

        def _take(self, event: Any) -> None:
            self._ready.extend((event,) if self._events is None else self._events.take(event))

    return FullerStream


def _fuller_answer(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def translate(self: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, response, *args, **kwargs)
        headers = getattr(response, "_hidden_params", {}).get("additional_headers", {})
        if any(name.endswith(outbound.SERVED_BY) for name in headers):
            message = response.choices[0].message.model_dump()
            answer["content"] = messages.with_search(answer["content"], message)
            answer.update(messages.ending(message.get("provider_specific_fields") or {}))
        return answer

    translate.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return translate


def _every_annotation(original: Callable[..., Any], provider: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def translate(self: Any, chunk: Any) -> Any:
        event = original(self, chunk)
        waiting = getattr(self, "_pending_annotation_events", None)
        if not waiting or self.custom_llm_provider != provider:
            return event
        *events, last = filter(None, (event, *waiting))
        waiting.clear()
        self._pending_response_events.extend(events)
        return last

    translate.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return translate
