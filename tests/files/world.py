"""Servers on loopback, DNS as a table, and a witness of every connection and lookup of the process."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from kimi_provider.files import Network, SpooledFile, open_part
from kimi_provider.request import FilePart
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream

UPSTREAM = Upstream.load()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2
PLACE = "Message 3, part 2"

Reply = Callable[["Listener", asyncio.StreamWriter], Awaitable[None]]


def limits(**changes: Any) -> Upstream:
    return UPSTREAM.model_copy(update={"files": UPSTREAM.files.model_copy(update=changes)})


def says(body: bytes = PNG, *headers: str, status: str = "200 OK", length: int | None = None) -> Reply:
    """A whole answer, with a Content-Length that may lie."""

    async def reply(listener: Listener, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
        writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
        await writer.drain()

    return reply


def sends(*steps: bytes | float) -> Reply:
    """Bytes as they are, and pauses in seconds."""

    async def reply(listener: Listener, writer: asyncio.StreamWriter) -> None:
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await asyncio.sleep(step)

    return reply


def redirects(location: str, status: str = "302 Found") -> Reply:
    return says(b"moved", f"Location: {location}", status=status)


class Listener:
    """Counts what is accepted, before any byte or TLS."""

    def __init__(self, host: str, reply: Reply | Mapping[str, Reply]) -> None:
        self.host = host
        self.port = 0
        self.accepted = 0
        self.heads: list[str] = []
        self.server_names: list[str | None] = []
        self.left = asyncio.Event()
        self._reply = reply

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            path = head.split(" ")[1].partition("?")[0]
            reply = self._reply if callable(self._reply) else self._reply[path]
            await reply(self, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.left.set()
            writer.close()

    def headers(self, number: int = -1) -> dict[str, str]:
        lines = self.heads[number].split("\r\n")[1:-2]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@asynccontextmanager
async def listening(
    reply: Reply | Mapping[str, Reply], *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Listener]:
    listener = Listener(host, reply)
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: listener.server_names.append(name)
    server = await asyncio.start_server(listener.serve, host, port, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        await asyncio.sleep(0)


class Dns:
    """Names to the answers of their first, second, ... lookup; the last one stays."""

    def __init__(self, table: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self.table = {name: list(answers) for name, answers in table.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.table.get(host)
        if not answers:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Witness:
    """Every `connect` and `getaddrinfo` of this process, from Python's own audit events."""

    def __init__(self) -> None:
        self.connects: list[str] = []
        self.lookups: list[str] = []


_watching: list[Witness] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event == "socket.connect" and isinstance(args[1], tuple):
        _watching[-1].connects.append(args[1][0])
    elif _watching and event == "socket.getaddrinfo" and isinstance(args[0], str):
        _watching[-1].lookups.append(args[0])


sys.addaudithook(_audit)


@contextmanager
def witnessed() -> Iterator[Witness]:
    _watching.append(Witness())
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


async def read(
    source: str,
    *,
    kind: Any = "file",
    filename: str | None = None,
    media_type: str | None = None,
    allowed: str = "",
    dns: Dns | None = None,
    ports: Sequence[int] = (),
    tls: ssl.SSLContext | None = None,
    upstream: Upstream = UPSTREAM,
) -> tuple[SpooledFile, bytes]:
    """The file and its bytes, as an upload would read them."""
    network = Network(resolve=dns or Dns({}), ports=frozenset({80, 443, *ports}))
    if tls is not None:
        network = Network(resolve=network.resolve, ports=network.ports, tls=lambda: tls)
    part = FilePart(kind=kind, source=source, filename=filename, media_type=media_type)
    settings = Settings.without_file(kimi_file_hosts_allowed=allowed)
    async with open_part(part, settings=settings, upstream=upstream, place=PLACE, network=network) as file:
        with file.open() as reader:
            return file, reader.read()
