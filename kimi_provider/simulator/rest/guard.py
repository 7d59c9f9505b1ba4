"""What every legacy endpoint checks before its own work: retirement, content type, credential (protocol B.1, B.2).

A retired host refuses before it looks at anything. The refresh (protocol A.5) is not behind this guard: it stayed alive
the longest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..accounts import Caller
from ..connect import authenticate, media_type
from ..refusals import UNARY_TYPE, Refusal
from ..state import Simulator
from .refusals import RestRefusal, translated

NEW_HOME = "https://moved.invalid"

Handler = Callable[[Simulator, Request, Caller], Awaitable[Response]]


def guarded(simulator: Simulator, verb: str, path: str, handler: Handler) -> Route:
    """A route for callers with a live access token; a POST must bring JSON."""

    async def endpoint(request: Request) -> Response:
        retired = _retired(simulator, request)
        if retired is not None:
            return retired
        try:
            if verb == "POST" and media_type(request) != UNARY_TYPE:
                raise RestRefusal("request.unsupported_media_type", "expected application/json", 415)
            return await handler(simulator, request, authenticate(simulator, request))
        except RestRefusal as refusal:
            return refusal.response()
        except Refusal as refusal:
            return translated(refusal).response()

    return Route(path, endpoint, methods=[verb])


def _retired(simulator: Simulator, request: Request) -> Response | None:
    settings = simulator.settings
    path = request.url.path
    if not settings.rest_retired:
        return None
    if settings.rest_retired_scope == "completion" and not path.endswith("/completion/stream"):
        return None
    if settings.rest_retired == "redirect":
        return Response(status_code=302, headers={"location": NEW_HOME + path})
    status = int(settings.rest_retired)
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return Response(page, status, media_type="text/html")
