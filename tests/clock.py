"""An event loop whose clock stands still while there is anything to do: a pause lasts exactly as long as it says, costs
no time, and a loaded machine changes nothing. For code that waits for nothing outside of its loop.
"""

from __future__ import annotations

import asyncio
import selectors


class _Jumping(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


class SteppedLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0; `hold_up` is what a busy loop does to everybody on it."""

    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s

    def hold_up(self, seconds: float) -> None:
        self._clock.now_s += seconds


def stepped() -> SteppedLoop:
    """The loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    return loop
