"""Rows of streams: how many answers each process may run on an account, so that all together keep the limit.

A process holds streams for 45 seconds and renews them every 15; what a dead process held is free after that. Who finds
none free waits in order: a later process gets nothing that an earlier one waits for. All of it is decided under the
lock of the account's row, so that no two processes can both take the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from . import tables

LIFE_S: Final = 45
RENEW_S: Final = 15
#: Who waits says so at every try.
WAIT_LIFE_S: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamWish:
    """`held` streams on `account_id` in all, of at most `limit` of every process together."""

    account_id: str
    held: int
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamCount:
    """Streams on an account: of the asking process, of all others, and how many others wait for one."""

    account_id: str
    held: int
    elsewhere: int
    others_waiting: int


class StreamRows:
    """Streams of process `owner` in one transaction at time `now`."""

    def __init__(self, connection: Connection, now: float, owner: str) -> None:
        self._connection, self._now, self._owner = connection, now, owner

    def lock(self, account_ids: Collection[str]) -> frozenset[str]:
        """First of all: nobody else decides on these accounts until the transaction ends. Those that there are."""
        table = tables.accounts
        wanted = (
            select(table.c.id).where(table.c.id.in_(account_ids)).order_by(table.c.id).with_for_update(key_share=True)
        )
        return frozenset(self._connection.scalars(wanted))

    def take(self, wish: StreamWish) -> StreamCount:
        """Take what can be had now, and queue for the rest."""
        held, elsewhere = self._counts(wish.account_id)
        line = self._line(wish.account_id)
        place = next((row.since for row in line if row.owner == self._owner), self._now)
        earlier = [row for row in line if row.owner != self._owner and row.since < place]
        limit = min([wish.limit, *(row.stream_limit for row in earlier)])
        more = max(0, min(wish.held - held, limit - held - elsewhere - len(earlier)))
        if more:
            self._hold(wish.account_id, held + more, known=held > 0)
        if held + more < wish.held or wish.held + elsewhere > wish.limit:
            self._wait(wish, place, known=any(row.owner == self._owner for row in line))
        else:
            self.stop_waiting(wish.account_id)
        others = sum(row.owner != self._owner for row in line)
        return StreamCount(account_id=wish.account_id, held=held + more, elsewhere=elsewhere, others_waiting=others)

    def give_back(self, account_id: str, left: int) -> None:
        """Hold only `left` from now on."""
        here = self._mine(account_id)
        if left:
            self._connection.execute(update(tables.streams).where(here).values(held=left))
        else:
            self._connection.execute(delete(tables.streams).where(here))

    def give_back_all(self) -> None:
        """The process ends."""
        for table in (tables.streams, tables.waiting):
            self._connection.execute(delete(table).where(table.c.owner == self._owner))

    def stop_waiting(self, account_id: str) -> None:
        """Nobody here needs more."""
        table = tables.waiting
        self._connection.execute(
            delete(table).where((table.c.account_id == account_id) & (table.c.owner == self._owner))
        )

    def renew(self) -> None:
        """Hold what has not expired for another 45 s, and sweep what expired long ago."""
        table = tables.streams
        alive = (table.c.owner == self._owner) & (table.c.expires_at > self._now)
        self._connection.execute(update(table).where(alive).values(expires_at=self._now + LIFE_S))
        self._connection.execute(delete(table).where(table.c.expires_at < self._now - LIFE_S))

    def counts(self) -> list[StreamCount]:
        """Every account on which anybody has streams or waits."""
        streams, waiting = tables.streams, tables.waiting
        held = self._connection.execute(select(streams).where(streams.c.expires_at > self._now)).all()
        line = self._connection.execute(select(waiting).where(waiting.c.expires_at > self._now)).all()
        return [
            StreamCount(
                account_id=account_id,
                held=sum(row.held for row in held if row.account_id == account_id and row.owner == self._owner),
                elsewhere=sum(row.held for row in held if row.account_id == account_id and row.owner != self._owner),
                others_waiting=sum(row.account_id == account_id and row.owner != self._owner for row in line),
            )
            for account_id in sorted({row.account_id for row in (*held, *line)})
        ]

    def _counts(self, account_id: str) -> tuple[int, int]:
        table = tables.streams
        alive = (table.c.account_id == account_id) & (table.c.expires_at > self._now)
        found = {row.owner: row.held for row in self._connection.execute(select(table).where(alive))}
        held = found.pop(self._owner, 0)
        return held, sum(found.values())

    def _line(self, account_id: str) -> Sequence[Row[Any]]:
        table = tables.waiting
        alive = (table.c.account_id == account_id) & (table.c.expires_at > self._now)
        return self._connection.execute(select(table).where(alive)).all()

    def _hold(self, account_id: str, held: int, *, known: bool) -> None:
        values = {"held": held, "expires_at": self._now + LIFE_S}
        if not known:  # one of ours may be there that has expired
            self._connection.execute(delete(tables.streams).where(self._mine(account_id)))
            self._connection.execute(insert(tables.streams).values(account_id=account_id, owner=self._owner, **values))
        else:
            self._connection.execute(update(tables.streams).where(self._mine(account_id)).values(values))

    def _wait(self, wish: StreamWish, since: float, *, known: bool) -> None:
        values = {"since": since, "stream_limit": wish.limit, "expires_at": self._now + WAIT_LIFE_S}
        table = tables.waiting
        if known:
            here = (table.c.account_id == wish.account_id) & (table.c.owner == self._owner)
            self._connection.execute(update(table).where(here).values(values))
            return
        self.stop_waiting(wish.account_id)
        self._connection.execute(insert(table).values(account_id=wish.account_id, owner=self._owner, **values))

    def _mine(self, account_id: str) -> ColumnElement[bool]:
        table = tables.streams
        return (table.c.account_id == account_id) & (table.c.owner == self._owner)
