"""Events -> LiteLLM's response objects, streamed or collected.

Both forms follow one path: a collected answer is the stream's events, joined. Every chunk of an answer has the same
id, model and creation time; usage rides on a chunk before the finish chunk, because LiteLLM loses it anywhere later.
The same chunk brings every annotation: LiteLLM's Responses API passes on those of one chunk only. What a search found,
each citation and the stop string that was met leave at once, as provider fields, for surfaces that show them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from litellm.types.utils import Choices, Delta, ModelResponse, ModelResponseStream, StreamingChoices
from litellm.types.utils import Message as LiteLLMMessage
from litellm.types.utils import Usage as LiteLLMUsage

from .. import events as ev
from . import citing
from .progress import Progress

Json = dict[str, Any]

log = logging.getLogger(__name__)

#: Response headers of the call that is being answered: LiteLLM takes them from a response on some of its routes, and
#: from `routes.GatewayHooks` on all.
told: ContextVar[dict[str, str]] = ContextVar("kimi_told_headers")

#: The response header of every answer of ours; a fallback's answer does not have it.
SERVED_BY = "x-kimi-served-by"


@dataclass(slots=True)
class Answer:
    """Identity of one answer, and what it has said so far.

    A `silent` answer is text alone. `progress` tells steps of the service as thinking. `lists_sources`: the text ends
    with the list of what it cites, for callers who read text. `functions`: a call is a `function_call`, as before
    there were `tool_calls`.
    """

    model: str
    silent: bool = False
    progress: Progress | None = None
    lists_sources: bool = True
    functions: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    citing: citing.Citing = field(default_factory=citing.Citing)
    notices: list[ev.Notice] = field(default_factory=list)
    #: Whether it goes on in the chat of an earlier one; None when it is none of a conversation.
    continued: bool | None = None
    begun: bool = False
    #: How often the service has searched the web, as far as callers are told.
    searches: int = 0

    def chunk(self, event: ev.Event) -> ModelResponseStream | None:
        """The chunk for `event`; None when callers see nothing of it."""
        text, thinking, fields = self.say(event)
        match event:
            case ev.Usage():
                delta = Delta(content=text, annotations=self.citing.annotations or None)
                chunk = self._chunk(delta)
                chunk.usage = self.usage(event)
                return chunk
            case ev.Finished(reason=reason):
                return self._chunk(Delta(content=None), finish_reason=self.finish(reason))
            case ev.ToolCallDelta():
                call = _call_delta(event)
                made: Json = {"function_call": call["function"]} if self.functions else {"tool_calls": [call]}
                return self._chunk(Delta(content=None, **made))
        if not (text or thinking or fields):
            return None
        return self._chunk(
            Delta(
                content=text or None,
                reasoning_content=thinking or None,
                provider_specific_fields=fields or None,
            )
        )

    def say(self, event: ev.Event) -> tuple[str, str, Json]:
        """What `event` adds: text, thinking, provider fields."""
        match event:
            case ev.TextDelta(text):
                self.citing.said(text)
                return text, "", {}
            case ev.ThinkingDelta(text):
                return "", self.progress.thought(text) if self.progress else text, {}
            case ev.Usage() if self.lists_sources:
                return self.citing.source_list(), "", {}
            case ev.Citation() if self.citing.cite(event):
                source = event.source
                return "", "", {"citation": citing.location(source.url, source.title, source.snippet)}
            case ev.SearchResults() if not self.silent:
                self.searches = max(1, self.searches + len(event.queries))
                return "", self._step(event), citing.found(event)
            case ev.StopReached(stop):
                return "", "", {"stop_sequence": stop}
            case ev.NativeTool():
                return "", self._step(event), {}
            case ev.ConversationFound(continued):
                self.continued = continued
            case ev.Notice():
                self.notices.append(event)
                known = logging.INFO if event.code == "unknown" else logging.WARNING
                log.log(known, "%s: the service remarks: %s [%s]", self.model, event.message, event.code)
        return "", "", {}

    def finish(self, reason: ev.FinishReason) -> str:
        """OpenAI's word for `reason`."""
        return "function_call" if self.functions and reason == "tool_calls" else reason

    def usage(self, usage: ev.Usage) -> LiteLLMUsage:
        """The tokens, and how often was searched under the name from which LiteLLM's Anthropic adapter takes it."""
        details: Json = {}
        if usage.reasoning_tokens:
            details["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
        if self.searches:
            details["prompt_tokens_details"] = {"web_search_requests": self.searches}
        return LiteLLMUsage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            **details,
        )

    def headers(self) -> dict[str, str]:
        """What the service said about the answer so far, as response headers."""
        headers = {}
        if codes := sorted({notice.code for notice in self.notices}):
            headers["x-kimi-notice"] = ",".join(codes)
        if self.continued is not None:
            headers["x-kimi-conversation"] = "continued" if self.continued else "new"
        return headers

    def _step(self, event: ev.SearchResults | ev.NativeTool) -> str:
        return self.progress.step(event) if self.progress else ""

    def _chunk(self, delta: Delta, finish_reason: str | None = None) -> ModelResponseStream:
        # Once, in the first chunk: clients join what they are sent.
        delta.role = None if self.begun else "assistant"
        self.begun = True
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
    found: list[Json] = []
    calls: dict[int, Json] = {}
    usage = ev.Usage(prompt_tokens=0, completion_tokens=0)
    reason: ev.FinishReason = "stop"
    async for event in events:
        if isinstance(event, ev.Usage):
            usage = event
        elif isinstance(event, ev.Finished):
            reason = event.reason
        elif isinstance(event, ev.ToolCallDelta):
            call = calls.setdefault(event.index, {"id": event.id, "type": "function", "function": {"name": event.name}})
            call["function"].setdefault("arguments", []).append(event.arguments)
        said, thought, fields = answer.say(event)
        text.append(said)
        thinking.append(thought)
        if fields:
            found.append(fields)
    for call in calls.values():
        call["function"]["arguments"] = "".join(call["function"]["arguments"])
    made = [calls[index] for index in sorted(calls)]
    called: Json = {"function_call": made[0]["function"]} if made and answer.functions else {"tool_calls": made or None}
    message = LiteLLMMessage(
        role="assistant",
        content="".join(text) or (None if calls else ""),
        **called,
        reasoning_content="".join(thinking) or None,
        annotations=answer.citing.annotations or None,
        provider_specific_fields=_joined(found) or None,
    )
    return ModelResponse(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        choices=[Choices(index=0, finish_reason=answer.finish(reason), message=message)],
        usage=answer.usage(usage),
    )


def _call_delta(event: ev.ToolCallDelta) -> Json:
    function = {"name": event.name, "arguments": event.arguments}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}


def attach_headers(response: Any, headers: Mapping[str, str]) -> None:
    """Have the proxy send `headers` as `llm_provider-...`."""
    if headers:
        told.get({}).update({f"llm_provider-{name}": value for name, value in headers.items()})
        hidden = getattr(response, "_hidden_params", None) or {}
        response._hidden_params = {**hidden, "additional_headers": {**hidden.get("additional_headers", {}), **headers}}


def _joined(found: Sequence[Json]) -> Json:
    """Provider fields of a stream as those of one message."""
    stops = [fields for fields in found if "stop_sequence" in fields]
    return {**citing.joined(found), **(stops[0] if stops else {})}
