"""Which account answers next: first come, first served, and never more streams on one than it may run.

The service counts running streams per account (protocol E.7), so a slot is taken before a call and given back after
it, across every loop and thread of the process. A caller waits for its turn in order; later callers never overtake one
that waits for the same account. Equal accounts take turns.

What an account met is remembered. Quota and rate limits are obeyed to the second, even when it is the only account:
asking earlier can only make it worse. Overload, unavailability, foreign streams and refused permissions merely make
others preferable: a lone account is tried again at once, because the next answer may well come. A refused token counts
as that, too: whether a credential is dead for good is the TokenKeeper's to say. Errors that depend on the model's
scenario are remembered for that `scope` only, so that an empty K3 quota doesn't stop plain chat. What is the caller's
fault (BadRequest and below) never counts against an account.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from ..errors import (
    AccountSuspended,
    BadRequest,
    CredentialError,
    CredentialMissing,
    KimiError,
    MembershipRequired,
    Overloaded,
    PermissionRefused,
    QuotaExhausted,
    RateLimited,
    TooManyStreams,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from ..settings import Settings
from ..upstream import Upstream
from .account import Account, Credential, digest_of
from .importer import parse
from .tokens import again

#: Credentials of single deployments that are remembered; the least recently used is forgotten first.
MAX_DEPLOYMENT_CREDENTIALS: Final = 4096


@dataclass(slots=True)
class _Cooling:
    """Why and until when (monotonic seconds) an account is put aside; `hard` is obeyed, else a preference."""

    error: KimiError
    until: float
    hard: bool


@dataclass(slots=True)
class _Load:
    """The pool's notes on one account."""

    running: int = 0
    last_used: int = 0
    #: By scope; "" stands for all.
    cooling: dict[str, _Cooling] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Waiter:
    """One caller in the queue, woken through its own loop."""

    candidates: tuple[Account, ...]
    limit: int
    scope: str
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    got: Account | None = None
    failure: KimiError | None = None
    #: Callers with equal keys are interchangeable but for their order.
    key: tuple[frozenset[int], int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.key = frozenset(map(id, self.candidates)), self.limit, self.scope

    def wake(self) -> None:
        """Raises RuntimeError when the waiting loop is closed."""
        self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


class Lease:
    """One running stream on `account`. Use it with `async with`; it may be reported on until it is left."""

    def __init__(self, pool: Pool, waiting_s: float, candidates: tuple[Account, ...], limit: int, scope: str) -> None:
        self._pool = pool
        self._waiting_s = waiting_s
        self._candidates = candidates
        self._limit = limit
        self._scope = scope
        self._account: Account | None = None
        self._held = False

    @property
    def account(self) -> Account:
        """The account in use."""
        if self._account is None:
            raise RuntimeError("A lease has an account only inside 'async with'.")
        return self._account

    def report(self, error: KimiError) -> None:
        """Tell what went wrong; puts the account aside when it is the account's fault."""
        self._pool.report(self.account, error, scope=self._scope)

    def hand_over(self) -> Callable[[], None]:
        """Keep the slot beyond `async with`; the result gives it back, from any thread, and only once."""
        self._held = False
        slot = [self.account]

        def give_back() -> None:
            with suppress(IndexError):
                self._pool._release(slot.pop())

        return give_back

    async def __aenter__(self) -> Lease:
        """Wait for a slot. Raises as `Pool.lease`."""
        self._account = await self._pool._acquire(self._waiting_s, self._candidates, self._limit, self._scope)
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the slot back. Never suspends, so that it also works while a dying loop unwinds."""
        if self._held:
            self._held = False
            self._pool._release(self.account)


class Pool:
    """All accounts of the process. Every method may be called from any thread; `clock` is monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        credentials: Iterable[Credential] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._clock = clock
        # Reentrant, because the garbage collector may unwind an abandoned caller (who gives back its slot) while this
        # very thread is in here.
        self._lock = threading.RLock()
        #: In order of arrival; a dict for its cheap removal.
        self._queue: dict[_Waiter, None] = {}
        self._turns = 0
        self._shared: list[Account] = []
        self._of_text: OrderedDict[str, Account] = OrderedDict()
        self._by_id: weakref.WeakValueDictionary[str, Account] = weakref.WeakValueDictionary()
        self._loads: weakref.WeakKeyDictionary[Account, _Load] = weakref.WeakKeyDictionary()
        for credential in credentials:
            self.add(credential)

    @classmethod
    def from_settings(cls, settings: Settings, upstream: Upstream) -> Pool:
        """The accounts of KIMI_TOKEN; none when it is empty. Raises CredentialMissing when it can't be read."""
        return cls(settings, upstream, parse(settings.token) if settings.token else ())

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The accounts that calls without a credential of their own share."""
        with self._lock:
            return tuple(self._shared)

    def add(self, credential: Credential) -> Account:
        """Share the account of `credential`; one that is known takes it as its newer login."""
        with self._lock:
            account = self._known(credential)
            if account not in self._shared:
                self._shared.append(account)
            self._dispatch()
            return account

    def account_for(self, text: str) -> Account:
        """The account of a deployment's own credential; it joins no rotation but shares its limits.

        Raises CredentialMissing (nothing usable), BadRequest (several accounts).
        """
        name = digest_of(text)
        with self._lock:
            known = self._of_text.get(name)
            if known is not None:
                self._of_text.move_to_end(name)
                return known
        credentials = parse(text)
        if len(credentials) > 1:
            raise BadRequest(
                f"api_key holds credentials of {len(credentials)} accounts",
                cure="Give one per deployment, or all of them as KIMI_TOKEN.",
            )
        with self._lock:
            account = self._of_text[name] = self._known(credentials[0])
            if len(self._of_text) > MAX_DEPLOYMENT_CREDENTIALS:
                self._of_text.popitem(last=False)
            self._dispatch()
            return account

    def lease(
        self,
        *,
        only: Account | None = None,
        exclude: Collection[str] = frozenset(),
        timeout_s: float | None = None,
        limit: int | None = None,
        scope: str = "",
    ) -> Lease:
        """A slot on the least loaded account whose id is not in `exclude`, or on `only` whatever is excluded.

        `timeout_s` (default KIMI_QUEUE_TIMEOUT_S) bounds the wait, `limit` (default KIMI_MAX_STREAMS) the streams of
        one account, `scope` names what quotas apply to (the model's scenario). Entering raises CredentialMissing (no
        account), CredentialError or AccountSuspended (all are dead), RateLimited or QuotaExhausted (all are put aside,
        with the seconds left), TooManyStreams (the wait was too long), Unavailable (all are excluded).
        """
        candidates = (only,) if only is not None else self._sharing(exclude)
        return Lease(
            self,
            self._settings.kimi_queue_timeout_s if timeout_s is None else timeout_s,
            candidates,
            self._settings.kimi_max_streams if limit is None else limit,
            scope,
        )

    def next_account(self, *, scope: str = "") -> Account:
        """The account that a call outside the queue should use (a check, a model list). Raises as `lease`."""
        candidates = self._sharing(frozenset())
        with self._lock:
            choice = self._choose(candidates, sys.maxsize, scope, set())
        if isinstance(choice, Account):
            return choice
        raise choice if isinstance(choice, KimiError) else Unavailable("No account is free")

    def has_other(self, exclude: Collection[str], *, scope: str = "") -> bool:
        """Whether a shared account whose id is not in `exclude` may be tried now."""
        with self._lock:
            now = self._clock()
            left = [account for account in self._shared if account.id not in exclude and account.dead is None]
            states = [self._cooling(account, scope, now) for account in left]
            return any(state is None or not state.hard for state in states)

    def report(self, account: Account, error: KimiError, *, scope: str = "") -> None:
        """Remember what `account` met. Errors that are not its fault change nothing."""
        if isinstance(error, BadRequest | CredentialMissing | MembershipRequired):
            return
        with self._lock:
            if isinstance(error, AccountSuspended):
                with account.lock:
                    account.dead = account.dead or again(error)
            else:
                pause_s = self._pause_s(error)
                if pause_s is None:
                    return
                hard = isinstance(error, RateLimited) and not isinstance(error, TooManyStreams)
                whole = isinstance(error, TooManyStreams | Unavailable | UpstreamTimeout | CredentialError)
                cooling = _Cooling(again(error), self._clock() + pause_s, hard)
                self._load(account).cooling["" if whole else scope] = cooling
            self._dispatch()

    def running(self, account: Account) -> int:
        """Streams on `account` now."""
        with self._lock:
            return self._load(account).running

    def cooling(self, account: Account, scope: str = "") -> KimiError | None:
        """Why `account` is put aside now for `scope`, with the seconds left; None when it is not."""
        with self._lock:
            found = self._cooling(account, scope, self._clock())
            return None if found is None else self._remaining(found)

    # --- under the pool's lock, which may be followed by an account's lock, never the other way round ---

    def _sharing(self, exclude: Collection[str]) -> tuple[Account, ...]:
        accounts = self.accounts
        if not accounts:
            raise CredentialMissing(
                "No Kimi account is configured: KIMI_TOKEN is empty and the deployment has no api_key"
            )
        return tuple(account for account in accounts if account.id not in exclude)

    def _known(self, credential: Credential) -> Account:
        account = self._by_id.get(credential.account_id)
        if account is None or account.simulated != credential.simulated:
            account = self._by_id[credential.account_id] = Account.of(credential, self._settings, self._upstream)
        elif account.adopt(credential):
            self._load(account).cooling.clear()
        return account

    def _load(self, account: Account) -> _Load:
        load = self._loads.get(account)
        if load is None:
            load = self._loads[account] = _Load()
        return load

    def _pause_s(self, error: KimiError) -> float | None:
        retry = self._upstream.retry
        if error.retry_after_s is not None and error.retry_after_s > 0:
            return error.retry_after_s
        if isinstance(error, QuotaExhausted):
            return retry.quota_s
        if isinstance(error, TooManyStreams):
            return retry.concurrency_s
        if isinstance(error, RateLimited | PermissionRefused | CredentialError):
            return retry.rate_limited_s
        return (
            retry.overloaded_s
            if isinstance(error, Overloaded | Unavailable | UpstreamError | UpstreamTimeout)
            else None
        )

    def _cooling(self, account: Account, scope: str, now: float) -> _Cooling | None:
        cooling = self._load(account).cooling
        for name in [name for name, entry in cooling.items() if entry.until <= now]:
            del cooling[name]
        found = [cooling[name] for name in {"", scope} if name in cooling]
        return max(found, key=lambda entry: (entry.hard, entry.until), default=None)

    def _remaining(self, cooling: _Cooling) -> KimiError:
        error = again(cooling.error)
        error.retry_after_s = max(0.0, cooling.until - self._clock())
        return error

    def _choose(
        self, candidates: tuple[Account, ...], limit: int, scope: str, reserved: set[Account]
    ) -> Account | KimiError | tuple[Account, ...]:
        """An account with a free slot, the error when there can be none, or the accounts to wait for."""
        now = self._clock()
        living = [account for account in candidates if account.dead is None]
        if not living:
            dead = next((account.dead for account in candidates if account.dead is not None), None)
            return again(dead) if dead is not None else Unavailable("Every account has been tried")
        states = [(account, self._cooling(account, scope, now)) for account in living]
        open_ = [(account, state) for account, state in states if state is None or not state.hard]
        if not open_:
            return self._remaining(min((state for _, state in states if state), key=lambda state: state.until))
        free = [
            (
                state is not None,
                self._load(account).running,
                state.until if state else 0.0,
                self._load(account).last_used,
                at,
            )
            for at, (account, state) in enumerate(open_)
            # Its one generation refuses a second answer (protocol E.7).
            if account not in reserved and self._load(account).running < (1 if account.opaque else limit)
        ]
        return open_[min(free)[-1]][0] if free else tuple(account for account, _ in open_)

    def _dispatch(self) -> None:
        """Serve the queue in order. An account that somebody waits for is not given to a later caller."""
        reserved: set[Account] = set()
        passed: set[tuple[frozenset[int], int, str]] = set()
        for waiter in tuple(self._queue):
            if waiter.key in passed or waiter not in self._queue:
                continue
            choice = self._choose(waiter.candidates, waiter.limit, waiter.scope, reserved)
            if isinstance(choice, tuple):
                reserved.update(choice)
                passed.add(waiter.key)
                continue
            del self._queue[waiter]
            if isinstance(choice, Account):
                waiter.got = choice
                self._take(choice)
            else:
                waiter.failure = choice
            try:
                waiter.wake()
            except RuntimeError:  # its loop was closed without unwinding it: the slot goes to the next
                if waiter.got is not None:
                    self._load(waiter.got).running -= 1
                    waiter.got = None  # or a late unwinding would give it back twice

    def _take(self, account: Account) -> None:
        self._turns += 1
        load = self._load(account)
        load.running += 1
        load.last_used = self._turns

    def _release(self, account: Account) -> None:
        with self._lock:
            self._load(account).running -= 1
            self._dispatch()

    def _leave(self, waiter: _Waiter) -> None:
        """The caller waits no more and takes nothing."""
        with self._lock:
            waiting = waiter in self._queue
            self._queue.pop(waiter, None)
            if waiter.got is not None:
                self._load(waiter.got).running -= 1
            if waiting or waiter.got is not None:
                waiter.got = None
                self._dispatch()

    def _next_change(self, waiter: _Waiter, now: float) -> float | None:
        """When the soonest cool-down among the candidates ends (our clock)."""
        with self._lock:
            states = [self._cooling(account, waiter.scope, now) for account in waiter.candidates]
        return min((state.until for state in states if state is not None), default=None)

    async def _acquire(self, timeout_s: float, candidates: tuple[Account, ...], limit: int, scope: str) -> Account:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(candidates, limit, scope, loop, loop.create_future())
        deadline = self._clock() + timeout_s
        try:
            with self._lock:
                self._queue[waiter] = None
                self._dispatch()
            while waiter.got is None and waiter.failure is None:
                now = self._clock()
                if now >= deadline:
                    break
                # A cool-down that ends sends no message: look again then.
                change = self._next_change(waiter, now)
                pause_s = (deadline if change is None else min(deadline, change)) - now
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await waiter.turn
                    break
                waiter.turn = loop.create_future() if waiter.turn.cancelled() else waiter.turn
                with self._lock:
                    self._dispatch()
            with self._lock:
                got, failure = waiter.got, waiter.failure
                if got is not None:
                    waiter.got = None  # now the lease's
                    return got
        finally:
            self._leave(waiter)
        if failure is not None:
            raise failure
        raise self._queue_full(candidates, limit, timeout_s)

    def _queue_full(self, candidates: tuple[Account, ...], limit: int, timeout_s: float) -> TooManyStreams:
        with self._lock:
            running = sum(self._load(account).running for account in candidates)
        accounts = "the account" if len(candidates) == 1 else f"{len(candidates)} accounts"
        return TooManyStreams(
            f"{running} answers are running on {accounts} (at most {limit} each) and none ended within {timeout_s:g} s",
            account=candidates[0].short_id if len(candidates) == 1 else None,
            retry_after_s=self._upstream.retry.concurrency_s,
        )
