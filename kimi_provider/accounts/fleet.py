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
from ..store import Store, StoredCooldown, StoredFailure, StreamWish, Usage
from ..upstream import Upstream
from .account import Account
from .board import Board
from .cooldowns import Cooldown
from .exchange import Answer, Plan, Told, exchanged
from .ledger import IDLE_S, Ledger
from .newsroom import Newsroom

log = logging.getLogger(__name__)

#: How often one looks for news.
LOOK_S: Final = 1.0
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
        self._pid, self._owner = os.getpid(), uuid.uuid4().hex
        self._wake, self._stop = threading.Event(), threading.Event()
        self._sleeps_until = 0.0
        self._thread: threading.Thread | None = None
        self._ledger = Ledger(board, settings.kimi_max_streams)
        self._newsroom = Newsroom(board, settings, upstream)
        self._number = -1
        self._look_at = 0.0
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
            self._ledger.begin_anew()

    def look(self) -> None:
        """Exchange now, in this thread. Raises Unavailable."""
        self._exchange()

    def wish(self, wishes: dict[Account, StreamWish]) -> None:
        """Ask for streams, in place of what was wished before; under the board's lock."""
        if self._ledger.wish(wishes):
            self._wake.set()

    def is_new(self, account: Account) -> bool:
        """Whether nobody wishes for it yet; under the board's lock."""
        return not self._ledger.is_wished(account)

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
            self._ledger.note(news)
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
            return max(0.01, min(self._look_at, self._ledger.due_at(now)) - now)

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
        with self._board.lock:
            self._board.stand_alone(True)  # whoever is still there waits for no answer of the store
            told, counted = self._ledger.take_untold()
        try:
            with self._store.write() as rows:
                rows.streams(self._owner).give_back_all()
                for news in told:
                    news(rows)
                for usage in counted.values():
                    rows.usage.count(usage)
        except Unavailable:
            log.debug("kimi-provider: the account store is away; what this process held ends by itself")

    def _notify(self) -> None:
        if (changed := self._changed()) is not None:
            changed()

    # --- one exchange ---

    def _exchange(self) -> None:
        now = time.monotonic()
        look = now >= self._look_at
        with self._board.lock:
            self.begun += 1
            plan = self._ledger.plan(now, look=look, known=self._newsroom.knows)
        answer = Answer()
        if plan.writes or look:
            try:
                known = self._number if look else None
                answer = exchanged(self._store, self._owner, plan, newsroom=self._newsroom, known=known)
            except Unavailable:
                with self._board.lock:
                    self._ledger.put_back(plan)
                raise
        with self._board.lock:
            if self._board.alone:
                self._board.stand_alone(False)
            self._learn(plan, answer, look=look)
            self.ended = self.begun
            self._notify()

    def _learn(self, plan: Plan, answer: Answer, *, look: bool) -> None:
        """Take over what the store said; under the board's lock."""
        now = time.monotonic()
        for row in plan.unknown:
            self._newsroom.has_added(row.id, answer.number)
        self._ledger.enter(plan, answer, now, look=look)
        if look:
            self._look_at = now + LOOK_S
        if answer.news is not None:
            self._number = answer.news.number
            self._newsroom.learn(answer.news, untold=self._ledger.untold)

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
            self._ledger.count(usage)
