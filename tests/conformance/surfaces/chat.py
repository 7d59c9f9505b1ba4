"""OpenAI's chat completions through the openai SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import openai

from .surface import Answer, Failed, File, Question, Turn, Usage


class Chat:
    name = "chat"
    error_types = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "invalid_request_error",
        429: "throttling_error",
        502: "internal_server_error",
        503: "internal_server_error",
        504: "internal_server_error",
    }

    def __init__(self, url: str, key: str) -> None:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)

    async def whole(self, question: Question) -> Answer:
        with failing():
            got = await self._client.chat.completions.create(**_request(question))
        (choice,) = got.choices
        assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
        return Answer(finish=choice.finish_reason, usage=_usage(got.usage)) + _said(choice.message)

    async def pieces(self, question: Question) -> AsyncGenerator[Answer, None]:
        faces = set()
        with failing():
            options = {"include_usage": True}
            stream = await self._client.chat.completions.create(
                **_request(question), stream=True, stream_options=options
            )
            async with stream:
                async for chunk in stream:
                    faces.add((chunk.id, chunk.model))
                    assert len(faces) == 1
                    for choice in chunk.choices:
                        yield Answer(finish=choice.finish_reason) + _said(choice.delta)
                    if chunk.usage:
                        yield Answer(usage=_usage(chunk.usage))

    async def close(self) -> None:
        await self._client.close()


@contextmanager
def failing() -> Iterator[None]:
    """The openai SDK's errors, those inside a stream included."""
    try:
        yield
    except openai.APIError as exc:
        body: Any = exc.body
        status = getattr(exc, "status_code", None)
        if status not in (None, int(body["code"])):
            raise ValueError(f"status {status}, but code {body['code']} in the body") from exc
        raise Failed(status=int(body["code"]), type=body["type"], message=body["message"]) from exc


def _request(question: Question) -> dict[str, Any]:
    system = [{"role": "system", "content": question.system}] if question.system else []
    return {"model": question.model, "messages": [*system, *map(_message, question.turns)]}


def _message(turn: Turn) -> dict[str, Any]:
    if not turn.files:
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": [*map(_part, turn.files), {"type": "text", "text": turn.text}]}


def _part(file: File) -> dict[str, Any]:
    if file.is_image:
        return {"type": "image_url", "image_url": {"url": file.data_url}}
    return {"type": "file", "file": {"filename": file.name, "file_data": file.data_url}}


def _said(message: Any) -> Answer:
    """A message or a delta."""
    return Answer(
        text=message.content or "",
        thinking=getattr(message, "reasoning_content", None) or "",
        sources=tuple(one["url_citation"]["url"] for one in _annotations(message)),
    )


def _annotations(message: Any) -> list[dict[str, Any]]:
    found = getattr(message, "annotations", None) or []
    return [one if isinstance(one, dict) else one.model_dump() for one in found]


def _usage(usage: Any) -> Usage:
    return Usage(prompt=usage.prompt_tokens, completion=usage.completion_tokens)
