"""The legacy calls about the account, and the ones that only a browser makes (protocol B.3).

Browser mimicry is answered with 404 and counted, so that a test can say that none was called.
"""

from __future__ import annotations

import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..accounts import Caller
from ..state import Simulator
from ..tokens import LEVEL_NUMBERS
from .chats import answered
from .guard import guarded

MIMICRY = (
    "/api/chat/{chat_id}/pre-n2s",
    "/api/chat/{chat_id}/token_size",
    "/api/suggestion",
    "/api/user/usage",
    "/api/chat_1m/user/status",
    "/api/kimi_mv/user/status",
    "/api/kimiplus/history",
    "/api/kimiplus/search",
    "/api/show_case/list",
    "/api/prompt-snippet/instance",
)


def routes(simulator: Simulator) -> list[Route]:
    """Who I am, what is left, and the mimicry."""

    def counted(path: str) -> Route:
        async def endpoint(request: Request) -> Response:
            simulator.mimicry[path] += 1
            return Response("404", 404, media_type="text/plain")

        return Route(path, endpoint, methods=["GET", "POST"])

    return [
        guarded(simulator, "GET", "/api/user", _user),
        guarded(simulator, "GET", "/api/chat/research/usage", _research_usage),
        *map(counted, MIMICRY),
    ]


async def _user(simulator: Simulator, request: Request, caller: Caller) -> Response:
    account = caller.account
    return answered({"id": account.sub, "name": account.name, "avatar": "https://example.com/avatar.png"})


async def _research_usage(simulator: Simulator, request: Request, caller: Caller) -> Response:
    total = simulator.settings.research_total
    used = min(simulator.research_used[caller.account.sub], total)
    if simulator.settings.research_shape == "flat":
        return answered({"remain": total - used, "total": total, "used": used})
    today = datetime.datetime.fromtimestamp(simulator.clock(), datetime.UTC).date().isoformat()
    usage = {"total": total, "remain": total - used, "date": today}
    return answered({"research_usage": usage, "membership": {"level": LEVEL_NUMBERS[caller.account.level]}})
