"""Where rotated pairs outlive the process: one interface, in memory or in the account store.

The rule behind it: a refresh kills the pair it replaces (protocol A.6), so one process of the fleet refreshes at a
time, and a pair is used only after `save` returned. What an owner pasted merely seeds an account: a pair that was
rotated since wins, unless the paste is a later login, or the stored pair is dead and the paste is new.
"""

from __future__ import annotations

import os
import uuid
from typing import Protocol

from ..errors import CredentialError, KimiError
from ..settings import Settings
from ..store import Claim, Store, StoredAccount, StoredFailure, TokenPair, Transaction, open_store
from .credential import Credential, newest


class TokenStore(Protocol):
    """Pairs by account id. Called from the background loop only, one call at a time per account. Each raises
    Unavailable while the store can't be used.
    """

    async def seed(self, account_id: str, given: TokenPair) -> TokenPair:
        """What to use for an account whose owner gave `given`; what is newly known is kept."""

    async def load(self, account_id: str) -> TokenPair | None:
        """The newest pair saved, or None."""

    async def save(self, account_id: str, pair: TokenPair) -> None:
        """Keep `pair`; it is used only after this returned. Ends the claim on a refresh."""

    async def claim(self, account_id: str) -> Claim:
        """Ask to be the one who refreshes. Ends by itself unless asked for again in time."""

    async def release(self, account_id: str) -> None:
        """Let others refresh."""

    async def fail(self, account_id: str, failure: KimiError) -> None:
        """A refresh failed for now."""

    async def stop(self, account_id: str, failure: KimiError) -> None:
        """The service has flagged the account: nobody may use it."""


class MemoryTokenStore:
    """Pairs for as long as the process lives."""

    def __init__(self) -> None:
        self._pairs: dict[str, TokenPair] = {}

    async def seed(self, account_id: str, given: TokenPair) -> TokenPair:
        """See TokenStore."""
        stored = self._pairs.get(account_id)
        pair = given if stored is None or stored.refused else newest(stored, given)
        self._pairs[account_id] = pair
        return pair

    async def load(self, account_id: str) -> TokenPair | None:
        """See TokenStore."""
        return self._pairs.get(account_id)

    async def save(self, account_id: str, pair: TokenPair) -> None:
        """See TokenStore."""
        self._pairs[account_id] = pair

    async def claim(self, account_id: str) -> Claim:
        """See TokenStore."""
        return Claim(granted=True)

    async def release(self, account_id: str) -> None:
        """See TokenStore."""

    async def fail(self, account_id: str, failure: KimiError) -> None:
        """See TokenStore."""

    async def stop(self, account_id: str, failure: KimiError) -> None:
        """See TokenStore."""


class DurableTokenStore:
    """Pairs in the account store, shared with every process that has it open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = uuid.uuid4().hex

    @property
    def _owner(self) -> str:
        """This process, also after a fork."""
        return f"{self._name}-{os.getpid()}"

    async def seed(self, account_id: str, given: TokenPair) -> TokenPair:
        """See TokenStore."""

        def work() -> TokenPair:
            with self._store.write() as rows:
                return seeded(rows, account_id, given, shared=False)

        return await self._store.run(work)

    async def load(self, account_id: str) -> TokenPair | None:
        """See TokenStore."""

        def work() -> TokenPair | None:
            with self._store.read() as rows:
                return rows.tokens.load(account_id)

        return await self._store.run(work)

    async def save(self, account_id: str, pair: TokenPair) -> None:
        """See TokenStore. Raises CredentialError when the account was removed meanwhile."""

        def work() -> None:
            with self._store.write() as rows:
                if not rows.accounts.exists(account_id):
                    raise removed()
                rows.tokens.save(account_id, pair)
                rows.tokens.release(account_id, self._owner)
                rows.audit.note(account_id, "refresh refused" if pair.refused else "refreshed")

        await self._store.run(work)

    async def claim(self, account_id: str) -> Claim:
        """See TokenStore."""

        def work() -> Claim:
            with self._store.write(durable=False) as rows:
                return rows.tokens.claim(account_id, self._owner)

        return await self._store.run(work)

    async def release(self, account_id: str) -> None:
        """See TokenStore."""

        def work() -> None:
            with self._store.write(durable=False) as rows:
                rows.tokens.release(account_id, self._owner)

        await self._store.run(work)

    async def fail(self, account_id: str, failure: KimiError) -> None:
        """See TokenStore."""

        def work() -> None:
            with self._store.write(durable=False) as rows:
                rows.tokens.fail(account_id, StoredFailure(code=failure.code, message=failure.message))

        await self._store.run(work)

    async def stop(self, account_id: str, failure: KimiError) -> None:
        """See TokenStore."""

        def work() -> None:
            with self._store.write() as rows:
                rows.accounts.stop(account_id, StoredFailure(code=failure.code, message=failure.message))

        await self._store.run(work)


def token_store(settings: Settings) -> TokenStore:
    """The one that the settings name. Raises StoreError when it can't be opened."""
    store = open_store(settings)
    return MemoryTokenStore() if store is None else DurableTokenStore(store)


def seeded(rows: Transaction, account_id: str, given: TokenPair, *, shared: bool) -> TokenPair:
    """Seed an account with what its owner gave, inside a transaction; the pair to use."""
    credential = Credential.of(refresh=given.refresh, access=given.access)
    account = StoredAccount(id=account_id, short_id=credential.short_id, simulated=credential.simulated, shared=shared)
    is_new = rows.accounts.add(account)
    first_seen = rows.accounts.give(account_id, credential.digests)
    stored = rows.tokens.load(account_id)
    if stored is None:
        rows.tokens.save(account_id, given)
        return given
    if not first_seen:
        return stored
    broken = stored.refused is not None or rows.accounts.stopped(account_id)
    pair = given if broken else newest(stored, given)
    if pair != stored:
        rows.tokens.save(account_id, pair)
    if not is_new and pair.refresh != stored.refresh:
        rows.accounts.revive(account_id)
    return pair


def removed() -> CredentialError:
    """What callers of an account learn after its owner removed it."""
    return CredentialError("This account was removed from the account store", cure="Add it again to use it.")
