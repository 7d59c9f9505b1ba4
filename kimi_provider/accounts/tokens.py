"""A usable access token for an account.

Access tokens live 15 minutes (protocol E.9). Inside the advisory window the old one is served while a new one is
fetched; inside the mandatory window callers wait. While the account store can't be used tokens in memory serve to their
end. A credential that was refused for good is remembered: later calls fail at once, without a byte sent, until the
owner gives a new one. Nothing real ever meets the simulator, nothing simulated the service.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable

from ..errors import CredentialError, KimiError, PermissionRefused, Unavailable, again
from ..loops import BackgroundLoop, background, joined
from ..settings import Settings
from ..upstream import Upstream
from ..web import Session, host_of
from .account import Account, real_hosts
from .credential import Claims, claims_of
from .durable import TokenStore, token_store
from .flights import Flights, landed
from .freshness import Freshness
from .refreshing import Refresher


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
        self._clock = clock
        self._fresh = Freshness(upstream.service, clock)
        self._flights = Flights(
            store if store is not None else token_store(settings),
            Refresher(settings, upstream, clock),
            self._fresh,
            clock,
            loop if loop is not None else background(),
        )
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
                need = self._fresh.need(state)
                if need == "gone":
                    account.dead = self._gone(account)
                    raise again(account.dead)
                resting = self._clock() < state.retry_at
                if need in ("nothing", "soon") or ((failure is not None or resting) and self._fresh.alive(state)):
                    if need == "soon" and not resting:
                        self._flights.under_way(account)
                    return self._session(account)
                if failure is not None:
                    raise again(failure)
                flight = self._flights.under_way(account)
            try:
                failure = await joined(flight)
            except concurrent.futures.CancelledError:
                failure = Unavailable("The token refresh was stopped", account=account.short_id)
        raise Unavailable("No usable access token after several refreshes", account=account.short_id)

    def close(self) -> None:
        """Wait a while for refreshes under way: their answers are the only copies of new pairs. Blocks."""
        landed()

    # --- decisions: no I/O, under the account's lock ---

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
