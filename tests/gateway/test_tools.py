"""Tool calls, JSON by schema, stop strings and token limits through a real proxy, with the official SDKs.

The simulated model writes given text, so the oracle of each case is that text. What the formats of the model allow is
tested where they are read (`tests.tools`, `tests.engine`); here each API shows the same in its own words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from google.genai import types

from tests.gateway.calling import PNG, SURFACES, Call, Failed, Question, Result, Said, Step, Surface, Tool
from tests.harness import Gateway, Simulator

PATIENCE_S = 30

ADD = Tool(
    name="add",
    description="Adds two numbers.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
)
WRITE = Tool(
    name="write_file",
    parameters={
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
)
BOTH = Question(tools=(ADD, WRITE))

#: Everything that has to be escaped somewhere on the way.
CONTENT = 'def f(x):\n\treturn {"a": [x < 1 && x > 0], "b": \'\\n\'}  # é ✓ 𝄞\n'


def calls(*made: tuple[str, dict[str, Any]]) -> str:
    """Calls as the model writes them."""
    written = [
        f'<invoke name="{name}">\n'
        + "".join(f'<parameter name="{key}">{value}</parameter>\n' for key, value in arguments.items())
        + "</invoke>\n"
        for name, arguments in made
    ]
    return "<function_calls>\n" + "".join(written) + "</function_calls>"


ONE = ("add", {"a": 1, "b": 2})
OTHER = ("write_file", {"path": "a.py", "content": CONTENT})
MARKUP = ("function_calls", "invoke", "parameter")


@pytest.fixture(scope="module")
def surfaces(gateway_process: Gateway) -> Iterator[dict[str, Surface]]:
    made = {surface.name: surface(gateway_process.url) for surface in SURFACES}
    yield made
    for surface in made.values():
        surface.close()


@pytest.fixture(params=[surface.name for surface in SURFACES])
def surface(surfaces: dict[str, Surface], gateway: Gateway, request: pytest.FixtureRequest) -> Surface:
    return surfaces[request.param]


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def says(simulator: Simulator, *texts: str, piece: int = 7) -> None:
    """What the model writes, one text for each message it gets, in small pieces."""
    for text in texts:
        simulator.scenario("say", text=text, piece=piece)


def prompts(simulator: Simulator) -> list[str]:
    return [
        "".join(block["text"]["content"] for block in body["message"]["blocks"] if "text" in block)
        for body in simulator.chat_bodies()
    ]


# --- calls ------------------------------------------------------------------------------------------------


def test_one_call(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, calls(OTHER))
    said = surface.ask(BOTH, stream=stream)
    assert (said.text, said.calls, said.finish) == ("", [OTHER], surface.finishes["calls"])


def test_two_calls_after_text(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, f"Let me see.\n\n{calls(ONE, OTHER)}")
    said = surface.ask(BOTH, stream=stream)
    assert said.text.strip() == "Let me see."
    assert (said.calls, said.finish) == ([ONE, OTHER], surface.finishes["calls"])
    assert not any(word in said.text + "".join(name for name, _ in said.calls) for word in MARKUP)


@pytest.mark.parametrize("name", ["chat", "messages", "responses"])  # Gemini has no such wish
def test_one_call_at_a_time(surfaces: dict[str, Surface], simulator: Simulator, stream: bool, name: str) -> None:
    says(simulator, calls(ONE, OTHER))
    assert surfaces[name].ask(replace(BOTH, parallel=False), stream=stream).calls == [ONE]


@pytest.mark.parametrize("choice", ["any", "add"])
def test_a_forced_call_is_insisted_on(surface: Surface, simulator: Simulator, stream: bool, choice: str) -> None:
    says(simulator, "I'd rather not.", calls(ONE))
    said = surface.ask(replace(BOTH, choice=choice), stream=stream)
    assert (said.calls, said.finish) == ([ONE], surface.finishes["calls"])
    assert len(prompts(simulator)) == 2


def test_only_some_may_be_called(surfaces: dict[str, Surface], simulator: Simulator) -> None:
    """Gemini's `allowedFunctionNames`."""
    says(simulator, calls(("third", {})), calls(ONE))
    third = Tool(name="third", parameters={"type": "object", "properties": {}})
    question = replace(BOTH, tools=(*BOTH.tools, third), choice="any", allowed=("add", "write_file"))
    assert surfaces["gemini"].ask(question, stream=False).calls == [ONE]
    assert len(prompts(simulator)) == 2


def test_no_call_where_none_may_be(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, "It is 3.")
    said = surface.ask(replace(BOTH, choice="none"), stream=stream)
    assert (said.text, said.calls, said.finish) == ("It is 3.", [], surface.finishes["text"])
    assert "Adds two numbers" not in prompts(simulator)[0]


def test_text_instead_of_a_call(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, "It is 3.")
    said = surface.ask(BOTH, stream=stream)
    assert (said.text, said.calls, said.finish) == ("It is 3.", [], surface.finishes["text"])
    assert "Adds two numbers" in prompts(simulator)[0]


def test_arguments_come_while_they_are_written(surface: Surface, simulator: Simulator) -> None:
    """The service falls silent inside the arguments: the client holds them so far, to the letter."""
    before, after = "a first line\nand ", "a second one\n" * 40
    text = calls(("write_file", {"path": "notes.txt", "content": before + after}))
    cut = text.index(before) + len(before)
    simulator.scenario("say", text=text, piece=cut, every_s=PATIENCE_S)
    whole = json.dumps({"path": "notes.txt", "content": before + after}, separators=(",", ":"))
    so_far = whole[: whole.index("a second one")]
    said = Said()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(surface.ask, BOTH, stream=True, into=said)
        try:
            simulator.until("active_streams", 1, PATIENCE_S)
            give_up_at = time.monotonic() + PATIENCE_S / 2
            while surface.streams_arguments and arguments(said) != so_far:
                assert time.monotonic() < give_up_at, said
                time.sleep(0.02)
            assert not asking.done()
        finally:
            while not asking.done():
                simulator.control("resume")
                time.sleep(0.02)
        assert asking.result().calls == [("write_file", json.loads(whole))]


def arguments(said: Said) -> str:
    return "".join(arguments for _, arguments in said.written.values())


# --- results ----------------------------------------------------------------------------------------------


def test_results_go_back_in_their_order(surface: Surface, simulator: Simulator, stream: bool) -> None:
    steps = (
        Step(
            text="Two sums.",
            calls=(Call(name="add", arguments={"a": 1}), Call(name="add", arguments={"a": 2})),
            results=(Result(text="first sum"), Result(text="second sum")),
        ),
        Step(calls=(Call(name="write_file", arguments=OTHER[1]),), results=(Result(text="written"),)),
    )
    says(simulator, "Done.")
    said = surface.ask(replace(BOTH, steps=steps), stream=stream)
    assert (said.text, said.finish) == ("Done.", surface.finishes["text"])
    (prompt,) = prompts(simulator)
    at = 0
    for words in ("Two sums.", '"a">1<', '"a">2<', "first sum", "second sum", CONTENT, "written"):
        at = prompt.index(words, at) + len(words)


def test_a_result_with_an_image(surface: Surface, simulator: Simulator, stream: bool) -> None:
    step = Step(calls=(Call(name="add", arguments={"a": 1}),), results=(Result(text="see there", image=PNG),))
    says(simulator, "A picture.")
    assert surface.ask(replace(BOTH, steps=(step,)), stream=stream).text == "A picture."
    assert "see there" in prompts(simulator)[0]
    assert [file["type"] for file in simulator.state()["files"]] == ["image"]
    assert sum("file" in block for block in simulator.chat_bodies()[0]["message"]["blocks"]) == 1


#: OpenAI's APIs have no sign of an error: there the text says it.
ERRORS = {"messages": "[TOOL RESULT for call_0_0: failed]\nboom", "gemini": '{"error":"boom"}'}


def test_an_error_result(surface: Surface, simulator: Simulator, stream: bool) -> None:
    step = Step(calls=(Call(name="add", arguments={"a": 1}),), results=(Result(text="boom", is_error=True),))
    says(simulator, "It failed.")
    assert surface.ask(replace(BOTH, steps=(step,)), stream=stream).text == "It failed."
    assert ERRORS.get(surface.name, "]\nboom") in prompts(simulator)[0]


@pytest.mark.parametrize("image", [b"", PNG], ids=["text", "image"])
def test_one_error_among_results(surfaces: dict[str, Surface], simulator: Simulator, image: bytes) -> None:
    step = Step(
        calls=(Call(name="add", arguments={"a": 1}), Call(name="add", arguments={"a": 2})),
        results=(Result(text="boom", image=image, is_error=True), Result(text="fine")),
    )
    says(simulator, "It failed.")
    assert surfaces["messages"].ask(replace(BOTH, steps=(step,)), stream=False).text == "It failed."
    assert "[TOOL RESULT for call_0_0: failed]\nboom" in prompts(simulator)[0]
    assert "[TOOL RESULT for call_0_1]\nfine" in prompts(simulator)[0]


# --- JSON -------------------------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name", "ages"],
}
WANTED = Question(schema=PERSON)


def test_json_comes_without_prose_and_fence(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, 'Sure:\n\n```json\n{"name": "Ada", "ages": ["7", 8]}\n```\nAnything else?')
    said = surface.ask(WANTED, stream=stream)
    assert json.loads(said.text) == {"name": "Ada", "ages": [7, 8]}
    assert said.finish == surface.finishes["text"]
    assert '"required": ["name", "ages"]' in prompts(simulator)[0]
    assert "OBJECT" not in prompts(simulator)[0]


def test_prose_is_asked_for_again_as_json(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, "Ada is seven.", '{"name": "Ada", "ages": []}')
    assert json.loads(surface.ask(WANTED, stream=stream).text) == {"name": "Ada", "ages": []}


@pytest.mark.parametrize("field", ["responseSchema", "responseJsonSchema"])
def test_geminis_schemas_by_their_raw_names(gateway: Gateway, simulator: Simulator, field: str) -> None:
    """As a client writes them that has no SDK: types in upper case, a list among them."""
    says(simulator, 'Here:\n```json\n{"model_choice": "flash", "reason": null}\n```')
    schema = {
        "type": "OBJECT",
        "properties": {
            "model_choice": {"type": "STRING", "enum": ["flash", "pro"]},
            "reason": {"type": "STRING", "nullable": True}
            if field == "responseSchema"
            else {"type": ["STRING", "NULL"]},
        },
        "required": ["model_choice"],
    }
    body = {
        "contents": [{"role": "user", "parts": [{"text": "Which?"}]}],
        "generationConfig": {"responseMimeType": "application/json", field: schema},
    }
    answer = gateway.http.post("/v1beta/models/kimi:generateContent", json=body).json()
    (part,) = answer["candidates"][0]["content"]["parts"]
    assert json.loads(part["text"]) == {"model_choice": "flash", "reason": None}


def test_geminis_json_without_a_schema(surfaces: dict[str, Surface], simulator: Simulator) -> None:
    says(simulator, 'Here you are: {"any": "thing"} Fine?')
    config = types.GenerateContentConfig(response_mime_type="application/json")
    client = surfaces["gemini"].client
    assert json.loads(client.models.generate_content(model="kimi", contents="Which?", config=config).text) == {
        "any": "thing"
    }


# --- stop and max_tokens ----------------------------------------------------------------------------------


def test_the_answer_ends_before_a_stop_string(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, "One. Two. Three. " * 20, piece=3)
    said = surface.ask(Question(stop=("Nine", "Two")), stream=stream)
    assert (said.text, said.finish) == ("One. ", surface.finishes["stop"])
    simulator.until("active_streams", 0, PATIENCE_S)


def test_anthropic_is_told_which_stop_string_it_was(
    surfaces: dict[str, Surface], simulator: Simulator, stream: bool
) -> None:
    says(simulator, "One. Two. Three.", "One. Two. Three.", piece=3)
    surface = surfaces["messages"]
    assert surface.ask(Question(stop=("Nine", "Two")), stream=stream).stop == "Two"
    assert surface.ask(Question(stop=("Nine",)), stream=stream).stop is None


def test_the_answer_ends_at_its_limit(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, "word " * 400)
    said = surface.ask(Question(max_tokens=10), stream=stream)
    assert said.finish == surface.finishes["length"]
    assert 0 < len(said.text) < 100
    simulator.until("active_streams", 0, PATIENCE_S)


# --- errors -----------------------------------------------------------------------------------------------

UNKNOWN = calls(("subtract", {"a": 1}))


def test_a_call_that_can_not_be_made_is_an_error(surface: Surface, simulator: Simulator, stream: bool) -> None:
    """Twice asked for in vain, and nothing was shown: a real status, also of a stream."""
    says(simulator, UNKNOWN, UNKNOWN)
    with pytest.raises(Failed, match=r"subtract.*\[unusable_answer\]") as failed:
        surface.ask(BOTH, stream=stream)
    assert failed.value.status == 502


def test_prose_twice_is_an_error(surface: Surface, simulator: Simulator, stream: bool) -> None:
    says(simulator, "Seven.", "Seven!")
    with pytest.raises(Failed, match=r"\[unusable_answer\]") as failed:
        surface.ask(WANTED, stream=stream)
    assert (failed.value.status, failed.value.type) == (502, surface.unusable[0])


def test_what_was_shown_ends_in_an_error(surface: Surface, simulator: Simulator) -> None:
    says(simulator, '{"name": "Ada"}')
    said = Said()
    with pytest.raises(Failed, match=r"\[unusable_answer\]") as failed:
        surface.ask(WANTED, stream=True, into=said)
    assert failed.value.type == surface.unusable[1]
    assert said.text == '{"name":"Ada"}'
    assert said.finish == ""


def test_a_schema_that_is_none_is_the_callers_fault(surface: Surface, simulator: Simulator) -> None:
    with pytest.raises(Failed, match="schema") as failed:
        surface.ask(
            Question(schema={"type": "object", "properties": {"a": {"type": "integer", "pattern": "("}}}), stream=True
        )
    assert failed.value.status == 400
    assert simulator.chat_bodies() == []
