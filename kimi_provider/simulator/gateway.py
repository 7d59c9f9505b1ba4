"""The account gateway: refreshing a session, in both forms (protocol A.5, A.6).

Form 2 takes and gives plain JSON, either spelling, no envelope and no `authorization`. The rotation happens the moment
the request is read, so a client that loses the answer has lost the session, as on the real service.
"""

from __future__ import annotations

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .call import field_of
from .connect import media_type
from .recording import count_round_trip
from .refusals import UNARY_TYPE, Refusal, violation
from .state import Simulator
from .unary import read_object


def routes(simulator: Simulator) -> list[Route]:
    """Both forms of refresh."""

    async def form_2(request: Request) -> Response:
        if media_type(request) != UNARY_TYPE:
            return Response(status_code=415, headers={"accept-post": UNARY_TYPE})
        try:
            pair = _form_2(simulator, field_of(await read_object(request), "refresh_token"))
        except Refusal as refusal:
            return refusal.response()
        await asyncio.sleep(simulator.settings.refresh_delay_s)
        return Response(orjson.dumps(pair), media_type=UNARY_TYPE)

    async def form_1(request: Request) -> Response:
        pair = _form_1(simulator, request.headers.get("authorization", ""))
        await asyncio.sleep(simulator.settings.refresh_delay_s)
        if pair is None:
            refused = {"error_type": "auth.token.invalid", "message": "the authorisation has expired"}
            return Response(orjson.dumps(refused), 401, media_type=UNARY_TYPE)
        spelled = {"access_token": pair["accessToken"], "refresh_token": pair["refreshToken"]}
        return Response(orjson.dumps(spelled), media_type=UNARY_TYPE)

    return [
        Route("/api/account.gateway.v1.AuthService/RefreshToken", form_2, methods=["POST"]),
        Route("/api/auth/token/refresh", form_1, methods=["GET"]),
    ]


def _form_2(simulator: Simulator, token: object) -> dict[str, str]:
    if not isinstance(token, str) or not token:
        raise violation("refresh_token", "must not be empty")
    count_round_trip(simulator, simulator.accounts.sub_of(token))
    settings = simulator.settings
    pair = simulator.accounts.refresh(
        token,
        access_ttl_s=settings.access_ttl_s,
        refresh_ttl_s=settings.refresh_ttl_s,
        reuse_kills_session=settings.reuse_kills_session,
    )
    if pair is None:
        raise Refusal("unauthenticated", "session expired")  # frame 50
    return pair


def _form_1(simulator: Simulator, authorization: str) -> dict[str, str] | None:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return None
    settings = simulator.settings
    return simulator.accounts.refresh(
        token,
        access_ttl_s=settings.access_ttl_s,
        refresh_ttl_s=settings.refresh_ttl_s,
        rotate=settings.legacy_refresh_rotates,
        reuse_kills_session=settings.reuse_kills_session,
    ) or simulator.accounts.refresh_opaque(token, access_ttl_s=settings.access_ttl_s)
