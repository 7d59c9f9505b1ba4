"""RestProtocol over real sockets: a loopback server that answers what each test says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kimi_provider import errors
from kimi_provider.errors import KimiError
from kimi_provider.events import ChatOpened, Event, Finished, TextDelta, merged
from kimi_provider.protocols import Marks, Profile
from kimi_provider.protocols.rest import EndpointRetired, ResearchQuota, RestProtocol
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream

from ..loopback import Server, http, listen, serving, session, told, turn
from .frames import END, REQ, RESP, UPSTREAM, error, frame, golden, text

pytestmark = pytest.mark.anyio


def sse(*frames: object) -> bytes:
    return http(b"".join(map(frame, frames)), kind="text/event-stream")


def protocol(upstream: Upstream = UPSTREAM, **values: Any) -> RestProtocol:
    return RestProtocol(Settings.without_file(**values), upstream)


async def ask(server: Server, asked: RestProtocol | None = None, **more: Any) -> list[Event]:
    events: list[Event] = []
    await listen(asked or protocol(), server, events, **more)
    return merged(events)


async def failing(server: Server, asked: RestProtocol | None = None, **more: Any) -> tuple[list[Event], KimiError]:
    events: list[Event] = []
    with pytest.raises(KimiError) as caught:
        await listen(asked or protocol(), server, events, **more)
    return merged(events), caught.value


CREATE = "POST /api/chat"
CHAT_ID = "cxq1chat0000000000a0"
ANSWER = f"POST /api/chat/{CHAT_ID}/completion/stream"
CREATED = golden("b5-create-http")
OPENED = ChatOpened(chat_id=CHAT_ID)
HI = sse(REQ, RESP, text("Hi."), END)
USAGE = "GET /api/chat/research/usage"


# --- a turn ---


async def test_a_turn() -> None:
    async with serving({CREATE: CREATED, ANSWER: HI}) as server:
        assert await ask(server, search=True) == [OPENED, ChatOpened(message_id="a1"), TextDelta("Hi."), Finished()]
        assert server.asked == [CREATE, ANSWER]
        assert server.body(0) == {"enter_method": "new_chat", "is_example": False, "kimiplus_id": "kimi", "name": " "}
        assert server.body(1)["messages"] == [{"role": "user", "content": "Hi"}]
        assert server.body(1)["use_search"] is True
        for _, headers, _ in server.seen:
            assert headers["authorization"] == "Bearer tok"
            assert headers["content-type"] == "application/json"
            assert headers["user-agent"].startswith("kimi-provider/")
            assert (headers["x-msh-device-id"], headers["x-traffic-id"]) == ("7", "u")
            assert not headers.keys() & {"cookie", "origin", "referer"}
        assert server.seen[1][1]["accept"] == "text/event-stream"


@pytest.mark.parametrize(("marks", "wanted"), [("cite", "Rain[1]."), ("drop", "Rain."), ("keep", "Rain[^1^].")])
async def test_what_becomes_of_citation_marks(marks: Marks, wanted: str) -> None:
    found = {"event": "search_plus", "msg": {"type": "get_res", "url": "https://example.com/oslo"}}
    async with serving({CREATE: CREATED, ANSWER: sse(REQ, RESP, found, text("Rain[^1^]."), END)}) as server:
        events = await ask(server, marks=marks)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == wanted


async def test_a_chat_that_is_continued_is_neither_opened_nor_told() -> None:
    path = "POST /api/chat/a%2Fb/completion/stream"
    async with serving({path: HI}) as server:
        assert await ask(server, chat_id="a/b") == [ChatOpened(message_id="a1"), TextDelta("Hi."), Finished()]
        assert server.asked == [path]


async def test_the_first_words_do_not_wait_for_the_last() -> None:
    more = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + frame(text("Hi")))
        await writer.drain()
        await more.wait()
        writer.write(frame(text("!")) + frame(END))
        writer.close()

    async with serving({CREATE: CREATED, ANSWER: slowly}) as server:
        batches = protocol().stream(turn(), session(server))
        assert await anext(batches) == [OPENED]
        assert await anext(batches) == [TextDelta("Hi")]
        more.set()
        assert [event async for batch in batches for event in batch] == [TextDelta("!"), Finished()]


async def test_closing_the_generator_closes_the_connection() -> None:
    async def forever(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + frame(text("Hi")))
        await writer.drain()

    async with serving({CREATE: CREATED, ANSWER: forever}) as server:
        batches = protocol().stream(turn(), session(server))
        assert await anext(batches) == [OPENED]
        assert await anext(batches) == [TextDelta("Hi")]
        await batches.aclose()
        async with asyncio.timeout(30):
            await server.closed_by_client.wait()


async def test_one_connection_serves_create_and_answer() -> None:
    async with serving({CREATE: CREATED, ANSWER: HI}) as server:
        asked = protocol()
        for _ in range(3):
            await ask(server, asked)
        assert server.connections == 1


# --- answers cut at the output cap ---


def cut(segment: str, words: str) -> bytes:
    return sse({**REQ, "id": segment}, RESP, text(words), {"event": "length"}, END)


async def test_an_answer_cut_twice_is_one_stream() -> None:
    replies = [cut("s1", "one [^"), cut("s2", "1^] two "), sse({**REQ, "id": "s3"}, RESP, text("three"), END)]
    async with serving({CREATE: CREATED, ANSWER: replies}) as server:
        events = await ask(server, thinking=True)
        assert events == [OPENED, ChatOpened(message_id="a1"), TextDelta("one  two three"), Finished()]
        assert server.asked == [CREATE, ANSWER, ANSWER, ANSWER]
        assert [server.body(n)["segment_id"] for n in (2, 3)] == ["s1", "s2"]
        assert server.body(2) == {
            "segment_id": "s1",
            "action": "continue",
            "messages": [{"role": "user", "content": " "}],
            "kimiplus_id": "crm40ee9e5jvhsn7ptcg",
            "extend": {"sidebar": True},
        }


async def test_what_is_cut_for_ever_ends_at_the_cap() -> None:
    async with serving({CREATE: CREATED, ANSWER: cut("s1", "x")}) as server:
        events = await ask(server)
        assert events[-2:] == [TextDelta("x" * 6), Finished(reason="length")]
        assert server.asked.count(ANSWER) == 1 + UPSTREAM.rest.max_continues


async def test_a_cut_answer_without_a_segment_can_not_go_on() -> None:
    async with serving({CREATE: CREATED, ANSWER: sse(text("x"), {"event": "length"}, END)}) as server:
        assert await ask(server) == [OPENED, TextDelta("x"), Finished(reason="length")]
        assert server.asked == [CREATE, ANSWER]


async def test_a_rest_that_fails_is_an_error_behind_the_text() -> None:
    for reply in (sse(error("openai.completion.stream")), http(b"busy", "503 Service Unavailable", "text/plain")):
        async with serving({CREATE: CREATED, ANSWER: [cut("s1", "x"), reply]}) as server:
            events, failure = await failing(server)
            assert events[-1] == TextDelta("x")
            assert failure.status == 503


async def test_a_rest_that_brings_nothing_more_is_the_end() -> None:
    async with serving({CREATE: CREATED, ANSWER: [cut("s1", "x"), sse(END)]}) as server:
        assert (await ask(server))[-2:] == [TextDelta("x"), Finished()]


# --- refusals ---

RETIRED = [
    http(b"<html>gone</html>", "404 Not Found", "text/html"),
    http(b"", "405 Method Not Allowed"),
    http(b"", "410 Gone"),
    http(b"", "302 Found", more="location: https://www.kimi.example/chat?x=1\r\n"),
    http(b"", "307 Temporary Redirect", more="location: /elsewhere\r\n"),
    told({"error_type": "route.unknown", "message": "m"}, "404 Not Found"),
]


@pytest.mark.parametrize("reply", RETIRED)
async def test_a_retired_endpoint_says_so(reply: bytes) -> None:
    async with serving({CREATE: reply}) as server:
        events, failure = await failing(server)
        assert events == []
        assert server.asked == [CREATE]
        assert_retired(failure)
        for call in (protocol().profile, protocol().research_quota):
            server.answers["GET /api/user"] = server.answers[USAGE] = [reply]
            with pytest.raises(EndpointRetired):
                await call(session(server))
    async with serving({CREATE: CREATED, ANSWER: reply}) as server:
        events, failure = await failing(server)
        # The chat that was opened is told all the same, so that it can be removed.
        assert events == [OPENED]
        assert_retired(failure)


def assert_retired(failure: KimiError) -> None:
    assert isinstance(failure, EndpointRetired)
    assert (failure.status, failure.account) == (502, "acct")
    assert not failure.another_account
    assert not failure.try_again
    assert "KIMI_PROTOCOL" in str(failure)
    assert "?" not in str(failure)


async def test_a_named_chat_that_is_gone_is_not_a_retired_endpoint() -> None:
    path = "POST /api/chat/c/completion/stream"
    async with serving({path: told({"error_type": "chat.not_found", "message": "m"}, "404 Not Found")}) as server:
        _, failure = await failing(server, chat_id="c")
        assert type(failure) is errors.ChatNotFound


REFUSALS: list[tuple[bytes, type[KimiError]]] = [
    (golden("b5-auth-401-http"), errors.CredentialError),
    (golden("b5-auth-200-http"), errors.CredentialError),
    (http(b"", "401 Unauthorized"), errors.CredentialError),
    (told({"error_type": "strange"}, "401 Unauthorized"), errors.CredentialError),
    (told({"error_type": "auth.account_abnormal"}, "401 Unauthorized"), errors.AccountSuspended),
    (told({"error_type": "chat.forbidden"}, "403 Forbidden"), errors.PermissionRefused),
    (told({"error_type": "strange"}, "403 Forbidden"), errors.PermissionRefused),
    (told({"error_type": "strange", "message": "stopped: sensitive"}, "400 Bad Request"), errors.ContentFiltered),
    (told({"error_type": "strange"}, "400 Bad Request"), errors.BadRequest),
    (told({"error_type": "chat.user_stream_pushing"}, "429 Too Many Requests"), errors.TooManyStreams),
    (told({"error_type": "strange"}, "429 Too Many Requests"), errors.RateLimited),
    (http(b"slow down", "429 Too Many Requests", "text/plain"), errors.RateLimited),
    (http(b"x" * 300_000, "503 Service Unavailable", "text/html"), errors.Unavailable),
    (told({"error_type": "strange"}, "504 Gateway Timeout"), errors.UpstreamTimeout),
    (told({"error_type": "strange"}, "500 Internal Server Error"), errors.UpstreamError),
    (http(b"<html>a page</html>", kind="text/html"), errors.ProtocolError),
    (told({"no": "id"}), errors.ProtocolError),
    (told({"id": 5}), errors.ProtocolError),
    (told([]), errors.ProtocolError),
    (http(b""), errors.ProtocolError),
]


@pytest.mark.parametrize(("reply", "wanted"), REFUSALS)
async def test_refusals(reply: bytes, wanted: type[KimiError]) -> None:
    for answers in ({CREATE: reply}, {CREATE: CREATED, ANSWER: reply}):
        async with serving(answers) as server:
            events, failure = await failing(server)
            assert type(failure) is wanted
            assert failure.account == "acct"
            assert events == ([OPENED] if ANSWER in answers else [])


async def test_the_service_s_own_pause_is_kept() -> None:
    reply = told({"error_type": "chat.user_stream_pushing"}, "429 Too Many Requests", more="retry-after: 7\r\n")
    async with serving({CREATE: CREATED, ANSWER: reply}) as server:
        assert (await failing(server))[1].retry_after_s == 7


async def test_another_running_answer() -> None:
    async with serving({CREATE: CREATED, ANSWER: http(golden("b5-error"), kind="text/event-stream")}) as server:
        events, failure = await failing(server)
        assert (events, type(failure)) == ([OPENED], errors.TooManyStreams)
        assert failure.retry_after_s == UPSTREAM.retry.concurrency_s


async def test_a_connection_that_breaks() -> None:
    async def torn(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n")
        writer.write(frame(text("Hi")))
        await writer.drain()
        writer.close()

    async with serving({CREATE: CREATED, ANSWER: torn}) as server:
        events, failure = await failing(server)
        assert events == [OPENED, TextDelta("Hi")]
        assert type(failure) is errors.ProtocolError


async def test_silence_is_timed_without_heartbeats() -> None:
    async def beating(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        while not writer.is_closing():
            writer.write(frame({"event": "ping"}) + b": keep-alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving({CREATE: CREATED, ANSWER: beating}) as server:
        _, failure = await failing(server, protocol(kimi_idle_timeout_s=0.2))
        assert type(failure) is errors.UpstreamTimeout
        _, failure = await failing(server, seconds=0.2)
        assert type(failure) is errors.UpstreamTimeout


async def test_of_an_endless_refusal_little_is_read() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 10_000)
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving({CREATE: CREATED, ANSWER: endless}) as server:
        async with asyncio.timeout(90):
            assert type((await failing(server, seconds=60))[1]) is errors.Unavailable
            await server.closed_by_client.wait()


async def test_opening_a_chat_is_bounded_by_the_deadline() -> None:
    async with serving({CREATE: lambda _: asyncio.sleep(20)}) as server, asyncio.timeout(15):
        assert type((await failing(server, seconds=0.2))[1]) is errors.UpstreamTimeout


async def test_a_deadline_in_the_past_sends_nothing_that_waits() -> None:
    async with serving({CREATE: CREATED, ANSWER: HI}) as server:
        assert type((await failing(server, seconds=-1))[1]) is errors.UpstreamTimeout


async def test_an_unreachable_host() -> None:
    async with serving({}) as server:
        pass
    assert type((await failing(server))[1]) is errors.Unavailable


async def test_a_model_of_the_other_generation_asks_nothing() -> None:
    async with serving({}) as server:
        assert type((await failing(server, name="kimi-k3"))[1]) is errors.ModelNotFound
        assert server.asked == []
    assert not protocol().serves(UPSTREAM.resolve("kimi-k3"))
    assert protocol().serves(UPSTREAM.resolve("kimi-search"))


# --- research ---


@pytest.mark.parametrize(
    ("usage", "quota", "exhausted"),
    [
        ({"remain": 3, "total": 5, "used": 2}, ResearchQuota(remain=3, total=5, used=2), False),
        ({"remain": 0, "total": 5, "used": 5}, ResearchQuota(remain=0, total=5, used=5), True),
        ({"total": 5, "used": 5}, ResearchQuota(total=5, used=5), True),
        ({"total": 5, "used": 4}, ResearchQuota(total=5, used=4), False),
        ({"remain": -1}, ResearchQuota(remain=-1), True),
        ({"research_usage": {"total": 5, "remain": 0, "date": "d"}}, ResearchQuota(remain=0, total=5), True),
        ({"research_usage": {"total": 5, "remain": 1}, "membership": {}}, ResearchQuota(remain=1, total=5), False),
        ({"research_usage": 5, "remain": "0", "used": True}, ResearchQuota(), False),
        ([], ResearchQuota(), False),
    ],
)
async def test_research_quota(usage: Any, quota: ResearchQuota, exhausted: bool) -> None:
    async with serving({USAGE: told(usage), CREATE: CREATED, ANSWER: HI}) as server:
        assert await protocol().research_quota(session(server)) == quota
        assert quota.exhausted is exhausted
        server.seen.clear()
        if exhausted:
            events, failure = await failing(server, name="kimi-research")
            assert (events, type(failure)) == ([], errors.QuotaExhausted)
            assert failure.retry_after_s == UPSTREAM.retry.quota_s
            assert server.asked == [USAGE]
        else:
            await ask(server, name="kimi-research")
            assert server.asked == [USAGE, CREATE, ANSWER]
            assert server.body(2)["use_research"] is True


@pytest.mark.parametrize(("name", "left"), [("b5-research-usage-http", 3), ("b5-research-usage-wrapped-http", 0)])
async def test_the_document_s_shapes_of_the_quota(name: str, left: int) -> None:
    async with serving({USAGE: golden(name)}) as server:
        assert (await protocol().research_quota(session(server))).remain == left


# --- other calls ---


async def test_profile() -> None:
    async with serving({"GET /api/user": golden("b5-user-http")}) as server:
        assert await protocol().profile(session(server)) == Profile(user_id="cxq1self0000000000a0")
        assert server.seen[0][1]["authorization"] == "Bearer tok"
        server.answers["GET /api/user"] = [told({"id": "u", "region": "REGION_OVERSEA"})]
        assert await protocol().profile(session(server)) == Profile(user_id="u", region="REGION_OVERSEA")


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (golden("b5-auth-401-http"), errors.CredentialError),
        (golden("b5-auth-200-http"), errors.CredentialError),
        (told({"id": ""}), errors.ProtocolError),
    ],
)
async def test_profile_refused(reply: bytes, wanted: type[KimiError]) -> None:
    async with serving({"GET /api/user": reply}) as server:
        with pytest.raises(wanted) as caught:
            await protocol().profile(session(server))
        assert caught.value.account == "acct"


async def test_models_and_cancelling_need_no_call() -> None:
    async with serving({}) as server:
        assert await protocol().models(session(server)) == ()
        await protocol().cancel_chat(session(server), "c", "m")
        assert server.asked == []


@pytest.mark.parametrize(
    "reply", [golden("b5-delete-http"), b"HTTP/1.1 204 No Content\r\n\r\n", http(b"", "404 Not Found"), told({})]
)
async def test_delete(reply: bytes) -> None:
    async with serving({"DELETE /api/chat/a%3Fb": reply}) as server:
        await protocol().delete_chat(session(server), "a?b")
        assert server.asked == ["DELETE /api/chat/a%3Fb"]


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (golden("b5-auth-401-http"), errors.CredentialError),
        (golden("b5-auth-200-http"), errors.CredentialError),
        (http(b"", "405 Method Not Allowed"), EndpointRetired),
        (http(b"", "302 Found", more="location: /x\r\n"), EndpointRetired),
        (http(b"", "500 Internal Server Error"), errors.UpstreamError),
    ],
)
async def test_delete_refused(reply: bytes, wanted: type[KimiError]) -> None:
    async with serving({"DELETE /api/chat/c": reply}) as server:
        with pytest.raises(KimiError) as caught:
            await protocol().delete_chat(session(server), "c")
        assert type(caught.value) is wanted
