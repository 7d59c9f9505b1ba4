"""What arrived: an ASGI layer that counts bytes and keeps the last requests, credentials replaced by digests.

Everything under `/_sim` is invisible to it, so that a test's own looking around never counts. Handlers add the
decoded body to the record through `record_of`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .state import RecordedRequest, Simulator

CONTROL_PREFIX = "/_sim"
SECRET_HEADERS = frozenset({"authorization", "cookie", "x-msh-shield-data"})
SECRET_FIELDS = frozenset({"refresh_token", "refreshToken"})


def digest(secret: str) -> str:
    """A short, stable stand-in for a secret."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()[:12]}"


class Recorder:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, simulator: Simulator) -> None:
        self._app = app
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        simulator = self._simulator
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        record = RecordedRequest(
            method=scope["method"],
            path=scope["path"],
            headers={name: digest(value) if name in SECRET_HEADERS else value for name, value in headers.items()},
        )
        simulator.requests.append(record)
        # The request line and the header lines with their separators; the exact count is the server's secret.
        simulator.bytes_received += len(scope["method"]) + len(scope["path"]) + 12
        simulator.bytes_received += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        scope.setdefault("state", {})["record"] = record
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            count_round_trip(simulator, simulator.accounts.sub_of(token.strip()))

        async def counting() -> Message:
            event = await receive()
            size = len(event.get("body", b""))
            simulator.bytes_received += size
            record.body_bytes += size
            return event

        await self._app(scope, counting, send)


def count_round_trip(simulator: Simulator, sub: str | None) -> None:
    """One more request of this account; nothing for requests that are nobody's."""
    if sub is not None:
        simulator.round_trips[sub] += 1


def record_body(request: Request, body: Any) -> None:
    """Keep the decoded body of this request, refresh tokens replaced."""
    if isinstance(body, dict):
        body = {
            name: digest(value) if name in SECRET_FIELDS and isinstance(value, str) else value
            for name, value in body.items()
        }
    request.state.record.body = body
