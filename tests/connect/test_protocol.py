"""ConnectProtocol over real sockets: a loopback server that answers what each test says."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from kimi_provider import errors
from kimi_provider.events import ChatOpened, Event, Finished, TextDelta, merged
from kimi_provider.protocols import LiveModel, Marks, Profile, Turn
from kimi_provider.protocols.connect import ConnectProtocol
from kimi_provider.protocols.connect.wire import chat_body
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream
from kimi_provider.web import Redirected

from ..loopback import NOT_FOUND, Server, http, listen, serving, session, turn
from .frames import END, OPENING, UPSTREAM, env, golden, split, text

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stream_of(body: bytes, kind: str = "application/connect+json") -> bytes:
    return http(body, kind=kind)


def protocol(**settings: Any) -> ConnectProtocol:
    return ConnectProtocol(Settings.without_file(**settings), UPSTREAM)


async def ask(server: Server, asked: ConnectProtocol | None = None, **more: Any) -> list[Event]:
    events: list[Event] = []
    await listen(asked or protocol(), server, events, **more)
    return merged(events)


def post(path: str) -> str:
    return f"POST {path}"


CHAT = post(UPSTREAM.connect.chat)


@pytest.mark.parametrize(("marks", "wanted"), [("cite", "Rain[1]."), ("drop", "Rain."), ("keep", "Rain[^1^].")])
async def test_what_becomes_of_citation_marks(marks: Marks, wanted: str) -> None:
    chunks = [{"id": "r1", "refIndex": "1", "base": {"url": "https://example.com/oslo"}}]
    refs = {"op": "append", "message": {"id": "m-asst", "refs": {"searchChunks": chunks}}}
    body = OPENING + env(refs) + env(text("Rain[^1^].")) + END
    async with serving({CHAT: stream_of(body)}) as server:
        events = await ask(server, marks=marks)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == wanted


async def test_a_turn() -> None:
    async with serving({CHAT: stream_of(OPENING + env(text("Hi.")) + END)}) as server:
        events = await ask(server)
        assert events == [
            ChatOpened(chat_id="c1"),
            ChatOpened(message_id="m-asst"),
            TextDelta("Hi."),
            Finished(),
        ]
        ((path, headers, body),) = server.seen
        assert path == CHAT
        assert headers["content-type"] == "application/connect+json"
        assert headers["connect-protocol-version"] == "1"
        assert headers["authorization"] == "Bearer tok"
        assert (headers["x-msh-device-id"], headers["x-traffic-id"]) == ("7", "u")
        assert headers["accept-encoding"] == "identity"
        ((flag, payload),) = split(body)
        assert flag == 0
        assert json.loads(payload)["message"]["blocks"] == [{"message_id": "", "text": {"content": "Hi"}}]


def bodies() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    chat: dict[str, Any] = {"scenario": "SCENARIO_CHAT", "tools": []}
    message = {"role": "user", "blocks": [{"message_id": "", "text": {"content": "Hé\n"}}], "scenario": "SCENARIO_CHAT"}
    return [
        (
            {},
            {**chat, "message": message, "options": {"thinking": False, "model": "k2d6-chat", "enable_plugin": False}},
        ),
        (
            {"chat_id": "c", "parent_id": "p", "thinking": True, "effort": "REASONING_EFFORT_LOW", "search": True},
            {
                **chat,
                "chat_id": "c",
                "tools": [{"type": "TOOL_TYPE_SEARCH", "search": {}}],
                "message": {**message, "parent_id": "p"},
                "options": {
                    "thinking": True,
                    "reasoning_effort": "REASONING_EFFORT_LOW",
                    "model": "k2d6-chat",
                    "enable_plugin": False,
                },
            },
        ),
        (
            {"name": "kimi-k3", "search": True},
            {
                "scenario": "SCENARIO_OK_COMPUTER",
                "kimiplus_id": "ok-computer",
                "agent_mode": "TYPE_NORMAL",
                "tools": [{"type": "TOOL_TYPE_SEARCH", "search": {}}],
                "message": {**message, "scenario": "SCENARIO_OK_COMPUTER"},
                "options": {
                    "thinking": False,
                    "model": "k3-agent",
                    "enable_plugin": True,
                    "context_length": "CONTEXT_LENGTH_L",
                },
            },
        ),
        (
            {"name": "kimi-research"},
            {
                "scenario": "SCENARIO_OK_COMPUTER",
                "kimiplus_id": "deep-researcher",
                "agent_mode": "TYPE_NORMAL",
                "tools": [{"type": "TOOL_TYPE_ASK_USER"}],
                "message": {**message, "scenario": "SCENARIO_OK_COMPUTER"},
                "options": {"thinking": False, "enable_plugin": True},
            },
        ),
    ]


@pytest.mark.parametrize(("more", "expected"), bodies())
async def test_request_bodies(more: dict[str, Any], expected: dict[str, Any]) -> None:
    values: dict[str, Any] = {"name": "kimi", "thinking": False, "effort": None, "search": False, **more}
    spec = UPSTREAM.resolve(values.pop("name"))
    body = chat_body(Turn(prompt="Hé\n", spec=spec, deadline=0, **values), UPSTREAM)
    ((flag, payload),) = split(body)
    assert (flag, json.loads(payload)) == (0, expected)
    assert b": " not in payload
    assert "Hé".encode() in payload


async def test_the_spelling_of_kimiplus_id_is_data() -> None:
    fields = {"kimiplus_id": "kimi_plus_id"}
    other = UPSTREAM.model_copy(update={"connect": UPSTREAM.connect.model_copy(update={"fields": fields})})
    body = chat_body(turn(name="kimi-k3"), other)
    assert json.loads(body[5:])["kimi_plus_id"] == "ok-computer"


CONNECT_401 = golden("c12-48-auth-http")
REFUSALS: list[tuple[bytes, type[errors.KimiError], str]] = [
    (CONNECT_401, errors.CredentialError, "invalid token"),
    (golden("c12-49-auth-trailer-http"), errors.CredentialError, "token expired"),
    (golden("c12-53-not-enveloped-http"), errors.BadRequest, "protocol error"),
    (golden("c12-54-bad-argument-http"), errors.BadRequest, "chat_id: must not be empty"),
    (http(b"<html>", "401 Unauthorized", "text/html"), errors.CredentialError, "401"),
    (http(b"[]", "401 Unauthorized"), errors.CredentialError, "401"),
    (http(b'{"code":"internal"}', "401 Unauthorized"), errors.CredentialError, "401"),
    (http(b'{"error_type":"auth.account_abnormal"}', "401 Unauthorized"), errors.AccountSuspended, "flagged"),
    (http(b'{"error_type":"auth.token.invalid","message":"m"}'), errors.CredentialError, "m"),
    (http(b'{"error":{"code":"permission_denied"}}', "403 Forbidden"), errors.PermissionRefused, "allow"),
    (http(b"<html>", kind="text/html"), errors.ProtocolError, "page"),
    (http(b"{}"), errors.ProtocolError, "page"),
    (http(b"<html>", "503 Service Unavailable", "text/html"), errors.Unavailable, "503"),
    (http(b"slow", "429 Too Many", "text/plain", "retry-after: 7\r\n"), errors.RateLimited, "429"),
    (
        http(b'{"code":"resource_exhausted"}', "429 Too Many", more="retry-after: 7\r\n"),
        errors.RateLimited,
        "slow down",
    ),
    (http(b"x" * 500_000, "500 Oops", "text/plain"), errors.UpstreamError, "500"),
    (http(b"", "302 Found", more="location: https://other.example/?secret=1\r\n"), Redirected, "redirects"),
]


@pytest.mark.parametrize(("reply", "expected", "words"), REFUSALS)
async def test_refusals(reply: bytes, expected: type[errors.KimiError], words: str) -> None:
    async with serving({CHAT: reply}) as server:
        with pytest.raises(errors.KimiError, match=words) as caught:
            await ask(server)
    assert type(caught.value) is expected
    assert caught.value.account == "acct"
    assert "secret" not in str(caught.value)
    if b"retry-after" in reply:
        assert caught.value.retry_after_s == 7


async def test_no_answer_at_all() -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving({CHAT: hang_up}) as server:
        with pytest.raises(errors.Unavailable) as caught:
            await ask(server)
    assert caught.value.account == "acct"


async def test_events_before_a_broken_connection_are_kept() -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(stream_of(OPENING + env(text("Hi.")) + END)[:-3])
        writer.close()

    events: list[Event] = []
    async with serving({CHAT: cut}) as server:
        with pytest.raises(errors.ProtocolError):
            await listen(protocol(), server, events)
    assert events[-1] == TextDelta("Hi.")


async def test_heartbeats_do_not_keep_a_silent_answer_alive() -> None:
    async def beat(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+json\r\n\r\n" + OPENING)
        for _ in range(100):
            writer.write(env({"heartbeat": {}}))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving({CHAT: beat}) as server:
        with pytest.raises(errors.UpstreamTimeout):
            await ask(server, protocol(kimi_idle_timeout_s=0.2))


async def test_leaving_early_closes_the_connection() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+json\r\n\r\n" + OPENING)
        while True:
            writer.write(env(text("x")))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving({CHAT: endless}) as server:
        async with aclosing(protocol().stream(turn(), session(server))) as batches:
            async for batch in batches:
                assert batch
                break
        await asyncio.wait_for(server.closed_by_client.wait(), 5)


FIRST, SECOND = map(post, UPSTREAM.connect.delete_chat)
UNKNOWN = [
    golden("c10-unimplemented-http"),
    NOT_FOUND,
    http(b"", "405 Method Not Allowed", "text/plain"),
    http(b"", "501 Not Implemented", "text/plain"),
    http(b'{"code":"unimplemented"}', "404 Not Found"),
]


@pytest.mark.parametrize("unknown", UNKNOWN)
async def test_delete_tries_namespaces_and_remembers(unknown: bytes) -> None:
    answers: dict[str, Any] = {FIRST: unknown, SECOND: golden("c10-delete-chat-http")}
    async with serving(answers) as server:
        asked = protocol()
        await asked.delete_chat(session(server), "c1")
        await asked.delete_chat(session(server), "c2")
        assert server.asked == [FIRST, SECOND, SECOND]
        assert server.body(-1) == {"chat_id": "c2"}
        # The one that worked is gone: begin anew at the next call.
        server.answers[SECOND] = [unknown]
        server.answers[FIRST] = [golden("c10-delete-chat-http")]
        with pytest.raises(errors.UpstreamError) as caught:
            await asked.delete_chat(session(server), "c3")
        assert caught.value.account == "acct"
        await asked.delete_chat(session(server), "c3")
        assert server.asked[-1] == FIRST


async def test_a_chat_that_is_gone_is_no_error() -> None:
    gone = http(b'{"code":"not_found","message":"chat not found"}', "404 Not Found")
    async with serving({FIRST: gone}) as server:
        asked = protocol()
        await asked.delete_chat(session(server), "c1")
        await asked.delete_chat(session(server), "c1")
        assert server.asked == [FIRST, FIRST]


async def test_other_failures_of_delete_are_raised() -> None:
    async with serving({FIRST: http(b'{"code":"internal"}', "500 Oops")}) as server:
        with pytest.raises(errors.UpstreamError):
            await protocol().delete_chat(session(server), "c1")
        assert len(server.seen) == 1


async def test_cancel() -> None:
    path = post(UPSTREAM.connect.cancel_chat[0])
    async with serving({path: golden("c10-cancel-chat-http")}) as server:
        await protocol().cancel_chat(session(server), "c1", "m1")
        assert server.body(0) == {"chat_id": "c1", "message_id": "m1"}


async def test_no_path_configured() -> None:
    connect = UPSTREAM.connect.model_copy(update={"cancel_chat": ()})
    upstream: Upstream = UPSTREAM.model_copy(update={"connect": connect})
    async with serving({}) as server:
        with pytest.raises(errors.UpstreamError, match="no path"):
            await ConnectProtocol(Settings.without_file(), upstream).cancel_chat(session(server), "c", "m")


async def test_profile() -> None:
    path = post(UPSTREAM.connect.current_user)
    async with serving({path: golden("a7-current-user-http")}) as server:
        got = await protocol().profile(session(server))
        assert got == Profile(user_id="cxq1user0000000000a0", region="REGION_OVERSEA")
        for body in (b"{}", b'{"user":[]}', b'{"user":{"id":5}}', b'{"user":{"id":""}}', b"[]", b"<html>"):
            server.answers[path] = [http(body)]
            with pytest.raises(errors.ProtocolError):
                await protocol().profile(session(server))
        server.answers[path] = [CONNECT_401]
        with pytest.raises(errors.CredentialError):
            await protocol().profile(session(server))


async def test_models() -> None:
    path = post(UPSTREAM.connect.available_models)
    efforts = ("REASONING_EFFORT_LOW", "REASONING_EFFORT_HIGH", "REASONING_EFFORT_MAX")
    normal: dict[str, Any] = {
        "scenario": "SCENARIO_OK_COMPUTER",
        "kimiplus_id": "ok-computer",
        "agent_mode": "TYPE_NORMAL",
        "efforts": efforts,
    }
    async with serving({path: golden("c8-models-http")}) as server:
        assert await protocol().models(session(server)) == (
            LiveModel(
                id="k2d6-chat",
                key="k2d6",
                title="Instant",
                scenario="SCENARIO_CHAT",
                efforts=("REASONING_EFFORT_NONE", "REASONING_EFFORT_LOW"),
            ),
            LiveModel(id="k28-agent-preview", key="k28-preview", title="K2.8", **normal),
            LiveModel(id="k3-agent", key="k3", title="K3", **normal),
            LiveModel(
                id="k3-agent-swarm",
                key="k3-agent-ultra",
                title="K3 Swarm",
                scenario="SCENARIO_OK_COMPUTER_SWARM",
                kimiplus_id="ok-computer",
                agent_mode="TYPE_ULTRA",
            ),
        )
        rows = [{"key": "k2d6", "reasoningEffortOptions": "x"}, {"id": 5}, {}, None, {"id": "a", "scenario": 5}]
        server.answers[path] = [http(json.dumps({"availableModels": rows}).encode())]
        assert await protocol().models(session(server)) == (
            LiveModel(id="k2d6", key="k2d6", title="k2d6", scenario=""),
            LiveModel(id="a", key="a", title="a", scenario=""),
        )
        server.answers[path] = [http(b'{"availableModels":{}}')]
        with pytest.raises(errors.ProtocolError, match="model list"):
            await protocol().models(session(server))
