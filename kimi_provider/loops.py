"""One private event loop in a thread of its own, for work that must outlive its caller.

The handler is called from the proxy's loop, from threads and from repeated `asyncio.run`. What may not die with any of
them (a token refresh whose answer replaces the only valid pair) and what has no loop at all (synchronous callers) runs
here. The thread starts with the first submission and ends with the process; it knows nothing of what it runs.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An event loop on a daemon thread, started on first use; safe to use from any thread."""

    def __init__(self, name: str = "kimi-background") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run `work` there. Cancelling the future cancels the work; wait with `joined` to leave it alone."""
        return asyncio.run_coroutine_threadsafe(work, self._started())

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run `work` there and block this thread for its result; an interrupted or late wait cancels the work."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("The background loop can't wait for itself; await the coroutine instead.")
        future = self.submit(work)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what runs, close the loop and wait for the thread; a later submission starts anew."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None or not thread.is_alive():
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout=5)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # A forked child inherits the object but not the thread: it needs a loop of its own.
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
                atexit.register(self.close)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def joined(future: concurrent.futures.Future[T]) -> T:
    """Wait for `future` without owning it: a cancelled caller or a dying loop leaves the work running.

    (`asyncio.wrap_future` would cancel the work with the caller.) Raises what the work raised.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def wake(_: concurrent.futures.Future[T]) -> None:
        with suppress(RuntimeError):  # the waiting loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle)

    future.add_done_callback(wake)
    await done
    return future.result()


_OF_PROCESS = BackgroundLoop()


def background() -> BackgroundLoop:
    """The one of the process."""
    return _OF_PROCESS
