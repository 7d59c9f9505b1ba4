"""Gemini's API for our models: `generateContent`, `streamGenerateContent` and `countTokens`.

LiteLLM's own adapter loses inline data, thoughts, usage of streams and error codes for a custom provider. Here a
request becomes a chat request and goes through LiteLLM's own processing (keys, limits, hooks, routing, fallbacks,
spend), and its answer becomes Gemini's. A path that names another provider's model does not match these routes at all:
LiteLLM's endpoint answers it as if we were not there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from litellm.proxy import proxy_server
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.proxy.common_request_processing import ProxyBaseLLMRequestProcessing
from litellm.proxy.common_utils.http_parsing_utils import read_request_body
from starlette.routing import Match
from starlette.types import Scope

from ...errors import KimiError
from ..checked_key import CheckedKey
from . import inbound, outbound

_IGNORED_HEADER = "llm_provider-x-kimi-ignored"


class GeminiRoute(APIRoute):
    """Errors of dependencies and endpoints leave in Google's format."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, wrapped."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except ProxyException as exc:
                code = str(exc.code or "")
                status, message, headers = int(code) if code.isdigit() else 500, exc.message, exc.headers
            except HTTPException as exc:
                status, message, headers = exc.status_code, _detail(exc.detail), exc.headers
            except KimiError as exc:
                status, message, headers = exc.status, f"{exc.describe()} [{exc.code}]", None
            return JSONResponse(outbound.error(status, message), status_code=status, headers=dict(headers or {}))

        return handle


def router(is_ours: Callable[[str], bool], count: Callable[[str, Mapping[str, Any]], Awaitable[int]]) -> APIRouter:
    """The routes; `is_ours` tells whether a model name of the path leads to our provider, `count` counts the tokens of
    a chat request to it.
    """

    class OurModels(GeminiRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            match, child = super().matches(scope)
            if match is not Match.FULL or not is_ours(child["path_params"].get("model_name", "")):
                return Match.NONE, {}
            # v1 answers as v1beta, and LiteLLM's model check knows only the latter's paths.
            return match, {**child, "path": scope["path"].replace("/v1/models/", "/v1beta/models/", 1)}

    async def count_tokens(
        request: Request,
        model_name: str,
        user_api_key_dict: CheckedKey,
    ) -> dict[str, Any]:
        tokens = await count(model_name, inbound.to_count(await read_request_body(request=request)))
        return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}

    routes = APIRouter(include_in_schema=False, route_class=OurModels)
    endpoints: dict[str, Callable[..., Any]] = {
        "generateContent": generate,
        "streamGenerateContent": stream,
        "countTokens": count_tokens,
    }
    for version in ("/v1beta", "/v1", ""):
        for method, endpoint in endpoints.items():
            routes.add_api_route(f"{version}/models/{{model_name:path}}:{method}", endpoint, methods=["POST"])
    return routes


def _detail(detail: Any) -> str:
    return str(detail.get("error", detail)) if isinstance(detail, dict) else str(detail)


# --- answers ----------------------------------------------------------------------------------------------


async def generate(
    request: Request,
    model_name: str,
    fastapi_response: Response,
    user_api_key_dict: CheckedKey,
) -> Any:
    """`generateContent`."""
    chat = inbound.to_chat(await read_request_body(request=request))
    data = {**chat.body, "model": model_name}
    answer = await _through_litellm(data, request, fastapi_response, user_api_key_dict, None)
    if isinstance(answer, Response):
        return answer
    _say_ignored(fastapi_response, chat.ignored)
    dumped = answer.model_dump(mode="json", exclude_none=True)
    return outbound.whole(dumped, model=model_name, thoughts=chat.thoughts)


async def stream(
    request: Request,
    model_name: str,
    fastapi_response: Response,
    user_api_key_dict: CheckedKey,
) -> Any:
    """`streamGenerateContent`: server-sent events with `alt=sse`, else one JSON array, written as it comes."""
    chat = inbound.to_chat(await read_request_body(request=request))
    as_events = request.query_params.get("alt") == "sse"
    data = {**chat.body, "model": model_name, "stream": True, "stream_options": {"include_usage": True}}

    def generator(**kwargs: Any) -> AsyncGenerator[str, None]:
        items = _items(proxy_server.select_data_generator(**kwargs), model_name, chat.thoughts)
        return _events(items) if as_events else _array(items)

    answer = await _through_litellm(data, request, fastapi_response, user_api_key_dict, generator)
    if isinstance(answer, JSONResponse):  # an error in the first chunk
        failure = orjson.loads(answer.body).get("error") or {}
        body = outbound.error(answer.status_code, str(failure.get("message") or failure))
        return JSONResponse(body, status_code=answer.status_code)
    _say_ignored(answer, chat.ignored)
    answer.body_iterator = _kept_alive(answer.body_iterator, outbound.silence(model=model_name) if as_events else None)
    if not as_events:
        answer.headers["content-type"] = "application/json"
    return answer


def _say_ignored(response: Response, ignored: tuple[str, ...]) -> None:
    if ignored:
        earlier = [name for name in response.headers.get(_IGNORED_HEADER, "").split(",") if name]
        response.headers[_IGNORED_HEADER] = ",".join(dict.fromkeys([*earlier, *ignored]))


async def _through_litellm(
    data: dict[str, Any],
    request: Request,
    fastapi_response: Response,
    user_api_key_dict: UserAPIKeyAuth,
    generator: Callable[..., AsyncGenerator[str, None]] | None,
) -> Any:
    """LiteLLM's own processing of a chat request. Raises ProxyException."""
    processor = ProxyBaseLLMRequestProcessing(data=data)
    try:
        return await processor.base_process_llm_request(
            request=request,
            fastapi_response=fastapi_response,
            user_api_key_dict=user_api_key_dict,
            route_type="acompletion",
            proxy_logging_obj=proxy_server.proxy_logging_obj,
            llm_router=proxy_server.llm_router,
            general_settings=proxy_server.general_settings,
            proxy_config=proxy_server.proxy_config,
            select_data_generator=generator,
            model=data["model"],
            user_model=proxy_server.user_model,
            user_temperature=proxy_server.user_temperature,
            user_request_timeout=proxy_server.user_request_timeout,
            user_max_tokens=proxy_server.user_max_tokens,
            user_api_base=proxy_server.user_api_base,
            version=proxy_server.version,
        )
    except Exception as exc:
        raise await processor.handle_llm_api_exception(
            e=exc,
            user_api_key_dict=user_api_key_dict,
            proxy_logging_obj=proxy_server.proxy_logging_obj,
            version=proxy_server.version,
        ) from exc


# --- streams ----------------------------------------------------------------------------------------------


async def _items(
    frames: AsyncGenerator[str, None], model: str, thoughts: bool
) -> AsyncGenerator[dict[str, Any] | str, None]:
    """LiteLLM's server-sent events as Gemini responses; a comment (keep-alive) stays text."""
    answer = outbound.Stream(model=model, thoughts=thoughts)
    async with aclosing(frames):
        async for frame in frames:
            for line in (frame if isinstance(frame, str) else frame.decode()).splitlines():
                if line.startswith(":"):
                    yield line
                if not line.startswith("data:") or (payload := line[5:].strip()) == "[DONE]":
                    continue
                chunk = orjson.loads(payload)
                if failure := chunk.get("error"):
                    code = str(failure.get("code") or "")
                    yield outbound.error(int(code) if code.isdigit() else 500, str(failure.get("message")))
                    return
                for item in answer.feed(chunk):
                    yield item
    yield answer.close()


async def _kept_alive(frames: AsyncGenerator[Any, None], silence: dict[str, Any] | None) -> AsyncGenerator[Any, None]:
    """LiteLLM's keep-alives are comments; what takes their place says nothing in Gemini's words, or is white space."""
    async with aclosing(frames):
        async for frame in frames:
            if frame[:1] in (":", b":"):
                yield f"data: {orjson.dumps(silence).decode()}\n\n" if silence else "\n"
            else:
                yield frame


async def _events(items: AsyncGenerator[dict[str, Any] | str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(items):
        async for item in items:
            yield f"{item}\n\n" if isinstance(item, str) else f"data: {orjson.dumps(item).decode()}\n\n"


async def _array(items: AsyncGenerator[dict[str, Any] | str, None]) -> AsyncGenerator[str, None]:
    opened = False
    async with aclosing(items):
        async for item in items:
            if not isinstance(item, str):
                yield ("," if opened else "[") + orjson.dumps(item).decode() + "\n"
                opened = True
    yield "]" if opened else "[]"


__all__ = ["GeminiRoute", "router"]
