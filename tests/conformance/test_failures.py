"""Every class of error on every surface, whole and streamed: status, code, its API's form; never an empty 200."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing

import pytest

from .failures import BEFORE_THE_FIRST_EVENT, IN_MID_STREAM, Failure
from .surfaces import Answer, Failed, Surface, ask, asking
from .world import World

#: These never end by themselves, or take their time about it.
ENDLESS = {"hang_before_headers", "hang_before_first_frame", "hang_mid_text", "heartbeats_only", "slow", "fast"}

#: Tested above and below, each for a reason of its own.
ELSEWHERE = {"account_abnormal", "ask_user"}


def over(table: Iterable[Failure]) -> pytest.MarkDecorator:
    """Each failure over each protocol that has it."""
    return pytest.mark.parametrize(
        ("protocol", "failure"),
        [
            pytest.param(protocol, one, id="-".join((protocol, one.scenario, *map(str, one.params.values()))))
            for one in table
            for protocol in one.protocols
        ],
    )


def told(surface: Surface, failed: Failed, failure: Failure) -> None:
    assert f"[{failure.code}]" in failed.message
    assert "Traceback" not in failed.message
    assert failed.status in (failure.status, None)


@over(BEFORE_THE_FIRST_EVENT)
async def test_before_the_first_event(world: World, surface: Surface, stream: bool, failure: Failure) -> None:
    world.play(failure.scenario, None, **failure.params)
    with pytest.raises(Failed) as caught:
        await ask(surface, asking(model=failure.model), stream=stream)
    told(surface, caught.value, failure)
    assert caught.value.status == failure.status
    assert caught.value.type == surface.error_types[failure.status]


@over(IN_MID_STREAM)
async def test_in_mid_stream(world: World, surface: Surface, failure: Failure) -> None:
    world.play(failure.scenario, None, **failure.params)
    answer = Answer()
    with pytest.raises(Failed) as caught:  # noqa: PT012 - what came before the error counts
        async with aclosing(surface.pieces(asking())) as pieces:
            async for piece in pieces:
                answer += piece
    assert answer.text
    assert answer.finish is None
    told(surface, caught.value, failure)


@over(IN_MID_STREAM)
async def test_in_mid_stream_of_a_whole_answer(world: World, surface: Surface, failure: Failure) -> None:
    world.play(failure.scenario, None, **failure.params)
    with pytest.raises(Failed) as caught:
        await ask(surface, asking(), stream=False)
    told(surface, caught.value, failure)
    assert caught.value.status == failure.status
    assert caught.value.type == surface.error_types[failure.status]


@pytest.mark.parametrize("protocol", ["connect"])
async def test_moderation_after_text_keeps_the_text(world: World, surface: Surface, stream: bool) -> None:
    world.play("moderated")
    answer = await ask(surface, asking(), stream=stream)
    assert (answer.text, answer.finish) == ("The first steps are", "content_filter")


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ("garbage", "After garbage."),
        ("unknown_things", "Known text."),
        ("echo_words", "All is well."),
        ("close_after_done", "All there."),
    ],
)
async def test_what_is_no_failure(world: World, surface: Surface, stream: bool, scenario: str, text: str) -> None:
    world.play(scenario)
    answer = await ask(surface, asking(), stream=stream)
    assert (answer.text, answer.finish) == (text, "stop")


async def test_overload_that_passes_is_not_seen(world: World, surface: Surface, stream: bool) -> None:
    before = world.state["total_streams"]
    world.play("fail_times", None, n=1)
    answer = await ask(surface, asking(), stream=stream)
    assert answer.text == "Answered after 1 failures."
    assert world.state["total_streams"] - before == 2


async def test_a_refused_token_is_refreshed_once(world: World, surface: Surface, stream: bool) -> None:
    before = world.state["refreshes"]
    world.play("stale_token", None)
    answer = await ask(surface, asking(), stream=stream)
    assert answer.text == "Answered after a refresh."
    assert world.state["refreshes"] - before == 1


async def test_never_an_empty_answer(world: World, surface: Surface, stream: bool) -> None:
    """Everything the simulator can do ends with words or as an error."""
    empty = []
    for row in world.simulator.http.get("/_sim/scenarios").json():
        if world.protocol not in row["protocols"] or row["name"] in ENDLESS | ELSEWHERE:
            continue
        params = {"retry_after_s": 0} if row["name"] == "rate_limited" else {}
        world.play(row["name"], None, **params)
        try:
            answer = await ask(surface, asking(), stream=stream)
        except Failed:
            continue
        if not answer.text:
            empty.append(row["name"])
    assert empty == []


@pytest.mark.parametrize("protocol", ["connect"])
async def test_a_question_of_the_service_is_not_an_empty_answer(world: World, surface: Surface, stream: bool) -> None:
    world.play("ask_user")
    answer = await ask(surface, asking(), stream=stream)
    assert "Which city?" in answer.text
