"""Our own pages on a LiteLLM proxy, and what is said when it starts.

Imported only when the proxy is there: its module costs seconds and a hundred megabytes. The routes go in front of
LiteLLM's, so that a catch-all of a later version cannot swallow them; none of them replaces one of LiteLLM's.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from litellm import logging_callback_manager
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy.anthropic_endpoints import endpoints as anthropic_endpoints

from .. import admin
from ..errors import BadRequest
from ..observe import redact_logs
from ..store import durability_hint
from . import account_routes, deployments, ending, malformed, metrics_route, outbound
from .alerting import LiteLLMAlerting
from .counting import Counting
from .gemini import models as gemini_models
from .gemini import routes as gemini
from .listing import Listing

if TYPE_CHECKING:
    from ..engine import KimiEngine
    from .llm import KimiLLM

log = logging.getLogger(__name__)

#: LiteLLM masks its own logs, unless it is told not to; these hold a deployment's api_key at level DEBUG.
_HOST_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "LiteLLM Proxy.stdout")
_SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "asyncio")

#: Start-up, and the imports that LiteLLM puts off until then, are over.
_SETTLED_AFTER_S = 5.0

_NO_CREDENTIAL = (
    "no Kimi credential. Looked for KIMI_TOKEN in the environment and in .env; a kimi/ row of model_list may also name "
    "its own with api_key."
)


def start_up(handler: KimiLLM, limits: list[str], provider: str) -> None:
    """Mount the routes and say what an operator should know. Raises SettingsError: a gateway with a broken setting
    must not start.
    """
    redact_logs(map(logging.getLogger, (*_HOST_LOGGERS, *_SERVER_LOGGERS)))
    engine = handler.engine()
    engine.tidier.watch()
    with suppress(RuntimeError):  # no loop runs yet: then tidying stays in the background
        engine.tidier.home = loop = asyncio.get_running_loop()
        handler.tell_also(LiteLLMAlerting(loop))
        if engine.settings.kimi_served:
            # Each full collection walks LiteLLM's 850,000 lasting objects and holds every answer up for 0.4 s; with
            # those out of its way, 7 ms. In a host's own process that is the host's to decide.
            loop.call_later(_SETTLED_AFTER_S, gc.freeze)
    config = proxy_server.proxy_config.get_config_state()
    handler.unset_keys = deployments.unset_keys(config, proxy_server.user_config_file_path, provider)
    for why in handler.unset_keys.values():
        log.warning("kimi-provider: %s: it can't answer.", why)
    rows = deployments.own_rows(config, provider)
    own_keys = bool(rows) and all(row["litellm_params"].get("api_key") for _, row in rows)
    if not engine.pool.accounts and not own_keys:
        log.warning("kimi-provider: %s", _NO_CREDENTIAL)
    if (hint := durability_hint(engine.settings, os.environ)) is not None:
        log.warning("kimi-provider: %s", hint)
    listing = Listing(handler, provider)
    metrics_routes, metrics_limits = metrics_route.routes(engine)
    limits = [*limits, *metrics_limits, *ending.close_with(proxy_server, engine)]
    counting = Counting(handler, listing, provider)
    limits += [*_tell_more_of_errors(), *listing.expand_wildcards(), *counting.install(proxy_server)]
    for limit in limits:
        log.warning("kimi-provider: %s", limit)
    for router in (
        _router(handler, listing),
        listing.router(),
        gemini_models.list_router(listing.rows),
        gemini.router(lambda name: listing.model_of(name) is not None, counting.tokens),
    ):
        _mount(proxy_server.app, router)
    proxy_server.app.router.routes[0:0] = [*metrics_routes, *account_routes.routes(engine, own_keys=own_keys)]
    logging_callback_manager.add_litellm_callback(GatewayHooks(provider, listing, engine))


def _mount(app: Any, router: APIRouter) -> None:
    count = len(app.router.routes)
    app.include_router(router)
    ours = app.router.routes[count:]
    del app.router.routes[count:]
    app.router.routes[0:0] = ours


def _router(handler: KimiLLM, listing: Listing) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/ping")
    async def ping() -> Response:
        return PlainTextResponse("pong")

    @router.get("/kimi")
    async def guide(request: Request) -> Response:
        settings = handler.engine().settings
        page = admin.guide(
            base_url=str(request.base_url),
            models=listing.served(),
            demo=settings.kimi_demo,
            language=settings.kimi_lang,
        )
        return HTMLResponse(page, headers=admin.HEADERS)

    return router


class GatewayHooks(CustomLogger):  # type: ignore[misc]  # litellm is not followed by mypy
    """Mends what LiteLLM answers badly around the provider, for our models only: a mistyped name (400 without a hint),
    messages that are none (500), a thread of Anthropic's (its newest message would be answered alone), a reached limit
    without retry-after, headers of an answer that some routes leave out, silence on streams that allow for keep-alives.
    """

    def __init__(self, provider: str, listing: Listing, engine: KimiEngine) -> None:
        super().__init__()
        self._provider = provider
        self._listing = listing
        self._engine = engine

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Raise HTTPException 404 or 400."""
        outbound.told.set({})
        name = data.get("model")
        if not isinstance(name, str):
            return
        if self._listing.model_of(name) is not None:
            self._check(data, call_type)
        if _known(name):
            return
        served = self._listing.served()
        shown = name if len(name) <= 80 else name[:77] + "..."
        if successor := self._engine.upstream.successor(name):
            raise _refusal(404, f"'{shown}' is retired: Kimi's web chat no longer has it. Use {successor}.")
        # Beside a wildcard row LiteLLM would say of any unknown name that its deployments are not healthy.
        if name.lower().startswith(self._provider) or self._listing.has_only_ours():
            wanted = name.removeprefix(f"{self._provider}/")
            near = difflib.get_close_matches(wanted, served, n=3, cutoff=0.4) or served[:3]
            names = f" Near names: {', '.join(near)}." if near else ""
            raise _refusal(404, f"This gateway has no model '{shown}'.{names} See GET /v1/models.")

    def _check(self, data: dict[str, Any], call_type: str) -> None:
        """A request for one of our models."""
        try:
            malformed.check(call_type, data)
        except BadRequest as exc:
            raise _refusal(400, f"{exc.describe(self._engine.settings.kimi_lang)} [{exc.code}]") from None
        if call_type == "anthropic_messages":
            if data.get("thread"):
                _told.set(_Told(details=_NO_THREADS))
                raise _refusal(400, "thread: no messages are kept here. Send the whole history.")
        elif data.get("stream") is True:  # LiteLLM keeps Anthropic's streams alive itself
            data.setdefault("keepalive_seconds", self._engine.upstream.service.keepalive_s)

    async def async_post_call_response_headers_hook(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """What the provider said of the answer (`outbound.attach_headers`)."""
        return outbound.told.get({})

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Send retry-after under its own name, where LiteLLM sends it as llm_provider-retry-after or not at all."""
        name = request_data.get("model")
        waiting = getattr(getattr(original_exception, "response", None), "headers", {}).get("retry-after")
        if waiting in (None, "0") or not isinstance(name, str) or self._listing.model_of(name) is None:
            return
        original_exception.headers = {"retry-after": waiting}  # type: ignore[attr-defined]  # where LiteLLM looks first
        _told.set(_Told(retry_after=waiting))


#: By these words Anthropic's SDK sends the whole history from then on.
_NO_THREADS = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """What an error of /v1/messages says beside its text."""

    retry_after: str | None = None
    details: Mapping[str, Any] | None = None


#: What the hooks above have to say to the endpoint that is answering in the same task.
_told: ContextVar[_Told | None] = ContextVar("kimi_told_of_error", default=None)


def _tell_more_of_errors() -> list[str]:
    """LiteLLM's /v1/messages takes neither headers nor details from an error: add ours to the response it builds.
    Returns a sentence when it can't be done. Unnecessary once LiteLLM sends an exception's headers there, as on its
    other routes, and a refusal's details.
    """
    original = getattr(anthropic_endpoints, "_anthropic_error_json_response", None)
    if original is None:
        return [
            "a reached limit says no retry-after on /v1/messages, and Anthropic's tool runner needs thread=False "
            "(LiteLLM has changed how that route fails)"
        ]

    def respond(exc: Any, request: Any) -> Any:
        response, told = original(exc, request), _told.get() or _Told()
        if told.retry_after is not None:
            response.headers.setdefault("retry-after", told.retry_after)
        if told.details is not None:
            body = orjson.loads(response.body)
            body["error"]["details"] = told.details
            response = JSONResponse(body, response.status_code)
        return response

    anthropic_endpoints._anthropic_error_json_response = respond
    return []


def _known(name: str) -> bool:
    router = proxy_server.llm_router
    return router is not None and bool(
        name in router.get_model_names() or router.get_model_list(model_name=name) or router.has_model_id(name)
    )


def _refusal(status: int, message: str) -> HTTPException:
    return HTTPException(status_code=status, detail={"error": message})
