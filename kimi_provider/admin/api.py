"""Accounts for scripts: /kimi/api/accounts, /token/check and /kimi/ready. JSON in and out.

With the gateway's master key as a bearer token, or a session of the page together with its CSRF token. An error is
`{"error": {"message", "code"}}` with the status of its kind; no answer holds a secret.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..accounts.capture import MAX_FILE_BYTES
from ..errors import BadRequest, KimiError
from ..observe import redact
from ..wording import Language
from .door import CSRF_HEADER, Door
from .roster import Roster
from .rows import Added, Checked, Readiness, account_json, failure_json, said

_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_FAILURES_SHOWN: Final = 50

_Endpoint = Callable[[Request], Awaitable[Response]]


def routes(roster: Roster, door: Door, *, language: Language, own_keys: bool) -> list[Route]:
    """The endpoints. `own_keys`: deployments bring credentials, so that calls are answered without any account here."""

    async def list_(request: Request) -> Response:
        now = time.time()
        return _json(
            {
                "accounts": [account_json(row, now) for row in await roster.rows()],
                "failures": [failure_json(one) for one in await roster.failures(_FAILURES_SHOWN)],
                "durable": roster.durable,
            }
        )

    async def add(request: Request) -> Response:
        added = await roster.add(_credential(await read_body(request)))
        return _json({"added": [_added(one) for one in added]}, 201)

    async def show(request: Request) -> Response:
        return _json(account_json(await roster.row(request.path_params["ref"]), time.time()))

    async def check(request: Request) -> Response:
        return _checked(await roster.check(request.path_params["ref"]))

    async def refresh(request: Request) -> Response:
        return _json(account_json(await roster.refresh(request.path_params["ref"]), time.time()))

    async def enable(request: Request) -> Response:
        return _json(account_json(await roster.pause(request.path_params["ref"], paused=False), time.time()))

    async def disable(request: Request) -> Response:
        return _json(account_json(await roster.pause(request.path_params["ref"], paused=True), time.time()))

    async def remove(request: Request) -> Response:
        row = await roster.remove(request.path_params["ref"])
        return _json({"id": row.id, "removed": True, "still_in_kimi_token": roster.is_seeded(row.id)})

    async def check_token(request: Request) -> Response:
        body = _object(await read_body(request))
        if not isinstance(token := body.get("token"), str):
            raise BadRequest('The body must be {"token": "..."}')
        checked, understood = await roster.check_token(token)
        return _checked(checked, **said(understood, time.time()))

    async def ready(request: Request) -> Response:
        return _ready(await roster.readiness(os.environ), own_keys=own_keys)

    def guarded(endpoint: _Endpoint) -> _Endpoint:
        async def answer(request: Request) -> Response:
            if (refused := _refused(request, door)) is not None:
                return refused
            try:
                return await endpoint(request)
            except KimiError as exc:
                return _error(exc, language)

        return answer

    one = "/kimi/api/accounts/{ref:path}"
    return [
        Route("/kimi/ready", ready),
        Route("/token/check", guarded(check_token), methods=["POST"]),
        Route("/kimi/api/accounts", guarded(list_), methods=["GET"]),
        Route("/kimi/api/accounts", guarded(add), methods=["POST"]),
        Route(f"{one}/check", guarded(check), methods=["POST"]),
        Route(f"{one}/refresh", guarded(refresh), methods=["POST"]),
        Route(f"{one}/enable", guarded(enable), methods=["POST"]),
        Route(f"{one}/disable", guarded(disable), methods=["POST"]),
        Route(one, guarded(show), methods=["GET"]),
        Route(one, guarded(remove), methods=["DELETE"]),
    ]


def _refused(request: Request, door: Door) -> Response | None:
    """What to answer to whoever may not come in."""
    if door.has_key(request):
        return None
    session = door.session(request)
    if session is None:
        message = "This needs the gateway's master key. Send it as: Authorization: Bearer $LITELLM_MASTER_KEY"
        return _json({"error": {"message": message, "code": "not_signed_in"}}, 401)
    if request.method != "GET" and not door.may_change(session, request.headers.get(CSRF_HEADER)):
        message = "The request does not come from our own page. Reload the page."
        return _json({"error": {"message": message, "code": "not_our_page"}}, 403)
    return None


async def read_body(request: Request) -> bytes:
    """The body, as far as a file may go. Raises BadRequest."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_FILE_BYTES:
            raise BadRequest(f"The body is larger than {MAX_FILE_BYTES // 1024**2} MB")
    return bytes(content)


def _credential(body: bytes) -> bytes:
    """`{"credential": "..."}`, or else the file itself."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return body
    given = value.get("credential") if isinstance(value, dict) else None
    return given.encode() if isinstance(given, str) else body


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def _added(one: Added) -> dict[str, Any]:
    known = one.understood
    return {"id": one.id, "short_id": known.short_id, "outcome": one.outcome, **said(known, time.time())}


def _checked(checked: Checked, **more: Any) -> Response:
    if checked.live is None and checked.failure is not None:
        raise checked.failure
    failure = checked.failure
    reason = {"reason": redact(failure.message), "code": failure.code} if failure else {"reason": None, "code": None}
    return _json({"live": checked.live, "short_id": checked.short_id, **reason, **more})


def _ready(found: Readiness, *, own_keys: bool) -> Response:
    ready = found.usable > 0 or (own_keys and not found.total)
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.by_state.items()))
    if ready:
        reason = None
    elif found.total:
        reason = f"No account can answer now: {states}. See /kimi/accounts."
    else:
        reason = "No account: add one on /kimi/accounts or with kimi-provider accounts add."
    body = {"ready": ready, "usable": found.usable, "accounts": dict(found.by_state), "reason": reason}
    answer = _json(body | {"hint": found.hint}, 200 if ready else 503)
    if not ready and found.retry_after_s is not None:
        answer.headers["retry-after"] = str(math.ceil(found.retry_after_s))
    return answer


def _json(value: Any, status: int = 200) -> Response:
    return JSONResponse(value, status, headers=_HEADERS)


def _error(error: KimiError, language: Language) -> Response:
    return _json({"error": {"message": redact(error.describe(language)), "code": error.code}}, error.status)
