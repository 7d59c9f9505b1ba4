"""A usable access token for an account, renewed by exactly one refresh at a time.

Access tokens live 15 minutes (protocol E.9). Inside the advisory window the old one is served while a new one is
fetched; inside the mandatory window callers wait. A refresh kills the pair it replaces (protocol A.6), so it runs on
the background loop where no caller's end can lose its answer, and the new pair is saved before anybody uses it.
A credential that was refused for good is remembered: later calls fail at once, without a byte sent, until the owner
gives a new one. Nothing real ever meets the simulator, nothing simulated the service.
"""

from __future__ import annotations

import concurrent.futures
import copy
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from ..errors import (
    AccountSuspended,
    BadRequest,
    CredentialError,
    KimiError,
    Overloaded,
    PermissionRefused,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    Unavailable,
    UpstreamError,
)
from ..loops import BackgroundLoop, background, joined
from ..settings import Settings
from ..upstream import Upstream
from ..web import Reply, Session, Web, host_of, seconds, session_headers
from .account import Account, Claims, TokenPair, TokenState, claims_of, newest, real_hosts

#: One call of a refresh; three are made at most.
REFRESH_TIMEOUT_S = 20
#: Assumed life of an access token that is no JWT (protocol A.5: what peers cache).
OPAQUE_ACCESS_LIFE_S = 300
#: Pause after a failed refresh while the old token still serves.
BACKGROUND_PAUSE_S = 10

_ABSENT_STATUSES = frozenset({404, 405, 410, 501})
_REFUSED_STATUSES = frozenset({400, 401, 403})

_Need = Literal["nothing", "soon", "now", "gone"]


class TokenStore(Protocol):
    """Where rotated pairs outlive the process. Called from the background loop only, one call at a time per account."""

    async def load(self, account_id: str) -> TokenPair | None:
        """The newest pair saved, or None."""

    async def save(self, account_id: str, pair: TokenPair) -> None:
        """Keep `pair`; it is used only after this returned."""


class MemoryTokenStore:
    """Pairs for as long as the process lives."""

    def __init__(self) -> None:
        self._pairs: dict[str, TokenPair] = {}

    async def load(self, account_id: str) -> TokenPair | None:
        """See TokenStore."""
        return self._pairs.get(account_id)

    async def save(self, account_id: str, pair: TokenPair) -> None:
        """See TokenStore."""
        self._pairs[account_id] = pair


class TokenKeeper:
    """Gives out sessions; usable from any thread and loop. All state is on the `Account`.

    `clock` is our time in Unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        *,
        store: TokenStore | None = None,
        clock: Callable[[], float] = time.time,
        loop: BackgroundLoop | None = None,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._store: TokenStore = store if store is not None else MemoryTokenStore()
        self._clock = clock
        self._loop = loop if loop is not None else background()
        self._real_hosts = real_hosts(upstream)

    async def session(self, account: Account, *, rejected: str | None = None) -> Session:
        """A session whose access token is not `rejected` (one that the service answered with 401).

        Raises CredentialError or AccountSuspended (for good), PermissionRefused (demo guard), RateLimited, Unavailable,
        UpstreamTimeout, UpstreamError (the account gateway can't be used now).
        """
        self._guard(account)
        failure: KimiError | None = None
        # A flight that others began may end without the refresh that this caller needs; the next one is its own.
        for _ in range(4):
            with account.lock:
                state = account.tokens
                if account.dead is not None:
                    raise again(account.dead)
                if rejected is not None and rejected == state.pair.access:
                    state.rejected = rejected
                need = self._need(state)
                if need == "gone":
                    account.dead = self._gone(account)
                    raise again(account.dead)
                if need == "nothing" or need == "soon" or (failure is not None and self._alive(state)):
                    if need == "soon" and self._clock() >= state.retry_at:
                        self._flight(account)
                    return self._session(account)
                if failure is not None:
                    raise again(failure)
                flight = self._flight(account)
            try:
                failure = await joined(flight)
            except concurrent.futures.CancelledError:
                failure = Unavailable("The token refresh was stopped", account=account.short_id)
        raise Unavailable("No usable access token after several refreshes", account=account.short_id)

    # --- decisions: no I/O, under the account's lock ---

    def _need(self, state: TokenState) -> _Need:
        pair = state.pair
        if not state.loaded or state.unsaved:
            return "now"
        final = pair.refresh is None or state.refusal is not None
        if not self._alive(state):
            return "gone" if final else "now"
        if final:
            return "nothing"
        left_s, life_s = self._left_s(state), self._life_s(pair)
        # A service that issues shorter tokens than expected must not be asked at every call.
        if left_s < min(self._upstream.service.token_mandatory_s, life_s / 4):
            return "now"
        return "soon" if left_s < min(self._upstream.service.token_advisory_s, life_s / 2) else "nothing"

    def _alive(self, state: TokenState) -> bool:
        """Saved, not refused, not expired."""
        access = state.pair.access
        usable = access is not None and access != state.rejected and state.loaded and not state.unsaved
        return usable and self._left_s(state) > 0

    def _left_s(self, state: TokenState) -> float:
        claims = claims_of(state.pair.access)
        now = self._clock()
        if claims is None or claims.exp is None:
            return state.pair.obtained_at + OPAQUE_ACCESS_LIFE_S - now
        # No token is issued in the future: when it looks so, our clock is behind.
        ahead = max(state.skew_s, claims.iat - now) if claims.iat is not None else state.skew_s
        return claims.exp - (now + ahead)

    def _life_s(self, pair: TokenPair) -> float:
        claims = claims_of(pair.access)
        return (claims.life_s if claims else None) or OPAQUE_ACCESS_LIFE_S

    def _measured_skew_s(self, pair: TokenPair) -> float:
        """The service's clock minus ours, from a token issued just now; 0 while it does no harm."""
        claims = claims_of(pair.access)
        if claims is None or claims.iat is None or claims.exp is None:
            return 0.0
        skew_s = claims.iat - self._clock()
        looks_old = claims.exp - self._clock() < self._upstream.service.token_advisory_s < claims.exp - claims.iat
        return skew_s if skew_s > 0 or looks_old else 0.0

    def _gone(self, account: Account) -> KimiError:
        state = account.tokens
        if state.refusal is not None:
            return state.refusal
        what = "was refused" if state.pair.access == state.rejected else "has expired"
        return CredentialError(f"The access token {what} and has no refresh partner", account=account.short_id)

    def _session(self, account: Account) -> Session:
        access = account.tokens.pair.access
        claims, given = claims_of(access) or Claims(), account.claims
        return Session(
            access_token=access or "",
            account=account.short_id,
            base_url=account.base_url,
            device_id=claims.device_id or given.device_id,
            session_id=claims.ssid or given.ssid,
            traffic_id=claims.sub or given.sub,
        )

    def _guard(self, account: Account) -> None:
        """Refuse before any network what would carry a credential into the wrong world."""
        if account.simulated:
            for variable, url in (("KIMI_BASE_URL", account.base_url), ("KIMI_AUTH_URL", account.auth_url)):
                if url in self._real_hosts:
                    raise PermissionRefused(
                        f"This credential is from the built-in simulator; it is not sent to {host_of(url)}",
                        account=account.short_id,
                        cure=f"Point {variable} at the simulator, or give KIMI_TOKEN a credential of your own account.",
                    )
        elif self._settings.kimi_demo:
            raise PermissionRefused(
                "This is demo mode: a real credential is not sent to the simulator",
                account=account.short_id,
                cure="Start real mode: KIMI_TOKEN=... kimi-provider serve",
            )

    # --- the flight: runs on the background loop, one per account ---

    def _flight(self, account: Account) -> concurrent.futures.Future[KimiError | None]:
        """The flight under way, or a new one; under the account's lock."""
        state = account.tokens
        if state.flight is None or state.flight.done():
            state.flight = self._loop.submit(self._renew(account))
        return state.flight

    async def _renew(self, account: Account) -> KimiError | None:
        """Load, save what is unsaved, refresh when needed. Returns the failure so that each waiter raises its own."""
        state = account.tokens
        unready = not state.loaded or state.unsaved
        try:
            if not state.loaded:
                stored = await self._store.load(account.id)
                with account.lock:
                    if stored is not None:
                        state.pair = newest(stored, state.pair)
                    state.loaded = True
            await self._save(account)
            with account.lock:
                need, old = self._need(state), state.pair
            if need in ("nothing", "gone") or old.refresh is None:
                return None
            if need == "soon" and unready:
                return None  # somebody waits for the token that is good already; the next flight renews it
            fresh = await self._refreshed(account, old.refresh)
        except KimiError as exc:
            with account.lock:
                state.retry_at = self._clock() + BACKGROUND_PAUSE_S
                if isinstance(exc, CredentialError | AccountSuspended):
                    state.refusal = exc
            return exc
        with account.lock:
            if state.pair is not old:
                return None  # the owner logged in again meanwhile: that pair is the one to use
            state.pair, state.unsaved = fresh, True
            state.skew_s = self._measured_skew_s(fresh)
        await self._save(account)
        return None

    async def _save(self, account: Account) -> None:
        # A store that fails leaves the pair in memory, unsaved and unused; the next flight tries again.
        state = account.tokens
        while state.unsaved:
            pair = state.pair
            await self._store.save(account.id, pair)
            with account.lock:
                state.unsaved = state.pair is not pair

    async def _refreshed(self, account: Account, refresh: str) -> TokenPair:
        """Form 2, then form 1 (protocol A.5, A.6). A CredentialError or AccountSuspended from here is final."""
        refused: KimiError | None = None
        trouble: KimiError | None = None
        if claims_of(refresh) is not None:
            try:
                return await self._by_gateway(account, refresh)
            except CredentialError as exc:
                refused = exc
            except (PermissionRefused, RateLimited):
                raise
            except UpstreamError as exc:
                # A redirect or a missing endpoint: form 2 has no say. A strange 200 may come right next time.
                trouble = exc if isinstance(exc, ProtocolError) else None
            except KimiError as exc:
                trouble = exc
        try:
            return await self._by_legacy(account, refresh)
        except CredentialError:
            if trouble is not None:
                raise trouble from None  # the form that issued the token could not be asked
            raise
        except (PermissionRefused, RateLimited):
            raise
        except KimiError as exc:
            raise refused or trouble or exc from None

    async def _by_gateway(self, account: Account, refresh: str) -> TokenPair:
        url = account.auth_url + self._upstream.auth.gateway_path
        headers = self._headers(account, refresh)
        del headers["authorization"]
        failure: KimiError = UpstreamError(f"{host_of(url)} was not asked")
        for name in self._upstream.auth.request_fields:
            reply = await self._call(account, "POST", url, headers, {name: refresh})
            try:
                return self._pair(account, url, reply, refresh)
            except KimiError as exc:
                failure = exc
                if reply.status != 400:
                    raise
        raise failure

    async def _by_legacy(self, account: Account, refresh: str) -> TokenPair:
        url = account.base_url + self._upstream.auth.legacy_path
        return self._pair(
            account, url, await self._call(account, "GET", url, self._headers(account, refresh), None), refresh
        )

    async def _call(self, account: Account, method: str, url: str, headers: dict[str, str], json: Any) -> Reply:
        web = await Web.current(self._upstream)
        try:
            return await web.call(method, url, headers=headers, json=json, timeout_s=REFRESH_TIMEOUT_S)
        except KimiError as exc:
            exc.account = account.short_id
            raise

    def _headers(self, account: Account, refresh: str) -> dict[str, str]:
        claims = claims_of(refresh) or account.claims
        session = Session(
            access_token=refresh,
            account=account.short_id,
            base_url=account.base_url,
            device_id=claims.device_id,
            session_id=claims.ssid,
            traffic_id=claims.sub,
        )
        return session_headers(session, self._settings, self._upstream)

    # --- answers ---

    def _pair(self, account: Account, url: str, reply: Reply, refresh: str) -> TokenPair:
        """The new pair of an answer; a missing refresh token keeps the old one. Raises what the answer means."""
        found = reply.json()
        body: dict[str, Any] = found if isinstance(found, dict) else {}
        auth, inner = self._upstream.auth, body.get("data")
        places = [body, inner] if isinstance(inner, dict) else [body]
        access = _first(places, auth.access_fields)
        ok = 200 <= reply.status < 300
        if not ok or body.get("error_type") or body.get("error") or (access is None and body.get("code")):
            raise self._failure(account, url, reply, body)
        if access is None:
            raise ProtocolError(f"{host_of(url)} answered a token refresh without a token", account=account.short_id)
        return TokenPair(
            access=access,
            refresh=_first(places, auth.refresh_fields) or refresh,
            obtained_at=self._clock(),
        )

    def _failure(self, account: Account, url: str, reply: Reply, body: dict[str, Any]) -> KimiError:
        """What an answer complains of (protocol A.5, B.6, C.11); HTTP 200 proves nothing."""
        code, reasons, message = _complaint(body)
        kind, named = self._kind(code, reasons, message)
        who, host = account.short_id, host_of(url)
        said = f" ({named})" if named else ""
        after_s = seconds(reply.headers.get("retry-after"))
        if kind == AccountSuspended.code:
            return AccountSuspended(f"Kimi has flagged this account{said}", account=who)
        if kind in (RateLimited.code, QuotaExhausted.code) or reply.status == 429:
            after_s = self._upstream.retry.rate_limited_s if after_s is None else after_s
            return RateLimited(f"{host} asks to slow down{said}", account=who, retry_after_s=after_s)
        if kind == Overloaded.code:
            return Overloaded(f"{host} is busy{said}", account=who, retry_after_s=after_s)
        if reply.status in _REFUSED_STATUSES or kind in (CredentialError.code, BadRequest.code):
            return CredentialError(
                f"Kimi refused to renew this account's session{said}: the refresh token has expired, was replaced "
                "elsewhere, or the account was logged out",
                account=who,
            )
        if reply.status in _ABSENT_STATUSES:
            return UpstreamError(f"{host} has no token refresh (HTTP {reply.status})", account=who)
        return Unavailable(f"{host} could not refresh the token now (HTTP {reply.status}){said}", account=who)

    def _kind(self, code: str, reasons: list[str], message: str) -> tuple[str | None, str | None]:
        """Our error code, and the service's own word for it when it is one that is known (so that it can be shown)."""
        table = self._upstream.errors
        for reason in reasons:
            if reason in table.reasons:
                return table.reasons[reason], reason
        text = " ".join((*reasons, message))
        for pattern in table.patterns:
            if code in pattern.codes and pattern.regex.search(text):
                return pattern.error_class, code or None
        return table.codes.get(code), code if code in table.codes else None


def again(error: KimiError) -> KimiError:
    """A copy to raise: one instance in several threads would mix their tracebacks."""
    return copy.copy(error)


def _first(places: list[dict[str, Any]], names: tuple[str, ...]) -> str | None:
    for place in places:
        for name in names:
            value = place.get(name)
            # It goes into a header: anything but visible ASCII is no token.
            if isinstance(value, str) and value and value.isascii() and value.isprintable() and " " not in value:
                return value
    return None


def _complaint(body: dict[str, Any]) -> tuple[str, list[str], str]:
    """Code, reasons and message of either carrier: Connect JSON, or `error_type` of the old API."""
    error = body.get("error")
    top = error if isinstance(error, dict) else body
    reasons = [
        value
        for value in (body.get("error_type"), top.get("error_type"), top.get("reason"))
        if isinstance(value, str) and value
    ]
    details = top.get("details")
    for detail in details if isinstance(details, list) else []:
        debug = detail.get("debug") if isinstance(detail, dict) else None
        reason = debug.get("reason") if isinstance(debug, dict) else None
        if isinstance(reason, str) and reason:
            reasons.append(reason)
    code, message = top.get("code"), top.get("message")
    return (code if isinstance(code, str) else "", reasons, message if isinstance(message, str) else "")
