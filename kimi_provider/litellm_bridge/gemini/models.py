"""The gateway's model list in Gemini's shape: of every provider, filtered by key as LiteLLM's own list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from litellm.proxy import proxy_server
from litellm.proxy._types import LiteLLMRoutes, UserAPIKeyAuth
from starlette.routing import Match
from starlette.types import Scope

from ..checked_key import CheckedKey
from .routes import GeminiRoute

_METHODS = ["generateContent", "streamGenerateContent", "countTokens"]
_GOOGLE_HEADERS = (b"x-goog-api-key", b"x-goog-api-client")
_LIST_ROUTES = ["/v1beta/models", "/v1beta/models/{model_name:path}"]

#: The rows of `/v1/models` that a key may see.
Listed = Callable[[Request, UserAPIKeyAuth], Awaitable[list[dict[str, Any]]]]


class _GoogleClients(GeminiRoute):
    """OpenAI's and Gemini's v1 share the path of the model list; Google's clients are known by their headers."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match, child) if any(name in _GOOGLE_HEADERS for name, _ in scope["headers"]) else (Match.NONE, {})


def list_router(listed: Listed) -> APIRouter:
    """`GET /v1beta/models` and `/v1beta/models/{model}`; under v1 for Google's clients."""
    for route in _LIST_ROUTES:
        if route not in LiteLLMRoutes.google_routes.value:
            LiteLLMRoutes.google_routes.value.append(route)
            LiteLLMRoutes.llm_api_routes.value.append(route)

    async def list_models(
        request: Request,
        user_api_key_dict: CheckedKey,
    ) -> dict[str, Any]:
        """With `pageSize` and `pageToken`."""
        rows = await listed(request, user_api_key_dict)
        size, start = _number(request, "pageSize", 50), _number(request, "pageToken", 0)
        page: dict[str, Any] = {"models": [_row(row) for row in rows[start : start + max(1, size)]]}
        if start + size < len(rows):
            page["nextPageToken"] = str(start + size)
        return page

    async def get_model(
        request: Request,
        model_name: str,
        user_api_key_dict: CheckedKey,
    ) -> dict[str, Any]:
        name = model_name.removeprefix("models/")
        for row in await listed(request, user_api_key_dict):
            if row["id"] == name:
                return _row(row)
        raise HTTPException(404, f"Model '{name[:80]}' is not served here. See GET /v1beta/models.")

    routes = APIRouter(include_in_schema=False, route_class=GeminiRoute)
    for version, kind in (("v1beta", GeminiRoute), ("v1", _GoogleClients)):
        routes.add_api_route(f"/{version}/models", list_models, methods=["GET"], route_class_override=kind)
        routes.add_api_route(
            f"/{version}/models/{{model_name:path}}", get_model, methods=["GET"], route_class_override=kind
        )
    return routes


def _number(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name) or str(default)
    if not value.isdigit():
        raise HTTPException(status_code=400, detail=f"{name} must be a number")
    return int(value)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    name = row["id"]
    llm_router = proxy_server.llm_router
    info = (llm_router.get_model_group_info(model_group=name) if llm_router is not None else None) or None
    window = int(getattr(info, "max_input_tokens", None) or row.get("max_input_tokens") or 0)
    output = int(getattr(info, "max_output_tokens", None) or row.get("max_output_tokens") or 0)
    return {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": "001",
        "displayName": row.get("display_name") or name,
        "description": f"{name} on this gateway",
        "inputTokenLimit": window or 1,
        "outputTokenLimit": output or 1,
        "supportedGenerationMethods": _METHODS,
        "thinking": bool(getattr(info, "supports_reasoning", False)),
    }
