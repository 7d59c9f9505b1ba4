"""Which generation answers, against the simulator's two halves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kimi_provider.errors import KimiError, ModelNotFound, PermissionRefused, QuotaExhausted
from kimi_provider.events import Citation, Finished, SearchResults, ThinkingDelta, Usage
from kimi_provider.protocols import EndpointRetired

from .conftest import World, collect, text_of, tidied

AGENT = "cagent0translator000"


def used(world: World) -> list[str]:
    """The protocol of every answered call."""
    return [call["protocol"] for call in world.state["calls"]]


async def test_connect_is_preferred(world: World) -> None:
    assert text_of(await collect(world.engine()))
    assert used(world) == ["connect"]


async def test_rest_answers_when_it_is_chosen(world: World) -> None:
    engine = world.engine(kimi_protocol="rest")
    events = await collect(engine, "Hello there")
    assert text_of(events)
    assert isinstance(events[-2], Usage)
    assert events[-1] == Finished()
    assert used(world) == ["rest"]
    assert world.state["calls"][0]["round_trips_before_first_byte"] == 2
    await tidied()
    assert world.state["chats"] == []
    assert world.state["mimicry"] == {}


async def test_connect_asks_once_before_the_first_byte(world: World) -> None:
    await collect(world.engine())
    assert world.state["calls"][0]["round_trips_before_first_byte"] == 1


@pytest.mark.parametrize("how", ["404", "405", "410", "redirect"])
@pytest.mark.parametrize("scope", ["all", "completion"])
async def test_a_retired_generation_is_left_and_remembered(world: World, how: str, scope: str) -> None:
    world.server.change(rest_retired=how, rest_retired_scope=scope)
    engine = world.engine()
    # The model is one that the REST generation is asked for first.
    for _ in range(2):
        assert text_of(await collect(engine, model=AGENT))
    legacy = [one["path"] for one in world.state["requests"] if one["path"].startswith("/api/")]
    assert [path for path in legacy if path.endswith("/completion/stream")] == (
        [] if scope == "all" else [path for path in legacy if path.endswith("/completion/stream")][:1]
    )
    assert used(world)[-2:] == ["connect", "connect"]
    await tidied()
    assert world.state["chats"] == []


async def test_a_retired_generation_that_was_chosen_says_what_to_set(world: World) -> None:
    world.server.change(rest_retired="410")
    with pytest.raises(EndpointRetired) as caught:
        await collect(world.engine(kimi_protocol="rest"))
    assert "KIMI_PROTOCOL" in str(caught.value)


async def test_an_opaque_token_speaks_rest_and_refreshes_the_old_way(world: World) -> None:
    engine = world.engine(kimi_token=world.server.login("old", kind="opaque")["refresh_token"])
    assert text_of(await collect(engine))
    paths = [one["path"] for one in world.state["requests"]]
    assert paths[0] == "/api/auth/token/refresh"
    assert not [path for path in paths if path.startswith("/apiv2")]
    assert (await engine.check()).user_id


@pytest.mark.parametrize(
    ("change", "asked", "says"),
    [
        ({}, {"model": "kimi-k3"}, "REST protocol only"),
        ({"kimi_protocol": "connect"}, {}, "KIMI_PROTOCOL is connect"),
    ],
)
async def test_an_opaque_token_opens_nothing_else(
    world: World, change: dict[str, Any], asked: dict[str, Any], says: str
) -> None:
    engine = world.engine(kimi_token=world.server.login("old", kind="opaque")["refresh_token"], **change)
    with pytest.raises(PermissionRefused) as caught:
        await collect(engine, **asked)
    assert says in str(caught.value)
    assert "refresh_token" in str(caught.value)


async def test_an_account_of_both_generations_answers_for_one_of_the_lost_generation(world: World) -> None:
    world.server.change(rest_retired="404")
    opaque = world.server.login("old", kind="opaque")["refresh_token"]
    engine = world.engine(kimi_token=f"{opaque}\n{world.token('ada')}")
    for _ in range(3):
        assert text_of(await collect(engine))
    assert used(world) == ["connect"] * 3


async def test_a_model_of_connect_alone_is_not_asked_for_over_rest(world: World) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await collect(world.engine(kimi_protocol="rest"), model="kimi-k3")
    assert "rest protocol" in str(caught.value)
    assert world.state["bytes_received"] == 0


async def test_rest_runs_one_answer_of_an_account_at_a_time(world: World) -> None:
    engine = world.engine(kimi_protocol="rest", kimi_max_streams=4)
    answers = await asyncio.gather(*(collect(engine, f"Question {n}") for n in range(4)))
    assert all(map(text_of, answers))
    assert world.state["peak_streams"] == 1


async def test_a_foreign_stream_is_waited_for(world: World) -> None:
    world.server.queue("concurrency", times=1)
    assert text_of(await collect(world.engine("ada", "bea", kimi_protocol="rest")))


async def test_an_answer_cut_in_three_is_one(world: World) -> None:
    world.server.queue("long")
    events = await collect(world.engine(kimi_protocol="rest"))
    assert [event for event in events if isinstance(event, Finished)] == [Finished()]
    completions = [one for one in world.state["requests"] if one["path"].endswith("/completion/stream")]
    assert len(completions) == 3


@pytest.mark.parametrize("protocol", ["rest", "connect"])
async def test_thinking_and_search(world: World, protocol: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    assert any(isinstance(event, ThinkingDelta) for event in await collect(engine, model="kimi-thinking"))
    world.server.queue("search_turn")
    found = [event for event in await collect(engine, model="kimi-search") if isinstance(event, SearchResults)]
    assert any(event.sources for event in found)


@pytest.mark.parametrize("protocol", ["rest", "connect"])
async def test_a_silent_model_answers_with_text_alone(world: World, protocol: str) -> None:
    for name, marked in (("kimi-search", True), ("kimi-search-silent", False)):
        world.server.queue("search_turn")
        events = await collect(world.engine(kimi_protocol=protocol), model=name)
        assert ("[1]" in text_of(events)) is marked
        assert any(isinstance(event, Citation) for event in events) is marked


async def test_research_turns_that_are_used_up_are_told_before_anything_is_sent(world: World) -> None:
    world.server.change(research_total=1)
    engine = world.engine(kimi_protocol="rest")
    assert text_of(await collect(engine, model="kimi-research"))
    with pytest.raises(QuotaExhausted) as caught:
        await collect(engine, model="kimi-research")
    assert "research" in str(caught.value)
    assert used(world) == ["rest"]


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        ("overloaded_trailer", "overloaded"),
        ("rate_limited", "rate_limited"),
        ("context_too_long", "context_length_exceeded"),
        ("account_abnormal", "account_suspended"),
        ("auth_http", "credential_rejected"),
        ("html_200", "upstream_protocol"),
        ("empty_200", "upstream_protocol"),
    ],
)
@pytest.mark.parametrize("protocol", ["rest", "connect"])
async def test_failures_mean_the_same_in_both(world: World, protocol: str, scenario: str, error: str) -> None:
    world.server.queue(scenario, times=None)
    with pytest.raises(KimiError) as caught:
        await collect(world.engine(kimi_protocol=protocol))
    assert caught.value.code == error


async def test_a_chat_is_deleted_over_the_protocol_that_opened_it(world: World) -> None:
    engine = world.engine()
    await collect(engine, model=AGENT)
    await tidied()
    assert [one["path"] for one in world.state["requests"] if one["method"] == "DELETE"]
    assert world.state["chats"] == []


async def test_a_chat_is_deleted_though_its_answer_failed_of_the_token(world: World) -> None:
    """This generation opens the chat first; the call that finds the token refused comes after."""
    world.server.queue("stale_token", times=2)
    assert text_of(await collect(world.engine(kimi_protocol="rest")))
    await tidied()
    assert len(world.state["deleted"]) == 2
    assert world.state["chats"] == []
