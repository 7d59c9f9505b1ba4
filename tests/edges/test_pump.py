"""The pump on plain bytes: batches, pauses, failures, and its bounds, to the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import httpx
import pytest

from kimi_provider.errors import Overloaded, ProtocolError, UpstreamTimeout
from kimi_provider.events import Event, Finished, TextDelta, ThinkingDelta
from kimi_provider.pump import pump

from ..clock import SteppedLoop, stepped


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": SteppedLoop}


class Letters:
    """Each byte means something: lower case is text, upper case thinking, the rest see `feed`."""

    def __init__(self) -> None:
        self.content_frames = 0
        self.done = False
        self.ended = False
        self.closed = 0

    def feed(self, chunk: bytes) -> Iterable[Event]:
        for letter in chunk.decode():
            match letter:
                case "#":  # content that shows nothing
                    self.content_frames += 1
                case "~":  # a heartbeat
                    pass
                case ".":  # done; an end may follow
                    self.content_frames += 1
                    self.done = True
                case "$":  # the end
                    self.ended = True
                    return
                case "!":
                    raise Overloaded("busy")
                case "?":
                    raise LookupError("a defect")
                case _:
                    self.content_frames += 1
                    yield TextDelta(letter) if letter.islower() else ThinkingDelta(letter)

    def close(self) -> Iterable[Event]:
        self.closed += 1
        if not (self.done or self.ended):
            raise ProtocolError("too early")
        yield Finished()


class Source:
    """Chunks as a connection brings them: bytes, seconds to wait, failures; notes how it was left."""

    def __init__(self, *steps: bytes | float | Exception, close_s: float = 0) -> None:
        self.steps = steps
        self.close_s = close_s
        self.left = ""

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            for step in self.steps:
                if isinstance(step, bytes):
                    yield step
                elif isinstance(step, Exception):
                    raise step
                else:
                    await asyncio.sleep(step)
        except asyncio.CancelledError:
            await asyncio.sleep(self.close_s)
            self.left = "cancelled"
            raise

    def pumped(
        self, decoder: Letters, *, idle_s: float = 5, grace_s: float = 5, all_s: float = 5, max_bytes: int = 1 << 20
    ) -> AsyncGenerator[list[Event], None]:
        return pump(
            aiter(self),
            decoder,
            idle_timeout_s=idle_s,
            done_grace_s=grace_s,
            deadline=asyncio.get_running_loop().time() + all_s,
            max_buffer_bytes=max_bytes,
        )


def shown(batches: Iterable[list[Event]]) -> str:
    events = [event for batch in batches for event in batch]
    return "".join(event.text if isinstance(event, TextDelta | ThinkingDelta) else "|" for event in events)


async def test_all_that_is_there_is_one_batch() -> None:
    batches = [batch async for batch in Source(*[b"a"] * 500, b"BC", b"d", b"$").pumped(Letters())]
    assert batches == [[TextDelta("a" * 500), ThinkingDelta("BC"), TextDelta("d"), Finished()]]


async def test_what_comes_alone_is_shown_alone() -> None:
    got: list[tuple[str, float]] = []
    started = stepped().time()
    async for batch in Source(b"a", 0.1, b"b", 0.1, b"$").pumped(Letters()):
        got.append((shown([batch]), round(stepped().time() - started, 6)))
    assert got == [("a", 0), ("b", 0.1), ("|", 0.2)]


async def test_a_slow_reader_pauses_the_connection_and_loses_nothing() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for number in range(400):
            sent += 1000
            yield bytes([97 + number % 26]) * 1000
            await asyncio.sleep(0)
        yield b"$"

    taken, most_ahead = "", 0
    batches = pump(
        endless(),
        Letters(),
        idle_timeout_s=5,
        done_grace_s=5,
        deadline=asyncio.get_running_loop().time() + 5,
        max_buffer_bytes=10_000,
    )
    async for batch in batches:
        taken += shown([batch])
        if len(taken) < 80_000:
            await asyncio.sleep(0.03)  # time for far more than fits
        most_ahead = max(most_ahead, sent - len(taken))
    assert taken == "".join(chr(97 + number % 26) * 1000 for number in range(400)) + "|"
    assert 10_000 <= most_ahead <= 12_000


async def test_a_frame_larger_than_the_buffer_passes() -> None:
    """What a decoder still collects waits for nobody, so it must not pause the connection."""
    silent = [b"~" * 1000] * 50
    started = stepped().time()
    batches = [
        batch async for batch in Source(*silent, b"a", *silent, b"$").pumped(Letters(), idle_s=2, max_bytes=5000)
    ]
    assert shown(batches) == "a|"
    assert stepped().time() == started


@pytest.mark.parametrize(
    ("steps", "text", "error"),
    [
        ((b"ab", b"c!d", b"e$"), "abc", Overloaded),
        ((b"ab", 0.02, b"c!"), "abc", Overloaded),
        ((b"ab",), "ab", ProtocolError),
        ((), "", ProtocolError),
        ((b"ab", httpx.ReadError("reset by 10.0.0.1?key=1")), "ab", ProtocolError),
        ((b"ab", httpx.RemoteProtocolError("incomplete chunked read")), "ab", ProtocolError),
        ((b"ab", httpx.DecodingError("bad gzip")), "ab", ProtocolError),
        ((b"ab.", 0.02, b"!"), "ab", Overloaded),
        ((b"ab?",), "ab", LookupError),
    ],
)
async def test_what_was_decoded_is_shown_before_the_failure(
    steps: tuple[bytes | float | Exception, ...], text: str, error: type[Exception]
) -> None:
    batches: list[list[Event]] = []

    async def run() -> None:
        async for batch in Source(*steps).pumped(Letters()):
            batches.append(batch)
            await asyncio.sleep(0.01)

    with pytest.raises(error) as caught:
        await run()
    assert shown(batches) == text
    assert "10.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "after_s"),
    [
        ((b"ab$",), 0),
        ((b"ab", b"$more"), 0),
        ((b"ab.",), 0),
        ((b"ab.", httpx.ReadError("reset")), 0),
        ((b"ab.", 0.02, b"$"), 0.02),
        ((b"a", b"b.", 30), 0.1),
        ((b"ab.", *(b"~", 0.02) * 20), 0.1),
    ],
)
async def test_a_complete_answer_ends_well_however_the_connection_does(
    steps: tuple[bytes | float | Exception, ...], after_s: float
) -> None:
    decoder = Letters()
    started = stepped().time()
    batches = [batch async for batch in Source(*steps).pumped(decoder, grace_s=0.1)]
    assert shown(batches) == "ab|"
    assert decoder.closed == 1
    assert stepped().time() - started == pytest.approx(after_s)


@pytest.mark.parametrize(
    ("steps", "limits", "text", "says", "after_s"),
    [
        ((b"a", 30), {"idle_s": 0.1}, "a", "sent nothing for 0.1 s", 0.1),
        ((30.0,), {"idle_s": 0.1}, "", "sent nothing for 0.1 s", 0.1),
        ((b"a", *(b"~", 0.02) * 50), {"idle_s": 0.1}, "a", "sent nothing for 0.1 s", 0.1),
        ((*(b"#", 0.05) * 4, 30), {"idle_s": 0.1}, "", "sent nothing for 0.1 s", 0.25),
        ((*(b"a", 0.05) * 50,), {"all_s": 0.18}, "aaaa", "longer than the time allowed", 0.18),
        ((b"a.", 30), {"all_s": 0.1}, "a", "longer than the time allowed", 0.1),
    ],
)
async def test_silence_and_length_have_their_bounds(
    steps: tuple[bytes | float | Exception, ...], limits: dict[str, float], text: str, says: str, after_s: float
) -> None:
    source, batches = Source(*steps), list[list[Event]]()

    async def run() -> None:
        async for batch in source.pumped(Letters(), **limits):
            batches.append(batch)

    started = stepped().time()
    with pytest.raises(UpstreamTimeout, match=says):
        await run()
    assert stepped().time() - started == pytest.approx(after_s)
    assert shown(batches) == text
    assert source.left == "cancelled"


async def test_a_reader_that_takes_its_time_is_not_the_services_silence() -> None:
    texts = []
    async for batch in Source(b"a", 0.05, b"b", 0.05, b"$").pumped(Letters(), idle_s=0.08):
        texts.append(shown([batch]))
        await asyncio.sleep(0.2)
    assert "".join(texts) == "ab|"


async def test_what_came_in_time_counts_although_the_loop_was_busy() -> None:
    async def hold_up() -> None:
        await asyncio.sleep(0.01)
        stepped().hold_up(0.12)

    batches = Source(0.02, b"ab$").pumped(Letters(), idle_s=0.05)
    _, got = await asyncio.gather(hold_up(), anext(batches))
    assert shown([got]) == "ab|"
    await batches.aclose()


async def test_closing_waits_until_the_reader_has_left() -> None:
    source = Source(b"a", 30, close_s=0.02)
    batches = source.pumped(Letters())
    await anext(batches)
    await batches.aclose()
    assert source.left == "cancelled"
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "kimi-pump"]


async def test_who_is_cancelled_while_closing_stays_cancelled() -> None:
    batches = Source(b"a", 30, close_s=0.2).pumped(Letters(), idle_s=0.05)

    async def run() -> None:
        async for _ in batches:
            pass

    task = asyncio.create_task(run())
    await asyncio.sleep(0.12)  # the idle timeout is over, the reader is leaving
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.2)


async def test_a_body_that_does_not_end_with_its_answer_is_left_alone() -> None:
    source = Source(b"ab$", *(b"~", 0.01) * 1000)
    started = stepped().time()
    assert shown([batch async for batch in source.pumped(Letters())]) == "ab|"
    assert stepped().time() - started == pytest.approx(0.05)
    assert source.left == "cancelled"
