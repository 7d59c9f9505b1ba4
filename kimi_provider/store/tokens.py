"""Rows of tokens: the sealed pair of each account, and who may renew it now.

A pair is bound to its account inside the seal, so that rows can't be exchanged. The claim on a refresh is a row with
an end: one process at a time, and a row that outlived its time tells that a refresh was cut short.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from ..errors import Unavailable
from . import tables
from .accounts import MAX_MESSAGE_CHARS, AccountRows, StoredFailure
from .audit import AuditRows
from .sealing import MissingKey, Sealer

#: A claim that is not renewed ends after this; a refresh renews it while it runs.
CLAIM_LIFE_S: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPair:
    """The session of an account as it is now. `obtained_at` is in Unix seconds by this machine's clock, 0 when the
    owner gave it; `refused` tells that the refresh token is dead for good.
    """

    access: str | None = field(default=None, repr=False)
    refresh: str | None = field(default=None, repr=False)
    obtained_at: float = field(default=0.0, compare=False)
    refused: StoredFailure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Answer to a wish to refresh. `removed`: the account is gone; `interrupted_at`: when a process began a refresh
    that it never ended.
    """

    granted: bool
    removed: bool = False
    interrupted_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefreshFailures:
    """How often in a row a refresh failed for now, the first one how long ago, and why it last did."""

    count: int
    since_s: float
    failure: StoredFailure


class TokenRows:
    """Tokens in one transaction at time `now`."""

    def __init__(self, connection: Connection, now: float, sealer: Sealer) -> None:
        self._connection, self._now, self._sealer = connection, now, sealer
        #: The database's clock minus this machine's: processes on others must not inherit our error.
        self._ahead_s = now - time.time()

    def load(self, account_id: str) -> TokenPair | None:
        """The newest pair. Raises Unavailable when its key is not here."""
        table = tables.tokens
        row = self._connection.execute(select(table).where(table.c.account_id == account_id)).first()
        if row is None:
            return None
        try:
            content = json.loads(self._sealer.open(row.sealed, row.key_id))
        except MissingKey as exc:
            raise Unavailable(
                f"The stored credential is sealed with key {exc.key_id}, which is not here",
                cure="Set the same KIMI_SECRET_KEY on every process that shares the account store.",
            ) from None
        if content.get("account_id") != account_id:
            raise Unavailable("The stored credential belongs to another account", cure="Add the account again.")
        return TokenPair(
            access=content["access"],
            refresh=content["refresh"],
            obtained_at=row.obtained_at - self._ahead_s if row.obtained_at else 0.0,
            refused=StoredFailure(code=row.refused_code, message=row.refused_message) if row.refused_code else None,
        )

    def save(self, account_id: str, pair: TokenPair) -> None:
        """Keep `pair` in place of the one before, refusal and all."""
        AccountRows(self._connection, self._now).changed()
        content = {
            "account_id": account_id,
            "access": pair.access,
            "refresh": pair.refresh,
        }
        values = {
            "sealed": self._sealer.seal(json.dumps(content).encode()),
            "key_id": self._sealer.current,
            "obtained_at": pair.obtained_at + self._ahead_s if pair.obtained_at else 0.0,
            "refused_code": pair.refused.code if pair.refused else None,
            "refused_message": pair.refused.message[:MAX_MESSAGE_CHARS] if pair.refused else None,
        }
        table = tables.tokens
        here = table.c.account_id == account_id
        if not self._connection.execute(update(table).where(here).values(values)).rowcount:
            self._connection.execute(insert(table).values(account_id=account_id, **values))
        failures = tables.refresh_failures
        self._connection.execute(delete(failures).where(failures.c.account_id == account_id))

    # --- failures that may pass ---

    def fail(self, account_id: str, failure: StoredFailure) -> None:
        """A refresh failed for now. Nothing when the account is gone."""
        accounts, table = AccountRows(self._connection, self._now), tables.refresh_failures
        accounts.changed()
        if not accounts.exists(account_id):
            return
        values = {"code": failure.code, "message": failure.message[:MAX_MESSAGE_CHARS]}
        once_more = (
            update(table).where(table.c.account_id == account_id).values(failures=table.c.failures + 1, **values)
        )
        if not self._connection.execute(once_more).rowcount:
            self._connection.execute(insert(table).values(account_id=account_id, failures=1, since=self._now, **values))

    def failing(self) -> dict[str, RefreshFailures]:
        """Accounts whose last refresh failed for now, by id."""
        return {
            row.account_id: RefreshFailures(
                count=row.failures,
                since_s=self._now - row.since,
                failure=StoredFailure(code=row.code, message=row.message),
            )
            for row in self._connection.execute(select(tables.refresh_failures))
        }

    # --- claims ---

    def claim(self, account_id: str, owner: str) -> Claim:
        """Ask to be the one who refreshes, or to stay it."""
        table = tables.refreshes
        # Whoever else asks waits here: the account's row is what a claim stands on.
        account = select(tables.accounts.c.id).where(tables.accounts.c.id == account_id).with_for_update(key_share=True)
        if self._connection.execute(account).first() is None:
            return Claim(granted=False, removed=True)
        row = self._connection.execute(select(table).where(table.c.account_id == account_id)).first()
        until = self._now + CLAIM_LIFE_S
        if row is None:
            self._connection.execute(
                insert(table).values(account_id=account_id, owner=owner, began_at=self._now, expires_at=until)
            )
            return Claim(granted=True)
        if row.owner == owner:
            self._connection.execute(update(table).where(table.c.account_id == account_id).values(expires_at=until))
            return Claim(granted=True)
        if row.expires_at > self._now:
            return Claim(granted=False)
        self._connection.execute(
            update(table)
            .where(table.c.account_id == account_id)
            .values(owner=owner, began_at=self._now, expires_at=until)
        )
        AuditRows(self._connection, self._now).note(account_id, "refresh cut short", "its process ended")
        return Claim(granted=True, interrupted_at=row.began_at)

    def release(self, account_id: str, owner: str) -> None:
        """The refresh has ended, well or not."""
        table = tables.refreshes
        self._connection.execute(delete(table).where((table.c.account_id == account_id) & (table.c.owner == owner)))

    # --- keys ---

    def missing_keys(self) -> list[str]:
        """Names of keys that seal something here and are not ours."""
        names = set(self._connection.scalars(select(tables.tokens.c.key_id).distinct()))
        return sorted(names - self._sealer.names)

    def reseal(self) -> int:
        """Seal with the current key what another one seals; how many there were. Raises MissingKey."""
        table = tables.tokens
        rows = self._connection.execute(select(table).where(table.c.key_id != self._sealer.current)).all()
        for row in rows:
            sealed = self._sealer.seal(self._sealer.open(row.sealed, row.key_id))
            self._connection.execute(
                update(table)
                .where(table.c.account_id == row.account_id)
                .values(sealed=sealed, key_id=self._sealer.current)
            )
            AuditRows(self._connection, self._now).note(row.account_id, "sealed anew", f"key {self._sealer.current}")
        return len(rows)
