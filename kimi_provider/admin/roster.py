"""The accounts as their owner manages them: listed, added, checked, refreshed, paused, removed.

One door for the page, the API and the command. Works on the account store, so that every process of the fleet learns of
a change within a second; without one it knows the accounts of this process and can't pause or remove them. Hands out
`rows`, in which no secret fits. An account is named by its id, or by a beginning of it that no other account has.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ..accounts import Account, Credential, TokenPair
from ..accounts.account import hosts_of, real_hosts
from ..accounts.capture import capture_hosts, read
from ..accounts.understanding import Understood
from ..engine import KimiEngine
from ..errors import (
    AccountSuspended,
    BadRequest,
    CredentialError,
    CredentialMissing,
    KimiError,
    NotFound,
    PermissionRefused,
    Unavailable,
)
from ..store import Store, StoredAccount, StoredCooldown, StoredFailure, StreamCount, durability_hint, open_store
from .rows import FAILURES, AccountRow, Added, Checked, FailureRow, Notes, Readiness, account_row, failure_row

_AUDIT_LOOKED_AT: Final = 400
_USAGE_DAYS: Final = 30


class Roster:
    """All accounts of the engine's store. Methods raise KimiError."""

    def __init__(self, engine: KimiEngine) -> None:
        self._engine = engine
        self._settings, self._upstream = engine.settings, engine.upstream
        self._store: Store | None = open_store(engine.settings)
        self._hosts = capture_hosts(engine.settings, engine.upstream)

    @property
    def store(self) -> Store | None:
        """Where accounts are kept."""
        return self._store

    @property
    def durable(self) -> bool:
        """Whether accounts are kept, and so can be paused and removed."""
        return self._store is not None

    # --- looking ---

    async def rows(self) -> list[AccountRow]:
        """Every account, in the order in which they were added. Raises Unavailable."""
        return self.look() if self._store is None else await self._store.run(self.look)

    def look(self) -> list[AccountRow]:
        """The same in this thread, which the store may block. Raises Unavailable."""
        return self._of_process() if self._store is None else self._of_store()

    async def row(self, ref: str) -> AccountRow:
        """One account. Raises NotFound, BadRequest (several begin like this)."""
        found = [row for row in await self.rows() if ref and (row.id.startswith(ref) or row.short_id == ref)]
        if exact := [row for row in found if row.id == ref]:
            return exact[0]
        if not found:
            raise NotFound("No account has this id", cure="See the ids with: kimi-provider accounts list")
        if len(found) > 1:
            raise BadRequest(f"{len(found)} accounts have ids that begin like this", cure="Give more of the id.")
        return found[0]

    async def failures(self, count: int) -> list[FailureRow]:
        """The newest that the audit trail has, the newest first."""
        store = self._store
        if store is None:
            return [row.last_error for row in self._of_process() if row.last_error][:count]

        def work() -> list[FailureRow]:
            with store.read() as rows:
                names = {account.id: account.short_id for account in rows.accounts.all()}
                entries = [one for one in rows.audit.last(_AUDIT_LOOKED_AT) if one.event in FAILURES]
            return [failure_row(one, names.get(one.account_id, one.account_id[:8])) for one in entries[:count]]

        return await store.run(work)

    def hint(self, environment: Mapping[str, str]) -> str | None:
        """What threatens the accounts on this machine, as a sentence; a demo's are meant to end."""
        return None if self._settings.kimi_demo else durability_hint(self._settings, environment)

    async def readiness(self, environment: Mapping[str, str]) -> Readiness:
        """Whether any shared account may answer; while the store is away, as far as this process knows."""
        hint = self.hint(environment)
        try:
            rows = await self.rows()
        except Unavailable as exc:
            rows, hint = self._of_process(), exc.describe()
        shared = [row for row in rows if row.shared]
        waits = [min((one.until for one in row.cooldowns if one.hard), default=0) - time.time() for row in shared]
        return Readiness(
            usable=sum(row.usable for row in shared),
            by_state=Counter(row.state for row in shared),
            hint=hint,
            retry_after_s=min((wait for wait in waits if wait > 0), default=None),
        )

    def _of_store(self) -> list[AccountRow]:
        assert self._store is not None
        with self._store.read() as rows:
            notes = Notes(
                now=rows.now,
                cooling=rows.accounts.cooling(),
                streams=rows.streams("").counts(),
                today=rows.usage.since(1),
                month=rows.usage.since(_USAGE_DAYS),
                audit=rows.audit.last(_AUDIT_LOOKED_AT),
            )
            kept = [(account, rows.tokens.load(account.id) or TokenPair()) for account in rows.accounts.all()]
        return [account_row(account, pair, notes, self._upstream) for account, pair in kept]

    def _of_process(self) -> list[AccountRow]:
        pool, now = self._engine.pool, time.time()
        found = []
        for account in pool.accounts:
            dead = StoredFailure(code=account.dead.code, message=account.dead.message) if account.dead else None
            error = pool.cooling(account)
            cooling = StoredCooldown(
                account_id=account.id,
                scope="",
                failure=StoredFailure(code=error.code, message=error.message)
                if error
                else StoredFailure(code="", message=""),
                hard=True,
                left_s=(error.retry_after_s or 0) if error else 0,
            )
            running = pool.running(account)
            count = StreamCount(account_id=account.id, held=running, elsewhere=0, others_waiting=0)
            stored = StoredAccount(
                id=account.id, short_id=account.short_id, simulated=account.simulated, shared=True, stopped=dead
            )
            notes = Notes(now=now, cooling=[cooling] if error else [], streams=[count])
            found.append(account_row(stored, account.tokens.pair, notes, self._upstream))
        return found

    # --- changing ---

    async def add(self, content: bytes) -> list[Added]:
        """Share the accounts of a pasted text or a file, all or none. Raises CredentialMissing (nothing usable),
        PermissionRefused (demo and real don't mix), BadRequest (too large), Unavailable (the store).
        """
        credentials = await asyncio.to_thread(read, content, self._hosts)
        for credential in credentials:
            self._admit(credential)
        known = {row.id for row in await self.rows()}
        for credential in credentials:
            await asyncio.to_thread(self._engine.pool.add, credential)
        return [
            Added(
                id=credential.account_id,
                outcome="updated" if credential.account_id in known else "added",
                understood=Understood.of(credential, self._upstream),
            )
            for credential in credentials
        ]

    async def check(self, ref: str) -> Checked:
        """Ask the service whether the account's token is alive, without a prompt (protocol A.7)."""
        row = await self.row(ref)
        try:
            await self._engine.check_account(await self._account(row))
        except AccountSuspended as exc:
            await self._stop(row, exc)
            return Checked(short_id=row.short_id, live=False, failure=exc)
        except KimiError as exc:
            return Checked(short_id=row.short_id, live=False if isinstance(exc, CredentialError) else None, failure=exc)
        return Checked(short_id=row.short_id, live=True)

    async def check_token(self, text: str) -> tuple[Checked, Understood]:
        """Whether a credential that is merely asked about lives, and what it says of itself.

        Proving a refresh token replaces it, so the pair is kept: in the store, though not among those that calls share.
        Raises CredentialMissing, PermissionRefused, BadRequest (several accounts).
        """
        credentials = read(text.encode(), self._hosts)
        if len(credentials) > 1:
            raise BadRequest("This holds credentials of several accounts", cure="Ask about one at a time.")
        self._admit(credentials[0])
        understood = Understood.of(credentials[0], self._upstream)
        live: bool | None = True
        failure: KimiError | None = None
        try:
            await self._engine.check(text)
        except KimiError as exc:
            live, failure = (False if isinstance(exc, CredentialError | AccountSuspended) else None), exc
        return Checked(short_id=understood.short_id, live=live, failure=failure), understood

    async def refresh(self, ref: str) -> AccountRow:
        """Renew the account's tokens now; the account as it is then."""
        row = await self.row(ref)
        if not row.understood.renewable:
            raise BadRequest(
                "This account has an access token only, and nothing to renew it with",
                account=row.short_id,
                cure="Log in at kimi.com in a private window, copy refresh_token and add it here.",
            )
        account = await self._account(row)
        before = account.tokens.pair.access
        session = await self._engine.keeper.session(account)
        if session.access_token == before:  # else it had to be renewed anyway
            await self._engine.keeper.session(account, rejected=session.access_token)
        return await self.row(row.id)

    async def pause(self, ref: str, *, paused: bool) -> AccountRow:
        """Use the account no more, or again."""
        row, store = await self.row(ref), self._kept()

        def work() -> None:
            with store.write() as rows:
                rows.accounts.pause(row.id, paused=paused)

        await store.run(work)
        return await self.row(row.id)

    async def remove(self, ref: str) -> AccountRow:
        """Forget the account and its tokens; what it was."""
        row, store = await self.row(ref), self._kept()

        def work() -> None:
            with store.write() as rows:
                rows.accounts.remove(row.id)

        await store.run(work)
        return row

    def is_seeded(self, account_id: str) -> bool:
        """Whether KIMI_TOKEN brings the account back at the next start."""
        try:
            given = read((self._settings.token or "").encode(), self._hosts)
        except CredentialMissing:
            return False
        return any(credential.account_id == account_id for credential in given)

    def _admit(self, credential: Credential) -> None:
        if not credential.simulated and self._settings.kimi_demo:
            raise PermissionRefused(
                "This is demo mode: a real credential is neither kept nor sent to the simulator",
                cure="Stop it, then: kimi-provider accounts add, and kimi-provider serve.",
            )
        at = hosts_of(credential.claims, self._settings, self._upstream)
        if credential.simulated and real_hosts(self._upstream).intersection(at):
            raise PermissionRefused(
                "This credential is from the built-in simulator; the service could only refuse it",
                cure="Give a credential of your own account.",
            )

    async def _account(self, row: AccountRow) -> Account:
        """As the store has it, apart from the pool: a check of a paused account changes nothing there."""
        store = self._store
        if store is None:
            return next(account for account in self._engine.pool.accounts if account.id == row.id)

        def work() -> Account:
            with store.read() as rows:
                pair = rows.tokens.load(row.id) or TokenPair()
                given = set(rows.accounts.given(row.id))
            return Account.stored(row.id, row.short_id, pair, given, self._settings, self._upstream)

        return await store.run(work)

    async def _stop(self, row: AccountRow, why: KimiError) -> None:
        store = self._store
        if store is None:
            return

        def work() -> None:
            with store.write() as rows:
                rows.accounts.stop(row.id, StoredFailure(code=why.code, message=why.message))

        await store.run(work)

    def _kept(self) -> Store:
        if self._store is None:
            raise BadRequest(
                "Accounts are kept in memory only, where they can't be paused or removed",
                cure="Name a store: KIMI_STATE_URL=sqlite:////path/accounts.db",
            )
        return self._store
