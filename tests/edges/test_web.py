from __future__ import annotations

import asyncio
import contextvars
import gc
import http.server
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from kimi_provider.connections import USER_AGENT, open_client
from kimi_provider.errors import (
    KimiError,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from kimi_provider.pump import pump
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream
from kimi_provider.web import (
    MAX_REPLY_BYTES,
    Reply,
    Session,
    Web,
    connection_error,
    seconds,
    session_headers,
    status_error,
)

from ..accounts.fakes import AuthServer
from .test_pump import Letters, shown

UPSTREAM = Upstream.load()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- connections ---


@asynccontextmanager
async def endless_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Answers any request with text for ever; tells when its client has left."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b"1\r\na\r\n")
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            pass
        left.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", left


async def test_closing_the_pump_and_the_stream_closes_the_connection() -> None:
    loop = asyncio.get_running_loop()
    async with endless_server() as (url, left):
        web = await Web.current(UPSTREAM)
        async with web.stream(url, headers={}, content=b"x", deadline=loop.time() + 5) as response:
            batches = pump(
                response.aiter_bytes(), Letters(), idle_timeout_s=5, done_grace_s=5, deadline=loop.time() + 5
            )
            async with aclosing(batches):
                assert shown([await anext(batches)]).startswith("a")
        async with asyncio.timeout(30):
            await left.wait()


async def test_a_cancelled_reader_closes_the_connection() -> None:
    loop = asyncio.get_running_loop()
    async with endless_server() as (url, left):
        web = await Web.current(UPSTREAM)
        begun = asyncio.Event()

        async def read() -> None:
            async with web.stream(url, headers={}, content=b"x", deadline=loop.time() + 5) as response:
                async for _ in response.aiter_bytes():
                    begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            await left.wait()


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer(legacy=lambda asked: (200, {}, {"ok": True})) as server:
        yield server


async def called(url: str, method: str = "POST", **more: Any) -> Reply:
    web = await Web.current(UPSTREAM)
    return await web.call(method, url, **{"headers": {}, "json": {}, "timeout_s": 5, **more})


async def streamed(url: str) -> None:
    web = await Web.current(UPSTREAM)
    deadline = asyncio.get_running_loop().time() + 5
    async with web.stream(url, headers={}, content=b"{}", deadline=deadline) as response:
        await response.aread()


def test_each_loop_has_its_own_connections_and_reuses_them(server: AuthServer) -> None:
    async def several() -> None:
        for _ in range(3):
            assert (await called(server.url)).json() == {"ok": True}

    for _ in range(3):
        asyncio.run(several())
    gc.collect()  # a socket left open is a ResourceWarning, and warnings are errors
    assert len(server.asked) == 9
    assert server.connections == 3


async def pumped(url: str) -> str:
    web = await Web.current(UPSTREAM)
    deadline = asyncio.get_running_loop().time() + 5
    async with web.stream(url, headers={}, content=b"{}", deadline=deadline) as response:
        chunks = response.aiter_bytes()
        batches = pump(chunks, Letters(), idle_timeout_s=5, done_grace_s=5, deadline=deadline)
        return shown([batch async for batch in batches])


async def test_a_connection_is_used_again_after_an_answer(server: AuthServer) -> None:
    server.legacy = lambda asked: (200, {}, b"ab$")
    assert [await pumped(server.url) for _ in range(3)] == ["ab|"] * 3
    assert server.connections == 1


async def test_a_pooled_connection_keeps_nothing_of_the_request_that_opened_it(server: AuthServer) -> None:
    class Body:
        pass

    async def ask() -> weakref.ref[Body]:
        body = Body()
        context_holds.set(body)
        assert (await called(server.url)).status == 200
        return weakref.ref(body)

    context_holds: contextvars.ContextVar[Body] = contextvars.ContextVar("context_holds")
    left = await asyncio.create_task(ask(), context=contextvars.Context())
    await asyncio.sleep(0)  # the loop forgets the task
    assert left() is None
    await called(server.url)
    assert server.connections == 1


async def test_tasks_of_one_loop_share_one_doorway() -> None:
    first, *others = await asyncio.gather(*(Web.current(UPSTREAM) for _ in range(5)))
    assert all(other is first for other in others)


def test_loops_in_threads_do_not_share(server: AuthServer) -> None:
    seen: list[Web] = []

    async def one() -> None:
        await called(server.url)
        seen.append(await Web.current(UPSTREAM))

    threads = [threading.Thread(target=asyncio.run, args=(one(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(web) for web in seen}) == 4
    assert all(web._client.is_closed for web in seen)


@pytest.mark.parametrize(
    ("status", "location", "named"),
    [
        (301, "https://elsewhere.example/login?ticket=secret", "elsewhere.example"),
        (302, "/login?ticket=secret", "another page"),
        (303, "https://user:secret@elsewhere.example:444/", "elsewhere.example:444"),
        (307, "", "another page"),
        (308, "https://elsewhere.example/secret", "elsewhere.example"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "stream"])
async def test_a_redirect_is_refused_and_never_followed(
    server: AuthServer, status: int, location: str, named: str, method: str
) -> None:
    server.legacy = lambda asked: (status, {"location": location}, b"")
    with pytest.raises(UpstreamError) as caught:
        await (streamed(server.url) if method == "stream" else called(server.url + "/a", method))
    assert caught.value.message.endswith(f"redirects to {named}, which is not followed")
    assert "KIMI_BASE_URL" in caught.value.cure()
    assert "secret" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("location", ["http://[::1", "http://host:port/", "http://ho st\x7f/"])
async def test_a_redirect_to_nowhere_is_an_error_of_ours(server: AuthServer, location: str) -> None:
    server.legacy = lambda asked: (302, {"location": location}, b"")
    with pytest.raises((UpstreamError, Unavailable)):
        await called(server.url)
    assert len(server.asked) == 1


async def test_cookies_are_neither_kept_nor_sent(server: AuthServer) -> None:
    server.legacy = lambda asked: (200, {"set-cookie": "who=ada; Path=/"}, {})
    for _ in range(2):
        await called(server.url)
    await streamed(server.url)
    assert not any("cookie" in {name.lower() for name in asked.headers} for asked in server.asked)


async def test_the_user_agent_is_our_own(server: AuthServer) -> None:
    await called(server.url, "GET", json=None)
    await streamed(server.url)
    for asked in server.asked:
        sent = {name.lower(): value for name, value in asked.headers.items()}
        assert sent["user-agent"] == USER_AGENT
        assert sent["accept-encoding"] == "identity"
    assert USER_AGENT.startswith("kimi-provider/")


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
async def test_an_answer_is_read_up_to_a_bound(server: AuthServer, more: int, fits: bool) -> None:
    server.legacy = lambda asked: (200, {}, b"x" * (MAX_REPLY_BYTES + more))
    if fits:
        reply = await called(server.url)
        assert (len(reply.body), reply.json()) == (MAX_REPLY_BYTES, None)
    else:
        with pytest.raises(UpstreamError, match=f"more than {MAX_REPLY_BYTES} bytes"):
            await called(server.url)


async def test_a_slow_answer_is_a_timeout(server: AuthServer) -> None:
    server.delay_s = 0.3
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s") as caught:
        await called(server.url + "/path?key=secret", timeout_s=0.05)
    assert "/path" not in str(caught.value)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_nobody_there_is_unavailable_and_names_the_host_only(how: str) -> None:
    port = closed_port()
    url = f"http://127.0.0.1:{port}/some/path?key=secret"
    with pytest.raises(Unavailable) as caught:
        await (streamed(url) if how == "stream" else called(url))
    assert caught.value.message == f"127.0.0.1:{port} can't be reached"


class _Hangup(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_a_server_that_hangs_up_is_unavailable(how: str) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Hangup) as hangup:
        thread = threading.Thread(target=hangup.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{hangup.server_port}/path"
        try:
            with pytest.raises(Unavailable, match="closed the connection"):
                await (streamed(url) if how == "stream" else called(url))
        finally:
            hangup.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("failure", "error", "says"),
    [
        (httpx.ConnectTimeout("x"), UpstreamTimeout, "did not accept a connection in time"),
        (httpx.ConnectError("x"), Unavailable, "can't be reached"),
        (httpx.ProxyError("x"), Unavailable, "proxy"),
        (httpx.ReadError("x"), Unavailable, "closed the connection"),
        (httpx.WriteError("x"), Unavailable, "closed the connection"),
        (httpx.RemoteProtocolError("x"), Unavailable, "closed the connection"),
        (httpx.DecodingError("x"), UpstreamError, "DecodingError"),
    ],
)
def test_failures_of_connections_by_kind(failure: httpx.HTTPError, error: type[KimiError], says: str) -> None:
    got = connection_error("https://u:p@kimi.example:8443/path?key=1", failure)
    assert type(got) is error
    assert got.message.startswith("kimi.example:8443 ")
    assert says in got.message
    assert "path" not in got.message


@pytest.mark.parametrize(
    ("status", "retry_after", "error", "wait_s"),
    [
        (429, "7", RateLimited, 7),
        (429, None, RateLimited, None),
        (502, "1.5", Unavailable, 1.5),
        (503, "soon", Unavailable, None),
        (504, "0", Unavailable, 0),
        (500, "7", UpstreamError, None),
        (404, None, UpstreamError, None),
        (418, None, UpstreamError, None),
    ],
)
def test_a_status_that_explains_itself(
    status: int, retry_after: str | None, error: type[KimiError], wait_s: float | None
) -> None:
    got = status_error(status, "https://kimi.example/path", retry_after)
    assert (type(got), got.retry_after_s) == (error, wait_s)
    assert str(status) in got.message
    assert "/path" not in got.message


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), (" 2.5 ", 2.5), ("0", 0), ("-1", None), ("nan", None), ("inf", None), ("", None), (None, None)],
)
def test_retry_after_in_seconds(text: str | None, value: float | None) -> None:
    assert seconds(text) == value


# --- headers of an account ---


def headers_of(session: Session, **given: str) -> dict[str, str]:
    return session_headers(session, Settings.without_file(kimi_headers=given), UPSTREAM)


def test_headers_come_from_the_tokens_claims() -> None:
    session = Session(
        access_token="secret", account="a", base_url="", device_id="7500", session_id="1700", traffic_id="sub"
    )
    assert headers_of(session) == {
        "x-msh-platform": "web",
        "x-msh-version": "2.2.0",
        "x-language": "en-US",
        "r-timezone": "UTC",
        "authorization": "Bearer secret",
        "x-msh-device-id": "7500",
        "x-msh-session-id": "1700",
        "x-traffic-id": "sub",
    }
    assert "secret" not in repr(session)


def test_claims_that_are_missing_are_left_out_not_invented() -> None:
    headers = headers_of(Session(access_token="t", account="a", base_url="", session_id=""))
    assert not headers.keys() & {"x-msh-device-id", "x-msh-session-id", "x-traffic-id"}


def test_the_owners_headers_replace_the_tables_but_not_the_accounts() -> None:
    session = Session(access_token="t", account="a", base_url="", device_id="mine")
    headers = headers_of(session, **{"X-Language": "id-ID", "x-extra": "1", "x-msh-device-id": "other"})
    assert (headers["x-language"], headers["x-extra"], headers["x-msh-device-id"]) == ("id-ID", "1", "mine")
    assert headers["x-msh-version"] == "2.2.0"


async def test_proxies_of_the_environment_are_used_but_where_no_proxy_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "direct.invalid")
    async with server:
        web = Web(open_client(UPSTREAM))
        reply = await web.call("GET", "http://service.invalid/a", headers={}, timeout_s=5)
        assert reply.json() == {}
        with pytest.raises(Unavailable, match=r"direct\.invalid can't be reached"):
            await web.call("GET", "http://direct.invalid/a", headers={}, timeout_s=5)
        await web._client.aclose()
    assert asked == ["GET http://service.invalid/a HTTP/1.1"]
