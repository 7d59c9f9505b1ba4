"""Who may manage accounts: whoever has the gateway's master key, in a header or as a session of the page.

A session is a sealed cookie and nothing else: the key that seals it is made from the master key, so that every worker
knows every session and a new master key ends them all. What a session changes needs a token that only our page knows
(CSRF) and must come from our own origin, because LiteLLM lets scripts of any site read its answers. Guesses are counted
in the account store, for all workers together.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from starlette.requests import Request
from starlette.responses import Response

from ..errors import Unavailable
from ..store import Store

COOKIE: Final = "kimi_session"
CSRF_HEADER: Final = "x-csrf-token"
SESSION_LIFE_S: Final = 12 * 3600
#: Wrong keys from one address, until the oldest of them is so old.
MAX_GUESSES: Final = 10
GUESS_WINDOW_S: Final = 15 * 60

_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_GUESSED: Final = "sign-in refused"
#: Events of the audit trail that belong to no account.
_NOBODY: Final = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Somebody who has signed in; `csrf` goes back with everything that the page changes."""

    csrf: str


class Door:
    """Lets in. `master_key` gives that of the gateway, None when it has none."""

    def __init__(self, master_key: Callable[[], str | None], store: Store | None) -> None:
        self._master_key = master_key
        self._guesses = _Guesses(store)

    @property
    def locked(self) -> bool:
        """Without a master key nobody comes in."""
        return not self._master_key()

    def has_key(self, request: Request) -> bool:
        """Whether the request brings the master key itself: scripts."""
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self._is_key(key.strip())

    def session(self, request: Request) -> Session | None:
        """The session of the page that the request belongs to; None when it came from another site's script."""
        cookie = request.cookies.get(COOKIE)
        if cookie is None or self.locked or not is_own_origin(request):
            return None
        try:
            content = self._sealer().decrypt(cookie.encode(), ttl=SESSION_LIFE_S)
        except (InvalidToken, UnicodeEncodeError):
            return None
        return Session(csrf=hmac.new(self._derived(b"csrf"), content, hashlib.sha256).hexdigest())

    def may_change(self, session: Session, token: str | None) -> bool:
        """Whether a change comes from our page itself."""
        return hmac.compare_digest(session.csrf.encode(), (token or "").encode("utf-8", "replace"))

    async def sign_in(self, request: Request, key: str) -> float | None:
        """None when the key is right; else the seconds to wait before another guess, 0 for none."""
        address = request.client.host if request.client else "?"
        wait_s = await self._guesses.wait_s(address)
        if wait_s > 0:
            return wait_s
        if self._is_key(key):
            return None
        await self._guesses.count(address)
        return 0.0

    def give_session(self, request: Request, response: Response) -> None:
        """Put a fresh one into the answer to a request to /kimi/session."""
        self._set(request, response, self._sealer().encrypt(secrets.token_bytes(16)).decode(), SESSION_LIFE_S)

    def end_session(self, request: Request, response: Response) -> None:
        """Take it out of the browser."""
        self._set(request, response, "", 0)

    def _set(self, request: Request, response: Response, value: str, life_s: int) -> None:
        # Without a path the browser takes the folder of the request, /kimi, below whatever prefix a proxy strips.
        response.set_cookie(
            COOKIE,
            value,
            max_age=life_s,
            path=None,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def _is_key(self, key: str) -> bool:
        wanted = self._master_key()
        return bool(wanted) and hmac.compare_digest(key.encode("utf-8", "replace"), str(wanted).encode())

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.new((self._master_key() or "").encode(), b"kimi-provider " + purpose, hashlib.sha256).digest()

    def _sealer(self) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(self._derived(b"session")))


def is_own_origin(request: Request) -> bool:
    """Whether a request comes from our own pages, or from no page at all."""
    site = request.headers.get("sec-fetch-site")  # set by the browser itself, and right behind any proxy
    if site == "same-origin" or (site == "none" and request.method in _SAFE_METHODS):
        return True
    origin = request.headers.get("origin")
    if site is not None:  # a link on another site leads here, but no script may read on
        return request.method in _SAFE_METHODS and origin is None
    if origin is None:
        return request.method in _SAFE_METHODS
    return urlsplit(origin).netloc == request.headers.get("host")


class _Guesses:
    """Wrong keys by address: in the store, and in memory while there is none."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._recent: deque[tuple[float, str]] = deque(maxlen=1000)

    async def wait_s(self, address: str) -> float:
        """Seconds until `address` may guess again."""
        times, now = await self._times(address)
        return 0.0 if len(times) < MAX_GUESSES else max(0.0, times[MAX_GUESSES - 1] + GUESS_WINDOW_S - now)

    async def count(self, address: str) -> None:
        """One more."""
        self._recent.append((time.time(), address))
        store = self._store
        if store is None:
            return

        def work() -> None:
            with store.write() as rows:
                rows.audit.note(_NOBODY, _GUESSED, address)

        try:
            await store.run(work)
        except Unavailable:
            return  # this process remembers

    async def _times(self, address: str) -> tuple[list[float], float]:
        """When `address` guessed, the latest first, and the time now."""
        store = self._store
        if store is not None:

            def work() -> tuple[list[float], float]:
                with store.read() as rows:
                    noted = rows.audit.last(10 * MAX_GUESSES, account_id=_NOBODY)
                    return [one.at for one in noted if one.event == _GUESSED and one.detail == address], rows.now

            try:
                return await store.run(work)
            except Unavailable:
                pass
        return [at for at, who in reversed(self._recent) if who == address], time.time()
