"""Anthropic's messages through the anthropic SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic

from .surface import Answer, Failed, File, Finish, Question, Turn, Usage

_FINISH: dict[str, Finish] = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter"}


class Messages:
    name = "messages"
    error_types = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        502: "api_error",
        503: "api_error",
        504: "api_error",
    }

    def __init__(self, url: str, key: str) -> None:
        http = anthropic.DefaultAsyncHttpxClient(verify=False)
        self._client = anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, http_client=http)

    async def whole(self, question: Question) -> Answer:
        with _failing():
            got = await self._client.messages.create(**_request(question))
        return _said(got) + _ended(got)

    async def pieces(self, question: Question) -> AsyncGenerator[Answer, None]:
        with _failing():
            async with self._client.messages.stream(**_request(question)) as stream:
                async for event in stream:
                    match event.type:
                        case "text":
                            yield Answer(text=event.text)
                        case "thinking":
                            yield Answer(thinking=event.thinking)
                        case "content_block_stop":
                            yield Answer(sources=_sources(event.content_block))
                        case "message_stop":
                            yield _ended(event.message)

    async def close(self) -> None:
        await self._client.close()


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except anthropic.APIStatusError as exc:
        body: Any = exc.body
        # Inside a stream the response's own status is a success.
        status = exc.status_code if exc.status_code >= 400 else None
        raise Failed(status=status, type=body["error"]["type"], message=body["error"]["message"]) from exc


def _request(question: Question) -> dict[str, Any]:
    system = {"system": question.system} if question.system else {}
    messages = [_message(turn) for turn in question.turns]
    return {"model": question.model, "max_tokens": 8000, "messages": messages, **system}


def _message(turn: Turn) -> dict[str, Any]:
    if not turn.files:
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": [*map(_part, turn.files), {"type": "text", "text": turn.text}]}


def _part(file: File) -> dict[str, Any]:
    source = {"type": "base64", "media_type": file.media_type, "data": file.base64}
    if file.is_image:
        return {"type": "image", "source": source}
    return {"type": "document", "title": file.name, "source": source}


def _said(message: Any) -> Answer:
    return Answer(
        text="".join(block.text for block in message.content if block.type == "text"),
        thinking="".join(block.thinking for block in message.content if block.type == "thinking"),
        sources=tuple(url for block in message.content for url in _sources(block)),
    )


def _ended(message: Any) -> Answer:
    usage = Usage(prompt=message.usage.input_tokens, completion=message.usage.output_tokens)
    return Answer(finish=_FINISH[message.stop_reason], usage=usage)


def _sources(block: Any) -> tuple[str, ...]:
    """Citations of a text, and results of a web search."""
    cited = getattr(block, "citations", None) or []
    found = block.content if block.type == "web_search_tool_result" else []
    return tuple(one.url for one in (*cited, *found))
