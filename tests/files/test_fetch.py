"""Files behind addresses, over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from kimi_provider.connections import USER_AGENT
from kimi_provider.errors import BadRequest

from .world import PNG, Dns, Reply, limits, listening, read, redirects, says, sends

HERE = "127.0.0.1"
NAME = "files.example.com"


def dns() -> Dns:
    return Dns({NAME: [[HERE]], "other.example.com": [[HERE]]})


class Certified:
    """A server's TLS for `names`, and the client's that trusts it."""

    def __init__(self, *names: str) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


async def get(reply: Reply, path: str = "/a.png", **options: Any) -> Any:
    async with listening(reply) as server:
        return await read(f"http://{NAME}:{server.port}{path}", dns=dns(), allowed=HERE, **options)


async def failure(reply: Reply, **options: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        await get(reply, **options)
    text = caught.value.describe()
    assert text.startswith("Message 3, part 2: ")
    assert HERE not in text
    return text


# --- what is sent and received ---


async def test_over_tls_to_the_checked_address_under_the_original_name() -> None:
    tls = Certified(NAME)
    async with listening(says(PNG), tls=tls.server) as server:
        file, content = await read(
            f"https://{NAME}:{server.port}/a%20b/photo%201.png?sig=x%2By#part", dns=dns(), allowed=HERE, tls=tls.client
        )
    assert content == PNG
    assert (file.name, file.media_type, file.kind) == ("photo 1.png", "image/png", "image")
    assert (file.size_bytes, file.sha256) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert server.server_names == [NAME]
    assert server.heads[0].startswith("GET /a%20b/photo%201.png?sig=x%2By HTTP/1.1\r\n")
    assert server.headers() == {
        "host": f"{NAME}:{server.port}",
        "user-agent": USER_AGENT,
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }


@pytest.mark.parametrize("names", [["other.example.com"], [HERE], ["*.com"], ["*.example.org"]])
async def test_a_certificate_of_another_name_is_refused(names: list[str]) -> None:
    tls = Certified(*names)
    async with listening(says(), tls=tls.server) as server:
        with pytest.raises(BadRequest, match=rf"the certificate of '{NAME}' is not valid for it"):
            await read(f"https://{NAME}:{server.port}/", dns=dns(), allowed=HERE, tls=tls.client)
    assert server.heads == []


async def test_a_certificate_of_a_stranger_is_refused() -> None:
    async with listening(says(), tls=Certified(NAME).server) as server:
        with pytest.raises(BadRequest, match="certificate"):
            await read(f"https://{NAME}:{server.port}/", dns=dns(), allowed=HERE)
    assert server.heads == []


async def test_a_certificate_of_an_address_is_verified_too() -> None:
    tls = Certified(HERE)
    async with listening(says(), tls=tls.server) as server:
        assert (await read(f"https://{HERE}:{server.port}/", allowed=HERE, tls=tls.client))[1] == PNG


async def test_no_tls_at_the_other_end() -> None:
    async with listening(says()) as server:
        with pytest.raises(BadRequest, match=r"accepted no connection within 0\.3 s"):
            await read(
                f"https://{NAME}:{server.port}/", dns=dns(), allowed=HERE, upstream=limits(connect_timeout_s=0.3)
            )


async def test_https_never_leads_to_http() -> None:
    tls = Certified(NAME)
    async with (
        listening(says()) as plain,
        listening(redirects(f"http://{NAME}:{plain.port}/"), tls=tls.server) as server,
    ):
        with pytest.raises(BadRequest, match="from https to http"):
            await read(f"https://{NAME}:{server.port}/", dns=dns(), allowed=HERE, tls=tls.client)
    assert plain.accepted == 0


async def test_cookies_and_queries_do_not_follow_a_redirect() -> None:
    async with listening(says()) as second:
        first_reply = says(
            b"",
            "Set-Cookie: a=b; Domain=example.com",
            f"Location: http://other.example.com:{second.port}/",
            status="303 x",
        )
        async with listening(first_reply) as first:
            await read(f"http://{NAME}:{first.port}/?secret=1", dns=dns(), allowed=HERE)
    assert second.headers()["host"] == f"other.example.com:{second.port}"
    assert not {"cookie", "referer", "authorization"} & second.headers().keys()
    assert "secret" not in second.heads[0]


async def test_a_signed_address_reaches_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await get(says(), "/a.png?sig=needle")
    assert "needle" not in caplog.text
    assert "needle" not in await failure(says(status="403 Forbidden"), path="/needle?sig=needle")


@pytest.mark.parametrize(
    ("path", "headers", "given", "name"),
    [
        ("/a/photo.png", [], None, "photo.png"),
        ("/a/photo.PNG", [], None, "photo.png"),
        ("/a/photo.jpg", [], None, "photo.png"),
        ("/a/photo", [], None, "photo.png"),
        ("/", [], None, "image.png"),
        ("/%2e%2e%2fetc%2fpasswd", [], None, "passwd.png"),
        ("/x.png", ['Content-Disposition: attachment; filename="b.png"'], None, "b.png"),
        ("/x.png", ["Content-Disposition: inline; filename=../../b.png"], None, "b.png"),
        ("/x.png", ["Content-Disposition: attachment; filename*=UTF-8''na%C3%AFve%2F..%2Fb.png"], None, "b.png"),
        ("/x.png", ["Content-Disposition: attachment; filename*=nonsense''%ff"], None, "ÿ.png"),
        ("/x.png", ["Content-Disposition: ;;;=;\"'"], None, "x.png"),
        ("/x.png", ['Content-Disposition: attachment; filename="b.png"'], "c.gif", "c.png"),
    ],
)
async def test_names(path: str, headers: list[str], given: str | None, name: str) -> None:
    file, _ = await get(says(PNG, *headers), path, filename=given)
    assert file.name == name


@pytest.mark.parametrize(
    "reply",
    [
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0.01, b"3\r\n th\r\n0\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\n\r\nhel", 0.01, b"lo th"),
        sends(b"HTTP/1.0 200 OK\r\n\r\nhello th"),
        sends(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhello th, and more"),
        says(b"hello th", "Content-Encoding: identity"),
    ],
)
async def test_ways_to_send_a_body(reply: Reply) -> None:
    file, content = await get(reply, "/")
    assert content == b"hello th"
    assert (file.name, file.media_type) == ("file.txt", "text/plain")


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (says(status="404 Not Found"), "answered HTTP 404 instead of the file"),
        (says(status="500 Oops"), "answered HTTP 500"),
        (says(status="206 Partial Content"), "answered HTTP 206"),
        (says(status="304 Not Modified"), "answered HTTP 304"),
        (sends(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), "answered HTTP 302"),
        (says(b""), "the file is empty"),
        (sends(), "broke off its answer"),
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), "not valid HTTP"),
        (says(length=len(PNG) + 1), "broke off"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx"), "not valid HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), "not valid HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "not valid HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000), "not valid HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\nx"), "not valid HTTP"),
        (says(b"\x1f\x8b" + bytes(100), "Content-Encoding: gzip"), "compressed answer"),
        (says(b"x", "Content-Encoding: br, identity"), "compressed answer"),
    ],
)
async def test_what_servers_do_wrong(reply: Reply, cause: str) -> None:
    assert cause in await failure(reply)


async def test_nobody_listens() -> None:
    async with listening(says()) as server:
        pass
    with pytest.raises(BadRequest, match=f"'{NAME}' accepts no connection"):
        await read(f"http://{NAME}:{server.port}/", dns=dns(), allowed=HERE)


@pytest.mark.parametrize(
    "reply",
    [
        sends(60.0),
        sends(b"HTTP/1.1 200 OK\r\n", 60.0),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", 60.0),
    ],
)
async def test_silence_ends(reply: Reply) -> None:
    assert "sent nothing for 0.2 s" in await failure(reply, upstream=limits(idle_timeout_s=0.2))


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"", b"HTTP/1.1 103 Hints\r\n\r\n"]
)
async def test_a_drip_ends_with_the_total_time(head: bytes, spooled: Path) -> None:
    drip = b"HTTP/1.1 103 Hints\r\n\r\n" if b"103" in head else b"H"
    text = await failure(
        sends(head, *[drip, 0.05] * 999), upstream=limits(idle_timeout_s=30, total_timeout_s=0.3, memory_bytes=0)
    )
    assert "took longer than 0.3 s" in text


async def test_a_declared_size_beyond_the_limit_is_refused_before_the_body() -> None:
    text = await failure(says(b"x" * 10, length=104857601))
    assert "104,857,601 bytes" in text
    assert "104,857,600 bytes (100 MB)" in text


async def test_an_endless_body_is_cut_at_the_limit(spooled: Path) -> None:
    async def endless(listener: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with listening(endless) as server:
        with pytest.raises(BadRequest, match=r"at most 1,048,576 bytes \(1 MB\)"):
            await read(f"http://{NAME}:{server.port}/", dns=dns(), allowed=HERE, upstream=limits(max_bytes=1 << 20))
        await asyncio.wait_for(server.left.wait(), 5)  # the connection was closed


async def test_an_image_that_is_none_is_left_after_its_first_kilobytes() -> None:
    async def film(listener: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n" + b"\x1aE\xdf\xa3" + bytes(5000))
        await writer.drain()
        await asyncio.sleep(30)

    assert "holds video/webm" in await failure(film, kind="image")


@pytest.mark.parametrize("memory_bytes", [0, 1000, 1 << 20])
async def test_larger_files_wait_on_disk_and_smaller_in_memory(memory_bytes: int, spooled: Path) -> None:
    body = bytes(range(256)) * 2000
    file, content = await get(says(body), upstream=limits(memory_bytes=memory_bytes))
    assert content == body
    assert (file.sha256, file.size_bytes) == (hashlib.sha256(body).hexdigest(), len(body))
    assert (file.content is None) == (file.path is not None) == (memory_bytes < len(body))


async def test_a_cancelled_download_leaves_nothing(spooled: Path) -> None:
    async with listening(sends(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000), 30.0)) as server:
        call = read(f"http://{NAME}:{server.port}/", dns=dns(), allowed=HERE, upstream=limits(memory_bytes=0))
        task = asyncio.create_task(call)
        while not list(spooled.glob("*/content")):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(spooled.iterdir()) == []
