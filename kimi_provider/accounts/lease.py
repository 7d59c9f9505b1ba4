"""One running stream on an account: waited for, used, given back.

The engine holds a lease for the time of an attempt. Giving back never suspends, so that it also works while a dying
loop unwinds; a slot that must outlive the attempt is handed over and given back from wherever its work ends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import KimiError
from .account import Account
from .queueing import Queue

if TYPE_CHECKING:
    from .pool import Pool


class Lease:
    """Use it with `async with`; it may be reported on until it is left. Arguments as of `Pool.lease`."""

    def __init__(
        self,
        pool: Pool,
        queue: Queue,
        *,
        timeout_s: float,
        candidates: tuple[Account, ...],
        limit: int,
        scope: str,
        model: str,
    ) -> None:
        self._pool, self._queue = pool, queue
        self._timeout_s, self._candidates, self._limit = timeout_s, candidates, limit
        self._scope, self._model = scope, model
        self._account: Account | None = None
        self._held = False

    @property
    def account(self) -> Account:
        """The account in use."""
        if self._account is None:
            raise RuntimeError("A lease has an account only inside 'async with'.")
        return self._account

    def report(self, error: KimiError) -> None:
        """Tell what went wrong; puts the account aside when it is the account's fault."""
        self._pool.report(self.account, error, scope=self._scope, model=self._model)

    def count(self, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Tell of an answer that ended well, for the account's usage. Tokens are estimates."""
        self._pool.count(self.account, self._model, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def hand_over(self) -> Callable[[], None]:
        """Keep the slot beyond `async with`; the result gives it back, from any thread, and only once."""
        self._held = False
        slot = [self.account]

        def give_back() -> None:
            with suppress(IndexError):
                self._queue.release(slot.pop())

        return give_back

    async def __aenter__(self) -> Lease:
        """Wait for a slot. Raises as `Pool.lease`."""
        self._account = await self._queue.acquire(self._timeout_s, self._candidates, self._limit, self._scope)
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the slot back."""
        if self._held:
            self._held = False
            self._queue.release(self.account)
