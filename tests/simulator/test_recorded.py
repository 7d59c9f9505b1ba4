"""Recordings of `doctor --live --record`: any file in tests/recorded is played to the client, and searched for secrets.

A file that a user sends becomes a test by being put there.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_provider.doctor.taking import replayed
from kimi_provider.engine import KimiEngine
from kimi_provider.errors import BadRequest, KimiError
from kimi_provider.events import Citation, Event, TextDelta, ThinkingDelta
from kimi_provider.observe import redact
from kimi_provider.recordings import COMPLETED, PLACEHOLDER, Call, Recording
from kimi_provider.request import ChatRequest, Message, TextPart
from kimi_provider.settings import Settings, SettingsError
from kimi_provider.simulator import Simulator, SimulatorServer
from kimi_provider.upstream import Upstream, merged

FOLDER = Path(__file__).parent.parent / "recorded"
FILES = sorted(path.name for path in FOLDER.iterdir())
CHATS = [
    (name, number)
    for name in FILES
    for number, call in enumerate(Recording.load(FOLDER / name).calls, 1)
    if call.model is not None
]
#: No pauses of real life.
QUICK = {"retry": {"backoff_s": [0.01] * 4, "overloaded_s": 0.01}, "service": {"done_grace_s": 0.5}}


@dataclass(frozen=True)
class Stage:
    """A recording that is being played."""

    recording: Recording
    upstream: Upstream
    server: SimulatorServer

    def engine(self, tmp: Path) -> KimiEngine:
        settings = Settings.without_file(
            kimi_base_url=self.server.url,
            kimi_auth_url=self.server.url,
            kimi_state_url=f"sqlite:///{tmp}/accounts.db",
            kimi_token=self.server.login("ada")["refresh_token"],
        )
        return KimiEngine(settings, self.upstream)


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    made: dict[str, Stage] = {}
    for name in FILES:
        recording = Recording.load(FOLDER / name)
        upstream = Upstream.overlaid(merged(recording.header.overlay, QUICK))
        made[name] = Stage(recording, upstream, SimulatorServer(Simulator(recording=recording)).__enter__())
    yield made
    for stage in made.values():
        stage.server.__exit__(None, None, None)


@pytest.fixture
def stage(stages: dict[str, Stage], request: pytest.FixtureRequest) -> Stage:
    found = stages[request.param]
    found.server.reset()
    return found


def asking(model: str, prompt: str = "Hello") -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", parts=(TextPart(text=prompt),)),))


async def answered(engine: KimiEngine, model: str, prompt: str = "Hello") -> list[Event]:
    async with aclosing(engine.chat(asking(model, prompt))) as events:
        return [event async for event in events]


# --- every file ---


def test_there_are_recordings_of_answers_and_of_failures() -> None:
    outcomes = {call.outcome for name in FILES for call in Recording.load(FOLDER / name).calls}
    assert {COMPLETED, "overloaded", "invalid_request"} <= outcomes


@pytest.mark.parametrize(("stage", "number"), CHATS, indirect=["stage"])
async def test_each_call_ends_as_the_recording_says(stage: Stage, number: int) -> None:
    call = stage.recording.calls[number - 1]
    stage.server.queue("recorded", call=number)
    token = stage.server.login("ada")["access_token"]
    failure = await replayed(call, stage.upstream, stage.server.url, token)
    assert (COMPLETED if failure is None else failure.code) == call.outcome
    assert stage.server.snapshot()["active_streams"] == 0


def answerable(recording: Recording) -> list[str]:
    """Models of which some call over the newer protocol came to a good end."""
    calls = [call for call in recording.calls if call.outcome == COMPLETED and call.path.endswith("/Chat")]
    return list(dict.fromkeys(call.model for call in calls if call.model))


@pytest.mark.parametrize("stage", FILES, indirect=True)
async def test_a_gateway_finds_the_recorded_service(stage: Stage, tmp_path: Path) -> None:
    """Nothing is queued: the model alone leads to its answer. What failed before it answered fails first."""
    engine = stage.engine(tmp_path)
    for listed in stage.recording.calls:
        if listed.path.endswith("GetAvailableModels") and listed.status == 200:
            rows = {row.get("id") or row.get("key") for row in listed.body["availableModels"]}
            assert {live.id for live in await engine.models()} == rows
    for model in answerable(stage.recording):
        events = await answered(engine, model)
        assert any(isinstance(event, TextDelta | ThinkingDelta) for event in events)
    chats = stage.server.snapshot()["chats"]
    assert all(not redacted_id(chat["id"]) for chat in chats), "a placeholder is an id of nobody"
    engine.pool.close()


def redacted_id(text: str) -> bool:
    return text.startswith(("00000000-", "id0000"))


@pytest.mark.parametrize("name", FILES)
def test_no_recording_holds_a_secret(name: str) -> None:
    text = (FOLDER / name).read_text("ascii")
    assert secrets_in(text) == []


def secrets_in(text: str) -> list[str]:
    """Whatever looks like a credential, a person or a signed address, in the text of a file and of its strings."""
    strings = [PLACEHOLDER.sub("", value) for line in text.splitlines() for value in _strings(json.loads(line))]
    found = [value for value in strings if redact(value) != value and not value.isalpha()]
    for pattern in (
        r"eyJ[\w-]{6}",  # JWT
        r"(?i)bearer\s|kimi-auth|set-cookie",
        r"[\w.+-]+@[\w-]+\.\w",  # e-mail
        r"https?://(?!example\.com/\d+$)",
        r"\?[x0]*[^x0\W][\w%-]*=",  # query
        r"\d{9,}(?<!0)",  # telephone, id
    ):
        found += [match[0] for value in strings if (match := re.search(pattern, value))]
    # Long runs: names of fields are letters alone, and words of the protocol are apart by their signs.
    runs = [run for value in strings for run in re.findall(r"[A-Za-z0-9]{20,}", value) if len(set(run)) > 6]
    return found + [run for run in runs if not run.isalpha() or len(run) > 30]


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, below in value.items():
                yield name
                yield from _strings(below)
        case list():
            for below in value:
                yield from _strings(below)


@pytest.mark.parametrize(
    "leak",
    [
        "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJhIn0.c2ln",
        "someone@example.org",
        "https://store.example/file?sig=1",
        "4Zt9QwXy8Lm2Rb7Kc5Vd3",
        "+479123456781",
    ],
)
def test_the_search_finds_what_it_looks_for(leak: str) -> None:
    assert secrets_in(json.dumps({"json": {"text": f"a {leak} b"}}))


# --- playing ---


@pytest.mark.parametrize("stage", ["renamed.jsonl"], indirect=True)
async def test_without_the_overlay_the_recorded_failure_is_seen(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(tmp_path)
    unaware = KimiEngine(engine.settings, Upstream.overlaid(QUICK))
    with pytest.raises(BadRequest):
        await answered(unaware, "kimi")
    events = await answered(engine, "kimi-search")
    assert [event.number for event in events if isinstance(event, Citation)] == [1]
    engine.pool.close()
    unaware.pool.close()


@pytest.mark.parametrize("stage", ["plain.jsonl"], indirect=True)
async def test_what_was_not_recorded_is_refused_by_name(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(tmp_path)
    with pytest.raises(KimiError, match="the recording has no such call; it has kimi, kimi-thinking, kimi-k3"):
        await answered(engine, "kimi-research")
    engine.pool.close()


@pytest.mark.parametrize("stage", ["plain.jsonl"], indirect=True)
async def test_ids_are_new_for_each_answer_and_the_chat_is_removed(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(tmp_path)
    for _ in range(3):
        await answered(engine, "kimi")
    for _ in range(200):
        if len(deleted := stage.server.snapshot()["deleted"]) == 3:
            break
        await asyncio.sleep(0.05)
    assert len(set(deleted)) == 3
    engine.pool.close()


@pytest.mark.parametrize("stage", ["troubled.jsonl"], indirect=True)
def test_other_calls_fail_as_recorded_but_a_wrong_token_is_told(stage: Stage) -> None:
    with httpx.Client(base_url=stage.server.url, trust_env=False) as http:
        token = {"authorization": f"Bearer {stage.server.login('ada')['access_token']}"}
        gone = http.post("/apiv2/kimi.chat.v1.ChatService/DeleteChat", json={"chat_id": "x"}, headers=token)
        assert (gone.status_code, gone.json()["code"]) == (501, "unimplemented")
        assert http.post("/api/chat", json={"name": " "}, headers=token).status_code == 404
        user = "/apiv2/kimi.gateway.account.v1.UserService/GetCurrentUser"
        assert http.post(user, json={}, headers=token).json()["user"]["nickname"] == "xxx"
        assert http.post(user, json={}).status_code == 401
        pair = http.post(
            "/api/account.gateway.v1.AuthService/RefreshToken",
            json={"refresh_token": stage.server.login("ada")["refresh_token"]},
        ).json()
        assert pair["accessToken"].startswith("eyJ"), "a recording has no credential: the simulator makes its own"


@pytest.mark.parametrize("stage", ["troubled.jsonl"], indirect=True)
async def test_a_broken_connection_breaks_again(stage: Stage) -> None:
    cut = [number for number, call in enumerate(stage.recording.calls, 1) if call.cut and call.model]
    assert cut
    call: Call = stage.recording.calls[cut[0] - 1]
    stage.server.queue("recorded", call=cut[0])
    failure = await replayed(call, stage.upstream, stage.server.url, stage.server.login("ada")["access_token"])
    assert failure is not None
    assert "connection" in failure.message


def test_a_recorded_answer_without_a_recording_is_refused() -> None:
    with SimulatorServer() as server:
        server.queue("recorded")
        headers = {
            "authorization": f"Bearer {server.login('ada')['access_token']}",
            "content-type": "application/json",
        }
        with httpx.Client(base_url=server.url, trust_env=False, headers=headers) as http:
            chat = http.post("/api/chat", json={"name": " "}).json()["id"]
            body = {"messages": [{"role": "user", "content": "Hi"}]}
            answer = http.post(f"/api/chat/{chat}/completion/stream", json=body)
    assert answer.status_code == 400
    assert "no recording" in answer.text


# --- reading ---

HEADER = '{"kimi_recording": 1, "made": "2026-11", "made_with": "kimi-provider 0.1.0"}\n'
CALL = '{"call": "chat", "method": "POST", "path": "/x", "status": 200}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no recording: its first line is not the header"),
        ("model_list: []\n", "no recording: its first line is not the header"),
        (HEADER.replace(": 1,", ": 2,") + CALL, "has format 2; this version plays format 1"),
        (HEADER, "holds no call"),
        (HEADER + '{"flag": 0, "json": {}}\n', "line 2: a frame without a call"),
        (HEADER + CALL + '{"flag": 300, "json": {}}\n', "line 3: Input should be less than or equal to 255"),
        (HEADER + CALL + "{\n", "line 3: "),
        (HEADER + CALL.replace("200", '"many"'), "line 2: Input should be a valid integer"),
        (HEADER + CALL.replace('"/x"', '"https://www.kimi.com/x"'), "line 2: String should match pattern"),
        (HEADER + CALL.replace("200", '200, "sound": 1'), "line 2: Extra inputs are not permitted"),
        ("\xff", "is no recording: it is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    (path := tmp_path / "file.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError) as refused:
        Recording.load(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.jsonl can't be read \(No such file"):
        Recording.load(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_what_was_read(name: str) -> None:
    assert Recording.load(FOLDER / name).dumps() == (FOLDER / name).read_text("ascii")
