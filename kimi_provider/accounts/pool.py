"""Which account answers next.

The service counts running streams per account (protocol E.7), so a slot is taken before a call and given back after
it, across every loop and thread of the process, and, with an account store, across every process that has it open:
`queueing` decides whose turn it is. What an account met is remembered: `cooldowns` says for how long, `fleet` tells the
other processes.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Final

from ..errors import (
    AccountSuspended,
    BadRequest,
    CredentialMissing,
    KimiError,
    Unavailable,
    again,
)
from ..settings import Settings
from ..store import Store, StoredFailure, Transaction, Usage, open_store
from ..upstream import Upstream
from .account import Account
from .board import Board
from .cooldowns import cooldown_of
from .credential import Credential, digest_of
from .durable import seeded
from .fleet import Fleet
from .importer import parse
from .lease import Lease
from .queueing import Queue

#: Credentials of single deployments that are remembered; the least recently used is forgotten first.
MAX_DEPLOYMENT_CREDENTIALS: Final = 4096


class Pool:
    """All accounts of the process. Every method may be called from any thread; `clock` is monotonic seconds.

    With a `store` the accounts are those kept there, `credentials` seed it, and limits hold for every process together.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        credentials: Iterable[Credential] = (),
        *,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._clock = clock
        self._store = store
        self._board = Board()
        self._lock = self._board.lock
        self._queue = Queue(self._board, upstream.retry, clock)
        self._of_text: OrderedDict[str, Account] = OrderedDict()
        self._fleet: Fleet | None = None
        credentials = tuple(credentials)
        if store is not None:
            self._fleet = self._queue.fleet = self._joined(store, credentials)
            self._end = weakref.finalize(self, self._fleet.stop)
        for credential in credentials:
            self._share(credential)

    @classmethod
    def from_settings(cls, settings: Settings, upstream: Upstream) -> Pool:
        """The accounts of the account store, seeded with those of KIMI_TOKEN. Raises CredentialMissing when it can't be
        read, StoreError when the store can't be opened.
        """
        credentials = parse(settings.token) if settings.token else ()
        return cls(settings, upstream, credentials, store=open_store(settings))

    def close(self) -> None:
        """Give back what the fleet counts for this process; happens by itself when the process ends."""
        if self._fleet is not None:
            self._end()

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The accounts that calls without a credential of their own share."""
        if self._fleet is not None:
            self._fleet.start()
        with self._lock:
            return tuple(self._board.shared)

    def add(self, credential: Credential) -> Account:
        """Share the account of `credential`; one that is known takes it as its newer login. Blocks for the store, and
        raises Unavailable when it can't be used.
        """
        number = 0
        if self._store is not None:
            with self._store.write() as rows:
                self._seed(rows, credential)
                number = rows.accounts.number()
        with self._lock:
            account = self._share(credential)
            if self._fleet is not None:
                self._fleet.has_added(account, number)
            self._queue.dispatch()
            return account

    async def find(self, account_id: str) -> Account | None:
        """The account of that id, also one that serves single deployments; None when nobody has given it here."""
        with self._lock:
            account = self._board.by_id.get(account_id)
        if account is not None or self._store is None:
            return account
        return await self._store.run(lambda: self._stored(account_id))

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
            self._queue.dispatch()
            return account

    def lease(
        self,
        *,
        only: Account | None = None,
        exclude: Collection[str] = frozenset(),
        timeout_s: float | None = None,
        limit: int | None = None,
        scope: str = "",
        model: str = "",
    ) -> Lease:
        """A slot on the least loaded account whose id is not in `exclude`, or on `only` whatever is excluded.

        `timeout_s` (default KIMI_QUEUE_TIMEOUT_S) bounds the wait, `limit` (default KIMI_MAX_STREAMS) the streams of
        one account, `scope` is `ModelSpec.scope`, `model` what usage is counted under. Entering raises
        CredentialMissing (no account), CredentialError or AccountSuspended (all are dead), RateLimited or
        QuotaExhausted (all are put aside, with the seconds left), TooManyStreams (the wait was too long), Unavailable
        (all are excluded).
        """
        candidates = (only,) if only is not None else self._sharing(exclude)
        return Lease(
            self,
            self._queue,
            timeout_s=self._settings.kimi_queue_timeout_s if timeout_s is None else timeout_s,
            candidates=candidates,
            limit=self._settings.kimi_max_streams if limit is None else limit,
            scope=scope,
            model=model,
        )

    def next_account(self, *, scope: str = "") -> Account:
        """The account that a call outside the queue should use (a check, a model list). Raises as `lease`."""
        candidates = self._sharing(frozenset())
        with self._lock:
            choice = self._queue.choose(candidates, sys.maxsize, scope, set(), Counter())
        if isinstance(choice, Account):
            return choice
        raise choice if isinstance(choice, KimiError) else Unavailable("No account is free")

    def has_other(self, exclude: Collection[str], *, scope: str = "") -> bool:
        """Whether a shared account whose id is not in `exclude` may be tried now."""
        accounts = self.accounts
        with self._lock:
            now = self._clock()
            left = self._board.usable(account for account in accounts if account.id not in exclude)
            states = [self._board.cooling(account, scope, now) for account in left]
            return any(state is None or not state.hard for state in states)

    def report(self, account: Account, error: KimiError, *, scope: str = "", model: str = "") -> None:
        """Remember what `account` met. Errors that are not its fault change nothing."""
        if self._fleet is not None:
            self._fleet.tell_usage(Usage(account_id=account.id, model=model, failures=1))
        if isinstance(error, AccountSuspended):
            with self._lock:
                with account.lock:
                    account.dead = account.dead or again(error)
                self._queue.dispatch()
            if self._fleet is not None:
                self._fleet.tell_stop(account, StoredFailure(code=error.code, message=error.message))
            return
        now = self._clock()
        cooldown = cooldown_of(error, scope, now, self._upstream.retry)
        if cooldown is None:
            return
        with self._lock:
            self._board.load(account).cooldowns.put(cooldown)
            self._queue.dispatch()
        if self._fleet is not None:
            self._fleet.tell_cooldown(account, cooldown, cooldown.until - now)

    def count(self, account: Account, model: str, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer that ended well."""
        if self._fleet is not None:
            self._fleet.tell_usage(
                Usage(
                    account_id=account.id,
                    model=model,
                    answers=1,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion_tokens,
                )
            )

    def running(self, account: Account) -> int:
        """Streams of this process on `account` now."""
        with self._lock:
            return self._board.load(account).running

    def cooling(self, account: Account, scope: str = "") -> KimiError | None:
        """Why `account` is put aside now for `scope`, with the seconds left; None when it is not."""
        with self._lock:
            now = self._clock()
            found = self._board.cooling(account, scope, now)
            return None if found is None else found.remaining(now)

    def _joined(self, store: Store, credentials: Iterable[Credential]) -> Fleet:
        """Seed the store, and know what it has before the first call. Raises Unavailable."""
        with store.write() as rows:
            for credential in credentials:
                self._seed(rows, credential)
        changed = weakref.WeakMethod(self._queue.dispatch)
        fleet = Fleet(store, self._board, self._settings, self._upstream, changed)
        fleet.look()
        return fleet

    def _stored(self, account_id: str) -> Account | None:
        assert self._store is not None
        with self._store.read() as rows:
            row = next((row for row in rows.accounts.all() if row.id == account_id), None)
            pair = rows.tokens.load(account_id) if row is not None else None
            given = set(rows.accounts.given(account_id))
        if row is None or pair is None:
            return None
        account = Account.stored(row.id, row.short_id, pair, given, self._settings, self._upstream)
        if account.homeless(self._upstream):
            return None
        with self._lock:
            return self._board.by_id.setdefault(account_id, account)

    def _seed(self, rows: Transaction, credential: Credential) -> None:
        if not Account.of(credential, self._settings, self._upstream).homeless(self._upstream):
            seeded(rows, credential.account_id, credential.pair, shared=True)

    # --- under the pool's lock ---

    def _share(self, credential: Credential) -> Account:
        account = self._known(credential)
        if account not in self._board.shared:
            self._board.shared.append(account)
        return account

    def _sharing(self, exclude: Collection[str]) -> tuple[Account, ...]:
        accounts = self.accounts
        if not accounts:
            raise CredentialMissing(
                "No Kimi account is configured: KIMI_TOKEN and the account store are empty, and the deployment has no "
                "api_key"
            )
        return tuple(account for account in accounts if account.id not in exclude)

    def _known(self, credential: Credential) -> Account:
        by_id = self._board.by_id
        account = by_id.get(credential.account_id)
        if account is None or account.simulated != credential.simulated:
            account = by_id[credential.account_id] = Account.of(credential, self._settings, self._upstream)
        elif account.adopt(credential):
            self._board.load(account).cooldowns.clear()
        return account
