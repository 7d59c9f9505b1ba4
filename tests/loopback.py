"""The service as bytes: a loopback server that answers what each test says, and a turn to ask it with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kimi_provider.events import Event
from kimi_provider.protocols import ChatProtocol, Turn
from kimi_provider.upstream import Upstream
from kimi_provider.web import Session

UPSTREAM = Upstream.load()

Reply = bytes | Callable[[asyncio.StreamWriter], Any]


def http(body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


def told(value: Any, status: str = "200 OK", more: str = "") -> bytes:
    return http(json.dumps(value).encode(), status, more=more)


NOT_FOUND = http(b"not found", "404 Not Found", "text/plain")


@dataclass
class Server:
    """Answers by method and path, in order, the last one again; keeps what it was asked."""

    answers: dict[str, list[Reply]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    closed_by_client: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen.append((f"{method} {path}", headers, body))
                left = self.answers.get(f"{method} {path}") or [NOT_FOUND]
                reply = left.pop(0) if len(left) > 1 else left[0]
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                else:
                    await reply(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed_by_client.set()
        finally:
            writer.close()

    @property
    def asked(self) -> list[str]:
        return [call for call, _, _ in self.seen]

    def body(self, number: int) -> Any:
        return json.loads(self.seen[number][2])


@asynccontextmanager
async def serving(answers: Mapping[str, Reply | list[Reply]]) -> AsyncIterator[Server]:
    server = Server({call: reply if isinstance(reply, list) else [reply] for call, reply in answers.items()})
    writers: list[asyncio.StreamWriter] = []

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await server.handle(reader, writer)

    listener = await asyncio.start_server(tracked, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        listener.close()
        # Clients keep their connections: end them here, or the collector does it with a warning.
        for writer in writers:
            writer.close()


def session(server: Server) -> Session:
    return Session(access_token="tok", account="acct", base_url=server.url, device_id="7", traffic_id="u")


def turn(seconds: float = 5, name: str = "kimi", **more: Any) -> Turn:
    values: dict[str, Any] = {"thinking": False, "effort": None, "search": False, **more}
    deadline = asyncio.get_running_loop().time() + seconds
    return Turn(prompt="Hi", spec=UPSTREAM.resolve(name), deadline=deadline, **values)


async def listen(protocol: ChatProtocol, server: Server, heard: list[Event], **more: Any) -> None:
    """Ask, and add every event to `heard`, also those before a failure."""
    async with aclosing(protocol.stream(turn(**more), session(server))) as batches:
        async for batch in batches:
            heard += batch
