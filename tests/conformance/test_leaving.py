"""A client that leaves frees the service's stream, whenever it leaves; waiting callers keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from typing import Any

import pytest

from .surfaces import Answer, Surface, ask, asking
from .world import World


async def hang_up_when_it_runs(world: World, call: Coroutine[Any, Any, Answer]) -> None:
    """Leave as soon as the service has the call, and wait until the service notices."""
    before = world.state["total_streams"]
    caller = asyncio.create_task(call)
    await world.until(lambda state: state["active_streams"] == 1)
    caller.cancel()
    with suppress(asyncio.CancelledError):
        await caller
    assert caller.cancelled()
    state = await world.until(lambda state: state["active_streams"] == 0)
    assert state["total_streams"] - before == 1


@pytest.mark.parametrize("scenario", ["hang_before_headers", "hang_before_first_frame", "heartbeats_only"])
async def test_leaving_before_the_first_event(world: World, surface: Surface, stream: bool, scenario: str) -> None:
    world.play(scenario)
    await hang_up_when_it_runs(world, ask(surface, asking(), stream=stream))


async def test_leaving_a_whole_answer(world: World, surface: Surface) -> None:
    world.play("hang_mid_text")
    await hang_up_when_it_runs(world, ask(surface, asking(), stream=False))


async def test_leaving_in_mid_stream(world: World, surface: Surface) -> None:
    # Several times: some adapters of LiteLLM drop a stream without closing it, depending on the moment.
    cancelled = len(world.state["cancelled"])
    for _ in range(times := 4):
        world.play("hang_mid_text")
        answer = Answer()
        async with aclosing(surface.pieces(asking())) as pieces:
            while not answer.text:
                answer += await anext(pieces)
            assert world.state["active_streams"] == 1
        await world.until(lambda state: state["active_streams"] == 0)
    if world.protocol == "connect":  # the other has no such call
        await world.until(lambda state: len(state["cancelled"]) - cancelled == times)


async def test_calls_at_the_stream_limit_wait_for_each_other(world: World, surface: Surface, stream: bool) -> None:
    """One more than may run: the last starts when another ends."""
    world.play("slow", times=None, pause_s=600)
    before = world.state["total_streams"]
    asked = [asyncio.create_task(ask(surface, asking(), stream=stream)) for _ in range(world.max_streams + 1)]
    await world.until(lambda state: state["active_streams"] == world.max_streams)
    assert world.state["total_streams"] - before == world.max_streams
    world.resume()
    await world.until(lambda state: state["total_streams"] - before == len(asked))
    assert world.state["active_streams"] <= world.max_streams
    world.resume()
    answers = await asyncio.gather(*asked)
    assert {answer.text for answer in answers} == {"Before the pause, after the pause."}


async def test_a_client_that_leaves_the_queue_takes_no_slot(world: World, surface: Surface) -> None:
    world.play("slow", times=world.max_streams, pause_s=600)
    before = world.state["total_streams"]
    running = [asyncio.create_task(ask(surface, asking(), stream=False)) for _ in range(world.max_streams)]
    await world.until(lambda state: state["active_streams"] == world.max_streams)
    # Nothing tells that a caller waits inside the gateway. Where the time is too short for it, less is tested.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(surface, asking("I won't wait."), stream=False), 0.5)
    world.resume()
    await asyncio.gather(*running)
    assert (await ask(surface, asking(), stream=True)).text
    assert world.state["total_streams"] - before == world.max_streams + 1
