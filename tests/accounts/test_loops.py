from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kimi_provider.loops import BackgroundLoop, background, joined


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    loop = BackgroundLoop("test-background")
    yield loop
    loop.close()


async def thread_name() -> str:
    return threading.current_thread().name


def test_it_starts_lazily_and_once_for_many_threads(loop: BackgroundLoop) -> None:
    before = threading.active_count()
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(lambda _: loop.run(thread_name()), range(40)))
    assert names == {"test-background"}
    assert threading.active_count() == before + 1


def test_it_does_not_wait_for_itself(loop: BackgroundLoop) -> None:
    async def nested() -> None:
        loop.run(thread_name())

    with pytest.raises(RuntimeError, match="wait for itself"):
        loop.run(nested())


def test_a_late_wait_cancels_the_work(loop: BackgroundLoop) -> None:
    ended = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        loop.run(long(), timeout_s=0.02)
    assert ended.wait(20)


def test_close_cancels_unwinds_and_allows_a_new_start(loop: BackgroundLoop) -> None:
    started, ended = threading.Event(), threading.Event()

    async def long() -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    future = loop.submit(long())
    assert started.wait(20)
    loop.close()
    assert ended.is_set()
    assert future.cancelled()
    assert loop.run(thread_name()) == "test-background"


def test_joined_leaves_the_work_alone(loop: BackgroundLoop) -> None:
    async def work() -> int:
        await asyncio.sleep(0.1)
        return 7

    future = loop.submit(work())

    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await joined(future)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert asyncio.run(joined(future)) == 7
    assert asyncio.run(joined(future)) == 7


def test_joined_raises_what_the_work_raised(loop: BackgroundLoop) -> None:
    async def work() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        asyncio.run(joined(loop.submit(work())))


def test_there_is_one_of_the_process() -> None:
    assert background() is background()
    assert background().run(thread_name()) == "kimi-background"
