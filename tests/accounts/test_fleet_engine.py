"""Engines in processes of their own on one account store, in front of one simulated service that counts."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import update

from kimi_provider.engine import KimiEngine
from kimi_provider.errors import Unavailable
from kimi_provider.events import TextDelta
from kimi_provider.request import ChatRequest, Message, TextPart
from kimi_provider.store import open_store, tables
from kimi_provider.upstream import Upstream
from tests.harness import ROOT, Simulator, clean_environment, quick_overlay
from tests.postgres import Postgres

from .fakes import settings_for

KEY = base64.b64encode(bytes(range(32))).decode()

WORKER = """
import asyncio, json, os, sys
from kimi_provider.engine import KimiEngine
from kimi_provider.events import TextDelta
from kimi_provider.request import ChatRequest, Message, TextPart

async def call(engine):
    request = ChatRequest(model="kimi", messages=(Message(role="user", parts=(TextPart(text="Hi"),)),))
    return "".join([event.text async for event in engine.chat(request) if isinstance(event, TextDelta)])

async def main():
    engine = KimiEngine.from_environment()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    found = await asyncio.gather(*(call(engine) for _ in range(int(os.environ["CALLS"]))), return_exceptions=True)
    failed = [repr(one) for one in found if isinstance(one, BaseException)]
    print(json.dumps({"answers": sum(bool(one) for one in found) - len(failed), "failed": failed}), flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


@dataclass
class Worker:
    """An engine in a process of its own."""

    child: subprocess.Popen[str]

    @classmethod
    def start(cls, environment: dict[str, str], script: str = WORKER) -> Worker:
        return cls(
            subprocess.Popen(
                [sys.executable, "-c", script],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def read(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline()

    def go_on(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()


def fleet_environment(simulator: Simulator, state_url: str, tmp: Path, token: str, **more: str) -> dict[str, str]:
    return clean_environment(
        tmp,
        KIMI_STATE_URL=state_url,
        KIMI_BASE_URL=simulator.url,
        KIMI_AUTH_URL=simulator.url,
        KIMI_SECRET_KEY=KEY,
        KIMI_TOKEN=token,
        KIMI_QUEUE_TIMEOUT_S="200",
        KIMI_UPSTREAM_FILE=str(quick_overlay(tmp)),
        **more,
    )


@contextmanager
def workers(count: int, environment: dict[str, str]) -> Iterator[list[Worker]]:
    """Engines that all begin at the same moment."""
    started = [Worker.start(environment) for _ in range(count)]
    try:
        assert [worker.read() for worker in started] == ["ready\n"] * count
        for worker in started:
            worker.go_on()
        yield started
    finally:
        for worker in started:
            worker.end()


@pytest.fixture(autouse=True)
def service(simulator: Simulator) -> Iterator[None]:
    """It counts streams and refuses none; a refresh token that is used twice ends its session."""
    simulator.control("settings", pace=0, max_streams=400, reuse_kills_session=True)
    yield
    simulator.control("settings", max_streams=2, reuse_kills_session=False)


@pytest.mark.timeout(300)
def test_8_processes_with_25_calls_each_on_an_expired_token_refresh_once(
    simulator: Simulator, state_url: str, tmp_path: Path
) -> None:
    pair = simulator.login("ada", expires_in=-5)
    environment = fleet_environment(
        simulator,
        state_url,
        tmp_path,
        f"{pair['access_token']} {pair['refresh_token']}",
        KIMI_MAX_STREAMS="100",
        CALLS="25",
    )
    with workers(8, environment) as started:
        found = [json.loads(worker.read()) for worker in started]
        assert found == [{"answers": 25, "failed": []}] * 8
        assert simulator.state()["refreshes"] == 1


@pytest.mark.timeout(300)
def test_two_engines_never_run_more_streams_than_the_limit(
    simulator: Simulator, state_url: str, tmp_path: Path
) -> None:
    simulator.control("settings", pace=0.05)
    environment = fleet_environment(simulator, state_url, tmp_path, simulator.login("ada")["refresh_token"], CALLS="15")
    with workers(2, environment) as started:
        found = [json.loads(worker.read()) for worker in started]
    assert found == [{"answers": 15, "failed": []}] * 2
    assert simulator.state()["peak_streams"] == 2


@pytest.mark.timeout(300)
def test_streams_of_an_engine_that_is_killed_are_free_after_45_s(
    simulator: Simulator, state_url: str, tmp_path: Path
) -> None:
    store = open_store(settings_for(kimi_state_url=state_url, kimi_secret_key=KEY))
    assert store is not None
    token = simulator.login("ada")["refresh_token"]
    simulator.scenario("hang_mid_text", times=2)
    with workers(1, fleet_environment(simulator, state_url, tmp_path, token, CALLS="2")) as (doomed,):
        simulator.until("active_streams", 2, 60)
        doomed.child.send_signal(signal.SIGKILL)
        doomed.child.wait()
    with store.write() as rows:
        left = rows._connection.execute(tables.streams.select()).one()
        assert left.held == 2
        assert left.expires_at - rows.now <= 45
        # As if they were over.
        rows._connection.execute(update(tables.streams).values(expires_at=rows.now))
    with workers(1, fleet_environment(simulator, state_url, tmp_path, token, CALLS="2")) as (other,):
        assert json.loads(other.read()) == {"answers": 2, "failed": []}
    store.close()


@pytest.mark.timeout(300)
def test_calls_go_on_while_the_database_is_away_and_nothing_rotates(simulator: Simulator, tmp_path: Path) -> None:
    own = Postgres()
    try:
        pair = simulator.login("ada")
        settings = settings_for(
            simulator.url,
            kimi_state_url=own.database(),
            kimi_secret_key=KEY,
            kimi_token=f"{pair['access_token']} {pair['refresh_token']}",
        )
        asyncio.run(_through_an_outage(KimiEngine(settings, Upstream.load(quick_overlay(tmp_path))), own, simulator))
    finally:
        own.close()


async def _through_an_outage(engine: KimiEngine, database: Postgres, simulator: Simulator) -> None:
    async def ask() -> str:
        request = ChatRequest(model="kimi", messages=(Message(role="user", parts=(TextPart(text="Hi"),)),))
        return "".join([event.text async for event in engine.chat(request) if isinstance(event, TextDelta)])

    assert await ask()
    await asyncio.to_thread(database.server.stop)
    assert all(await asyncio.gather(*(ask() for _ in range(5))))
    simulator.control("revoke", user="ada", what="access")  # now only a refresh would help
    with pytest.raises(Unavailable, match="account store PostgreSQL"):
        await ask()
    assert simulator.state()["refreshes"] == 0
    await asyncio.to_thread(database.server.start)
    async with asyncio.timeout(120):
        while True:
            with suppress(Unavailable):
                assert await ask()
                break
            await asyncio.sleep(0.2)
    assert simulator.state()["refreshes"] == 1
    await engine.close()
    store = open_store(engine.settings)
    assert store is not None
    with store.read() as rows:
        assert sum(usage.answers for usage in rows.usage.since(1)) == 7, "those of the outage are counted, too"
        assert rows.streams("").counts() == []
    store.close()
