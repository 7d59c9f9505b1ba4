"""Callers that wait for an account, each woken through its own event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ..errors import KimiError
from .account import Account


@dataclass(eq=False, slots=True)
class Waiter:
    """One caller in the queue."""

    candidates: tuple[Account, ...]
    limit: int
    scope: str
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    got: Account | None = None
    failure: KimiError | None = None
    #: The fleet's answer that it needs before it may give up: the number of that exchange.
    answer_due: int = 0
    #: Callers with equal keys are interchangeable but for their order.
    key: tuple[frozenset[int], int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.key = frozenset(map(id, self.candidates)), self.limit, self.scope

    def wake(self) -> None:
        """Raises RuntimeError when the waiting loop is closed."""
        self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)
