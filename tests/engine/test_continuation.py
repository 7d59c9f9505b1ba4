"""Conversations that go on in their chat, and those that must not: engine, both protocols, the simulated service.

The simulated model, asked to recall, names the notes that it sees: that must be what the caller has sent and got.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from kimi_provider.engine import KimiEngine
from kimi_provider.errors import BadRequest, KimiError, TooManyStreams, UnusableAnswer
from kimi_provider.events import ConversationFound, Event, TextDelta, ToolCallDelta
from kimi_provider.protocols import EndpointRetired
from kimi_provider.request import ChatRequest, JsonFormat, Message, Part, TextPart, ToolCall, ToolSpec
from kimi_provider.simulator.control import make_chats as made
from kimi_provider.store import tables

from .conftest import World, text_of, tidied
from .test_tools import ADD, READ, prompts
from .test_uploads import document, picture, references

BOTH = pytest.mark.parametrize("protocol", ["connect", "rest"])

CALL = (
    '<function_calls>\n<invoke name="read_file">\n<parameter name="path">{}</parameter>\n</invoke>\n</function_calls>'
)
ACTION = '<action>{{"name": "read_file", "arguments": {{"path": "{}"}}}}</action>'


def user(*parts: Part | str) -> Message:
    return Message(role="user", parts=tuple(TextPart(text=one) if isinstance(one, str) else one for one in parts))


def result(call_id: str, text: str) -> Message:
    return Message(role="tool", tool_call_id=call_id, parts=(TextPart(text=text),))


SYSTEM = Message(role="system", parts=(TextPart(text="Be kind. Remember note system."),))


class Talk:
    """A caller that sends everything with every request."""

    def __init__(self, world: World, engine: KimiEngine, *before: Message, **more: Any) -> None:
        self.world, self.engine = world, engine
        self.messages = list(before)
        self.more: dict[str, Any] = {"tools": (READ,), **more}
        self._went_on: bool | None = None

    def went_on(self) -> bool | None:
        """Whether the last answer was one in a chat that was there before; None: it was none of a conversation."""
        return self._went_on

    def request(self, *messages: Message, **more: Any) -> ChatRequest:
        return ChatRequest(**{"model": "kimi", "messages": (*self.messages, *messages), **self.more, **more})

    async def ask(self, *messages: Message, **more: Any) -> Message:
        """The answer, as it goes into the history."""
        request = self.request(*messages, **more)
        self.messages += messages
        async with aclosing(self.engine.chat(request)) as events:
            answer = self._heard([event async for event in events])
        self.messages.append(answer)
        return answer

    def _heard(self, events: list[Event]) -> Message:
        self._went_on = None
        calls: dict[int, ToolCall] = {}
        for event in events:
            if isinstance(event, ConversationFound):
                self._went_on = event.continued
            if isinstance(event, ToolCallDelta):
                call = calls.setdefault(event.index, ToolCall(id="", name="", arguments=""))
                calls[event.index] = replace(
                    call,
                    id=call.id or event.id or "",
                    name=call.name or event.name or "",
                    arguments=call.arguments + event.arguments,
                )
        text = text_of(events)
        return Message(role="assistant", parts=(TextPart(text=text),) if text else (), tool_calls=tuple(calls.values()))

    async def says(self, text: str, *messages: Message, **more: Any) -> Message:
        """The same, and the model says `text`."""
        self.world.server.queue("say", text=text)
        return await self.ask(*messages, **more)

    async def knows_all(self, **more: Any) -> None:
        """The model sees every note of the history, once and in order."""
        said = [note for one in self.messages for note in re.findall(r"note [\w-]+", one.text)]
        self.world.server.queue("recall")
        answer = await self.ask(user("What do you know?"), **more)
        assert answer.text.splitlines() == said


def chats_used(world: World) -> list[str]:
    """Of all calls so far."""
    return [call["chat_id"] for call in world.state["calls"]]


def left(world: World) -> list[str]:
    return [chat["id"] for chat in world.state["chats"]]


def rows(engine: KimiEngine) -> dict[str, Any]:
    """What the store knows of chats, by id."""
    with engine.registry._store.read() as transaction:
        return {chat.chat_id: chat for chat in transaction.chats("").all()}


def later(engine: KimiEngine, seconds: float) -> None:
    """Let so much time pass for the store."""
    database = engine.registry._store._database
    before = database._clock
    database._clock = lambda: before() + seconds


async def begun(world: World, engine: KimiEngine, **more: Any) -> Talk:
    """A conversation with one exchange."""
    talk = Talk(world, engine, SYSTEM, **more)
    await talk.says("And note two.", user("This is note one."))
    return talk


# --- going on ---


@BOTH
async def test_only_what_is_new_is_sent(world: World, protocol: str) -> None:
    talk = await begun(world, world.engine(kimi_protocol=protocol))
    assert talk.went_on() is False
    await talk.says("And note four.", user("This is note three."))
    assert talk.went_on() is True
    await talk.knows_all()
    assert prompts(world)[1:] == ["This is note three.", "What do you know?"]
    assert len(set(chats_used(world))) == 1
    if protocol == "connect":
        first, second, _ = world.state["calls"]
        assert world.chats[1]["body"]["chat_id"] == first["chat_id"]
        assert world.chats[1]["body"]["message"]["parent_id"] == first["message_id"]
        assert world.chats[2]["body"]["message"]["parent_id"] == second["message_id"]


@pytest.mark.parametrize(("dialect", "call"), [("invoke", CALL), ("action", ACTION)])
@BOTH
async def test_results_go_back_in_the_dialects_spelling(world: World, protocol: str, dialect: str, call: str) -> None:
    engine = world.engine(kimi_protocol=protocol, overlay=f"tools: {{default_dialect: {dialect}}}")
    talk = Talk(world, engine, SYSTEM)
    answer = await talk.says(f"Step note zero.\n\n{call.format('a')}", user("Read note files"))
    for step in ("one", "two", "three"):
        made = answer.tool_calls[0]
        answer = await talk.says(f"Step note {step}.\n\n{call.format(step)}", result(made.id, f"note got-{step}"))
        assert prompts(world)[-1] == f"[TOOL RESULT for {made.id}]\nnote got-{step}"
        assert answer.text == f"Step note {step}."
    talk.messages.append(result(answer.tool_calls[0].id, "note last"))
    await talk.knows_all()
    assert len(set(chats_used(world))) == 1


async def test_usage_is_that_of_the_whole_conversation(world: World) -> None:
    counts = []
    for mode in ("auto", "off"):
        talk = await begun(world, world.engine(kimi_continue=mode))
        world.server.queue("say", text="Yes.")
        async with aclosing(talk.engine.chat(talk.request(user("More?")))) as events:
            counts.append([event async for event in events][-2])
    assert counts[0] == counts[1]


async def test_a_plain_conversation_stays_from_its_second_turn_on(world: World) -> None:
    talk = Talk(world, world.engine(), SYSTEM, tools=())
    await talk.says("And note two.", user("This is note one."))
    await tidied()
    assert left(world) == []
    for _ in range(3):
        await talk.knows_all()
    first, second, *others = chats_used(world)
    assert first != second
    assert set(others) == {second}
    await tidied()
    assert left(world) == [second]


async def test_a_plain_question_leaves_nothing_and_is_no_conversation(world: World) -> None:
    engine = world.engine()
    talk = Talk(world, engine, tools=())
    await talk.ask(user("Hi"))
    await tidied()
    await engine.registry.close()
    assert (talk.went_on(), left(world), rows(engine)) == (None, [], {})


async def test_it_goes_on_after_a_restart(world: World, state_url: str) -> None:
    talk = await begun(world, world.engine(kimi_state_url=state_url))
    await talk.engine.close()
    for _ in range(2):
        talk.engine = world.engine(kimi_token="", kimi_state_url=state_url)
        await talk.knows_all()
        assert talk.went_on() is True
    assert len(set(chats_used(world))) == 1


async def test_it_goes_on_without_an_account_store(world: World) -> None:
    talk = await begun(world, world.engine(kimi_state_url="sqlite://"))
    await talk.knows_all()
    assert talk.went_on() is True
    await talk.engine.close()
    assert left(world) == []  # nobody else could


@pytest.mark.parametrize(
    "changed",
    [
        lambda answer: replace(
            answer, tool_calls=(ToolCall(id="other", name="read_file", arguments='{ "path":"a" }'),)
        ),
        lambda answer: replace(
            answer, tool_calls=(ToolCall(id="c", name="read_file", arguments='{"all": false, "path": "a"}'),)
        ),
        lambda answer: replace(answer, parts=(TextPart(text="See [1] "), TextPart(text="note two.\n"))),
        lambda answer: replace(answer, parts=(*answer.parts, TextPart(text="\n\n[1] Page: https://example.com/a"))),
    ],
    ids=["ids and spelling", "defaults", "text in pieces", "list of sources"],
)
async def test_what_an_api_makes_of_an_answer_is_no_change(world: World, changed: Callable[[Message], Message]) -> None:
    fields = {"path": {"type": "string"}, "all": {"type": "boolean", "default": False}}
    read = ToolSpec(name="read_file", parameters={"type": "object", "properties": fields})
    talk = Talk(world, world.engine(), SYSTEM, tools=(read,))
    answer = changed(await talk.says(f"See [1] note two.\n\n{CALL.format('a')}", user("This is note one.")))
    talk.messages[-1] = answer
    await talk.says("Good.", result(answer.tool_calls[0].id, "note three"))
    assert talk.went_on() is True


async def test_an_answer_in_several_messages_is_one(world: World) -> None:
    talk = Talk(world, world.engine(), SYSTEM)
    answer = await talk.says(f"Well, note two.\n\n{CALL.format('a')}", user("This is note one."))
    talk.messages[-1:] = [replace(answer, tool_calls=()), replace(answer, parts=())]
    await talk.says("Good.", result(answer.tool_calls[0].id, "note three"))
    assert talk.went_on() is True


@BOTH
async def test_files_of_what_is_new_are_named_and_no_others(world: World, protocol: str) -> None:
    talk = Talk(world, world.engine(kimi_protocol=protocol), tools=(ADD,))
    await talk.says("A cat.", user("Look", picture()))
    await talk.says("A page.", user("And this", document()))
    await talk.says("Both.", user("Which is which?"))
    cat, page = world.state["files"]
    assert references(world) == [[cat["id"]], [page["id"]], []]
    assert prompts(world)[1:] == ["And this", "Which is which?"]


# --- what must not go on ---


def edited(at: int, text: str) -> Callable[[Talk], None]:
    def edit(talk: Talk) -> None:
        talk.messages[at] = replace(talk.messages[at], parts=(TextPart(text=text),))

    return edit


def asked_otherwise(**more: Any) -> Callable[[Talk], None]:
    return lambda talk: talk.more.update(more)


def cut_out(talk: Talk) -> None:
    del talk.messages[1:3]


MORE_TOOLS: tuple[ToolSpec, ...] = (READ, ADD)


@pytest.mark.parametrize(
    "change",
    [
        edited(0, "Be rude. Remember note rude."),
        edited(1, "This is note changed."),
        edited(2, "And  note two."),
        edited(2, "And note two!"),
        cut_out,
        asked_otherwise(tools=MORE_TOOLS),
        asked_otherwise(tools=()),
        asked_otherwise(parallel_tool_calls=False),
        asked_otherwise(response_format=JsonFormat()),
        asked_otherwise(thinking=True),
        asked_otherwise(model="kimi-research"),
        asked_otherwise(caller="somebody else"),
    ],
)
@BOTH
async def test_anything_else_that_differs_begins_a_new_chat(
    world: World, protocol: str, change: Callable[[Talk], None]
) -> None:
    engine = world.engine(kimi_token=world.token("rich", level="LEVEL_STANDARD"), kimi_protocol=protocol)
    talk = await begun(world, engine)
    await talk.says("And note four.", user("This is note three."))
    change(talk)
    await talk.says('{"note": "five"}', user("What do you know?"))
    assert talk.went_on() is False
    first, second, third = chats_used(world)
    assert first == second != third
    assert prompts(world)[-1].count("\n[USER]\n") >= sum(one.role == "user" for one in talk.messages)


@BOTH
async def test_edited_in_the_middle_it_is_told_anew(world: World, protocol: str) -> None:
    talk = await begun(world, world.engine(kimi_protocol=protocol))
    for number in range(3):
        await talk.says(f"And note a{number}.", user(f"This is note q{number}."))
    talk.messages[4] = replace(talk.messages[4], parts=(TextPart(text="And note edited."),))
    await talk.knows_all()
    assert talk.went_on() is False
    await talk.knows_all()
    assert talk.went_on() is True


@BOTH
async def test_a_chat_that_its_owner_removed_is_told_anew(world: World, protocol: str) -> None:
    talk = await begun(world, world.engine(kimi_protocol=protocol))
    remove_all(world)
    await talk.knows_all()
    assert talk.went_on() is False
    assert talk.engine.pool.cooling(talk.engine.pool.accounts[0]) is None
    await talk.knows_all()
    assert talk.went_on() is True
    await tidied()
    assert len(left(world)) == 1


async def test_a_message_that_is_gone_is_told_anew(world: World) -> None:
    talk = await begun(world, world.engine())
    (chat,) = world.server.state.chats.all()
    world.server.call(lambda: chat.messages.pop(chat.newest().id))
    await talk.knows_all()
    assert talk.went_on() is False
    await tidied()
    assert left(world) == [chats_used(world)[-1]]


async def test_an_account_that_is_put_aside_leaves_its_conversations_to_others(world: World) -> None:
    talk = await begun(world, world.engine("ada", "bea"))
    world.server.queue("quota")
    await talk.ask(user("This is note three."))
    assert talk.went_on() is False
    await talk.knows_all()
    assert len(set(world.callers)) == 2


async def test_a_busy_account_leaves_its_conversation_to_others(world: World) -> None:
    engine = world.engine("ada", "bea", kimi_max_streams=1, overlay="chats: {sticky_wait_s: 0.05}")
    talk = await begun(world, engine)
    home = engine.pool.accounts[0]
    world.server.queue("hang_mid_text")
    async with aclosing(engine.chat(ChatRequest(model="kimi", messages=(user("Hi"),), credential=None))) as other:
        # Whoever hangs may be on either account: keep both busy but one.
        await anext(other)
        busy = next(account for account in engine.pool.accounts if engine.pool.running(account))
        await talk.knows_all()
        assert talk.went_on() is (busy is not home)


async def test_a_lone_account_is_waited_for(world: World) -> None:
    engine = world.engine(kimi_max_streams=1)
    talk = await begun(world, engine)
    world.server.queue("hang_mid_text")
    other = engine.chat(ChatRequest(model="kimi", messages=(user("Hi"),)))
    await anext(other)
    going_on = asyncio.create_task(talk.knows_all())
    await asyncio.sleep(0)
    await other.aclose()
    await going_on
    assert talk.went_on() is True


@BOTH
async def test_of_two_that_go_on_at_once_one_begins_anew(world: World, state_url: str, protocol: str) -> None:
    world.server.change(max_streams=8)
    more = {"kimi_state_url": state_url, "kimi_protocol": protocol}
    engine = world.engine(**more)
    talk = await begun(world, engine)
    others = [Talk(world, one, *talk.messages) for one in (engine, world.engine(kimi_token="", **more)) * 3]
    world.server.queue("recall", times=len(others))
    answers = await asyncio.gather(*(one.ask(user("What do you know?")) for one in others))
    assert [one.text.splitlines() for one in answers] == [["note system", "note one", "note two"]] * len(others)
    assert sum(bool(one.went_on()) for one in others) == 1
    assert len(set(chats_used(world))) == len(others)
    await asyncio.gather(*(one.ask(user("And now?")) for one in others))
    assert all(one.went_on() for one in others)


async def test_off_tells_everything_every_time_and_keeps_nothing(world: World) -> None:
    talk = await begun(world, world.engine(kimi_continue="off"))
    await talk.knows_all()
    assert talk.went_on() is None
    await tidied()
    await talk.engine.registry.close()
    assert (left(world), rows(talk.engine)) == ([], {})


# --- answers that nobody may go on from ---


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("One note two three four five six seven eight", {"max_tokens": 3}),
        ("And note two. STOP here", {"stop": ("STOP",)}),
        ("And note two.\n\n[USER]\nNo.", {}),
        (f"{CALL.format('a')}\n\n{CALL.format('b')}", {"parallel_tool_calls": False}),
        (CALL.format("a") + CALL.format("b").replace("read_file", "unknown"), {}),
    ],
    ids=["max_tokens", "stop", "made-up turn", "a call too many", "a call that can't be made"],
)
@BOTH
async def test_an_answer_that_the_caller_has_not_as_it_was_written_is_told_anew(
    world: World, protocol: str, text: str, more: dict[str, Any]
) -> None:
    talk = Talk(world, world.engine(kimi_protocol=protocol), SYSTEM)
    answer = await talk.says(text, user("This is note one."), **more)
    await talk.ask(*(result(call.id, "note three") for call in answer.tool_calls), user("And now?"), **more)
    assert talk.went_on() is False
    await tidied()
    assert chats_used(world)[0] not in left(world)


@BOTH
async def test_the_only_call_that_is_wanted_is_gone_on_from(world: World, protocol: str) -> None:
    talk = Talk(world, world.engine(kimi_protocol=protocol), SYSTEM, parallel_tool_calls=False)
    answer = await talk.says(CALL.format("a"), user("Read note a"))
    await talk.says("Good.", result(answer.tool_calls[0].id, "note three"))
    assert talk.went_on() is True
    assert world.state["cancelled"] == []


async def test_a_repaired_answer_is_told_anew(world: World) -> None:
    talk = Talk(world, world.engine(), SYSTEM)
    world.server.queue("say", text=CALL.format("a").replace("read_file", "unknown"))
    answer = await talk.says(CALL.format("a"), user("Read"))
    await talk.says("Good.", result(answer.tool_calls[0].id, "text"))
    assert talk.went_on() is False


@BOTH
async def test_an_answer_that_its_reader_left_is_told_anew(world: World, protocol: str) -> None:
    talk = await begun(world, world.engine(kimi_protocol=protocol))
    world.server.queue("hang_mid_text")
    async with aclosing(talk.engine.chat(talk.request(user("This is note three.")))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    await tidied()
    assert left(world) == []
    await talk.knows_all()
    assert talk.went_on() is False


@pytest.mark.parametrize("scenario", ["overloaded_trailer", "overloaded_before_text", "close_before_text", "internal"])
async def test_what_fails_unseen_is_told_anew_at_once(world: World, scenario: str) -> None:
    talk = await begun(world, world.engine())
    world.server.queue(scenario)
    world.server.queue("recall")
    answer = await talk.ask(user("What do you know?"))
    assert answer.text.splitlines() == ["note system", "note one", "note two"]
    assert talk.went_on() is False
    await tidied()
    assert chats_used(world)[-1] in left(world)


async def test_a_chat_in_which_nothing_was_said_waits_for_the_next_try(world: World) -> None:
    talk = await begun(world, world.engine(overlay="retry: {backoff_s: [], concurrency_s: 0.01}"))
    world.server.queue("concurrency", times=2)
    with pytest.raises(KimiError):
        await talk.ask(user("This is note three."))
    del talk.messages[-1]
    await talk.knows_all()
    assert talk.went_on() is True
    assert set(chats_used(world)) == {chats_used(world)[0], None}


async def test_a_refused_token_is_refreshed_and_the_conversation_goes_on(world: World) -> None:
    talk = await begun(world, world.engine())
    world.server.queue("auth_http")
    world.server.queue("recall")
    answer = await talk.ask(user("What do you know?"))
    assert answer.text.splitlines() == ["note system", "note one", "note two"]
    assert talk.went_on() is True


async def test_an_answer_that_is_never_right_leaves_no_chat(world: World) -> None:
    talk = await begun(world, world.engine())
    world.server.queue("say", text=CALL.format("a").replace("read_file", "unknown"), times=4)
    with pytest.raises(UnusableAnswer):
        await talk.ask(user("Read"))
    await tidied()
    assert left(world) == []


# --- conversations with a name ---


@BOTH
async def test_a_named_conversation_needs_only_what_is_new(world: World, protocol: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    named = {"tools": (), "conversation": "ours"}
    for text in ("This is note one.", "This is note two."):
        talk = Talk(world, engine, SYSTEM, **named)
        await talk.says("Fine.", user(text))
    world.server.queue("recall")
    answer = await talk.ask(user("What do you know?"), messages=(SYSTEM, user("What do you know?")))
    assert answer.text.splitlines() == ["note system", "note one", "note two"]
    assert prompts(world)[1:] == ["This is note two.", "What do you know?"]
    other = Talk(world, engine, SYSTEM, **{**named, "caller": "somebody else"})
    await other.knows_all()
    assert other.went_on() is False


async def test_a_named_conversation_is_told_what_has_changed_around_it(world: World) -> None:
    engine = world.engine()
    await Talk(world, engine, SYSTEM, conversation="ours").says("Fine.", user("This is note one."))
    kinder = replace(SYSTEM, parts=(TextPart(text="Be kinder, says note kind."),))
    talk = Talk(world, engine, kinder, conversation="ours", tools=MORE_TOOLS)
    world.server.queue("recall")
    answer = await talk.ask(user("What do you know?"))
    assert answer.text.splitlines() == ["note system", "note one", "note kind"]
    assert "add(a: integer" in prompts(world)[-1]


async def test_a_named_conversation_survives_what_goes_wrong(world: World) -> None:
    engine = world.engine()
    talk = Talk(world, engine, tools=(), conversation="ours")
    await talk.says("Fine.", user("This is note one."))
    world.server.queue("overloaded_before_text")
    talk.messages.clear()
    world.server.queue("recall")
    assert (await talk.ask(user("What do you know?"))).text.splitlines() == ["note one"]
    world.server.queue("hang_mid_text")
    async with aclosing(engine.chat(talk.request(user("Never mind"), messages=(user("Never mind"),)))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    await tidied()
    talk.messages.clear()
    world.server.queue("recall")
    assert (await talk.ask(user("And now?"))).text.splitlines() == ["note one", "note one"]


async def test_a_named_conversation_is_answered_once_at_a_time(world: World) -> None:
    engine = world.engine()
    named = {"tools": (), "conversation": "ours"}
    await Talk(world, engine, **named).says("Fine.", user("This is note one."))
    world.server.queue("hang_mid_text")
    async with aclosing(engine.chat(Talk(world, engine, **named).request(user("Hi")))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        with pytest.raises(TooManyStreams) as caught:
            await Talk(world, engine, **named).ask(user("Hello?"))
        assert caught.value.retry_after_s
    world.server.queue(None)
    world.server.queue("recall")
    assert (await Talk(world, engine, **named).ask(user("What?"))).text.splitlines() == ["note one"]


@BOTH
async def test_an_answer_is_gone_on_from_by_its_id(world: World, protocol: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    talk = Talk(world, engine, tools=(), lasts=True)
    await talk.says("And note two.", user("This is note one."), answer_id="a1")
    talk.messages.clear()
    world.server.queue("recall")
    answer = await talk.ask(user("What do you know?"), previous_answer="a1", answer_id="a2")
    assert answer.text.splitlines() == ["note one", "note two"]
    calls = len(world.state["requests"])
    for before, more in (("a1", {}), ("a9", {}), ("a2", {"caller": "somebody else"})):
        talk.messages.clear()
        with pytest.raises(BadRequest, match="previous_response_id"):
            await talk.ask(user("And?"), previous_answer=before, **more)
    await tidied()
    assert len(world.state["requests"]) == calls


@pytest.mark.parametrize("how", ["off", "lost"])
async def test_an_answer_that_nobody_knows_is_not_gone_on_from(world: World, how: str) -> None:
    engine = world.engine(kimi_continue="off" if how == "off" else "auto")
    talk = Talk(world, engine, tools=(), lasts=True)
    await talk.says("And note two.", user("This is note one."), answer_id="a1")
    await tidied()
    remove_all(world)
    talk.messages.clear()
    with pytest.raises(BadRequest, match="Send the whole conversation"):
        await talk.ask(user("And?"), previous_answer="a1")
    assert len(world.state["calls"]) == 1


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_chat_of_the_owners_goes_on_and_stays(world: World, legacy: bool) -> None:
    engine = world.engine("ada", "bea", kimi_protocol="rest" if legacy else "auto")
    chosen, *others = world.server.call(lambda: make_chats(world, "bea" if not legacy else "ada", 3, legacy=legacy))
    untouched = [chat for chat in world.state["chats"] if chat["id"] != chosen]
    talk = Talk(world, engine, SYSTEM, tools=(), conversation=chosen)
    await talk.says("And note two.", user("This is note one."))
    assert talk.went_on() is True
    await talk.knows_all()
    assert talk.went_on() is True
    assert set(chats_used(world)) == {chosen}
    world.server.queue("hang_mid_text")
    async with aclosing(engine.chat(talk.request(user("More")))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    await tidied()
    later(engine, 10_000_000)
    await engine.tidier.sweep()
    await engine.registry.close()
    assert rows(engine) == {}
    assert sorted(left(world)) == sorted([chosen, *others])
    assert [chat for chat in world.state["chats"] if chat["id"] != chosen] == untouched
    assert world.state["deleted"] == []


def make_chats(world: World, name: str, count: int, **more: Any) -> list[str]:
    ids: list[str] = made(world.server.state, {"user": name, "count": count, **more})["ids"]
    return ids


@pytest.mark.parametrize("name", ["0198a000-0000-7000-8000-0000000000aa", "abcdefghij0123456789"])
@BOTH
async def test_a_name_like_a_chats_that_is_none_begins_a_conversation(world: World, protocol: str, name: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    named = {"tools": (), "conversation": name}
    await Talk(world, engine, **named).says("Fine.", user("This is note one."))
    world.server.queue("recall")
    assert (await Talk(world, engine, **named).ask(user("What?"))).text == "note one"


# --- nothing left behind ---


@BOTH
async def test_a_kept_chat_goes_when_nobody_goes_on_with_it(world: World, state_url: str, protocol: str) -> None:
    talk = await begun(world, world.engine(kimi_state_url=state_url, kimi_protocol=protocol))
    (chat,) = left(world)
    for waited_s in (0, 800, 800):  # with each answer it begins anew
        overdue(talk.engine, waited_s)
        await talk.engine.tidier.sweep()
        assert left(world) == [chat]
        await talk.says("Fine.", user("More"))
        assert talk.went_on() is True
    overdue(talk.engine, 901)
    await talk.engine.tidier.sweep()
    await talk.engine.registry.close()
    assert (left(world), rows(talk.engine)) == ([], {})
    await talk.knows_all()
    assert talk.went_on() is False


def remove_all(world: World) -> None:
    """As the owner can."""

    def remove() -> None:
        for chat in world.server.state.chats.all():
            world.server.state.chats.delete(chat)

    world.server.call(remove)


def overdue(engine: KimiEngine, seconds: float) -> None:
    """The same on a database with a clock of its own: every row becomes so much older."""
    with engine.registry._store.write() as transaction:
        chats = tables.chats
        transaction._connection.execute(update(chats).values(due_at=chats.c.due_at - seconds))


async def test_chats_that_are_to_stay_stay(world: World) -> None:
    talk = await begun(world, world.engine(kimi_keep_chats=True))
    await talk.knows_all()
    assert talk.went_on() is True
    later(talk.engine, 10_000_000)
    await talk.engine.tidier.sweep()
    await talk.engine.registry.close()
    assert rows(talk.engine) == {}
    assert len(left(world)) == 1


@BOTH
async def test_what_could_not_be_removed_is_removed_later(world: World, protocol: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    world.server.change(deletion_fails=True)
    await Talk(world, engine, tools=()).ask(user("Hi"))
    await tidied()
    (chat,) = left(world)
    for pause_s in engine.upstream.chats.retry_s[:3]:
        await engine.registry.close()
        assert rows(engine)[chat].attempts
        later(engine, pause_s - 1)
        await engine.tidier.sweep()
        assert rows(engine)[chat].attempts == 1 + engine.upstream.chats.retry_s.index(pause_s)
        later(engine, 1.5)
        await engine.tidier.sweep()
    world.server.change(deletion_fails=False)
    await engine.registry.close()
    later(engine, 10_000)
    await engine.tidier.sweep()
    await engine.registry.close()
    assert (left(world), rows(engine)) == ([], {})


async def test_a_chat_of_a_protocol_that_is_gone_is_removed_over_the_other(world: World) -> None:
    engine = world.engine(kimi_protocol="rest")
    world.server.change(deletion_fails=True)
    await Talk(world, engine, tools=()).ask(user("Hi"))
    await tidied()
    world.server.change(deletion_fails=False, rest_retired="410")
    with pytest.raises(EndpointRetired):
        await Talk(world, engine, tools=()).ask(user("Hi"))
    await engine.registry.close()
    later(engine, 10)
    await engine.tidier.sweep()
    assert left(world) == []


@pytest.mark.parametrize("tools", [(), (READ,)])
async def test_chats_of_a_process_that_died_are_removed_by_the_next(
    world: World, state_url: str, tools: tuple[ToolSpec, ...]
) -> None:
    world.server.queue("hang_mid_text")
    dead = world.engine(kimi_state_url=state_url)
    answer = dead.chat(Talk(world, dead, tools=tools).request(user("Hi")))
    while not isinstance(await anext(answer), TextDelta):
        pass
    (chat,) = left(world)
    await dead.registry.close()
    assert rows(dead).keys() == {chat}
    living = world.engine(kimi_token="", kimi_state_url=state_url)
    await living.tidier.sweep()
    assert left(world) == [chat]  # it may be alive
    overdue(living, 46)
    await living.tidier.sweep()
    assert left(world) == []
    await answer.aclose()
    await tidied()


async def test_a_chat_in_use_is_nobodys_to_remove(world: World, state_url: str) -> None:
    world.server.change(max_streams=4)
    talk = await begun(world, world.engine(kimi_state_url=state_url))
    other = world.engine(kimi_token="", kimi_state_url=state_url)
    world.server.queue("hang_mid_text")
    async with aclosing(talk.engine.chat(talk.request(user("Go on")))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        for _ in range(3):
            overdue(other, 40)
            await talk.engine.tidier.sweep()  # says that it is still there
            await other.tidier.sweep()
        assert len(left(world)) == 1
    await tidied()
    assert left(world) == []


async def test_the_account_of_one_deployment_is_tidied_by_another_process(world: World, tmp_path: Path) -> None:
    url, own = f"sqlite:///{tmp_path}/shared/accounts.db", world.token("eve")
    engine = world.engine(kimi_state_url=url)
    world.server.change(deletion_fails=True)
    await Talk(world, engine, tools=(), credential=own).ask(user("Hi"))
    await tidied()
    await engine.close()
    world.server.change(deletion_fails=False)
    other = world.engine(kimi_token="", kimi_state_url=url)
    overdue(other, 100)
    await other.tidier.sweep()
    assert left(world) == []


async def test_an_answer_writes_little(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = world.engine()
    writes = 0
    write = engine.registry._store.write

    def counted(**more: Any) -> Any:
        nonlocal writes
        writes += 1
        return write(**more)

    monkeypatch.setattr(engine.registry._store, "write", counted)
    for _ in range(20):
        await Talk(world, engine, tools=()).ask(user("Hi"))
    await tidied()
    assert writes < 30
