"""The queue for streams: first come, first served, and never more on one account than it may run.

A caller waits for its turn in order; later callers never overtake one that waits for the same account. Equal accounts
take turns. What is not in hand is wished from the fleet, whose answer starts the queue again. Callers on any event loop
may wait; the board's lock guards it all.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .. import metrics
from ..errors import KimiError, TooManyStreams, Unavailable, again
from ..store import StreamWish
from ..upstream import Retry
from .account import Account
from .board import Board, Load
from .fleet import Fleet
from .waiting import Waiter

#: How long a caller whose own time is up waits for what the account store says about a free slot.
_STORE_PATIENCE_S: Final = 12
_STORE_PAUSE_S: Final = 0.02


class Queue:
    """Hands streams to callers. `clock` is monotonic seconds; `fleet` may be set once before the first caller."""

    def __init__(self, board: Board, retry: Retry, clock: Callable[[], float]) -> None:
        self._board, self._retry, self._clock = board, retry, clock
        self._lock = board.lock
        self.fleet: Fleet | None = None
        #: In order of arrival; a dict for its cheap removal.
        self._waiters: dict[Waiter, None] = {}
        self._turns = 0

    async def acquire(self, timeout_s: float, candidates: tuple[Account, ...], limit: int, scope: str) -> Account:
        """A slot on one of `candidates`. Raises as `Pool.lease`."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(candidates, limit, scope, loop, loop.create_future())
        deadline = self._clock() + timeout_s
        if self.fleet is not None:
            self.fleet.start()
        try:
            with self._lock:
                self._waiters[waiter] = None
                metrics.calls("waiting", 1)
                self.dispatch()
            while waiter.got is None and waiter.failure is None:
                now = self._clock()
                # Looking into the store is no waiting for others: a caller that may not wait still learns the answer.
                late = now >= deadline
                if late and not (now < deadline + _STORE_PATIENCE_S and self._answer_due(waiter)):
                    break
                # A cool-down that ends sends no message: look again then.
                change = self._next_change(waiter, now)
                pause_s = _STORE_PAUSE_S if late else (deadline if change is None else min(deadline, change)) - now
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await waiter.turn
                    break
                waiter.turn = loop.create_future() if waiter.turn.cancelled() else waiter.turn
                if not late:
                    with self._lock:
                        self.dispatch()
            with self._lock:
                got, failure = waiter.got, waiter.failure
                if got is not None:
                    waiter.got = None  # now the lease's
                    return got
        finally:
            self._leave(waiter)
        if failure is not None:
            raise failure
        raise self._queue_full(candidates, limit, timeout_s)

    def release(self, account: Account) -> None:
        """Give a slot back."""
        with self._lock:
            self._drop(account)
            self.dispatch()

    def dispatch(self) -> None:
        """Serve the queue in order. An account that somebody waits for is not given to a later caller."""
        with self._lock:
            reserved: set[Account] = set()
            passed: set[tuple[frozenset[int], int, str]] = set()
            planned: Counter[Account] = Counter()
            wishes: dict[Account, StreamWish] = {}
            for waiter in tuple(self._waiters):
                if waiter.key in passed or waiter not in self._waiters:
                    continue
                choice = self.choose(waiter.candidates, waiter.limit, waiter.scope, reserved, planned)
                if isinstance(choice, tuple):
                    reserved.update(choice)
                    passed.add(waiter.key)
                    for account in choice:
                        self._wish(waiter, account, planned[account], wishes)
                elif isinstance(choice, Account) and not self._in_hand(choice, waiter, planned):
                    self._wish(waiter, choice, planned[choice], wishes)
                    planned[choice] += 1
                else:
                    self._settle(waiter, choice)
            if self.fleet is not None:
                self.fleet.wish(wishes)

    def choose(
        self,
        candidates: tuple[Account, ...],
        limit: int,
        scope: str,
        reserved: set[Account],
        planned: Counter[Account],
    ) -> Account | KimiError | tuple[Account, ...]:
        """An account with a free slot, the error when there can be none, or the accounts to wait for."""
        board, now = self._board, self._clock()
        living = board.usable(candidates)
        if not living:
            why = board.why_unusable(candidates)
            return again(why) if why is not None else Unavailable("Every account has been tried")
        states = [(account, board.cooling(account, scope, now)) for account in living]
        open_ = [(account, state) for account, state in states if state is None or not state.hard]
        if not open_:
            return min((state for _, state in states if state), key=lambda state: state.until).remaining(now)
        free = [
            (
                state is not None,
                (load := board.load(account)).running + load.elsewhere + planned[account],
                state.until if state else 0.0,
                load.last_used,
                at,
            )
            for at, (account, state) in enumerate(open_)
            if account not in reserved and board.load(account).has_room(_limit_of(account, limit), planned[account])
        ]
        return open_[min(free)[-1]][0] if free else tuple(account for account, _ in open_)

    # --- under the board's lock ---

    def _in_hand(self, account: Account, waiter: Waiter, planned: Counter[Account]) -> bool:
        return self._board.load(account).in_hand(_limit_of(account, waiter.limit), planned[account])

    def _wish(self, waiter: Waiter, account: Account, planned: int, wishes: dict[Account, StreamWish]) -> None:
        """Ask the fleet for one more stream, unless all that there can be run here."""
        load, limit = self._board.load(account), _limit_of(account, waiter.limit)
        held = load.running + planned + 1
        if self.fleet is None or load.alone or held > limit:
            return
        if waiter.answer_due == 0 or self.fleet.is_new(account):
            waiter.answer_due = self.fleet.begun + 1
        if account in wishes:  # of somebody before: more of the same, under the stricter of both limits
            before = wishes[account]
            held, limit = max(held, before.held), min(limit, before.limit)
        wishes[account] = StreamWish(account_id=account.id, held=min(held, limit), limit=limit)

    def _settle(self, waiter: Waiter, outcome: Account | KimiError) -> None:
        del self._waiters[waiter]
        if isinstance(outcome, Account):
            waiter.got = outcome
            self._take(self._board.load(outcome))
        else:
            waiter.failure = outcome
        try:
            waiter.wake()
        except RuntimeError:  # its loop was closed without unwinding it: the slot goes to the next
            if waiter.got is not None:
                self._drop(waiter.got)
                waiter.got = None  # or a late unwinding would give it back twice

    def _take(self, load: Load) -> None:
        self._turns += 1
        load.running += 1
        metrics.calls("running", 1)
        load.last_used = self._turns

    def _drop(self, account: Account) -> None:
        load = self._board.load(account)
        load.running -= 1
        metrics.calls("running", -1)
        load.idle_since = time.monotonic()
        if self.fleet is None:
            return
        yielded = load.others_waiting > 0 and load.held > load.running
        if yielded:  # first come, first served holds for processes, too
            load.held -= 1
            load.others_waiting -= 1
        self.fleet.gave_up(at_once=yielded)

    def _leave(self, waiter: Waiter) -> None:
        """The caller waits no more and takes nothing."""
        metrics.calls("waiting", -1)
        with self._lock:
            waiting = waiter in self._waiters
            self._waiters.pop(waiter, None)
            if waiter.got is not None:
                self._drop(waiter.got)
            if waiting or waiter.got is not None:
                waiter.got = None
                self.dispatch()

    def _next_change(self, waiter: Waiter, now: float) -> float | None:
        """When the soonest cool-down among the candidates ends (our clock)."""
        with self._lock:
            states = [self._board.cooling(account, waiter.scope, now) for account in waiter.candidates]
        return min((state.until for state in states if state is not None), default=None)

    def _answer_due(self, waiter: Waiter) -> bool:
        with self._lock:
            return self.fleet is not None and self.fleet.ended < waiter.answer_due

    def _queue_full(self, candidates: tuple[Account, ...], limit: int, timeout_s: float) -> TooManyStreams:
        with self._lock:
            loads = [self._board.load(account) for account in candidates]
            running = sum(load.running + load.elsewhere for load in loads)
        accounts = "the account" if len(candidates) == 1 else f"{len(candidates)} accounts"
        return TooManyStreams(
            f"{running} answers are running on {accounts} (at most {limit} each) and none ended within {timeout_s:g} s",
            account=candidates[0].short_id if len(candidates) == 1 else None,
            retry_after_s=self._retry.concurrency_s,
        )


def _limit_of(account: Account, limit: int) -> int:
    """Streams that `account` may run: the one generation that an old refresh token opens refuses a second (protocol
    E.7).
    """
    return 1 if account.opaque else limit
