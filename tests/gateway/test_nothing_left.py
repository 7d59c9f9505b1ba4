"""500 calls of every kind, a kill -9 among them: afterwards an account holds what its owner made, and nothing of ours.

Each prompt says what the simulated model is to do and whether its chat may be kept. Only a chat whose newest message
says so may be there when the calls are over, and none at all once they have been idle for their time.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import pytest

from tests.gateway.test_tools import calls
from tests.harness import MASTER_KEY, Gateway, Simulator, quick_overlay, shipped_config_without_limits

CALLS = 500
CALLERS = 8
LIMIT_S = 240
#: What a caller waits for an answer that never begins, before it leaves.
IMPATIENCE_S = 0.5

#: Chats are idle soon here; a process that is silent for a while has died.
OVERLAY = "chats: {idle_s: 15, renew_s: 2, claim_s: 10, retry_s: [0.5, 1, 2]}\n"
OLD_MODEL = "kimi-old"
MODELS = ("kimi", "kimi", "kimi", OLD_MODEL)
#: A deployment whose only account speaks the older protocol.
REST_ROW = (
    f"  - {{model_name: {OLD_MODEL}, litellm_params: {{model: kimi/kimi-latest, api_key: os.environ/OLD_TOKEN}}}}\n"
)

FAILURES = (
    "internal",
    "unavailable",
    "context_too_long",
    "moderated_before_text",
    "overloaded_trailer",
    "overloaded_after_text",
    "not_found",
    "close_mid_text",
    "done_then_error",
    "html_page",
)
RUN = {
    "type": "function",
    "function": {
        "name": "run",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}
CHAT = "/v1/chat/completions"
BODIES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "chat": (CHAT, lambda text: {"messages": [user(text)]}),
    "messages": ("/v1/messages", lambda text: {"messages": [user(text)], "max_tokens": 100}),
    "responses": ("/v1/responses", lambda text: {"input": text, "store": False}),
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str) -> str:
    """What a prompt holds for the simulated model to write `text`."""
    return f"[[scenario:say text={quote(text)}]]"


class Callers:
    """Send requests to the gateway that is there now."""

    gateway: Gateway

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()
        self.http = httpx.Client(headers={"authorization": f"Bearer {MASTER_KEY}"}, trust_env=False, timeout=LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        self.count()
        return self.http.post(self.gateway.url + path, json=body)

    def stream(self, body: dict[str, Any], timeout_s: float) -> Any:
        self.count()
        return self.http.stream("POST", self.gateway.url + CHAT, json={**body, "stream": True}, timeout=timeout_s)

    def count(self) -> None:
        with self._lock:
            self.made += 1

    def message(self, model: str, messages: list[Any], **more: Any) -> dict[str, Any]:
        """The assistant's, which `messages` have at their end afterwards."""
        answer = self.post(CHAT, {"model": model, "messages": messages, **more})
        assert answer.status_code == 200, answer.text
        message: dict[str, Any] = answer.json()["choices"][0]["message"]
        messages.append(message)
        return message


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one caller does with so many calls."""

    calls: int
    run: Callable[[Callers], None]


def answered(number: int, surface: str, model: str, stream: bool) -> Job:
    def run(callers: Callers) -> None:
        path, body = BODIES[surface]
        prompt = f"gone-{number} {says(f'answer-{number}.')}"
        answer = callers.post(path, {"model": model, "stream": stream, **body(prompt)})
        assert answer.status_code == 200, answer.text
        assert f"answer-{number}." in answer.text

    return Job(calls=1, run=run)


def failed(number: int, how: str, model: str, stream: bool) -> Job:
    def run(callers: Callers) -> None:
        messages = [user(f"gone-{number} [[scenario:{how}]]")]
        answer = callers.post(CHAT, {"model": model, "messages": messages, "stream": stream})
        assert answer.status_code >= 400 or (stream and '"error"' in answer.text), answer.text

    return Job(calls=1, run=run)


def left(number: int, model: str, before: str) -> Job:
    """A caller that goes away, before or after the first text."""

    def run(callers: Callers) -> None:
        if before == "text":
            body = {"model": model, "messages": [user(f"gone-{number} [[scenario:hang_before_first_frame]]")]}
            with pytest.raises(httpx.ReadTimeout), callers.stream(body, IMPATIENCE_S):
                pass
            return
        body = {"model": model, "messages": [user(f"gone-{number} [[scenario:hang_mid_text]]")]}
        with callers.stream(body, LIMIT_S) as answer:
            assert next(line for line in answer.iter_lines() if "Then silence" in line)

    return Job(calls=1, run=run)


def worked(number: int, model: str) -> Job:
    """An agent that calls a tool."""

    def run(callers: Callers) -> None:
        written = says(calls(("run", {"command": f"run-{number}"})))
        messages: list[Any] = [user(f"kept-{number} note task-{number} {written}")]
        (call,) = callers.message(model, messages, tools=[RUN])["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"command": f"run-{number}"}
        result = f"kept-{number} note result-{number} [[scenario:recall]]"
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        known = callers.message(model, messages, tools=[RUN])["content"].splitlines()
        assert known == [f"note task-{number}", f"note result-{number}"]

    return Job(calls=2, run=run)


def talked(number: int, model: str) -> Job:
    """A conversation; it is one from its second turn on."""

    def run(callers: Callers) -> None:
        messages: list[Any] = []
        for turn, marker in enumerate(("gone", "kept")):
            messages.append(user(f"{marker}-{number} note said-{turn} {says(f'I heard note heard-{turn}.')}"))
            assert callers.message(model, messages)["content"] == f"I heard note heard-{turn}."
        messages.append(user(f"kept-{number} [[scenario:recall]]"))
        known = callers.message(model, messages)["content"].splitlines()
        assert known == ["note said-0", "note heard-0", "note said-1", "note heard-1"]

    return Job(calls=3, run=run)


def jobs() -> list[Job]:
    """In an order of their own; the same every time."""
    dice = random.Random(6)
    numbers = iter(range(CALLS))

    def model() -> str:
        return dice.choice(MODELS)

    made = [talked(next(numbers), model()) for _ in range(36)]
    made += [worked(next(numbers), model()) for _ in range(40)]
    made += [failed(next(numbers), how, model(), stream) for how in FAILURES for stream in (False, True) * 4]
    made += [left(next(numbers), model(), before) for before in ("text", "the end") for _ in range(24)]
    rest = CALLS - sum(job.calls for job in made) - EXTRA_CALLS
    surfaces = (dice.choice(list(BODIES)) for _ in range(rest))
    made += [answered(next(numbers), surface, model(), dice.random() < 0.5) for surface in surfaces]
    dice.shuffle(made)
    return made


#: Made by the test itself: those that run when the gateway dies and what led to them, the owner's, the last ones.
DYING = 4
EXTRA_CALLS = DYING + 2 + 4 + 2


def work(callers: Callers, todo: list[Job]) -> None:
    """Several at a time."""
    with ThreadPoolExecutor(CALLERS) as pool:
        for done in [pool.submit(job.run, callers) for job in todo]:
            done.result(LIMIT_S)


class World:
    """A simulator with the owner's chats in it, and gateways in front of it, one after the other."""

    def __init__(self, tmp: Path, simulator: Simulator) -> None:
        self.simulator = simulator
        simulator.control("settings", max_streams=CALLERS)
        self.tokens = {name: simulator.login(name)["refresh_token"] for name in ("una", "vera")}
        self.old_token = simulator.login("olaf", kind="opaque")["refresh_token"]
        self.owners_chats: list[str] = simulator.control("chats", user="una", count=19)["ids"]
        self.owners_chats += simulator.control("chats", user="olaf", count=1, legacy=True)["ids"]
        self.before = self.chats("owner")
        self._tmp = tmp
        self._config = shipped_config_without_limits(tmp)
        text = self._config.read_text("utf-8")
        self._config.write_text(text.replace("model_list:\n", f"model_list:\n{REST_ROW}", 1), "utf-8")
        (tmp / "overlay.yaml").write_text(quick_overlay(tmp).read_text("utf-8") + OVERLAY, "utf-8")

    def gateway(self) -> Gateway:
        return Gateway(
            self._tmp,
            self.simulator.url,
            ",".join(self.tokens.values()),
            self._config,
            OLD_TOKEN=self.old_token,
            KIMI_MAX_STREAMS=str(CALLERS),
            # A stream of a process that died is free again after 45 s, and the old account has one.
            KIMI_QUEUE_TIMEOUT_S=str(LIMIT_S),
            KIMI_UPSTREAM_FILE=str(self._tmp / "overlay.yaml"),
        )

    def chats(self, *creators: str) -> dict[str, Any]:
        return {chat["id"]: chat for chat in self.simulator.state()["chats"] if chat["creator"] in creators}

    def ours(self) -> dict[str, Any]:
        return self.chats("connect", "rest")

    def dying(self) -> set[str]:
        return {chat_id for chat_id, chat in self.ours().items() if "gone-dying" in newest_question(chat)}

    def unwritten(self) -> set[str]:
        """Chats of answers under way that the gateway's store does not have."""
        path = self._tmp / "state/kimi-provider/accounts.db"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
            return self.dying() - {chat_id for (chat_id,) in store.execute("SELECT chat_id FROM chats")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Simulator(tmp_path / "simulator") as simulator:
        simulator.reset()
        yield World(tmp_path / "gateway", simulator)


def newest_question(chat: dict[str, Any]) -> str:
    asked = [one for one in chat["messages"] if one["role"] == "user"]
    blocks = asked[-1]["blocks"] if asked else []
    return "".join(block["text"]["content"] for block in blocks if "text" in block)


@pytest.mark.timeout(2 * LIMIT_S)
def test_nothing_of_ours_is_left(world: World) -> None:
    simulator, todo = world.simulator, jobs()
    half = len(todo) // 2
    new, old = world.owners_chats[0], world.owners_chats[-1]

    def owner_goes_on(callers: Callers) -> None:
        for model, chat_id in (("kimi", new), (OLD_MODEL, old)):
            prompt = f"note more {says('I add note answer.')}"
            callers.message(model, [user(prompt)], conversation_id=chat_id)

    with Callers() as callers:
        with world.gateway() as gateway:
            callers.gateway = gateway
            owner_goes_on(callers)
            work(callers, todo[: half // 2])
            simulator.control("settings", deletion_fails=True)  # for a while
            work(callers, todo[half // 2 : half])
            simulator.control("settings", deletion_fails=False)
            crash_while_answering(callers, world)
        assert len(world.dying()) == DYING
        with world.gateway() as gateway:
            callers.gateway = gateway
            work(callers, todo[half:])
            owner_goes_on(callers)
            worked(CALLS, "kimi").run(callers)
            assert any(f"kept-{CALLS}" in newest_question(chat) for chat in world.ours().values())
            poll(lambda: [chat for chat in world.ours().values() if "kept-" not in newest_question(chat)])
            poll(world.ours)
        assert simulator.state()["active_streams"] == 0
        assert callers.made == CALLS

    after = world.chats("owner")
    assert list(after) == list(world.before)
    for chat_id, chat in world.before.items():
        if chat_id in (new, old):
            assert after[chat_id]["messages"][: len(chat["messages"])] == chat["messages"]
            assert re.findall(r"note \w+", json.dumps(after[chat_id]["messages"])) == ["note more", "note answer"] * 2
        else:
            assert json.dumps(after[chat_id]) == json.dumps(chat)


def crash_while_answering(callers: Callers, world: World) -> None:
    """kill -9 while new chats and one that was kept are being answered, when all of them are written down."""
    kept: list[Any] = [user(f"kept-dying {says(calls(('run', {'command': 'ls'})))}")]
    (call,) = callers.message("kimi", kept, tools=[RUN])["tool_calls"]
    kept.append({"role": "tool", "tool_call_id": call["id"], "content": "gone-dying [[scenario:hang_mid_text]]"})
    new = [user("gone-dying [[scenario:hang_mid_text]]")]
    asked: list[dict[str, Any]] = [{"model": model, "messages": new} for model in ("kimi", "kimi", OLD_MODEL)]
    asked.append({"model": "kimi", "messages": kept, "tools": [RUN]})
    with ThreadPoolExecutor(DYING) as pool:
        running = [threading.Event() for _ in asked]
        for body, began in zip(asked, running, strict=True):
            pool.submit(hang, callers, body, began)
        assert all(began.wait(LIMIT_S) for began in running)
        answered(CALLS + 1, "chat", "kimi", stream=False).run(callers)
        poll(world.unwritten)
        callers.gateway.crash()


def hang(callers: Callers, body: dict[str, Any], began: threading.Event) -> None:
    """An answer that never ends."""
    with suppress(httpx.TransportError), callers.stream(body, LIMIT_S) as answer:
        for line in answer.iter_lines():
            if "Then silence" in line:
                began.set()


def poll(what: Callable[[], Any]) -> None:
    """Wait until there is nothing."""
    pause = threading.Event()
    for _ in range(LIMIT_S * 2):
        if not (found := what()):
            return
        pause.wait(0.5)
    raise AssertionError(f"still there: {found!r}"[:3000])
