"""This process among others on one account store: streams counted together, news exchanged.

A thread of its own talks to the store, one short transaction at a time, so that no call waits for SQL unless it needs a
stream that is not in hand. Streams are held while calls follow each other and given back soon after; what another
process waits for is given back at the first opportunity. Once a second it looks whether accounts, pauses, states or
cool-downs have changed. While the store can't be reached each process keeps the limit by itself, and what happened is
told later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from typing import Final

from ..errors import Unavailable
from ..settings import Settings
from ..store import Store, StoredAccount, StoredCooldown, StoredFailure, StreamWish, Usage
from ..store.streams import RENEW_S
from ..upstream import Upstream
from .account import Account
from .board import Board
from .cooldowns import Cooldown
from .exchange import Answer, Plan, Told, exchanged
from .newsroom import Newsroom

log = logging.getLogger(__name__)

#: How often one looks for news, and how often one asks again for a stream that was refused.
LOOK_S: Final = 1.0
ASK_AGAIN_S: Final = 0.1
#: A stream that nobody uses is given back after this: the next call may come to another process.
IDLE_S: Final = 0.25
_MAX_NEWS: Final = 10_000
_END_PATIENCE_S: Final = 5


class Fleet:
    """The process's part. `changed` is called under the board's lock when callers may have something to gain."""

    def __init__(
        self,
        store: Store,
        board: Board,
        settings: Settings,
        upstream: Upstream,
        changed: weakref.WeakMethod[Callable[[], None]],
    ) -> None:
        self._store, self._board, self._changed = store, board, changed
        self._max_streams = settings.kimi_max_streams
        self._pid, self._owner = os.getpid(), uuid.uuid4().hex
        self._wake, self._stop = threading.Event(), threading.Event()
        self._sleeps_until = 0.0
        self._thread: threading.Thread | None = None
        #: Streams by account, as the store counts them for us.
        self._counted: dict[str, int] = {}
        self._wishes: dict[Account, StreamWish] = {}
        self._waiting: set[str] = set()
        self._newsroom = Newsroom(board, settings, upstream)
        self._news: list[Told] = []
        self._usage: dict[tuple[str, str], Usage] = {}
        self._number = -1
        self._look_at = self._renew_at = 0.0
        #: Exchanges begun and ended.
        self.begun = self.ended = 0
        board.stand_alone(False)

    # --- from the pool ---

    def start(self) -> None:
        """Begin to talk to the store; nothing when it does already. (A forked child begins anew.)"""
        if self._thread is None or not self._thread.is_alive():
            with self._board.lock:
                if (self._thread is None or not self._thread.is_alive()) and not self._stop.is_set():
                    self._be_another_after_a_fork()
                    self._thread = threading.Thread(target=self._serve, name="kimi-fleet", daemon=True)
                    self._thread.start()

    def _be_another_after_a_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._owner = os.getpid(), uuid.uuid4().hex
            self._counted, self._waiting, self._wishes = {}, set(), {}
            for _, load in self._board.loads():
                load.running = load.held = 0

    def look(self) -> None:
        """Exchange now, in this thread. Raises Unavailable."""
        self._exchange()

    def wish(self, wishes: dict[Account, StreamWish]) -> None:
        """Ask for streams, in place of what was wished before; under the board's lock."""
        before, self._wishes = self._wishes, wishes
        for account in before.keys() - wishes.keys():
            self._board.load(account).refused = False
        if any(not self._board.load(account).refused for account in wishes):
            self._wake.set()

    def is_new(self, account: Account) -> bool:
        """Whether nobody wishes for it yet; under the board's lock."""
        return account not in self._wishes

    def has_added(self, account: Account, number: int) -> None:
        """The pool has added an account to the store with change `number`; under the board's lock."""
        self._newsroom.has_added(account.id, number)

    def gave_up(self, *, at_once: bool) -> None:
        """A stream may be idle now, or another process waits for it; under the board's lock."""
        if at_once or self._sleeps_until > time.monotonic() + IDLE_S:
            self._wake.set()

    def tell(self, news: Told) -> None:
        """Write something soon, whatever becomes of the store meanwhile."""
        with self._board.lock:
            self._news.append(news)
        self._wake.set()

    def stop(self) -> None:
        """Tell the last news and give every stream back."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_PATIENCE_S)

    # --- the thread ---

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._exchange()
            except Unavailable as exc:
                self._cut_off(exc)
                self._stop.wait(LOOK_S)  # whatever is wished meanwhile: this process stands alone
                continue
            pause_s = self._pause_s()
            self._sleeps_until = time.monotonic() + pause_s
            self._wake.wait(pause_s)
        self._leave()

    def _pause_s(self) -> float:
        """Until the next exchange that nobody asks for."""
        now = time.monotonic()
        with self._board.lock:
            if self._wishes or self._news:
                return ASK_AGAIN_S
            idle = [load.idle_since + IDLE_S for _, load in self._board.loads() if load.held > load.running]
            renewal = [self._renew_at] if self._counted else []
        return max(0.01, min([self._look_at, *renewal, *idle]) - now)

    def _cut_off(self, why: Unavailable) -> None:
        with self._board.lock:
            if not self._board.alone:
                log.warning(
                    "kimi-provider: %s; this process counts its streams by itself until it is back", why.message
                )
                self._board.stand_alone(True)
            self.ended = self.begun
            self._look_at = 0.0
            self._notify()

    def _leave(self) -> None:
        try:
            with self._store.write() as rows:
                rows.streams(self._owner).give_back_all()
                for news in self._news:
                    news(rows)
                for usage in self._usage.values():
                    rows.usage.count(usage)
        except Unavailable:
            log.debug("kimi-provider: the account store is away; what this process held ends by itself")

    def _notify(self) -> None:
        if (changed := self._changed()) is not None:
            changed()

    # --- one exchange ---

    def _exchange(self) -> None:
        with self._board.lock:
            self.begun += 1
            plan = self._plan()
        look = time.monotonic() >= self._look_at
        answer = Answer()
        if plan.writes or look:
            try:
                known = self._number if look else None
                answer = exchanged(self._store, self._owner, plan, newsroom=self._newsroom, known=known)
            except Unavailable:
                with self._board.lock:
                    self._untold(plan)
                raise
        with self._board.lock:
            if self._board.alone:
                self._board.stand_alone(False)
            self._learn(plan, answer, look=look)
            self.ended = self.begun
            self._notify()

    def _plan(self) -> Plan:
        now = time.monotonic()
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
        news, self._news = self._news, []
        usage: dict[tuple[str, str], Usage] = {}
        if now >= self._look_at:  # it may wait, and adds up meanwhile
            usage, self._usage = self._usage, {}
        return Plan(
            held=held,
            given_back={id_: held.get(id_, 0) for id_, count in self._counted.items() if held.get(id_, 0) < count},
            wishes=list(wishes.values()),
            no_longer_wished=self._waiting - {account.id for account in wishes},
            unknown=[_row(account) for account in wishes if not self._newsroom.knows(account.id)],
            news=news,
            usage=usage,
            renew=bool(self._counted) and now >= self._renew_at,
        )

    def _untold(self, plan: Plan) -> None:
        """The store was not there: the next exchange tells it."""
        self._news = (plan.news + self._news)[:_MAX_NEWS]
        for usage in plan.usage.values():
            self._add(usage)

    def _add(self, more: Usage) -> None:
        key = more.account_id, more.model
        before = self._usage.get(key)
        self._usage[key] = more if before is None else before + more

    # --- what it learned; under the board's lock ---

    def _learn(self, plan: Plan, answer: Answer, *, look: bool) -> None:
        now = time.monotonic()
        for row in plan.unknown:
            self._newsroom.has_added(row.id, answer.number)
        wished = {wish.account_id: wish for wish in plan.wishes}
        self._waiting = (self._waiting - plan.no_longer_wished) | wished.keys()
        for id_, left in plan.given_back.items():
            self._counted[id_] = left
        if plan.renew:
            self._renew_at = now + RENEW_S
        for account, load in self._board.loads():
            count = answer.counts.get(account.id)
            if count is None and not look:
                continue
            held = count.held if count else 0
            load.elsewhere = count.elsewhere if count else 0
            load.others_waiting = count.others_waiting if count else 0
            # Relative to what we said: streams may have been given up meanwhile.
            load.held = max(0, load.held + held - plan.held.get(account.id, 0))
            if held and account.id not in self._counted:
                self._renew_at = self._renew_at or now + RENEW_S
            self._counted[account.id] = held
            wish = wished.get(account.id)
            if wish is not None:
                met = held >= wish.held and wish.held + load.elsewhere <= wish.limit
                load.refused = not met and load.held <= load.running
                if held > plan.held.get(account.id, 0) or met:
                    load.held_under = wish.limit
                    load.idle_since = now
                if met:
                    self._waiting.discard(account.id)
        self._counted = {id_: count for id_, count in self._counted.items() if count}
        if not self._counted:
            self._renew_at = 0.0
        if look:
            self._look_at = now + LOOK_S
        if answer.news is not None:
            self._number = answer.news.number
            self._newsroom.learn(answer.news, untold=bool(self._news))

    # --- news ---

    def tell_cooldown(self, account: Account, cooldown: Cooldown, left_s: float) -> None:
        """Put the account aside for everybody."""
        failure = StoredFailure(code=cooldown.error.code, message=cooldown.error.message)
        row = StoredCooldown(
            account_id=account.id, scope=cooldown.scope, failure=failure, hard=cooldown.hard, left_s=left_s
        )
        self.tell(lambda rows: rows.accounts.cool(row))

    def tell_stop(self, account: Account, failure: StoredFailure) -> None:
        """Nobody may use the account."""
        self.tell(lambda rows: rows.accounts.stop(account.id, failure))

    def tell_usage(self, usage: Usage) -> None:
        """Count an answer or a failure."""
        with self._board.lock:
            self._add(usage)


def _row(account: Account) -> StoredAccount:
    return StoredAccount(id=account.id, short_id=account.short_id, simulated=account.simulated, shared=False)
