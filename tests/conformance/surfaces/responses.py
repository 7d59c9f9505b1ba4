"""OpenAI's responses through the openai SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import openai

from .chat import Chat, failing
from .surface import Answer, Failed, File, Question, Turn, Usage


class Responses:
    name = "responses"
    error_types = Chat.error_types

    def __init__(self, url: str, key: str) -> None:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)

    async def whole(self, question: Question) -> Answer:
        with failing():
            got = await self._client.responses.create(**_request(question))
        reasoning = [item for item in got.output if item.type == "reasoning"]
        parts = [part for item in got.output if item.type == "message" for part in item.content]
        said = Answer(
            text=got.output_text,
            thinking="".join(part.text for item in reasoning for part in item.content or item.summary),
            sources=tuple(one.url for part in parts for one in part.annotations),
        )
        return said + _ended(got)

    async def pieces(self, question: Question) -> AsyncGenerator[Answer, None]:
        with failing():
            stream = await self._client.responses.create(**_request(question), stream=True)
            async with stream:
                async for event in stream:
                    match event.type:
                        case "response.output_text.delta":
                            yield Answer(text=event.delta)
                        case "response.reasoning_summary_text.delta":
                            yield Answer(thinking=event.delta)
                        case "response.output_text.annotation.added":
                            yield Answer(sources=(_dict(event.annotation)["url"],))
                        case "response.completed" | "response.incomplete":
                            yield _ended(event.response)
                        case "response.failed":
                            error = event.response.error
                            raise Failed(status=None, type=error.code, message=error.message)

    async def close(self) -> None:
        await self._client.close()


def _request(question: Question) -> dict[str, Any]:
    instructions = {"instructions": question.system} if question.system else {}
    return {"model": question.model, "input": [_item(turn) for turn in question.turns], **instructions}


def _item(turn: Turn) -> dict[str, Any]:
    if not turn.files:
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": [*map(_part, turn.files), {"type": "input_text", "text": turn.text}]}


def _part(file: File) -> dict[str, Any]:
    if file.is_image:
        return {"type": "input_image", "image_url": file.data_url}
    return {"type": "input_file", "filename": file.name, "file_data": file.data_url}


def _ended(response: Any) -> Answer:
    usage = Usage(prompt=response.usage.input_tokens, completion=response.usage.output_tokens)
    if response.status == "completed":
        return Answer(finish="stop", usage=usage)
    assert response.status == "incomplete"
    reason = response.incomplete_details.reason
    return Answer(finish="length" if reason == "max_output_tokens" else reason, usage=usage)


def _dict(annotation: Any) -> dict[str, Any]:
    return annotation if isinstance(annotation, dict) else annotation.model_dump()
