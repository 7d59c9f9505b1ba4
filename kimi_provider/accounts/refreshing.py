"""The two calls that renew a session, and what their answers mean (protocol A.5, A.6, B.6, C.11).

Form 2 asks the account gateway, form 1 the old endpoint; JWTs try form 2 first, opaque tokens know only form 1. Nothing
here is kept or decided: a pair comes back, or an error that says whether the refresh token is dead for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from ..settings import Settings
from ..store import TokenPair
from ..upstream import Upstream
from ..web import Reply, Session, Web, host_of, seconds, session_headers
from .account import Account
from .credential import claims_of

#: One call of a refresh; three are made at most.
REFRESH_TIMEOUT_S = 20

_ABSENT_STATUSES = frozenset({404, 405, 410, 501})
_REFUSED_STATUSES = frozenset({400, 401, 403})


class Refresher:
    """Renews sessions. `clock` is our time in Unix seconds."""

    def __init__(self, settings: Settings, upstream: Upstream, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._upstream = upstream
        self._clock = clock

    async def renewed(self, account: Account, refresh: str) -> TokenPair:
        """Form 2, then form 1. A CredentialError or AccountSuspended from here is final. Raises also RateLimited,
        PermissionRefused, Unavailable, UpstreamTimeout, UpstreamError (nothing is known of the token).
        """
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
