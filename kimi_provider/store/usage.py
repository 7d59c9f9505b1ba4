"""Rows of usage: answers, failures and estimated tokens per account, model and day (UTC)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from . import tables
from .accounts import AccountRows

#: Older days go.
KEPT_DAYS: Final = 400
#: Callers name models, and a database has its limits.
_MAX_MODEL_CHARS: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Counts of one account and model; tokens are estimates."""

    account_id: str
    model: str
    answers: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, more: Usage) -> Usage:
        return replace(
            self,
            answers=self.answers + more.answers,
            failures=self.failures + more.failures,
            prompt_tokens=self.prompt_tokens + more.prompt_tokens,
            completion_tokens=self.completion_tokens + more.completion_tokens,
        )


class UsageRows:
    """Usage in one transaction at time `now`."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection, self._now = connection, now

    def count(self, more: Usage) -> bool:
        """Add to today's counts; True when they are the first of the day. Nothing when the account is gone."""
        table, day = tables.usage, _day(self._now)
        model = more.model[:_MAX_MODEL_CHARS].replace("\0", "")
        if not AccountRows(self._connection, self._now).exists(more.account_id):
            return False
        here = (table.c.account_id == more.account_id) & (table.c.model == model) & (table.c.day == day)
        names = ("answers", "failures", "prompt_tokens", "completion_tokens")
        sums = {table.c[name]: table.c[name] + getattr(more, name) for name in names}
        if self._connection.execute(update(table).where(here).values(sums)).rowcount:
            return False
        first = self._connection.execute(select(table.c.day).where(table.c.day == day).limit(1)).first() is None
        values = {name: getattr(more, name) for name in names}
        self._connection.execute(insert(table).values(account_id=more.account_id, model=model, day=day, **values))
        return first

    def since(self, days: int) -> list[Usage]:
        """Sums per account and model over the last `days` days; 1 is today."""
        table = tables.usage
        names = ("answers", "failures", "prompt_tokens", "completion_tokens")
        wanted = (
            select(table.c.account_id, table.c.model, *(func.sum(table.c[name]).label(name) for name in names))
            .where(table.c.day > _day(self._now - days * 86_400))
            .group_by(table.c.account_id, table.c.model)
        )
        return [
            Usage(account_id=row.account_id, model=row.model, **{name: int(getattr(row, name)) for name in names})
            for row in self._connection.execute(wanted)
        ]

    def trim(self, days: int = KEPT_DAYS) -> None:
        """Drop what is older."""
        self._connection.execute(delete(tables.usage).where(tables.usage.c.day <= _day(self._now - days * 86_400)))


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
