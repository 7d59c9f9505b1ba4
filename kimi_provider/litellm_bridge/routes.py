"""Our own pages on a LiteLLM proxy, and what is said when it starts.

Imported only when the proxy is there: its module costs seconds and a hundred megabytes. The routes go in front of
LiteLLM's, so that a catch-all of a later version cannot swallow them; none of them replaces one of LiteLLM's.
"""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from litellm import logging_callback_manager
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server

from .. import admin
from ..observe import redact_logs

if TYPE_CHECKING:
    from .llm import KimiLLM

log = logging.getLogger(__name__)


def start_up(handler: KimiLLM, limits: list[str], provider: str) -> None:
    """Mount the routes and say what an operator should know. Raises SettingsError: a gateway with a broken setting
    must not start.
    """
    redact_logs()
    engine = handler.engine()
    if not engine.pool.accounts:
        log.warning(
            "kimi-provider: no Kimi credential. Looked for KIMI_TOKEN in the environment and in .env; a kimi/ row of "
            "model_list may also name its own with api_key."
        )
    for limit in limits:
        log.warning("kimi-provider: %s", limit)
    _mount(proxy_server.app, _router(handler, provider))
    logging_callback_manager.add_litellm_callback(EarlyRefusals(provider))


def _mount(app: Any, router: APIRouter) -> None:
    count = len(app.router.routes)
    app.include_router(router)
    ours = app.router.routes[count:]
    del app.router.routes[count:]
    app.router.routes[0:0] = ours


def _router(handler: KimiLLM, provider: str) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/ping")
    async def ping() -> Response:
        return PlainTextResponse("pong")

    @router.get("/kimi")
    async def guide(request: Request) -> Response:
        settings = handler.engine().settings
        page = admin.guide(
            base_url=str(request.base_url),
            models=served_models(provider),
            demo=settings.kimi_demo,
            language=settings.kimi_lang,
        )
        return HTMLResponse(page, headers=admin.HEADERS)

    @router.get("/kimi/static/kimi.css")
    async def stylesheet() -> Response:
        return Response(admin.stylesheet(), media_type="text/css", headers={"cache-control": "max-age=3600"})

    return router


def served_models(provider: str) -> list[str]:
    """Names of this gateway's own model_list that lead to us."""
    router = proxy_server.llm_router
    rows = router.model_list if router is not None else []
    prefix = f"{provider}/"
    return list(dict.fromkeys(r["model_name"] for r in rows if r["litellm_params"]["model"].startswith(prefix)))


class EarlyRefusals(CustomLogger):  # type: ignore[misc]  # litellm is not followed by mypy
    """Answers what LiteLLM would answer badly before it reaches the provider, for our models only: a mistyped name
    (400 without a hint) and an empty /v1/messages (500).
    """

    def __init__(self, provider: str) -> None:
        super().__init__()
        self._provider = provider

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Raise HTTPException 404 or 400."""
        name = data.get("model")
        if not isinstance(name, str):
            return
        if call_type == "anthropic_messages" and not data.get("messages") and name in served_models(self._provider):
            raise _refusal(400, "messages is empty. Add at least one user message.")
        if name.lower().startswith(self._provider) and not _known(name):
            served, wanted = served_models(self._provider), name.removeprefix(f"{self._provider}/")
            near = difflib.get_close_matches(wanted, served, n=3, cutoff=0.4) or served[:3]
            shown = name if len(name) <= 80 else name[:77] + "..."
            names = f" Near names: {', '.join(near)}." if near else ""
            raise _refusal(404, f"This gateway has no model '{shown}'.{names} See GET /v1/models.")


def _known(name: str) -> bool:
    router = proxy_server.llm_router
    return router is not None and bool(name in router.get_model_names() or router.get_model_list(model_name=name))


def _refusal(status: int, message: str) -> HTTPException:
    return HTTPException(status_code=status, detail={"error": message})
