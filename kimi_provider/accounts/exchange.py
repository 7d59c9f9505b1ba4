"""One short transaction between this process and the account store: what it tells, and what it is told.

Knows neither threads nor callers: a plan goes in, an answer comes out, or nothing has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from ..store import Store, StoredAccount, StreamCount, StreamWish, Transaction, Usage
from .newsroom import News, Newsroom

#: Something to write, whatever becomes of the store meanwhile.
Told = Callable[[Transaction], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one exchange tells the store. `held` is what it will count for us before the wishes, by account id."""

    held: dict[str, int]
    given_back: dict[str, int]
    wishes: list[StreamWish]
    no_longer_wished: set[str]
    unknown: list[StoredAccount]
    news: list[Told]
    usage: dict[tuple[str, str], Usage]
    renew: bool

    @property
    def writes(self) -> bool:
        """Whether anything is changed."""
        return bool(self.given_back or self.wishes or self.no_longer_wished or self.news or self.usage or self.renew)


@dataclass(slots=True)
class Answer:
    """What the store said: streams by account id, the number of its last change, and what that changed."""

    counts: dict[str, StreamCount] = field(default_factory=dict)
    number: int = 0
    news: News | None = None


def exchanged(store: Store, owner: str, plan: Plan, *, newsroom: Newsroom, known: int | None) -> Answer:
    """One transaction of process `owner`. `known` is the number of the last change that it has seen, None when it does
    not look. Raises Unavailable.
    """
    answer = Answer()
    kind: AbstractContextManager[Transaction] = store.write(durable=bool(plan.news)) if plan.writes else store.read()
    with kind as rows:
        streams = rows.streams(owner)
        if plan.unknown or plan.news or plan.usage:
            rows.accounts.lock()
        for account in plan.unknown:
            rows.accounts.add(account)
        answer.number = rows.accounts.number()
        here = streams.lock([wish.account_id for wish in plan.wishes]) if plan.wishes else frozenset()
        for id_, left in plan.given_back.items():
            streams.give_back(id_, left)
        for id_ in plan.no_longer_wished:
            streams.stop_waiting(id_)
        if plan.renew:
            streams.renew()
        for wish in plan.wishes:
            if wish.account_id in here:  # else its owner has just removed it
                answer.counts[wish.account_id] = streams.take(wish)
        for news in plan.news:
            news(rows)
        firsts = [rows.usage.count(usage) for usage in plan.usage.values()]
        if any(firsts):  # of the day; under the lock above only one process finds that
            rows.trim()
        if known is not None:
            answer.counts = {count.account_id: count for count in streams.counts()} | answer.counts
            if answer.number != known:
                answer.news = newsroom.read(rows)
    return answer
