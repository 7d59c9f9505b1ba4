"""One refresh in flight: of an account's callers, of the process, of the whole fleet.

A refresh kills the pair it replaces (protocol A.6), so one process claims it in the store, it runs on the background
loop where no caller's end can lose its answer, and the new pair is saved before anybody uses it. A process that ends
waits for it. While the store can't be used nothing rotates.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import cache

from .. import metrics
from ..errors import AccountSuspended, CredentialError, KimiError, Unavailable, of_code
from ..loops import BackgroundLoop
from ..store import Claim, StoredFailure, TokenPair
from .account import Account
from .durable import TokenStore, removed
from .freshness import Freshness, Need
from .refreshing import Refresher

#: Pause after a failed refresh while the old token still serves.
BACKGROUND_PAUSE_S = 10
#: A pair that could not be saved is the only copy: try again soon.
SAVE_PAUSE_S = 1
#: How often one looks whether another process has refreshed, and for how long at most.
CLAIM_PAUSE_S = 0.1
CLAIM_PATIENCE_S = 70
#: A process that ends waits so long for its refreshes.
EXIT_PATIENCE_S = 20
#: A claim lives 30 s: it is renewed in time.
CLAIM_RENEWAL_S = 10

#: Refreshes under way. Their answers are the only copies of new pairs.
_flights: set[concurrent.futures.Future[KimiError | None]] = set()


def landed() -> None:
    """Wait for every refresh of the process, a while."""
    concurrent.futures.wait(set(_flights), timeout=EXIT_PATIENCE_S)


@cache
def _wait_at_exit() -> None:
    """After the background loop has begun, so that we wait before it ends."""
    atexit.register(landed)


class Flights:
    """Refreshes of accounts. All state is on the `Account`; `clock` is our time in Unix seconds."""

    def __init__(
        self,
        store: TokenStore,
        refresher: Refresher,
        fresh: Freshness,
        clock: Callable[[], float],
        loop: BackgroundLoop,
    ) -> None:
        self._store, self._refresher, self._fresh = store, refresher, fresh
        self._clock, self._loop = clock, loop

    def under_way(self, account: Account) -> concurrent.futures.Future[KimiError | None]:
        """The refresh under way, or a new one; its result is a failure or None. Under the account's lock."""
        state = account.tokens
        if state.flight is None or state.flight.done():
            state.flight = flight = self._loop.submit(self._renew(account))
            _flights.add(flight)
            flight.add_done_callback(_flights.discard)
            _wait_at_exit()
        return state.flight

    async def _renew(self, account: Account) -> KimiError | None:
        """Meet the store, refresh when needed. Returns the failure so that each waiter raises its own."""
        state = account.tokens
        unready = not state.loaded or state.unsaved
        try:
            await self._meet_store(account)
            need = self._need_now(account)
            # When somebody waits for the token that is good already, the next flight renews it.
            if need in ("nothing", "gone") or (need == "soon" and unready):
                return None
            return await self._refresh_alone(account)
        except KimiError as exc:
            exc.account = exc.account or account.short_id
            with account.lock:
                state.retry_at = self._clock() + BACKGROUND_PAUSE_S
            if state.unsaved:
                self._save_soon(account)
            return exc

    async def _meet_store(self, account: Account) -> None:
        """Seed the account when it is new, save what could not be saved before."""
        state = account.tokens
        while not state.loaded:
            given = state.pair
            pair = await self._store.seed(account.id, given)
            with account.lock:
                if state.pair is given:  # else the owner gave another one meanwhile
                    self._take(account, pair)
        await self._save(account)

    async def _save(self, account: Account) -> None:
        # A store that fails leaves the pair in memory, unsaved and unused; the next flight tries again.
        state = account.tokens
        while state.unsaved:
            pair = state.pair
            await self._store.save(account.id, pair)
            with account.lock:
                state.unsaved = state.pair is not pair

    def _save_soon(self, account: Account) -> None:
        """Nobody may ask again before the process ends, and the pair would be lost."""
        found = weakref.ref(account)

        def retry() -> None:
            if (account := found()) is not None and account.tokens.unsaved:
                with account.lock:
                    self.under_way(account)

        asyncio.get_running_loop().call_later(SAVE_PAUSE_S, retry)

    async def _refresh_alone(self, account: Account) -> KimiError | None:
        """Refresh as the only one of the fleet, unless another process has done it or does it now."""
        state = account.tokens
        claim = await self._store.claim(account.id)
        give_up_at = time.monotonic() + CLAIM_PATIENCE_S
        while not claim.granted:
            if claim.removed:
                with account.lock:
                    state.refusal = removed()
                return removed()
            if await self._reloaded(account) != "now":
                return None
            if time.monotonic() > give_up_at:
                return Unavailable("Another process is still refreshing this account", account=account.short_id)
            await asyncio.sleep(CLAIM_PAUSE_S)
            claim = await self._store.claim(account.id)
        async with self._claimed(account):
            if await self._reloaded(account) in ("nothing", "gone"):
                return None
            return await self._refresh(account, claim)

    async def _refresh(self, account: Account, claim: Claim) -> KimiError | None:
        state = account.tokens
        old = state.pair
        if old.refresh is None:
            return None
        try:
            with metrics.refreshing():
                fresh = await self._refresher.renewed(account, old.refresh)
        except (CredentialError, AccountSuspended) as exc:
            final = _interrupted(exc, claim)
            with account.lock:
                state.refusal = final
                if isinstance(final, AccountSuspended):
                    account.dead = account.dead or final
            await self._store.save(account.id, replace(old, refused=_kept(final)))
            if isinstance(final, AccountSuspended):
                await self._store.stop(account.id, final)
            return final
        except KimiError as exc:
            with suppress(KimiError):  # it is the refresh that failed
                await self._store.fail(account.id, exc)
            raise
        with account.lock:
            if state.pair is not old:
                return None  # the owner logged in again meanwhile: that pair is the one to use
            state.pair, state.unsaved = fresh, True
            state.skew_s = self._fresh.skew_s(fresh)
        await self._save(account)
        return None

    @asynccontextmanager
    async def _claimed(self, account: Account) -> AsyncGenerator[None, None]:
        """Keep the claim while the refresh runs, and end it unless a pair is still to be saved."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(CLAIM_RENEWAL_S)
                with suppress(KimiError):  # it lasts a while without
                    await self._store.claim(account.id)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()
            if not account.tokens.unsaved:
                with suppress(KimiError):  # then it ends by itself
                    await self._store.release(account.id)

    async def _reloaded(self, account: Account) -> Need:
        """Take what other processes have saved; what is needed then."""
        stored = await self._store.load(account.id)
        with account.lock:
            if stored is not None and account.tokens.loaded and not account.tokens.unsaved:
                self._take(account, stored)
            return self._fresh.need(account.tokens)

    def _need_now(self, account: Account) -> Need:
        with account.lock:
            return self._fresh.need(account.tokens)

    def _take(self, account: Account, pair: TokenPair) -> None:
        """Use a pair of the store; under the account's lock."""
        state = account.tokens
        state.loaded = True
        state.pair, state.skew_s = pair, self._fresh.skew_s(pair)
        refused = pair.refused
        state.refusal = of_code(refused.code)(refused.message, account=account.short_id) if refused else None


def _kept(error: KimiError) -> StoredFailure:
    return StoredFailure(code=error.code, message=error.message)


def _interrupted(error: KimiError, claim: Claim) -> KimiError:
    """Say what probably happened, when a refresh before this one was cut short."""
    if claim.interrupted_at is None or not isinstance(error, CredentialError):
        return error
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(claim.interrupted_at))
    return CredentialError(
        f"{error.message}. A refresh that began at {at} was cut short with its process, so the service may have "
        "replaced the token without our learning the new one",
        account=error.account,
    )
