"""What happened to accounts, for people who ask why; never a secret, never without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from . import tables

#: Older entries go.
KEPT_S: Final = 90 * 86_400
#: And those beyond this number.
MAX_ENTRIES: Final = 20_000
_MAX_DETAIL_CHARS: Final = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """One event, such as `added`, `refreshed`, `put aside`, `stopped`, `removed`."""

    at: float
    account_id: str
    event: str
    detail: str


class AuditRows:
    """The trail in one transaction at time `now`."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection, self._now = connection, now

    def note(self, account_id: str, event: str, detail: str = "") -> None:
        """Add an entry."""
        self._connection.execute(
            insert(tables.audit).values(
                at=self._now, account_id=account_id, event=event, detail=detail[:_MAX_DETAIL_CHARS]
            )
        )

    def last(self, count: int, *, account_id: str | None = None) -> list[AuditEntry]:
        """The newest first."""
        table = tables.audit
        wanted = select(table).order_by(table.c.id.desc()).limit(count)
        if account_id is not None:
            wanted = wanted.where(table.c.account_id == account_id)
        return [
            AuditEntry(at=row.at, account_id=row.account_id, event=row.event, detail=row.detail)
            for row in self._connection.execute(wanted)
        ]

    def trim(self, *, kept_s: float = KEPT_S, max_entries: int = MAX_ENTRIES) -> None:
        """Drop what is too old or too much."""
        table = tables.audit
        self._connection.execute(delete(table).where(table.c.at < self._now - kept_s))
        newest = self._connection.scalar(select(func.max(table.c.id))) or 0
        self._connection.execute(delete(table).where(table.c.id <= newest - max_entries))
