"""Rows of alerts: what was told of an account, through which channel, and who is telling it now.

A row is a claim with an end: whoever holds it delivers, then says how that went. One that outlives its end was left by
a process that died, and nobody knows what it has delivered. Knows neither what is wrong with accounts nor how to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from . import tables

#: Whoever tells something has so long to finish; longer than any delivery may take.
CLAIM_LIFE_S: Final = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAlert:
    """What readers of a channel believe of an account: `told`, a trouble or "" for none; `sending` is what somebody has
    begun to tell, None when nobody has. For `wait_s` nobody else may try; `tries` have failed.
    """

    told: str = ""
    sending: str | None = None
    wait_s: float = 0.0
    tries: int = 0


class AlertRows:
    """Alerts in one transaction at time `now`. Writers hold the lock of accounts."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection, self._now = connection, now

    def of(self, channel: str) -> dict[str, StoredAlert]:
        """Those of a channel, by account id."""
        table = tables.alerts
        return {
            row.account_id: StoredAlert(
                told=row.told, sending=row.sending, wait_s=max(0.0, row.until - self._now), tries=row.tries
            )
            for row in self._connection.execute(select(table).where(table.c.channel == channel))
        }

    def claim(self, account_id: str, channel: str, owner: str, trouble: str) -> None:
        """`owner` begins to tell of `trouble`."""
        values: dict[str, Any] = {"sending": trouble, "owner": owner, "until": self._now + CLAIM_LIFE_S}
        if not self._set(account_id, channel, **values):
            keys = {"account_id": account_id, "channel": channel}
            self._connection.execute(insert(tables.alerts).values(**keys, told="", tries=0, **values))

    def tell(self, account_id: str, channel: str, owner: str, trouble: str) -> None:
        """Readers know it. Nothing when the claim has gone to another owner."""
        self._set(account_id, channel, claimed_by=owner, told=trouble, sending=None, until=self._now, tries=0)

    def fail(self, account_id: str, channel: str, owner: str, pause_s: float) -> None:
        """It was not delivered; nobody tries again for `pause_s`. Nothing when the claim has gone to another owner."""
        more = tables.alerts.c.tries + 1
        self._set(account_id, channel, claimed_by=owner, sending=None, until=self._now + pause_s, tries=more)

    def forget(self, account_id: str, channel: str) -> None:
        """There is nothing more to tell."""
        self._connection.execute(delete(tables.alerts).where(_here(account_id, channel)))

    def _set(self, account_id: str, channel: str, *, claimed_by: str | None = None, **values: Any) -> bool:
        here = _here(account_id, channel)
        if claimed_by is not None:
            here &= tables.alerts.c.owner == claimed_by
        return bool(self._connection.execute(update(tables.alerts).where(here).values(values)).rowcount)


def _here(account_id: str, channel: str) -> Any:
    return (tables.alerts.c.account_id == account_id) & (tables.alerts.c.channel == channel)
