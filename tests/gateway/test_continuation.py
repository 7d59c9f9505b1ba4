"""Agent loops and conversations through a real proxy go on in the chat they began in, and are never wrong.

Every text holds notes with names of their own; the simulated model, asked what it knows, names those that it sees.
That must be what its caller has sent and got, whatever way it was brought there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import copy
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.gateway.calling import Tool
from tests.gateway.talking import TALKS, Chained, Chat, Talk
from tests.gateway.test_tools import calls, says
from tests.harness import MASTER_KEY, Gateway, Simulator

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
LOOP_TURNS = 30


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


def steps(talk: Talk, simulator: Simulator, turns: int) -> Iterator[int]:
    """An agent loop of so many answers, of which each but the last is a call; yields before each result goes back."""
    made = list(islice(made_calls(), turns - 1))
    said = [f"Next is note step-{number}.\n\n{calls(call)}" for number, call in enumerate(made)]
    says(simulator, *said, "All is done. Remember note end.", piece=0)
    answer = talk.say(TASK)
    for number, call in enumerate(made):
        assert answer.calls == [call]
        assert answer.text.strip() == f"Next is note step-{number}."
        yield number
        answer = talk.give(result(number))
    assert (answer.calls, answer.text) == ([], "All is done. Remember note end.")


def work(talk: Talk, simulator: Simulator, turns: int) -> None:
    for _ in steps(talk, simulator, turns):
        pass


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


def uploads(simulator: Simulator) -> list[int]:
    return [call["uploaded_bytes"] for call in asked(simulator)]


def chats_used(simulator: Simulator) -> list[str]:
    """The chats of all calls so far, each once."""
    return list(dict.fromkeys(call["chat_id"] for call in asked(simulator)))


def forget_chats(simulator: Simulator, user: str = "ada") -> None:
    """The owner of the account deletes everything in the browser."""
    headers = {"authorization": f"Bearer {simulator.login(user)['access_token']}"}
    for chat in simulator.state()["chats"]:
        path = "/apiv2/kimi.gateway.chat.v1.ChatService/DeleteChat"
        assert simulator.http.post(path, json={"chat_id": chat["id"]}, headers=headers).status_code == 200


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


@pytest.fixture(params=TALKS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Talk]:
    made: type[Talk] = request.param
    return made


@pytest.fixture
def talk(gateway: Gateway, kind: type[Talk], stream: bool) -> Iterator[Talk]:
    """An agent's, with tools."""
    made = kind(gateway.url, tools=TOOLS, system=SYSTEM, stream=stream)
    yield made
    made.close()


@pytest.fixture
def chat(gateway: Gateway) -> Iterator[Chat]:
    """The same on the API most callers use."""
    made = Chat(gateway.url, tools=TOOLS, system=SYSTEM)
    yield made
    made.close()


@pytest.fixture
def plain(gateway: Gateway, kind: type[Talk]) -> Iterator[Talk]:
    made = kind(gateway.url)
    yield made
    made.close()


def test_thirty_turns_upload_a_tenth(flattening: Gateway, gateway: Gateway, simulator: Simulator) -> None:
    sent: list[list[int]] = []
    for served in (flattening, gateway):
        simulator.reset()
        talk = Chat(served.url, tools=TOOLS, system=SYSTEM)
        work(talk, simulator, LOOP_TURNS)
        sent.append(uploads(simulator))
        knows_what_was_said(talk, simulator)
        talk.close()
    flat, going_on = sent
    assert len(flat) == len(going_on) == LOOP_TURNS
    assert flat[-1] > (LOOP_TURNS - 1) * RESULT_BYTES
    assert going_on[-1] <= flat[-1] / 10
    assert len(chats_used(simulator)) == 1


def test_a_loop_stays_in_its_chat(talk: Talk, simulator: Simulator) -> None:
    work(talk, simulator, 6)
    assert max(uploads(simulator)[1:]) < RESULT_BYTES * 2
    knows_what_was_said(talk, simulator)
    assert len(chats_used(simulator)) == 1


def test_a_conversation_without_tools_goes_on_from_its_second_turn(plain: Talk, simulator: Simulator) -> None:
    """Only then is it one. A response can be named by whoever got it, so its chat is kept at once."""
    for number in range(4):
        simulator.scenario("say", text=f"I heard note heard-{number}.")
        assert plain.say(f"This is note said-{number}.").text == f"I heard note heard-{number}."
    knows_what_was_said(plain, simulator)
    chats = [call["chat_id"] for call in asked(simulator)]
    assert len(set(chats[1:])) == 1
    if isinstance(plain, Chained):
        assert chats[0] == chats[1]


def test_a_named_conversation_goes_on_at_once(gateway: Gateway, simulator: Simulator) -> None:
    talks = [Chat(gateway.url), Chat(gateway.url)]
    for number, talk in enumerate(talks):
        talk.more = {"extra_body": {"conversation_id": f"named-{number}"}}
    for turn in range(3):
        for talk in talks:
            simulator.scenario("say", text=f"I heard note heard-{turn}.")
            talk.say(f"This is note said-{turn}.")
    for talk in talks:
        knows_what_was_said(talk, simulator)
        talk.close()
    chats = [call["chat_id"] for call in asked(simulator)]
    assert chats == [chats[0], chats[1]] * 4
    assert chats[0] != chats[1]


@pytest.mark.parametrize("what_follows", ["is kept", "is dropped"])
def test_another_history_from_turn_ten_on(chat: Chat, simulator: Simulator, what_follows: str) -> None:
    work(chat, simulator, 14)
    results = [at for at, one in enumerate(chat.messages) if isinstance(one, dict) and one["role"] == "tool"]
    chat.messages[results[9]]["content"] = f"note changed\n{result(99)[20:]}"
    if what_follows == "is dropped":
        del chat.messages[results[9] + 1 :]
    else:
        chat.messages.append({"role": "user", "content": "What do you know?"})
    sent = notes([json.dumps(one if isinstance(one, dict) else one.model_dump()) for one in chat.messages])
    assert "note changed" in sent
    assert "note result-9" not in sent
    simulator.scenario("recall")
    assert chat._ask().text.splitlines() == sent
    assert len(chats_used(simulator)) == 2


def test_two_requests_that_extend_one_history(chat: Chat, simulator: Simulator) -> None:
    """At the same time, each in its own direction: neither hears of the other."""
    work(chat, simulator, 3)
    branches = []
    for name in ("left", "right"):
        branch = copy(chat)
        branch.messages, branch.history = [*chat.messages], [*chat.history]
        branches.append((branch, f"Remember note {name}. What do you know?"))
    simulator.scenario("recall", times=2)
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda one: one[0].say(one[1]).text.splitlines(), branches))
    said = notes(chat.history)
    assert answers == [[*said, "note left"], [*said, "note right"]]
    for branch, _ in branches:
        knows_what_was_said(branch, simulator)


def test_a_chat_that_its_owner_deleted(chat: Chat, simulator: Simulator) -> None:
    for number in steps(chat, simulator, 8):
        if number == 4:
            forget_chats(simulator)
    knows_what_was_said(chat, simulator)
    chats = [call["chat_id"] for call in asked(simulator)]
    assert len(set(chats[:5])) == 1
    assert len(set(chats[5:])) == 1
    assert chats[4] != chats[5]


def test_a_response_whose_conversation_is_gone_is_not_answered_by_guess(
    gateway: Gateway, flattening: Gateway, simulator: Simulator
) -> None:
    for served in (gateway, flattening):
        talk = Chained(served.url)
        talk.say("This is note one.")
        if served is gateway:
            forget_chats(simulator)
        simulator.until("chats", [], 30)
        before = len(asked(simulator))
        with pytest.raises(openai.BadRequestError, match="previous_response"):
            talk.say("What do you know?")
        assert len(asked(simulator)) == before
        talk.close()


@pytest.fixture
def home(tmp_path: Path, simulator: Simulator) -> dict[str, Any]:
    """Where gateways of one test keep their state."""
    return {"tmp": tmp_path, "simulator_url": simulator.url, "token": simulator.login("cleo")["refresh_token"]}


def test_a_loop_outlives_its_gateway(home: dict[str, Any], simulator: Simulator) -> None:
    chat: Chat | None = None
    with ExitStack() as stack:
        first = stack.enter_context(Gateway(**home))
        chat = Chat(first.url, tools=TOOLS, system=SYSTEM)
        for number in steps(chat, simulator, 8):
            if number == 4:
                first.crash()
                second = stack.enter_context(Gateway(**home))
                chat.client = openai.OpenAI(base_url=f"{second.url}/v1", api_key=MASTER_KEY, max_retries=0)
        knows_what_was_said(chat, simulator)
        chat.close()
    assert len(chats_used(simulator)) == 1


def clients_of_each_worker(gateway: Gateway, stack: ExitStack) -> list[httpx.Client]:
    """Two clients with a connection each, to two processes: the first is held while the second one is made."""
    clients: list[httpx.Client] = []
    served: list[psutil.Process] = []
    for _ in range(2):
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=60))
        for worker in served:
            worker.suspend()
        try:
            answer = client.get(f"{gateway.url}/ping")
        finally:
            for worker in served:
                worker.resume()
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        served += [
            process
            for process in gateway.processes()
            if any(line.raddr and line.raddr.port == port for line in process.net_connections("tcp"))
        ]
        clients.append(client)
    assert len({worker.pid for worker in served}) == 2
    return clients


def test_workers_share_a_conversation(home: dict[str, Any], simulator: Simulator) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(**home, workers=2))
        kept = {"base_url": f"{gateway.url}/v1", "api_key": MASTER_KEY, "max_retries": 0}
        turns = cycle(openai.OpenAI(**kept, http_client=one) for one in clients_of_each_worker(gateway, stack))
        chat = Chat(gateway.url, tools=TOOLS, system=SYSTEM)
        chat.close()
        chat.client = next(turns)
        for _ in steps(chat, simulator, 8):
            chat.client = next(turns)
        knows_what_was_said(chat, simulator)
    assert len(chats_used(simulator)) == 1


@pytest.mark.parametrize("kind", [one for one in TALKS if one is not Chained], ids=lambda one: one.name)
def test_each_turn_brings_all_that_was_said(
    flattening: Gateway, simulator: Simulator, kind: type[Talk], stream: bool
) -> None:
    """With KIMI_CONTINUE=off."""
    talk = kind(flattening.url, tools=TOOLS, system=SYSTEM, stream=stream)
    work(talk, simulator, 4)
    knows_what_was_said(talk, simulator)
    talk.close()
    assert len(chats_used(simulator)) == 5
    simulator.until("chats", [], 30)
