"""What is measured. One function per figure: a `Bed` in, (ours, theirs) of one round out.

In each round the two sides take turns on the same proxy process. Limits are on the quotient or the difference of the
two, never on absolute times: those are the machine's.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from . import decoder, files, loop, mitm
from .load import Client
from .plan import Plan
from .processes import Gateway, UpstreamProcess, cpu_s

OURS, THEIRS = "kimi", "builtin"


class Bed:
    """The processes of a run, started when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._upstream: UpstreamProcess | None = None
        self._gateway: Gateway | None = None
        self._pid = 0
        self._service: files.Service | None = None
        self._proxies: mitm.Proxies | None = None
        self.curves: loop.Curves | None = None

    @property
    def upstream(self) -> UpstreamProcess:
        if self._upstream is None:
            self._upstream = UpstreamProcess(self._folder)
        return self._upstream

    async def gateway(self) -> Gateway:
        """The proxy with both providers, warmed up."""
        if self._gateway is None:
            self._gateway = Gateway(self._folder, self.upstream)
            self._gateway.wait_until_alive()
            self._pid = self._gateway.pid()
            for model in (OURS, THEIRS):
                async with _clients(self._gateway.port, 8) as clients:
                    for _ in range(5):
                        await asyncio.gather(*(c.stream(model, Plan(tokens=20)) for c in clients))
                        await asyncio.gather(*(c.whole(model, Plan(tokens=20)) for c in clients))
            await self.settled()
        return self._gateway

    def cpu_s(self) -> float:
        """CPU time of the proxy so far."""
        return cpu_s(self._pid)

    def start_s(self, *, bare: bool) -> float:
        """Seconds until a proxy of its own answers; it is stopped again."""
        with Gateway(self._folder, self.upstream, bare=bare) as gateway:
            return gateway.wait_until_alive()

    async def settled(self, *, quiet_s: float = 0.5) -> None:
        """Wait until every chat that was opened is deleted, and a moment for what logs after an answer."""
        await self.deletions()
        await asyncio.sleep(quiet_s)

    async def deletions(self) -> None:
        """Wait until every chat that was opened is deleted."""
        async with _clients(self.upstream.port, 1) as (client,):
            for _ in range(2000):
                state = await client.state()
                if state["deleted"] >= state["chats"]:
                    return
                await asyncio.sleep(0.005)
        raise RuntimeError(f"chats were left behind: {state}")

    def service(self) -> files.Service:
        """The simulator, for what the upstream does not do."""
        self._service = self._service or files.Service(self._folder)
        return self._service

    async def uploads(self) -> loop.Curves:
        """What each turn of an agent's loop uploads."""
        self.curves = await asyncio.to_thread(loop.measured, self._folder, self.service())
        return self.curves

    async def proxies(self) -> mitm.Proxies:
        """mitmdump with the redirector and with the least that does its work, warmed up."""
        if self._proxies is None:
            self._proxies = mitm.Proxies(self._folder)
            await self._proxies.warmed_up()
        return self._proxies

    async def peak_memory_mb(self) -> Pair:
        """Of fresh proxies, after one request with a large file."""
        return await files.peak_memory_mb(self._folder, self.service)

    def stop(self) -> None:
        for child in (self._gateway, self._upstream, self._service, self._proxies):
            if child is not None:
                child.stop()


Pair = tuple[float, float]


@asynccontextmanager
async def _clients(port: int, count: int) -> AsyncIterator[list[Client]]:
    clients = [await Client.connect(port) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def _in_turn(one: Callable[[str], Awaitable[float]]) -> Pair:
    return await one(OURS), await one(THEIRS)


async def _in_both_orders(one: Callable[[str], Awaitable[float]], *, times: int = 1) -> Pair:
    """Means: what the machine and the collector cost comes in lumps, on either side."""
    seen: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for _ in range(times):
        for model in (OURS, THEIRS, THEIRS, OURS):
            seen[model].append(await one(model))
    return statistics.mean(seen[OURS]), statistics.mean(seen[THEIRS])


async def first_token(bed: Bed) -> Pair:
    """Milliseconds; the median of 30 short streams, one at a time."""
    port = (await bed.gateway()).port

    async def one(model: str) -> float:
        seen = []
        async with _clients(port, 1) as (client,):
            for _ in range(30):
                seen.append((await client.stream(model, Plan(tokens=5))).first_s)
                # What either side tidies up or logs behind an answer belongs to that answer.
                await asyncio.sleep(0.03)
        await bed.settled()
        return statistics.median(seen) * 1e3

    return await _in_turn(one)


async def throughput(bed: Bed) -> Pair:
    """Tokens a second, 16 streams at once."""
    port, plan = (await bed.gateway()).port, Plan(tokens=1000)

    async def one(model: str) -> float:
        async with _clients(port, 16) as clients:
            began = time.perf_counter()
            answers = await asyncio.gather(*(client.stream(model, plan) for client in clients))
            # The clients compare texts when each is done; only the answers' own time counts.
            whole_s = max(answer.whole_s for answer in answers)
            assert time.perf_counter() - began >= whole_s
        await bed.settled()
        return plan.tokens * len(answers) / whole_s

    return await _in_turn(one)


async def cpu(bed: Bed) -> Pair:
    """Milliseconds of the proxy's CPU for an answer, 20 streams of 200 tokens at 50 a second, deletion included."""
    port, plan = (await bed.gateway()).port, Plan(tokens=200, rate=50)

    async def one(model: str) -> float:
        async with _clients(port, 20) as clients:
            before = bed.cpu_s()
            await asyncio.gather(*(client.stream(model, plan) for client in clients))
            await bed.settled()
            return (bed.cpu_s() - before) * 1e3 / len(clients)

    return await _in_both_orders(one)


async def requests(bed: Bed) -> Pair:
    """Plain answers a second, 32 clients; the clock stops when the last chat is deleted, too.

    They begin 6 ms apart. When all begin at once, their answers stay in step to the end or do not, by chance, and in
    step the proxy needs a quarter less time.
    """
    port, plan, each, apart_s = (await bed.gateway()).port, Plan(tokens=20), 8, 0.006

    async def one(model: str) -> float:
        async def client_of(place: int, client: Client) -> None:
            await asyncio.sleep(place * apart_s)
            for _ in range(each):
                await client.whole(model, plan)

        async with _clients(port, 32) as clients:
            began = time.perf_counter()
            await asyncio.gather(*(client_of(*found) for found in enumerate(clients)))
            await bed.deletions()
            took_s = time.perf_counter() - began
        await bed.settled()
        return len(clients) * each / took_s

    return await _in_both_orders(one, times=2)


async def decoder_plain(bed: Bed) -> Pair:
    """Microseconds a frame, a text answer of 5000 frames."""
    return decoder.measure(decoder.plain())


async def decoder_mixed(bed: Bed) -> Pair:
    """Microseconds a frame, 5000 frames of every kind."""
    return decoder.measure(decoder.mixed())


async def start(bed: Bed) -> Pair:
    """Seconds from the command to the first answer of /health/liveliness."""
    return bed.start_s(bare=False), bed.start_s(bare=True)


async def memory(bed: Bed) -> Pair:
    """Megabytes; theirs is a provider that does nothing with the file."""
    return await bed.peak_memory_mb()


async def connect_trips(bed: Bed) -> Pair:
    """Requests before the first byte; an API of one call is the least there can be."""
    return await files.round_trips("connect"), 1.0


async def rest_trips(bed: Bed) -> Pair:
    """The same for the older protocol, which opens a chat first."""
    return await files.round_trips("rest"), 1.0


async def upload(bed: Bed) -> Pair:
    """Kilobytes of the last turn; theirs is ours with the whole history in each message."""
    curves = await bed.uploads()
    return curves.continuing[-1] / 1024, curves.flattening[-1] / 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """`limit` is on ours / theirs, or with `difference` on ours - theirs; `at_least` says on which side.

    `rounds`: more of them tell nothing new.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Bed], Awaitable[Pair]]
    limit: float
    at_least: bool = False
    difference: bool = False
    rounds: int | None = None

    def compared(self, pair: Pair) -> float:
        """The number that the limit is for."""
        ours, theirs = pair
        return ours - theirs if self.difference else ours / theirs

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def shown_limit(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} +{self.limit:g} {self.unit}" if self.difference else f"{sign} {self.limit:g}"


FIGURES = (
    Figure(name="ttft", title="time to first token, 1 stream", unit="ms", measure=first_token, limit=1.1),
    Figure(
        name="throughput", title="tokens/s, 16 streams flat out", unit="/s", measure=throughput, limit=8, at_least=True
    ),
    Figure(name="cpu", title="CPU per answer, 20 x 50 tokens/s", unit="ms", measure=cpu, limit=0.9),
    Figure(
        name="requests", title="plain requests/s, 32 clients", unit="/s", measure=requests, limit=0.9, at_least=True
    ),
    Figure(name="decoder", title="decoder per frame, text", unit="us", measure=decoder_plain, limit=3),
    Figure(name="decoder-mixed", title="decoder per frame, mixed", unit="us", measure=decoder_mixed, limit=5),
    Figure(name="start", title="start to first answer", unit="s", measure=start, limit=2, difference=True),
    Figure(name="memory", title="peak RSS, 50 MB file", unit="MB", measure=memory, limit=15, difference=True, rounds=3),
    Figure(name="trips-connect", title="round trips, Connect", unit="", measure=connect_trips, limit=1, rounds=1),
    Figure(name="trips-rest", title="round trips, REST", unit="", measure=rest_trips, limit=2, rounds=1),
    Figure(name="upload", title="upload at turn 30", unit="KB", measure=upload, limit=0.1, rounds=1),
    Figure(name="mitm-ttft", title="redirector: first event", unit="ms", measure=mitm.first_token, limit=1.1),
    Figure(name="mitm-delay", title="redirector: delay of an event", unit="ms", measure=mitm.chunk_delay, limit=1.1),
    Figure(
        name="mitm-requests",
        title="redirector: requests/s, 16 clients",
        unit="/s",
        measure=mitm.requests,
        limit=0.9,
        at_least=True,
    ),
    Figure(name="mitm-memory", title="redirector: growth for 30 MB", unit="MB", measure=mitm.memory, limit=3, rounds=2),
)
