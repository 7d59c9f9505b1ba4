"""Streams are streams: the first half is there while the service still pauses, and a client that leaves frees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.gateway.test_failures import ASK, BODIES
from tests.harness import MASTER_KEY, Gateway, Simulator

PAUSE_S = 2.0


@contextmanager
def streaming(gateway: Gateway, surface: str) -> Iterator[httpx.Response]:
    path, body = BODIES[surface]
    with (
        httpx.Client(headers={"authorization": f"Bearer {MASTER_KEY}"}, trust_env=False, timeout=30) as client,
        client.stream("POST", gateway.url + path, json={"model": "kimi", "stream": True, **body}) as answer,
    ):
        yield answer


@pytest.mark.parametrize("surface", BODIES)
def test_the_first_half_is_there_during_the_pause(gateway: Gateway, simulator: Simulator, surface: str) -> None:
    simulator.scenario("slow", pause_s=PAUSE_S)
    with streaming(gateway, surface) as answer:
        seen = ""
        pieces = answer.iter_text()
        while "Before the pause" not in seen:
            seen += next(pieces)
        half_at = time.monotonic()
        assert simulator.state()["active_streams"] == 1
        rest = "".join(pieces)
        assert time.monotonic() - half_at > PAUSE_S / 2
    assert "after the pause" in rest


@pytest.mark.parametrize("surface", BODIES)
def test_leaving_in_mid_stream_frees_the_stream(gateway: Gateway, simulator: Simulator, surface: str) -> None:
    # Several times: some adapters of LiteLLM drop a stream without closing it, depending on the moment.
    times = 6
    for _ in range(times):
        simulator.scenario("hang_mid_text")
        with streaming(gateway, surface) as answer:
            assert answer.status_code == 200
            pieces = answer.iter_bytes()  # kept: httpx closes the connection when its iterator is dropped
            next(pieces)
            assert simulator.state()["active_streams"] == 1
        assert simulator.until("active_streams", 0, timeout_s=1) < 1
    # Nothing stays behind: the generations are cancelled and our chats removed.
    simulator.until("chats", [], timeout_s=5)
    assert len(simulator.state()["cancelled"]) == times


@pytest.mark.parametrize("scenario", ["hang_before_headers", "hang_before_first_frame", "heartbeats_only"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", BODIES)
def test_leaving_before_the_first_event_frees_the_stream(
    gateway: Gateway, simulator: Simulator, surface: str, stream: bool, scenario: str
) -> None:
    simulator.scenario(scenario)
    path, body = BODIES[surface]
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post(path, json={"model": "kimi", "stream": stream, **body}, timeout=httpx.Timeout(5, read=0.7))
    assert simulator.until("active_streams", 0, timeout_s=1) < 1
    assert simulator.state()["total_streams"] == 1


@pytest.mark.parametrize("surface", BODIES)
def test_leaving_a_whole_answer_frees_the_stream(gateway: Gateway, simulator: Simulator, surface: str) -> None:
    simulator.scenario("hang_mid_text")
    path, body = BODIES[surface]
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post(path, json={"model": "kimi", **body}, timeout=httpx.Timeout(5, read=0.7))
    assert simulator.until("active_streams", 0, timeout_s=1) < 1


def test_calls_at_the_stream_limit_wait_in_order(gateway: Gateway, simulator: Simulator) -> None:
    """Two streams run on the one account (KIMI_MAX_STREAMS); the third starts when one ends."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> tuple[int, float]:
        body = {"model": "kimi", "messages": [{"role": "user", "content": f"[[scenario:slow pause_s=0.5]] {number}"}]}
        assert gateway.http.post("/v1/chat/completions", json=body).status_code == 200
        return number, time.monotonic()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))
    state = simulator.state()
    assert state["peak_streams"] == 2
    assert state["total_streams"] == 4


def test_a_client_that_leaves_the_queue_takes_no_slot(gateway: Gateway, simulator: Simulator) -> None:
    simulator.scenario("hang_mid_text", times=2)
    with streaming(gateway, "chat") as one, streaming(gateway, "chat") as two:
        assert (one.status_code, two.status_code) == (200, 200)
        with pytest.raises(httpx.ReadTimeout):
            gateway.http.post("/v1/chat/completions", json={"model": "kimi", "messages": ASK}, timeout=0.5)
    simulator.until("active_streams", 0, timeout_s=1)
    assert gateway.http.post("/v1/chat/completions", json={"model": "kimi", "messages": ASK}).status_code == 200
