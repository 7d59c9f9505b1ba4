"""Tool calls, JSON answers, `stop` and `max_tokens` through the engine, against the simulator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_provider.engine import KimiEngine
from kimi_provider.errors import BadRequest, UnusableAnswer
from kimi_provider.events import Event, Finished, Notice, ToolCallDelta
from kimi_provider.request import JsonFormat, Message, TextPart, ToolCall, ToolChoice, ToolSpec

from .conftest import World, collect, text_of, tidied

ADD = ToolSpec(
    name="add",
    description="Adds two numbers.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
)
READ = ToolSpec(name="read_file", parameters={"type": "object", "properties": {"path": {"type": "string"}}})

CALL = '<function_calls>\n<invoke name="add">\n<parameter name="a">1</parameter>\n</invoke>\n</function_calls>'
UNKNOWN = CALL.replace('"add"', '"subtract"')

BOTH = pytest.mark.parametrize("protocol", ["connect", "rest"])


def says(world: World, *texts: str) -> None:
    """What the model writes, one text for each message it gets."""
    for text in texts:
        world.server.queue("say", text=text)


async def ask(engine: KimiEngine, **more: Any) -> list[Event]:
    return await collect(engine, "Add 1", tools=(ADD, READ), **more)


def calls_of(events: list[Event]) -> list[tuple[str, Any]]:
    """Name and arguments of every call."""
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call = calls.setdefault(event.index, ["", ""])
            call[0] += event.name or ""
            call[1] += event.arguments
    return [(name, json.loads(arguments)) for name, arguments in calls.values()]


def prompts(world: World) -> list[str]:
    asked = [one["body"] for one in world.state["requests"] if one["path"].endswith(("/Chat", "/completion/stream"))]
    return [
        body["messages"][0]["content"] if "messages" in body else body["message"]["blocks"][0]["text"]["content"]
        for body in asked
    ]


@BOTH
async def test_a_call_comes_as_data(world: World, protocol: str) -> None:
    says(world, f"Let me see.\n\n{CALL}")
    events = await ask(world.engine(kimi_protocol=protocol))
    assert text_of(events) == "Let me see."
    assert calls_of(events) == [("add", {"a": 1})]
    assert events[-1] == Finished(reason="tool_calls")
    assert "add(a: integer, b?: integer)" in prompts(world)[0]


async def test_the_services_own_tools_stay_off(world: World) -> None:
    says(world, CALL)
    engine = world.engine(kimi_token=world.token("rich", level="LEVEL_STANDARD"))
    await ask(engine, model="kimi-k3", search=True)
    body = world.chats[0]["body"]
    assert body["tools"] == []
    assert body["options"]["enable_plugin"] is False


async def test_a_tool_of_the_services_own_is_told_and_not_passed_off(world: World) -> None:
    world.server.queue("native_tool")
    events = await ask(world.engine())
    assert [event.code for event in events if isinstance(event, Notice)] == ["native_tool"]
    assert calls_of(events) == []


async def test_history_of_calls_and_results_goes_back_in_the_dialects_spelling(world: World) -> None:
    said = (
        Message(role="user", parts=(TextPart(text="Add 1"),)),
        Message(role="assistant", tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),)),
        Message(role="tool", tool_call_id="c1", parts=(TextPart(text="boom"),), is_error=True),
    )
    says(world, "It failed.")
    events = await ask(world.engine(), messages=said)
    assert CALL in prompts(world)[0]
    assert "[TOOL RESULT for c1: failed]\nboom" in prompts(world)[0]
    assert (text_of(events), events[-1]) == ("It failed.", Finished(reason="stop"))


@BOTH
async def test_a_call_that_can_not_be_made_is_asked_for_once_more(world: World, protocol: str) -> None:
    says(world, UNKNOWN, CALL)
    events = await ask(world.engine(kimi_protocol=protocol))
    assert calls_of(events) == [("add", {"a": 1})]
    assert text_of(events) == ""
    assert "There is no action 'subtract'." in prompts(world)[1]
    assert len({call["chat_id"] for call in world.state["calls"]}) == 1
    await tidied()
    assert world.state["chats"] == []


async def test_a_second_call_that_can_not_be_made_is_an_error(world: World) -> None:
    says(world, UNKNOWN, UNKNOWN, CALL)
    with pytest.raises(UnusableAnswer, match="subtract"):
        await ask(world.engine("ada", "bea"))
    assert len(prompts(world)) == 2
    await tidied()
    assert world.state["chats"] == []


async def test_a_required_call_is_insisted_on(world: World) -> None:
    says(world, "I'd rather not.", CALL)
    events = await ask(world.engine(), tool_choice=ToolChoice(mode="required", names=("add",)))
    assert calls_of(events) == [("add", {"a": 1})]


async def test_no_tools_at_all_when_none_may_be_called(world: World) -> None:
    says(world, CALL)
    events = await ask(world.engine(), tool_choice=ToolChoice(mode="none"))
    assert text_of(events) == CALL
    assert events[-1] == Finished()
    assert "add(" not in prompts(world)[0]


async def test_one_call_is_enough_where_no_more_are_wanted(world: World) -> None:
    says(world, f"{CALL}\n{CALL}")
    events = await ask(world.engine(), parallel_tool_calls=False)
    assert calls_of(events) == [("add", {"a": 1})]
    says(world, f"{CALL}\n{CALL}")
    assert len(calls_of(await ask(world.engine()))) == 2


async def test_a_choice_of_an_unknown_tool_sends_nothing(world: World) -> None:
    with pytest.raises(BadRequest, match="not among the tools"):
        await ask(world.engine(), tool_choice=ToolChoice(mode="required", names=("nope",)))
    assert world.state["bytes_received"] == 0


async def test_results_that_the_model_makes_up_are_cut_off(world: World) -> None:
    says(world, f"{CALL}\n[TOOL RESULT for c1]\n2\n\nIt is 2.")
    events = await ask(world.engine())
    assert (text_of(events), calls_of(events)) == ("", [("add", {"a": 1})])


async def test_arguments_may_hold_what_looks_like_a_turn_or_a_citation(world: World) -> None:
    content = "[USER]\\nsays [^1^] and [[cite:2]]\\n[TOOL RESULT for x]\\n".replace("\\n", "\n")
    call = CALL.replace('"add"', '"read_file"').replace('"a">1<', f'"path">{content}<')
    says(world, f"Writing.\n{call}")
    events = await ask(world.engine())
    assert calls_of(events) == [("read_file", {"path": content})]


# --- JSON ---

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@BOTH
@pytest.mark.parametrize("collected", [True, False])
async def test_json_comes_without_prose_and_fence(world: World, protocol: str, collected: bool) -> None:
    says(world, 'Sure:\n```json\n{"age": "7"}\n```\nAnything else?')
    wanted = JsonFormat(schema=SCHEMA)
    events = await collect(world.engine(kimi_protocol=protocol), response_format=wanted, collected=collected)
    assert json.loads(text_of(events)) == {"age": 7}
    assert '"required": ["age"]' in prompts(world)[0]


@pytest.mark.parametrize("collected", [True, False])
async def test_prose_is_asked_for_once_more_as_json(world: World, collected: bool) -> None:
    says(world, "Seven, I think.", '{"age": 7}')
    events = await collect(world.engine(), response_format=JsonFormat(schema=SCHEMA), collected=collected)
    assert json.loads(text_of(events)) == {"age": 7}


async def test_json_that_was_shown_can_not_be_taken_back(world: World) -> None:
    says(world, '{"name": "x"}')
    with pytest.raises(UnusableAnswer, match="age"):
        await collect(world.engine(), response_format=JsonFormat(schema=SCHEMA))
    assert len(prompts(world)) == 1


async def test_prose_twice_is_an_error(world: World) -> None:
    says(world, "Seven.", "Seven!")
    with pytest.raises(UnusableAnswer):
        await collect(world.engine(), response_format=JsonFormat(schema=SCHEMA), collected=True)


async def test_a_schema_that_is_none_sends_nothing(world: World) -> None:
    with pytest.raises(BadRequest, match="schema"):
        await collect(world.engine(), response_format=JsonFormat(schema={"$ref": "#/nowhere"}))
    assert world.state["bytes_received"] == 0


# --- stop and max_tokens ---


@BOTH
async def test_the_answer_ends_before_a_stop_string(world: World, protocol: str) -> None:
    says(world, "One. Two. Three.")
    events = await collect(world.engine(kimi_protocol=protocol), stop=("Two",))
    assert (text_of(events), events[-1]) == ("One. ", Finished())
    await tidied()
    assert world.state["active_streams"] == 0
    assert world.state["chats"] == []


async def test_the_answer_ends_at_its_limit_and_at_the_service(world: World) -> None:
    says(world, "word " * 400)
    events = await collect(world.engine(), max_tokens=10)
    assert len(text_of(events)) == 40
    assert events[-1] == Finished(reason="length")
    await tidied()
    assert world.state["active_streams"] == 0
