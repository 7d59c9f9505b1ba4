"""Two gateways on two machines, as far as one machine can play both: real `serve` processes on one PostgreSQL."""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from tests.cli.running import family
from tests.harness import Gateway, Simulator
from tests.postgres import Postgres

ASK = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}]}
MAX_STREAMS = 2


#: What stands in for LiteLLM's own tables, which its migrations drop and make anew.
LITELLM = (
    'CREATE TABLE "LiteLLM_VerificationToken" (token text PRIMARY KEY, spend float)',
    'CREATE TABLE "LiteLLM_SpendLogs" (request_id text PRIMARY KEY, "startTime" timestamp)',
    "CREATE TABLE _prisma_migrations (id text PRIMARY KEY, checksum text)",
)


@pytest.fixture(scope="module")
def state_url(postgres: Postgres) -> str:
    """One database for us and for LiteLLM."""
    url = postgres.database()
    with psycopg.connect(url) as connection:
        for statement in LITELLM:
            connection.execute(statement)
    return url


@pytest.fixture(scope="module")
def gateways(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator, state_url: str
) -> Iterator[list[Gateway]]:
    simulator_process.reset()
    token, key = simulator_process.login("ada")["refresh_token"], base64.b64encode(os.urandom(32)).decode()
    started: list[Gateway] = []
    try:
        for name in ("one", "other"):
            gateway = Gateway(
                tmp_path_factory.mktemp(name),
                simulator_process.url,
                token,
                KIMI_STATE_URL=state_url,
                KIMI_SECRET_KEY=key,
                KIMI_MAX_STREAMS=str(MAX_STREAMS),
                KIMI_QUEUE_TIMEOUT_S="200",
            )
            gateway.http.timeout = httpx.Timeout(250)
            started.append(gateway)
        yield started
    finally:
        for gateway in started:
            gateway.stop()


@pytest.fixture(autouse=True)
def service(simulator: Simulator, gateways: list[Gateway]) -> Iterator[None]:
    """It counts streams and refuses none."""
    simulator.control("settings", max_streams=400)
    yield
    simulator.control("settings", max_streams=2)


def ask(gateway: Gateway) -> int:
    return gateway.http.post("/v1/chat/completions", json=ASK).status_code


@pytest.mark.timeout(300)
def test_both_together_never_run_more_streams_than_one_may(gateways: list[Gateway], simulator: Simulator) -> None:
    simulator.control("settings", pace=0.1)
    with ThreadPoolExecutor(20) as callers:
        found = list(callers.map(lambda number: ask(gateways[number % 2]), range(20)))
    assert found == [200] * 20
    assert simulator.state()["peak_streams"] == MAX_STREAMS


@pytest.mark.timeout(300)
def test_no_account_is_lost_when_all_tables_beside_ours_are_dropped_and_made_anew(
    gateways: list[Gateway], state_url: str
) -> None:
    with psycopg.connect(state_url) as connection:
        in_public = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert connection.execute(in_public).fetchone() == (2 * len(LITELLM),)  # each with its key, and nothing of ours
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in tables:
            connection.execute(f'DROP TABLE public."{name}" CASCADE')
        for statement in LITELLM:
            connection.execute(statement)
    for gateway in gateways:
        (ada,) = gateway.http.get("/kimi/api/accounts").json()["accounts"]
        assert (ada["state"], ask(gateway)) == ("ok", 200)


@pytest.mark.timeout(300)
def test_an_account_added_on_one_serves_on_the_other(gateways: list[Gateway], simulator: Simulator) -> None:
    one, other = gateways
    (ada,) = one.http.get("/kimi/api/accounts").json()["accounts"]
    assert ask(other) == 200
    given = {"credential": simulator.login("bob")["refresh_token"]}
    assert one.http.post("/kimi/api/accounts", json=given).status_code == 201
    assert one.http.post(f"/kimi/api/accounts/{ada['id']}/disable").json()["state"] == "paused"
    callers_before = callers(simulator)
    give_up_at = time.monotonic() + 60
    while callers(simulator) <= callers_before:  # it asks at least once, with whatever account it has
        assert time.monotonic() < give_up_at
        assert ask(other) in (200, 403)
    assert ask(other) == 200
    assert one.http.post(f"/kimi/api/accounts/{ada['id']}/enable").json()["state"] == "ok"


def callers(simulator: Simulator) -> set[str]:
    """Access tokens that chat calls came with."""
    return {
        one["headers"]["authorization"]
        for one in simulator.state()["requests"]
        if one["path"].endswith("ChatService/Chat")
    }


@pytest.mark.timeout(300)
def test_streams_of_a_gateway_that_is_killed_are_free_after_45_s(
    gateways: list[Gateway], simulator: Simulator, state_url: str
) -> None:
    one, other = gateways
    for account in one.http.get("/kimi/api/accounts").json()["accounts"][1:]:
        one.http.delete(f"/kimi/api/accounts/{account['id']}")
    simulator.scenario("hang_mid_text", times=MAX_STREAMS)
    with ThreadPoolExecutor(MAX_STREAMS + 1) as threads:
        lost = [threads.submit(ask, one) for _ in range(MAX_STREAMS)]
        simulator.until("active_streams", MAX_STREAMS, 60)
        for pid in family(one.child.pid):
            os.kill(pid, signal.SIGKILL)
        for call in lost:
            with pytest.raises(httpx.TransportError):
                call.result()
        with psycopg.connect(state_url) as connection:
            left = "SELECT sum(held), max(expires_at) - extract(epoch FROM clock_timestamp()) FROM kimi.streams"
            held, left_s = connection.execute(left).fetchone() or (0, 0)
        assert held == MAX_STREAMS
        assert left_s <= 45
        assert ask(other) == 200  # as soon as they are over
    assert simulator.state()["peak_streams"] == MAX_STREAMS
