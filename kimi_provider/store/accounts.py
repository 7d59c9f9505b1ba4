"""Rows of accounts: who they are, whether they may be used, what was pasted for them, what puts them aside.

`AccountRows` works inside one transaction. What other processes should learn of moves the number that `changes`
tells; whoever remembers it knows whether to look again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from . import tables
from .audit import AuditRows

#: A foreign message is kept this far.
MAX_MESSAGE_CHARS: Final = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFailure:
    """An error as it is kept: its stable code and its safe text."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAccount:
    """One account. `stopped` is why it can't be used until its owner acts; None while it can."""

    id: str
    short_id: str
    simulated: bool
    shared: bool
    enabled: bool = True
    stopped: StoredFailure | None = None
    added_at: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCooldown:
    """What puts `account_id` aside for `scope`, for so many seconds from now."""

    account_id: str
    scope: str
    failure: StoredFailure
    hard: bool
    left_s: float


class AccountRows:
    """Accounts in one transaction at time `now`."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection, self._now = connection, now

    def number(self) -> int:
        """Grows with every change."""
        return self._connection.scalar(select(tables.changes.c.number)) or 0

    def lock(self) -> None:
        """Let nobody else add or change accounts until the transaction ends. Before any other change: two orders of
        locking would be a deadlock. (On SQLite a writer is alone anyway.)
        """
        self._connection.execute(select(tables.changes).with_for_update())

    def changed(self) -> None:
        """Make other processes look again; locks, too."""
        self._connection.execute(update(tables.changes).values(number=tables.changes.c.number + 1))

    def all(self) -> list[StoredAccount]:
        """In the order in which they were added."""
        table = tables.accounts
        rows = self._connection.execute(select(table).order_by(table.c.added_at, table.c.id))
        return [
            StoredAccount(
                id=row.id,
                short_id=row.short_id,
                simulated=row.simulated,
                shared=row.shared,
                enabled=row.enabled,
                stopped=StoredFailure(code=row.stopped_code, message=row.stopped_message) if row.stopped_code else None,
                added_at=row.added_at,
            )
            for row in rows
        ]

    def exists(self, account_id: str) -> bool:
        """Whether it was added and not removed."""
        table = tables.accounts
        return self._connection.execute(select(table.c.id).where(table.c.id == account_id)).first() is not None

    def stopped(self, account_id: str) -> bool:
        """Whether it can't be used until its owner acts."""
        table = tables.accounts
        return bool(self._connection.scalar(select(table.c.stopped_code).where(table.c.id == account_id)))

    def add(self, account: StoredAccount) -> bool:
        """Keep an account unless it is known; True when it is new. One that is shared stays shared."""
        table = tables.accounts
        self.lock()
        known = self._connection.execute(select(table.c.shared).where(table.c.id == account.id)).first()
        if known is not None:
            if account.shared and not known.shared:
                self._set(account.id, shared=True)
            return False
        self.changed()
        self._connection.execute(
            insert(table).values(
                id=account.id,
                short_id=account.short_id,
                simulated=account.simulated,
                shared=account.shared,
                enabled=True,
                # Those of one transaction keep their order.
                added_at=self._now + 1e-5 * (self._connection.scalar(select(func.count()).select_from(table)) or 0),
            )
        )
        AuditRows(self._connection, self._now).note(
            account.id, "added", "shared" if account.shared else "of a deployment"
        )
        return True

    def given(self, account_id: str) -> frozenset[str]:
        """Digests of what was pasted for an account."""
        table = tables.seeds
        return frozenset(self._connection.scalars(select(table.c.digest).where(table.c.account_id == account_id)))

    def give(self, account_id: str, digests: Iterable[str]) -> bool:
        """Remember what was pasted; True when any of it is new."""
        new = sorted(set(digests) - self.given(account_id))
        if new:
            known = set(self._connection.scalars(select(tables.seeds.c.digest).where(tables.seeds.c.digest.in_(new))))
            if rows := [{"digest": one, "account_id": account_id} for one in new if one not in known]:
                self._connection.execute(insert(tables.seeds), rows)
        return bool(new)

    def pause(self, account_id: str, *, paused: bool) -> bool:
        """Let the owner pause or resume an account, which then may be used whatever stopped it; False when there is
        none.
        """
        resumed = {} if paused else {"stopped_code": None, "stopped_message": None, "stopped_at": None}
        found = self._set(account_id, enabled=not paused, **resumed)
        if found:
            AuditRows(self._connection, self._now).note(account_id, "paused" if paused else "resumed")
        return found

    def stop(self, account_id: str, failure: StoredFailure) -> None:
        """It can't be used until its owner acts: at once, on every process."""
        message = failure.message[:MAX_MESSAGE_CHARS]
        self._set(account_id, stopped_code=failure.code, stopped_message=message, stopped_at=self._now)
        AuditRows(self._connection, self._now).note(account_id, "stopped", failure.code)

    def revive(self, account_id: str) -> None:
        """Its owner has given a new credential: nothing that it met counts any more."""
        self._set(account_id, stopped_code=None, stopped_message=None, stopped_at=None)
        self._connection.execute(delete(tables.cooldowns).where(tables.cooldowns.c.account_id == account_id))
        AuditRows(self._connection, self._now).note(account_id, "new credential")

    def remove(self, account_id: str) -> bool:
        """Forget an account and its credentials; False when there is none. The audit trail stays."""
        self.changed()
        found = self._connection.execute(delete(tables.accounts).where(tables.accounts.c.id == account_id)).rowcount
        if found:
            AuditRows(self._connection, self._now).note(account_id, "removed")
        return bool(found)

    def _set(self, account_id: str, **values: object) -> bool:
        table = tables.accounts
        self.changed()
        found = self._connection.execute(update(table).where(table.c.id == account_id).values(values)).rowcount
        return bool(found)

    # --- cool-downs ---

    def cool(self, cooldown: StoredCooldown) -> None:
        """Put an account aside for a scope; the latest word counts. Nothing when the account is gone."""
        table = tables.cooldowns
        self.changed()
        if not self.exists(cooldown.account_id):
            return
        here = (table.c.account_id == cooldown.account_id) & (table.c.scope == cooldown.scope)
        before = self._connection.execute(select(table.c.code, table.c.until).where(here)).first()
        values = {
            "code": cooldown.failure.code,
            "message": cooldown.failure.message[:MAX_MESSAGE_CHARS],
            "hard": cooldown.hard,
            "until": self._now + cooldown.left_s,
        }
        if before is None:
            keys = {"account_id": cooldown.account_id, "scope": cooldown.scope}
            self._connection.execute(insert(table).values(**keys, **values))
        else:
            self._connection.execute(update(table).where(here).values(values))
        if before is None or before.code != cooldown.failure.code or before.until <= self._now:
            detail = f"{cooldown.failure.code} for {cooldown.left_s:.0f} s {cooldown.scope}".rstrip()
            AuditRows(self._connection, self._now).note(cooldown.account_id, "put aside", detail)

    def cooling(self) -> list[StoredCooldown]:
        """All that has not ended."""
        table = tables.cooldowns
        return [
            StoredCooldown(
                account_id=row.account_id,
                scope=row.scope,
                failure=StoredFailure(code=row.code, message=row.message),
                hard=row.hard,
                left_s=row.until - self._now,
            )
            for row in self._connection.execute(select(table).where(table.c.until > self._now))
        ]
