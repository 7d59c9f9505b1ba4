"""Google's generateContent through the google-genai SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import httpx
from google import genai
from google.genai import errors, types

from .surface import Answer, Failed, Finish, Question, Turn, Usage

_FINISH: dict[types.FinishReason, Finish] = {
    types.FinishReason.STOP: "stop",
    types.FinishReason.MAX_TOKENS: "length",
    types.FinishReason.SAFETY: "content_filter",
}


class Gemini:
    name = "gemini"
    error_types = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        502: "INTERNAL",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }

    def __init__(self, url: str, key: str) -> None:
        # Given one of httpx, the SDK leaves its use of aiohttp, which warns. The other is never used.
        self._http, sync = httpx.AsyncClient(verify=False, timeout=60), httpx.Client(verify=False)
        options = types.HttpOptions(base_url=url, httpx_async_client=self._http, httpx_client=sync)
        self._client = genai.Client(api_key=key, http_options=options)

    async def whole(self, question: Question) -> Answer:
        with _failing():
            return _said(await self._client.aio.models.generate_content(**_request(question)))

    async def pieces(self, question: Question) -> AsyncGenerator[Answer, None]:
        ids = set()
        with _failing():
            stream = await self._client.aio.models.generate_content_stream(**_request(question))
            async with aclosing(stream):
                async for chunk in stream:
                    ids.add(chunk.response_id)
                    assert len(ids) == 1
                    yield _said(chunk)

    async def close(self) -> None:
        await self._http.aclose()
        self._client.close()


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except errors.APIError as exc:
        raise Failed(status=exc.code, type=exc.status, message=exc.message) from exc


def _request(question: Question) -> dict[str, Any]:
    return {
        "model": question.model,
        "contents": [_content(turn) for turn in question.turns],
        "config": types.GenerateContentConfig(system_instruction=question.system or None),
    }


def _content(turn: Turn) -> types.Content:
    files = [types.Part.from_bytes(data=file.content, mime_type=file.media_type) for file in turn.files]
    role = "user" if turn.role == "user" else "model"
    return types.Content(role=role, parts=[*files, types.Part(text=turn.text)])


def _said(response: types.GenerateContentResponse) -> Answer:
    (candidate,) = response.candidates
    parts = candidate.content.parts or []
    grounding = candidate.grounding_metadata
    chunks = grounding.grounding_chunks or [] if grounding else []
    return Answer(
        text="".join(part.text or "" for part in parts if not part.thought),
        thinking="".join(part.text or "" for part in parts if part.thought),
        finish=_FINISH[candidate.finish_reason] if candidate.finish_reason else None,
        sources=tuple(chunk.web.uri for chunk in chunks),
        usage=_usage(response.usage_metadata),
    )


def _usage(usage: types.GenerateContentResponseUsageMetadata | None) -> Usage | None:
    if usage is None:
        return None
    completion = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    assert usage.total_token_count == usage.prompt_token_count + completion
    return Usage(prompt=usage.prompt_token_count, completion=completion)
