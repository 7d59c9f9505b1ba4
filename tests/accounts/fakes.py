"""Composed tokens (dummy signatures) and a small account gateway on loopback, written from protocol A alone."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from kimi_provider.accounts import Account, Credential
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream

from ..listener import Listener, QuietHandler

GATEWAY_PATH = "/api/account.gateway.v1.AuthService/RefreshToken"
LEGACY_PATH = "/api/auth/token/refresh"
SUB = "cuser000000000000001"
SIGNATURE = "Zm9vYmFyLWR1bW15LXNpZ25hdHVyZS1vZi1zaXh0eS1mb3VyLWJ5dGVzLXRoYXQtcHJvdmVzLW5vdGhpbmctYXQtYWxs"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(*, signature: str = SIGNATURE, **claims: Any) -> str:
    return ".".join((b64(b'{"alg":"HS512","typ":"JWT"}'), b64(json.dumps(claims).encode()), signature))


def access(sub: str = SUB, *, iat: float | None = None, life_s: float = 900, **more: Any) -> str:
    iat = time.time() if iat is None else iat
    base = {"iss": "account", "app_id": "kimi", "typ": "access", "sub": sub, "iat": iat, "exp": iat + life_s}
    return jwt(**base, device_id="7500000000000000001", ssid="1700000000000000001", **more)


def refresh(sub: str = SUB, *, iat: float | None = None, life_s: float = 7_776_000, **more: Any) -> str:
    iat = time.time() if iat is None else iat
    base = {"iss": "account", "app_id": "kimi", "typ": "refresh", "sub": sub, "iat": iat, "exp": iat + life_s}
    return jwt(**base, device_id="7500000000000000001", ssid="1700000000000000001", **more)


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


#: Status, headers, body.
Answer = tuple[int, dict[str, str], Any]


def ok(access_token: str, refresh_token: str | None = None) -> Answer:
    body = {"accessToken": access_token}
    return 200, {}, body if refresh_token is None else body | {"refreshToken": refresh_token}


def refused(status: int = 401) -> Answer:
    return status, {}, {"code": "unauthenticated", "message": "session expired"}


@dataclass
class AuthServer(Listener):
    """Answers with `gateway` and `legacy`, keeps what it was asked."""

    gateway: Callable[[Asked], Answer] = lambda asked: refused()
    legacy: Callable[[Asked], Answer] = lambda asked: (401, {}, {"error_type": "auth.token.invalid", "message": "x"})
    delay_s: float = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        owner = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                owner.connections += 1
                super().setup()

            def do_GET(self) -> None:
                owner.answer(self)

            do_POST = do_GET

        super().__init__(Handler)

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        raw = handler.rfile.read(length)
        asked = Asked(handler.command, handler.path, dict(handler.headers.items()), json.loads(raw) if raw else None)
        with self.lock:
            self.asked.append(asked)
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        if self.delay_s:
            time.sleep(self.delay_s)
        status, headers, body = (self.gateway if asked.path == GATEWAY_PATH else self.legacy)(asked)
        with self.lock:
            self.busy -= 1
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


async def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


def settings_for(url: str = "http://127.0.0.1:9", **more: Any) -> Settings:
    given = {"kimi_base_url": url, "kimi_auth_url": url, "kimi_state_url": "sqlite://", **more}
    return Settings.without_file(**given)


UPSTREAM = Upstream.load()


def account_of(url: str, *, refresh: str | None = None, access: str | None = None, **more: Any) -> Account:
    return Account.of(Credential.of(refresh=refresh, access=access), settings_for(url, **more), UPSTREAM)
