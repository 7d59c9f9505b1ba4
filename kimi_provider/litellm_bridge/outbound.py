"""Events -> LiteLLM's response objects, streamed or collected.

Both forms follow one path: a collected answer is the stream's events, joined. Every chunk of an answer has the same
id, model and creation time; usage rides on a chunk before the finish chunk, because LiteLLM loses it anywhere later.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from litellm.types.utils import Choices, Delta, ModelResponse, ModelResponseStream, StreamingChoices
from litellm.types.utils import Message as LiteLLMMessage
from litellm.types.utils import Usage as LiteLLMUsage

from .. import events as ev


@dataclass(slots=True)
class Answer:
    """Identity of one answer, and the sources it has cited so far."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    cited: dict[int, ev.Source] = field(default_factory=dict)
    notices: list[ev.Notice] = field(default_factory=list)

    def chunk(self, event: ev.Event) -> ModelResponseStream | None:
        """The chunk for `event`; None when callers see nothing of it."""
        match event:
            case ev.TextDelta(text):
                return self._chunk(Delta(content=text, role="assistant"))
            case ev.ThinkingDelta(text):
                return self._chunk(Delta(content=None, reasoning_content=text, role="assistant"))
            case ev.Usage():
                closing = self.closing_text()
                chunk = self._chunk(Delta(content=closing, role="assistant"))
                chunk.usage = _usage(event)
                return chunk
            case ev.Finished(reason=reason):
                return self._chunk(Delta(content=None), finish_reason=reason)
            case ev.Citation():
                self.cited[event.number] = event.source
            case ev.Notice():
                self.notices.append(event)
            case _:
                pass
        return None

    def closing_text(self) -> str:
        """The list of cited sources, a line each, or nothing."""
        if not self.cited:
            return ""
        lines = [f"[{n}] {s.title}: {s.url}" if s.title else f"[{n}] {s.url}" for n, s in sorted(self.cited.items())]
        return "\n\n" + "\n".join(lines)

    def headers(self) -> dict[str, str]:
        """What the service said about the answer so far, as response headers."""
        codes = sorted({notice.code for notice in self.notices})
        return {"x-kimi-notice": ",".join(codes)} if codes else {}

    def _chunk(self, delta: Delta, finish_reason: str | None = None) -> ModelResponseStream:
        return ModelResponseStream(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[StreamingChoices(index=0, delta=delta, finish_reason=finish_reason)],
        )


async def collect(events: AsyncIterator[ev.Event], answer: Answer) -> ModelResponse:
    """The whole answer as one response."""
    text: list[str] = []
    thinking: list[str] = []
    usage = ev.Usage(prompt_tokens=0, completion_tokens=0)
    reason: ev.FinishReason = "stop"
    async for event in events:
        match event:
            case ev.TextDelta():
                text.append(event.text)
            case ev.ThinkingDelta():
                thinking.append(event.text)
            case ev.Usage():
                usage = event
            case ev.Finished():
                reason = event.reason
            case _:
                answer.chunk(event)
    text.append(answer.closing_text())
    message = LiteLLMMessage(
        role="assistant", content="".join(text), reasoning_content="".join(thinking) if thinking else None
    )
    return ModelResponse(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        choices=[Choices(index=0, finish_reason=reason, message=message)],
        usage=_usage(usage),
    )


def attach_headers(response: Any, headers: Mapping[str, str]) -> None:
    """Have the proxy send `headers` as `llm_provider-...`."""
    if headers:
        hidden = getattr(response, "_hidden_params", None) or {}
        response._hidden_params = {**hidden, "additional_headers": {**hidden.get("additional_headers", {}), **headers}}


def _usage(usage: ev.Usage) -> LiteLLMUsage:
    details = (
        {"completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens}} if usage.reasoning_tokens else {}
    )
    return LiteLLMUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        **details,
    )
