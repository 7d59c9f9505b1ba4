"""What this process says in each exchange with the account store, and what it enters of the answer.

Counts streams as the store counts them for us, what callers wish for, and what happened that the store does not know
yet. Knows neither threads nor SQL. All of it happens under the board's lock; times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..store import StoredAccount, StreamCount, StreamWish, Usage
from ..store.streams import RENEW_S
from .account import Account
from .board import Board, Load
from .exchange import Answer, Plan, Told

#: How often one asks again for a stream that was refused.
ASK_AGAIN_S: Final = 0.1
#: A stream that nobody uses is given back after this: the next call may come to another process.
IDLE_S: Final = 0.25
_MAX_NEWS: Final = 10_000


class Ledger:
    """One process's books. `max_streams` is the usual limit of an account."""

    def __init__(self, board: Board, max_streams: int) -> None:
        self._board, self._max_streams = board, max_streams
        #: Streams by account, as the store counts them for us, and when they are to be renewed.
        self._counted: dict[str, int] = {}
        self._renew_at = 0.0
        self._wishes: dict[Account, StreamWish] = {}
        #: Accounts for which the store has us in line.
        self._waiting: set[str] = set()
        self._news: list[Told] = []
        self._usage: dict[tuple[str, str], Usage] = {}

    def begin_anew(self) -> None:
        """A forked child holds nothing of its parent's."""
        self._counted, self._waiting, self._wishes = {}, set(), {}
        for _, load in self._board.loads():
            load.running = load.held = 0

    def wish(self, wishes: dict[Account, StreamWish]) -> bool:
        """Ask for streams, in place of what was wished before; whether any may be had now."""
        before, self._wishes = self._wishes, wishes
        for account in before.keys() - wishes.keys():
            self._board.load(account).refused = False
        return any(not self._board.load(account).refused for account in wishes)

    def is_wished(self, account: Account) -> bool:
        """Whether somebody wishes for a stream of it."""
        return account in self._wishes

    def note(self, news: Told) -> None:
        """Something to write."""
        self._news.append(news)

    def count(self, more: Usage) -> None:
        """Usage adds up until the next look."""
        key = more.account_id, more.model
        before = self._usage.get(key)
        self._usage[key] = more if before is None else before + more

    @property
    def untold(self) -> bool:
        """Whether something happened that the store does not know yet, beside usage."""
        return bool(self._news)

    def due_at(self, now: float) -> float:
        """When the next exchange is due that nobody asks for."""
        if self._wishes or self._news:
            return now + ASK_AGAIN_S
        idle = [load.idle_since + IDLE_S for _, load in self._board.loads() if load.held > load.running]
        return min([*idle, *([self._renew_at] if self._counted else [])], default=math.inf)

    # --- an exchange ---

    def plan(self, now: float, *, look: bool, known: Callable[[str], bool]) -> Plan:
        """What the exchange says; `known` tells whether the store has an account."""
        wishes = dict(self._wishes)
        for account, load in self._board.loads():
            idle = load.held - load.running
            if idle > 0 and account not in wishes:
                unused = now - load.idle_since >= IDLE_S
                given = idle if unused else min(idle, load.others_waiting)
                load.held -= given
                load.others_waiting = max(0, load.others_waiting - given)
            elif idle < 0 and account not in wishes:  # taken while the store was away
                limit = load.held_under or self._max_streams
                wishes[account] = StreamWish(account_id=account.id, held=load.running, limit=limit)
        held = {account.id: load.held for account, load in self._board.loads()}
        news, usage = self.take_untold() if look else (self._take_news(), {})
        return Plan(
            held=held,
            given_back={id_: held.get(id_, 0) for id_, count in self._counted.items() if held.get(id_, 0) < count},
            wishes=list(wishes.values()),
            no_longer_wished=self._waiting - {account.id for account in wishes},
            unknown=[_row(account) for account in wishes if not known(account.id)],
            news=news,
            usage=usage,
            renew=bool(self._counted) and now >= self._renew_at,
        )

    def take_untold(self) -> tuple[list[Told], dict[tuple[str, str], Usage]]:
        """All that the store is still to learn."""
        usage, self._usage = self._usage, {}
        return self._take_news(), usage

    def put_back(self, plan: Plan) -> None:
        """The store was not there: the next exchange tells it."""
        self._news = (plan.news + self._news)[:_MAX_NEWS]
        for usage in plan.usage.values():
            self.count(usage)

    def enter(self, plan: Plan, answer: Answer, now: float, *, look: bool) -> None:
        """Take over what the store said to `plan`; when it was a `look`, it counted every account."""
        wished = {wish.account_id: wish for wish in plan.wishes}
        self._waiting = (self._waiting - plan.no_longer_wished) | wished.keys()
        self._counted |= plan.given_back
        if plan.renew:
            self._renew_at = now + RENEW_S
        for account, load in self._board.loads():
            count = answer.counts.get(account.id)
            if count is not None or look:
                nothing = StreamCount(account_id=account.id, held=0, elsewhere=0, others_waiting=0)
                self._enter_count(count or nothing, load, plan, wished.get(account.id), now)
        self._counted = {id_: count for id_, count in self._counted.items() if count}
        if not self._counted:
            self._renew_at = 0.0

    def _enter_count(self, count: StreamCount, load: Load, plan: Plan, wish: StreamWish | None, now: float) -> None:
        said = plan.held.get(count.account_id, 0)
        load.elsewhere, load.others_waiting = count.elsewhere, count.others_waiting
        # Relative to what we said: streams may have been given up meanwhile.
        load.held = max(0, load.held + count.held - said)
        if count.held and count.account_id not in self._counted:
            self._renew_at = self._renew_at or now + RENEW_S
        self._counted[count.account_id] = count.held
        if wish is None:
            return
        met = count.held >= wish.held and wish.held + load.elsewhere <= wish.limit
        load.refused = not met and load.held <= load.running
        if count.held > said or met:
            load.held_under, load.idle_since = wish.limit, now
        if met:
            self._waiting.discard(count.account_id)

    def _take_news(self) -> list[Told]:
        news, self._news = self._news, []
        return news


def _row(account: Account) -> StoredAccount:
    return StoredAccount(id=account.id, short_id=account.short_id, simulated=account.simulated, shared=False)
