"""Agent loops and conversations through a real proxy go on in the chat they began in, and are never wrong.

Every text holds notes with names of their own; the simulated model, asked what it knows, names those that it sees.
That must be what its caller has sent and got, whatever way it was brought there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import pytest

from tests.gateway.calling import Tool
from tests.gateway.talking import TALKS, Chained, Talk
from tests.gateway.test_tools import calls, says
from tests.harness import Gateway, Simulator

PATH = {"path": {"type": "string"}}


def _tool(name: str, description: str, properties: dict[str, Any]) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return Tool(name=name, description=description, parameters=schema)


TOOLS = (
    _tool("read_file", "The text of a file.", PATH),
    _tool("edit_file", "Replaces a text in a file.", {**PATH, "old": {"type": "string"}, "new": {"type": "string"}}),
    _tool("run", "Runs a command; what it printed.", {"command": {"type": "string"}}),
)
SYSTEM = "You are a careful programmer. Remember note system."
TASK = "Make the tests pass. Remember note task."
RESULT_BYTES = 4096


def made_calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """What an agent does all day: read, edit, run."""
    for number in cycle(range(1, 10)):
        path = f"src/module_{number}.py"
        yield "read_file", {"path": path}
        yield "edit_file", {"path": path, "old": f"x = {number}", "new": f"x = {number + 1}  # note edit-{number}"}
        yield "run", {"command": f"pytest tests/test_{number}.py"}


def result(number: int) -> str:
    """4 KB of a tool's output, unlike any other's."""
    lines = "".join(f"result {number} line {line}: {'x' * (line % 50)}\n" for line in range(200))
    return f"note result-{number}\n{lines}"[:RESULT_BYTES]


def work(talk: Talk, simulator: Simulator, turns: int) -> None:
    """An agent loop of so many answers: each but the last is a call."""
    made = list(islice(made_calls(), turns - 1))
    said = [f"Next is note step-{number}.\n\n{calls(call)}" for number, call in enumerate(made)]
    says(simulator, *said, "All is done. Remember note end.", piece=0)
    answer = talk.say(TASK)
    for number, call in enumerate(made):
        assert answer.calls == [call]
        assert answer.text.strip() == f"Next is note step-{number}."
        answer = talk.give(result(number))
    assert (answer.calls, answer.text) == ([], "All is done. Remember note end.")


def notes(texts: list[str]) -> list[str]:
    return re.findall(r"note [\w-]+", "\n".join(texts))


def knows_what_was_said(talk: Talk, simulator: Simulator) -> None:
    """The model sees the whole conversation of its caller, once and in order."""
    said = notes(talk.history)
    simulator.scenario("recall")
    assert talk.say("What do you know?").text.splitlines() == said


def asked(simulator: Simulator) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = simulator.state()["calls"]
    return calls


def chats_used(simulator: Simulator) -> list[str]:
    """The chats of all calls so far, each once."""
    return list(dict.fromkeys(call["chat_id"] for call in asked(simulator)))


@pytest.fixture(scope="module")
def flattening_process(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    """A gateway that never continues."""
    tmp, token = tmp_path_factory.mktemp("flattening"), simulator_process.login("flat")["refresh_token"]
    with Gateway(tmp, simulator_process.url, token, KIMI_CONTINUE="off") as gateway:
        yield gateway


@pytest.fixture
def flattening(flattening_process: Gateway, simulator: Simulator) -> Gateway:
    return flattening_process


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("kind", [kind for kind in TALKS if kind is not Chained], ids=lambda kind: kind.name)
def test_each_turn_brings_all_that_was_said(
    flattening: Gateway, simulator: Simulator, kind: type[Talk], stream: bool
) -> None:
    talk = kind(flattening.url, tools=TOOLS, system=SYSTEM, stream=stream)
    work(talk, simulator, 4)
    knows_what_was_said(talk, simulator)
    talk.close()
    assert len(chats_used(simulator)) == 5
    simulator.until("chats", [], 30)
