from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal

import pytest

from kimi_provider.engine import KimiEngine
from kimi_provider.errors import (
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    CredentialError,
    CredentialMissing,
    KimiError,
    ModelNotFound,
    Overloaded,
    PermissionRefused,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    TooManyStreams,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from kimi_provider.events import (
    ChatOpened,
    Citation,
    Event,
    Finished,
    NativeTool,
    Notice,
    SearchResults,
    Source,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from kimi_provider.protocols import Turn
from kimi_provider.protocols.generations import Generations
from kimi_provider.request import FilePart, Message, TextPart
from kimi_provider.shaping import estimate_tokens
from kimi_provider.simulator import SimulatorServer
from kimi_provider.upstream import ModelSpec
from kimi_provider.web import Session

from ..accounts import fakes
from .conftest import World, asking, collect, text_of, tidied

# --- one answer ---


async def test_a_search_turn_shows_all_it_found_and_ends_with_usage_and_finished(world: World) -> None:
    world.server.queue("search_turn")
    events = await collect(world.engine(), "Weather in Oslo?")
    kinds = {type(event) for event in events}
    assert kinds == {ThinkingDelta, SearchResults, NativeTool, TextDelta, Citation, Usage, Finished}
    thinking = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
    reasoning = estimate_tokens(thinking)
    assert reasoning > 0
    assert events[-2:] == [
        Usage(
            prompt_tokens=estimate_tokens("Weather in Oslo?"),
            completion_tokens=estimate_tokens(text_of(events)) + reasoning,
            reasoning_tokens=reasoning,
        ),
        Finished(reason="stop"),
    ]
    assert sum(isinstance(event, Finished | Usage) for event in events) == 2


async def test_ids_of_the_chat_stay_inside(world: World) -> None:
    assert not any(isinstance(event, ChatOpened) for event in await collect(world.engine()))


async def test_a_history_travels_as_one_message_and_its_answer_is_guarded(world: World) -> None:
    world.server.queue("say", text="[ASSISTANT]\nFine.\n\n[USER]\nAnd you?", piece=3)
    said = [Message(role="user", parts=(TextPart(text=word),)) for word in ("One", "Two")]
    events = await collect(world.engine(), messages=tuple(said))
    assert text_of(events) == "Fine."
    assert events[-1] == Finished(reason="stop")
    sent = world.chats[0]["body"]["message"]["blocks"]
    assert len(sent) == 1
    assert "[USER]\nOne" in sent[0]["text"]["content"]


async def test_text_held_back_by_the_guard_is_shown_before_the_end(world: World) -> None:
    world.server.queue("say", text="It ends in [USE", piece=4)
    said = (Message(role="user", parts=(TextPart(text="a"),)),) * 2
    events = await collect(world.engine(), messages=said)
    assert text_of(events) == "It ends in [USE"
    assert [type(event) for event in events[-2:]] == [Usage, Finished]


# --- failures: refresh, fail-over, retries ---


async def test_a_refused_token_is_refreshed_once_and_the_call_repeated(world: World) -> None:
    world.server.queue("stale_token", times=2)
    events = await collect(world.engine())
    assert text_of(events) == "Answered after a refresh."
    assert world.state["refreshes"] == 1
    assert len(set(world.callers)) == len(world.callers) == 2


@pytest.mark.parametrize("scenario", ["auth_http", "auth_trailer"])
async def test_a_token_refused_again_after_its_refresh_is_an_error(world: World, scenario: str) -> None:
    world.server.queue(scenario, times=None)
    engine = world.engine()
    with pytest.raises(CredentialError) as caught:
        await collect(engine)
    assert (caught.value.status, caught.value.account) == (401, engine.pool.accounts[0].short_id)
    assert (len(world.chats), world.state["refreshes"]) == (2, 1)


async def test_a_dead_credential_is_asked_for_no_second_time(world: World) -> None:
    engine = world.engine("ada", "bob")
    world.server.call(lambda: world.server.state.accounts.revoke("ada"))
    assert all([text_of(await collect(engine)) for _ in range(4)])
    ada, bob = engine.pool.accounts
    assert (ada.dead is not None, bob.dead) == (True, None)
    await tidied()
    asked = len(world.state["requests"])
    with pytest.raises(CredentialError):
        await engine.check_account(ada)
    assert len(world.state["requests"]) == asked


@pytest.mark.parametrize(
    "scenario", ["quota", "overloaded_trailer", "rate_limited", "concurrency", "permission_denied"]
)
async def test_another_account_answers_when_one_cannot(world: World, scenario: str) -> None:
    world.server.queue(scenario)
    assert text_of(await collect(world.engine("ada", "bob"))).startswith("[simulator]")
    assert len(set(world.callers)) == len(world.callers) == 2


async def test_a_plan_without_a_model_costs_the_account_that_model_only(world: World) -> None:
    engine = world.engine("ada", "bob")
    world.server.queue("paywall")
    for _ in range(3):
        await collect(engine, model="kimi-k3")
    refused, *answered = world.callers
    assert len({*answered}) == 1
    assert refused not in answered
    for _ in range(4):  # another model of the same scenario
        await collect(engine, model="kimi-agent")
    assert world.callers.count(refused) == 3


async def test_a_quota_is_remembered_and_every_account_asked_only_once(world: World) -> None:
    world.server.queue("fail_times", times=None, n=1, how="quota")
    engine = world.engine("ada", "bob", "eve")
    with pytest.raises(QuotaExhausted) as caught:
        await collect(engine)
    assert caught.value.retry_after_s == pytest.approx(30, abs=1)
    assert sorted(Counter(world.callers).values()) == [1, 1, 1]
    with pytest.raises(QuotaExhausted) as caught:
        await collect(engine)
    assert caught.value.retry_after_s == pytest.approx(30, abs=1)
    assert len(world.chats) == 3


@pytest.mark.parametrize(
    ("scenario", "params", "error", "shown"),
    [
        ("quota", {"after": "Well, "}, QuotaExhausted, "Well, "),
        ("overloaded_after_text", {}, Overloaded, "Well, "),
        ("close_mid_text", {}, ProtocolError, "Only the first half of"),
        ("close_mid_text", {"abort": 1}, ProtocolError, "Only the first half of"),
        ("auth_trailer", {"after": "Well, "}, CredentialError, "Well, "),
        ("done_then_error", {}, UpstreamError, "Almost "),
    ],
)
async def test_an_answer_that_has_begun_is_never_begun_again(
    world: World, scenario: str, params: dict[str, Any], error: type[KimiError], shown: str
) -> None:
    world.server.queue(scenario, **params)
    events: list[Event] = []
    with pytest.raises(error):
        await collect(world.engine("ada", "bob"), into=events)
    assert text_of(events) == shown
    assert not any(isinstance(event, Usage | Finished) for event in events)
    assert len(world.chats) == 1


async def test_a_refusal_in_an_answer_that_has_begun_is_held_against_the_account(world: World) -> None:
    world.server.queue("auth_trailer", after="Well, ")
    engine = world.engine("ada", "bob")
    with pytest.raises(CredentialError):
        await collect(engine)
    assert [engine.pool.cooling(account) is not None for account in engine.pool.accounts] == [True, False]


@pytest.mark.parametrize("pauses", [[], [0.01], [0.01, 0.01, 0.01]])
@pytest.mark.parametrize("scenario", ["overloaded_before_text", "unavailable", "internal", "close_before_text"])
async def test_a_lone_account_is_asked_once_more_for_each_pause(
    world: World, scenario: str, pauses: list[float]
) -> None:
    world.server.queue(scenario, times=None)
    engine = world.engine(overlay=f"retry: {{backoff_s: {pauses}, overloaded_s: 0.01}}")
    with pytest.raises((Overloaded, Unavailable, UpstreamError)):
        await collect(engine)
    assert len(world.chats) == len(pauses) + 1


async def test_an_overload_that_passes_is_not_seen(world: World) -> None:
    world.server.queue("fail_times", times=None, n=2)
    assert text_of(await collect(world.engine())) == "Answered after 2 failures."
    assert len(world.chats) == 3


async def test_retries_ask_every_account_again(world: World) -> None:
    world.server.queue("fail_times", times=None, n=1)
    events = await collect(world.engine("ada", "bob"))
    assert text_of(events) == "Answered after 1 failures."
    first, second, third = world.callers
    assert first == third != second


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        ("violations", BadRequest),
        ("moderated_before_text", ContentFiltered),
        ("context_too_long", ContextTooLong),
        ("deadline_exceeded", UpstreamTimeout),
    ],
)
async def test_what_no_account_could_answer_is_asked_once(world: World, scenario: str, error: type[KimiError]) -> None:
    world.server.queue(scenario, times=None)
    engine = world.engine("ada", "bob")
    with pytest.raises(error):
        await collect(engine)
    assert len(world.chats) == 1


async def test_no_pause_begins_that_would_end_after_the_deadline(world: World) -> None:
    world.server.queue("unavailable", times=None)
    engine = world.engine(overlay="retry: {backoff_s: [600]}")
    with pytest.raises(Unavailable):
        await collect(engine, timeout_s=500)
    assert len(world.chats) == 1


class Scripted:
    """A protocol that plays one list of batches and failures per attempt."""

    name: Literal["connect"] = "connect"
    max_streams = None
    takes_opaque = True

    def __init__(self, *attempts: list[list[Event] | KimiError]) -> None:
        self.attempts = list(attempts)
        self.sessions: list[Session] = []
        self.cancelled: list[tuple[str, str]] = []
        self.deleted: list[str] = []

    def serves(self, spec: ModelSpec) -> bool:
        return True

    async def stream(self, turn: Turn, session: Session) -> AsyncGenerator[list[Event], None]:
        self.sessions.append(session)
        for step in self.attempts.pop(0):
            if isinstance(step, KimiError):
                raise step
            yield step

    async def cancel_chat(self, session: Session, chat_id: str, message_id: str) -> None:
        self.cancelled.append((chat_id, message_id))

    async def delete_chat(self, session: Session, chat_id: str) -> None:
        self.deleted.append(chat_id)

    def into(self, engine: KimiEngine) -> KimiEngine:
        generations = Generations((self,), setting="auto", retired_for_s=60)
        engine._house = replace(engine._house, generations=generations)
        return engine


NOTICE = Notice(code="model_degraded", message="A lesser model answers")
TEXT: list[Event] = [TextDelta("Hello")]


@pytest.mark.parametrize(
    ("shown", "again"),
    [
        ([NOTICE], True),
        ([NOTICE, TextDelta("")], True),
        ([ThinkingDelta("Hm")], False),
        ([SearchResults(queries=("q",))], False),
        ([TextDelta("H")], False),
    ],
)
async def test_only_notices_do_not_count_as_a_begun_answer(world: World, shown: list[Event], again: bool) -> None:
    protocol = Scripted([shown, Overloaded("busy")], [TEXT, [Finished()]])
    engine = protocol.into(world.engine())
    if again:
        assert text_of(await collect(engine)) == "Hello"
    else:
        with pytest.raises(Overloaded):
            await collect(engine)
    assert len(protocol.sessions) == 1 + again


async def test_chats_of_failed_attempts_are_removed_too(world: World) -> None:
    first: list[Event] = [ChatOpened(chat_id="c1"), ChatOpened(message_id="m1")]
    protocol = Scripted([first, Overloaded("busy")], [[ChatOpened(chat_id="c2", message_id="m2"), *TEXT, Finished()]])
    await collect(protocol.into(world.engine()))
    await tidied()
    assert protocol.cancelled == [("c1", "m1")]
    assert sorted(protocol.deleted) == ["c1", "c2"]


async def test_nothing_of_another_turn_is_shown(world: World) -> None:
    """What the model made up for the user's turn has no thoughts, sources or citations for the caller."""
    cited = Citation(number=1, source=Source(url="https://example.com"))
    batch: list[Event] = [*TEXT, TextDelta("\n[USER]\nWhy[1]"), cited, ThinkingDelta("Hm"), NOTICE, Finished()]
    protocol = Scripted([[ChatOpened(chat_id="c", message_id="m")], batch])
    said = (Message(role="user", parts=(TextPart(text="a"),)),) * 2
    events = await collect(protocol.into(world.engine()), messages=said)
    assert [type(event) for event in events] == [TextDelta, Usage, Finished]
    await tidied()
    assert (protocol.cancelled, protocol.deleted) == ([], ["c"])


async def test_an_answer_that_goes_on_with_another_turn_is_stopped_at_the_service(world: World) -> None:
    endless: list[list[Event] | KimiError] = [[TextDelta("Hi\n[USER]")], [TextDelta("more")], UpstreamError("unread")]
    protocol = Scripted([[ChatOpened(chat_id="c", message_id="m")], *endless])
    said = (Message(role="user", parts=(TextPart(text="a"),)),) * 2
    events = await collect(protocol.into(world.engine()), messages=said)
    assert text_of(events) == "Hi"
    await tidied()
    assert (protocol.cancelled, protocol.deleted) == ([("c", "m")], ["c"])


# --- time ---

#: Longer than a test may take: what would wait for it fails by pytest's own limit.
NEVER_S = 500


@pytest.mark.parametrize(
    ("scenario", "params", "shown"),
    [
        ("hang_before_headers", {}, ""),
        ("hang_before_first_frame", {}, ""),
        ("hang_mid_text", {}, "Then silence"),
        ("heartbeats_only", {"every_s": 0.02}, ""),
    ],
)
async def test_the_deadline_bounds_the_call(world: World, scenario: str, params: dict[str, Any], shown: str) -> None:
    events: list[Event] = []
    engine = world.engine("ada", "bob", kimi_idle_timeout_s=NEVER_S)
    await collect(engine)  # opens store and connections: no part of the call
    world.server.queue(scenario, **params)
    with pytest.raises(UpstreamTimeout) as caught:
        await collect(engine, timeout_s=2, into=events)
    assert text_of(events) == shown
    assert (caught.value.status, len(world.chats)) == (504, 2)
    await world.until(lambda state: state["active_streams"] == 0)


async def test_the_settings_bound_a_call_that_asks_for_more(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_timeout_s=0.2, kimi_idle_timeout_s=NEVER_S)
    with pytest.raises(UpstreamTimeout):
        await collect(engine, timeout_s=NEVER_S)


async def test_waiting_for_a_turn_counts_as_part_of_the_call(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_max_streams=1, kimi_queue_timeout_s=NEVER_S)
    async with aclosing(engine.chat(asking())) as running:
        await anext(running)
        with pytest.raises(TooManyStreams):
            await collect(engine, timeout_s=0.2)


async def test_a_token_refresh_counts_as_part_of_the_call(world: World) -> None:
    engine = world.engine(kimi_token=world.server.login("ada")["refresh_token"])
    world.server.change(refresh_delay_s=0.8)
    with pytest.raises(UpstreamTimeout, match="refresh"):
        await collect(engine, timeout_s=0.2)
    assert text_of(await collect(engine)).startswith("[simulator]")
    assert world.state["refreshes"] == 1


async def test_heartbeats_do_not_count_as_content(world: World) -> None:
    world.server.queue("heartbeats_only", every_s=0.02)
    with pytest.raises(UpstreamTimeout, match=r"nothing for 0\.25 s"):
        await collect(world.engine(kimi_idle_timeout_s=0.25))


async def test_content_keeps_an_answer_alive_longer_than_the_idle_timeout(world: World) -> None:
    world.server.queue("say", text="abcdefgh", piece=1, every_s=0.2)
    assert text_of(await collect(world.engine(kimi_idle_timeout_s=1))) == "abcdefgh"


# --- the limit of streams ---


async def test_callers_wait_in_order_for_the_only_place(world: World) -> None:
    world.server.queue("say", times=None, text="abc", piece=1, every_s=0.01)
    engine = world.engine(kimi_max_streams=1)
    order: list[int] = []

    async def ask(number: int) -> None:
        await collect(engine)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(ask(number))
            await asyncio.sleep(0)
    assert order == list(range(6))
    assert world.state["peak_streams"] == 1


async def test_who_waits_too_long_is_told_when_to_come_again(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_max_streams=1, kimi_queue_timeout_s=0.1)
    async with aclosing(engine.chat(asking())) as running:
        await anext(running)
        with pytest.raises(TooManyStreams) as caught:
            await collect(engine)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 7)
    assert len(world.chats) == 1


async def test_two_accounts_take_turns(world: World) -> None:
    engine = world.engine("ada", "bob")
    for _ in range(4):
        await collect(engine)
    assert all(one != other for one, other in itertools.pairwise(world.callers))
    assert len(set(world.callers)) == 2


# --- callers that leave ---


async def freed(world: World, engine: KimiEngine) -> dict[str, Any]:
    """The next call finds a place, and nothing runs or remains at the service."""
    world.server.queue(None)
    assert text_of(await collect(engine)).startswith("[simulator]")
    await tidied()
    return await world.until(lambda state: state["active_streams"] == 0 and not state["chats"])


async def test_closing_the_answer_stops_it_everywhere(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_max_streams=1)
    events = engine.chat(asking())
    assert isinstance(await anext(events), TextDelta)
    chat = world.state["chats"][0]
    await events.aclose()
    state = await freed(world, engine)
    assert engine.pool.running(engine.pool.accounts[0]) == 0
    message_id = next(one["id"] for one in chat["messages"] if one["role"] == "assistant")
    assert state["cancelled"] == [{"chat_id": chat["id"], "message_id": message_id}]
    assert chat["id"] in state["deleted"]


@pytest.mark.parametrize(
    ("scenario", "opened"),
    [("hang_before_headers", False), ("hang_before_first_frame", False), ("heartbeats_only", True), ("slow", True)],
)
async def test_a_cancelled_task_stops_the_answer_everywhere(world: World, scenario: str, opened: bool) -> None:
    world.server.queue(scenario, **({"pause_s": 30} if scenario == "slow" else {}))
    engine = world.engine(kimi_max_streams=1)
    task = asyncio.create_task(collect(engine))
    await world.until(lambda state: state["active_streams"] == 1 and len(state["chats"]) == opened)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    state = await freed(world, engine)
    assert len(state["cancelled"]) == opened
    assert len(state["deleted"]) == opened + 1


@pytest.mark.parametrize("protocol", ["connect", "rest"])
async def test_a_chat_is_removed_whose_maker_left_before_its_id_came(world: World, protocol: str) -> None:
    world.server.change(chat_delay_s=0.2)
    engine = world.engine(kimi_protocol=protocol)
    task = asyncio.create_task(collect(engine))
    (chat,) = (await world.until(lambda state: bool(state["chats"])))["chats"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    state = await world.until(lambda state: bool(state["deleted"]))
    assert (state["chats"], state["deleted"], state["active_streams"]) == ([], [chat["id"]], 0)


async def test_a_cancelled_waiter_leaves_the_queue(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_max_streams=1)
    running = engine.chat(asking())
    await anext(running)
    waiting = asyncio.create_task(collect(engine))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await running.aclose()
    await freed(world, engine)
    assert len(world.chats) == 2


async def test_a_caller_cancelled_during_the_refresh_loses_no_token(world: World) -> None:
    engine = world.engine(kimi_token=world.server.login("ada")["refresh_token"], kimi_max_streams=1)
    world.server.change(refresh_delay_s=0.2)
    task = asyncio.create_task(collect(engine))
    await world.until(lambda state: state["refreshes"] == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert text_of(await collect(engine)).startswith("[simulator]")
    assert world.state["refreshes"] == 1


# --- what remains in the account ---


@pytest.mark.parametrize("keep", [False, True])
async def test_chats_are_deleted_unless_they_are_to_be_kept(world: World, keep: bool) -> None:
    await collect(world.engine(kimi_keep_chats=keep))
    await tidied()
    state = world.state
    assert (len(state["chats"]), len(state["deleted"]), state["cancelled"]) == (keep, not keep, [])


async def test_a_kept_chat_is_still_stopped_when_its_reader_leaves(world: World) -> None:
    world.server.queue("hang_mid_text")
    events = world.engine(kimi_keep_chats=True).chat(asking())
    await anext(events)
    await events.aclose()
    await tidied()
    state = world.state
    assert (len(state["chats"]), state["deleted"], len(state["cancelled"])) == (1, [], 1)


async def test_a_chat_is_deleted_even_where_nothing_can_be_cancelled(world: World) -> None:
    services = ("kimi.gateway.chat.v1.ChatService", "kimi.chat.v1.ChatService")
    world.server.change(unimplemented=[f"{service}/CancelChat" for service in services])
    world.server.queue("hang_mid_text")
    events = world.engine().chat(asking())
    await anext(events)
    await events.aclose()
    await tidied()
    assert (len(world.state["chats"]), len(world.state["deleted"])) == (0, 1)


async def test_a_chat_is_deleted_even_when_its_token_expired_meanwhile(world: World) -> None:
    token = world.token("ada", expires_in=1.2)
    world.server.queue("slow", pause_s=1.4)
    await collect(world.engine(kimi_token=token))
    await tidied()
    assert (len(world.state["chats"]), len(world.state["deleted"])) == (0, 1)


# --- whose account ---


async def test_a_request_with_a_credential_uses_that_account_only(world: World) -> None:
    engine = world.engine("ada", "bob")
    own = world.token("eve")
    for _ in range(3):
        await collect(engine, credential=own)
    assert len(set(world.callers)) == 1
    world.server.queue("quota")
    with pytest.raises(QuotaExhausted) as caught:
        await collect(engine, credential=own)
    assert caught.value.account == engine.pool.account_for(own).short_id
    assert len(set(world.callers)) == 1
    await collect(engine)
    assert len(set(world.callers)) == 2


async def test_without_any_credential_nothing_is_sent(world: World) -> None:
    engine = world.engine(kimi_token="")
    with pytest.raises(CredentialMissing, match="KIMI_TOKEN"):
        await collect(engine)
    with pytest.raises(CredentialMissing):
        await collect(engine, credential="!")
    with pytest.raises(CredentialMissing):
        await engine.check()
    assert world.state["bytes_received"] == 0
    assert text_of(await collect(engine, credential=world.token("eve"))).startswith("[simulator]")


async def test_a_real_credential_never_reaches_the_demo(world: World) -> None:
    engine = world.engine(kimi_token=fakes.refresh(), kimi_demo=True)
    for call in (collect(engine), collect(engine, credential=fakes.access()), engine.check(), engine.models()):
        with pytest.raises(PermissionRefused, match="demo"):
            await call
    assert world.state["bytes_received"] == 0


async def test_a_simulated_credential_never_reaches_the_service(world: World) -> None:
    engine = world.engine(kimi_base_url="https://www.kimi.com", kimi_auth_url="https://auth.kimi.com")
    with pytest.raises(PermissionRefused, match="simulator"):
        await collect(engine)


# --- what is asked for ---

NONE, LOW, HIGH, MAX = (f"REASONING_EFFORT_{level}" for level in ("NONE", "LOW", "HIGH", "MAX"))
CHAT_SCENARIO, AGENT, SWARM = "SCENARIO_CHAT", "SCENARIO_OK_COMPUTER", "SCENARIO_OK_COMPUTER_SWARM"
INSTANT = {"model": "k2d6-chat", "enable_plugin": False}


@pytest.mark.parametrize(
    ("model", "asked", "thinking", "effort", "option", "scenario", "searches"),
    [
        ("kimi", {}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi-latest", {}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        (" Kimi-K2.6 ", {}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi", {"thinking": True}, True, LOW, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi", {"thinking": False}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi", {"effort": "none"}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi", {"effort": "minimal"}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi", {"effort": "medium"}, True, LOW, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi", {"effort": "max", "thinking": False}, True, LOW, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi-thinking", {}, True, LOW, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi-thinking", {"thinking": False}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi-thinking", {"effort": "none"}, False, NONE, "k2d6-chat", CHAT_SCENARIO, False),
        ("k2d6-thinking", {}, True, LOW, "k2d6-chat", CHAT_SCENARIO, False),
        ("kimi-search", {}, False, NONE, "k2d6-chat", CHAT_SCENARIO, True),
        ("kimi", {"search": True}, False, NONE, "k2d6-chat", CHAT_SCENARIO, True),
        ("kimi-k2.6-thinking-search", {}, True, LOW, "k2d6-chat", CHAT_SCENARIO, True),
        ("kimi-k2.5-search-thinking", {}, True, LOW, "k2d6-chat", CHAT_SCENARIO, True),
        ("kimi-k2.8-preview", {}, True, HIGH, "k28-agent-preview", AGENT, False),
        ("k3", {}, True, HIGH, "k3-agent", AGENT, False),
        ("kimi-k3", {"thinking": False}, True, HIGH, "k3-agent", AGENT, False),
        ("kimi-k3", {"effort": "none"}, True, LOW, "k3-agent", AGENT, False),
        ("kimi-k3", {"effort": "medium"}, True, HIGH, "k3-agent", AGENT, False),
        ("kimi-k3", {"effort": "xhigh"}, True, MAX, "k3-agent", AGENT, False),
        ("k3-agent-ultra", {}, True, HIGH, "k3-agent-swarm", SWARM, False),
        ("kimi-agent", {}, True, HIGH, None, AGENT, False),
        ("kimi-research", {}, True, None, None, AGENT, False),
    ],
)
async def test_the_callers_words_become_the_services(
    world: World,
    model: str,
    asked: dict[str, Any],
    thinking: bool,
    effort: str | None,
    option: str | None,
    scenario: str,
    searches: bool,
) -> None:
    engine = world.engine(kimi_token=world.token("rich", level="LEVEL_STANDARD"))
    await collect(engine, model=model, **asked)
    body = world.chats[0]["body"]
    options = body["options"]
    assert (options["thinking"], options.get("reasoning_effort"), options.get("model")) == (thinking, effort, option)
    assert body["scenario"] == body["message"]["scenario"] == scenario
    assert ({"type": "TOOL_TYPE_SEARCH", "search": {}} in body["tools"]) is searches
    assert body["message"]["blocks"][0]["text"]["content"] == "Hi"
    assert not body.keys() & {"chat_id", "messages"}


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"effort": "banana"}, BadRequest, "Unknown reasoning effort 'banana'. Choose one of: none, minimal, low"),
        ({"effort": "x" * 500}, BadRequest, "'" + "x" * 40 + "'"),
        ({"prompt": "word " * 250_000}, ContextTooLong, "takes 262144"),
        ({"prompt": " "}, BadRequest, "no text"),
        ({"messages": (Message(role="user", parts=(FilePart(kind="image", source="s"),)),)}, BadRequest, "Message 1"),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_any_byte(
    world: World, asked: dict[str, Any], error: type[KimiError], says: str
) -> None:
    engine = world.engine()
    with pytest.raises(error) as caught:
        await collect(engine, **asked)
    assert says in str(caught.value)
    assert world.state["bytes_received"] == 0
    assert engine.pool.cooling(engine.pool.accounts[0]) is None


async def test_a_name_that_nobody_knows_is_looked_up_in_the_services_list_once(world: World) -> None:
    engine = world.engine()
    for name, says in (("kimi-k2.7", "kimi-k2.6"), ("gpt-4o", "no model 'gpt-4o'"), ("kimi-thinkng", "kimi-thinking")):
        with pytest.raises(ModelNotFound, match=says):
            await collect(engine, model=name)
    methods = [request["path"].rsplit("/", 1)[-1] for request in world.state["requests"]]
    assert methods.count("GetAvailableModels") == 1
    assert not {*methods} - {"RefreshToken", "GetAvailableModels"}
    assert engine.pool.cooling(engine.pool.accounts[0]) is None


# --- checks and lists ---


async def test_a_check_asks_who_it_is_and_nothing_else(world: World) -> None:
    engine = world.engine()
    profile = await engine.check()
    assert profile.user_id == engine.pool.accounts[0].id
    assert [one["path"].rpartition("/")[2] for one in world.state["requests"]] == ["GetCurrentUser"]
    assert world.state["chats"] == []


async def test_a_check_gives_a_refused_token_its_refresh(world: World) -> None:
    token = world.token("ada")
    world.server.call(lambda: world.server.state.accounts.revoke("ada", what="access"))
    assert (await world.engine(kimi_token="").check(token)).user_id
    assert world.state["refreshes"] == 1


async def test_a_check_of_a_dead_credential_says_so(world: World) -> None:
    token = world.token("ada")
    world.server.call(lambda: world.server.state.accounts.revoke("ada"))
    with pytest.raises(CredentialError) as caught:
        await world.engine(kimi_token="").check(token)
    assert caught.value.status == 401
    assert not any(piece in str(caught.value) for piece in token.split())


async def test_the_services_own_models(world: World) -> None:
    models = await world.engine().models()
    assert [model.id for model in models] == ["k2d6-chat", "k28-agent-preview", "k3-agent", "k3-agent-swarm"]
    assert models[0].efforts == (NONE, LOW)


# --- threads and loops ---


def test_one_engine_serves_many_threads_and_short_lived_loops(world: World) -> None:
    engine = world.engine("ada", "bob")
    texts: list[str] = []

    def work() -> None:
        for _ in range(4):
            texts.append(text_of(asyncio.run(collect(engine))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 16
    assert all(text.startswith("[simulator]") for text in texts)
    asyncio.run(tidied())
    assert (world.state["chats"], len(world.state["deleted"])) == ([], 16)
    assert max(engine.pool.running(account) for account in engine.pool.accounts) == 0


def test_an_answer_left_behind_in_a_dying_loop_frees_its_place(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_max_streams=1)

    async def leave() -> None:
        await anext(engine.chat(asking()))

    asyncio.run(leave())
    asyncio.run(freed(world, engine))
    assert engine.pool.running(engine.pool.accounts[0]) == 0


async def test_an_abandoned_answer_keeps_its_place_until_it_is_cancelled(world: World) -> None:
    world.server.queue("hang_mid_text")
    engine = world.engine(kimi_max_streams=1)
    abandoned = engine.chat(asking())
    await anext(abandoned)
    await abandoned.aclose()
    await collect(engine)
    calls = [request["path"].rsplit("/", 1)[-1] for request in world.state["requests"]]
    assert [call for call in calls if call in ("Chat", "CancelChat")] == ["Chat", "CancelChat", "Chat"]


async def test_a_service_that_is_gone_is_unavailable(world: World) -> None:
    with SimulatorServer() as other:
        token, url = other.login("ada"), other.url
    pair = f"{token['access_token']} {token['refresh_token']}"
    engine = world.engine(kimi_token=pair, kimi_base_url=url, kimi_auth_url=url)
    with pytest.raises(Unavailable) as caught:
        await collect(engine)
    assert "/apiv2" not in str(caught.value)


async def test_a_rate_limit_says_what_the_service_says(world: World) -> None:
    world.server.queue("rate_limited", retry_after_s=11)
    with pytest.raises(RateLimited) as caught:
        await collect(world.engine())
    assert caught.value.retry_after_s == 11
